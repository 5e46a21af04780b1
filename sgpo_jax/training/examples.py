"""Examples of completions: what a policy answers to some held-out queries."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgpo_jax.data import Query
from sgpo_jax.rollouts import RewardedRollouts

KEPT = 32  # queries, the same for every policy of a run
MOST = 1000  # characters of a text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One completion of a held-out query.

    Attributes:
      query: id of the query.
      prompt: its text, cut to 1,000 characters.
      reference: the right answer, cut likewise.
      completion: what the policy answered, cut likewise.
      reward: None if it could not be scored.
      solved: whether the reward counts as a success.
    """

    query: str
    prompt: str
    reference: str
    completion: str
    reward: float | None
    solved: bool

    def to_json(self) -> dict[str, Any]:
        """Fields as a JSON object; `Example(**...)` reads it."""
        return dataclasses.asdict(self)


def examples(
    queries: Sequence[Query], scored: RewardedRollouts, *, most: int = KEPT
) -> tuple[Example, ...]:
    """First completion of evenly spread queries: the same ones for every policy.

    Args:
      queries: what was evaluated.
      scored: completions of them, at least one each.
      most: number of queries.
    """
    count = min(most, len(queries))
    chosen = np.arange(count) * len(queries) // max(count, 1)
    _, first = np.unique(scored.rollouts.request, return_index=True)
    first = first[chosen]
    rewards = scored.rewards[first].tolist()
    return tuple(
        Example(
            query=queries[i].id,
            prompt=queries[i].prompt[:MOST],
            reference=queries[i].reference[:MOST],
            completion=scored.texts[row][:MOST],
            reward=reward if np.isfinite(reward) else None,
            solved=bool(scored.solved[row]),
        )
        for i, row, reward in zip(chosen.tolist(), first.tolist(), rewards, strict=True)
    )
