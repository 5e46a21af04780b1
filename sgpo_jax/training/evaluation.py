"""Held-out accuracy with a confidence interval."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sgpo_jax import streams
from sgpo_jax.artefacts import DamagedError, read_json
from sgpo_jax.bounds import Share, bounded
from sgpo_jax.data import Query
from sgpo_jax.ledger import Entry
from sgpo_jax.models import Params
from sgpo_jax.rewards import SOLVED, HackingSigns
from sgpo_jax.rollouts import RewardedRollouts, SampleAndScore
from sgpo_jax.sampling import Greedy
from sgpo_jax.training.exact import ReferenceScorer
from sgpo_jax.training.examples import Example, examples


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Evaluation:
    """Success rate of a policy on held-out queries.

    Attributes:
      mean: mean success at temperature 1.
      low: lower end of the 95 % interval of the mean.
      high: upper end.
      greedy: success of the most likely completion, or None if not asked for.
      unscorable: share of completions that could not be scored; they count as wrong.
      cost: what it cost; never part of the compute that methods are compared by.
      reward: mean reward of what could be scored; None if nothing could.
      solved_at: reward from which a completion counts as a success.
      watch: signs of hacking among rewarded completions.
      examples: completions of some queries, of the greedy policy if it was asked for.
    """

    mean: Share
    low: Share
    high: Share
    greedy: Share | None
    unscorable: Share
    cost: Entry
    reward: float | None = None
    solved_at: float = SOLVED
    watch: HackingSigns = HackingSigns()
    examples: tuple[Example, ...] = dataclasses.field(default=(), repr=False)

    def __str__(self) -> str:
        """Return the numbers in a line.

        >>> cost = Entry(rollouts=40)
        >>> print(
        ...     Evaluation(
        ...         mean=0.4, low=0.2, high=0.6, greedy=0.3, unscorable=0.0, cost=cost
        ...     )
        ... )
        success 0.400 (0.200 to 0.600), greedy 0.300; 40 rollouts
        """
        parts = [f"success {self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"]
        if self.greedy is not None:
            parts.append(f"greedy {self.greedy:.3f}")
        if self.reward is not None:
            parts.append(f"reward {self.reward:.3f}")
        if self.unscorable:
            parts.append(f"unscorable {self.unscorable:.3f}")
        return f"{', '.join(parts)}; {self.cost.rollouts:,} rollouts"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Evaluation":
        """Read what `to_json` returned.

        Raises:
          ValueError: naming what is missing or impossible.
        """
        try:
            cost, watch = Entry(**saved["cost"]), HackingSigns(**saved.get("watch", {}))
            seen = tuple(Example(**example) for example in saved.get("examples", ()))
            given = {**saved, "cost": cost, "watch": watch, "examples": seen}
            found = cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            reason = str(error)[:200]
            raise ValueError(f"this is no evaluation: {reason}") from None
        if not found.low <= found.mean <= found.high:
            raise ValueError(
                f"this is no evaluation: its mean {found.mean} lies outside of"
                f" {found.low} to {found.high}"
            )
        return found

    @classmethod
    def load(cls, path: pathlib.Path) -> "Evaluation":
        """Read a file of an evaluation.

        Raises:
          DamagedError: naming the file; deleted, it is made again.
        """
        remedy = "delete it: sgpo eval makes it again"
        try:
            return cls.from_json(read_json(path, remedy=remedy))
        except DamagedError:
            raise
        except ValueError as error:
            raise DamagedError(f"{path}: {error}; {remedy}") from None


def evaluate(
    rollouts: SampleAndScore,
    params: Params,
    queries: Sequence[Query],
    *,
    samples: int,
    greedy: bool = False,
    keep: Callable[[Sequence[Query], RewardedRollouts], None] | None = None,
) -> Evaluation:
    """Sample each query and report the mean success.

    All evaluations of a run share their noise, so that differences between steps and
    methods come from the policy. The interval is over queries: each query's mean is one
    observation, since samples of one query are not independent draws of the task.

    Args:
      rollouts: sampler and verifiers.
      params: the policy.
      queries: what is asked.
      samples: samples per query.
      greedy: evaluate the most likely completion, too.
      keep: is given the queries and their scored samples; None for nothing.
    """
    noise = streams.EVALUATION
    scored = rollouts(params, queries, [samples] * len(queries), step=noise)
    if keep is not None:
        keep(queries, scored)
    wins = np.bincount(scored.rollouts.request, scored.solved, minlength=len(queries))
    rates = wins / samples
    half = 1.96 * rates.std(ddof=1) / len(rates) ** 0.5 if len(rates) > 1 else 0.0
    cost, best, shown = scored.cost, None, scored
    if greedy:
        picked = rollouts(
            params, queries, [1] * len(queries), step=noise, strategy=Greedy()
        )
        best, cost = float(picked.solved.mean()), cost + picked.cost
        shown = picked
    mean, known = float(rates.mean()), np.isfinite(scored.rewards)
    return Evaluation(
        mean=mean,
        low=max(0.0, mean - float(half)),
        high=min(1.0, mean + float(half)),
        greedy=best,
        unscorable=float(np.isnan(scored.rewards).mean()),
        reward=float(scored.rewards[known].mean()) if known.any() else None,
        solved_at=scored.solved_at,
        watch=scored.watch,
        cost=cost,
        examples=examples(queries, shown),
    )


def evaluate_exact(scorer: ReferenceScorer, params: Params) -> Evaluation:
    """Report the mean success without sampling: one forward pass over the references.

    The interval is over queries, as in `evaluate`, whose mean this is the expectation
    of. The greedy success is not known from it.

    Args:
      scorer: the held-out queries, packed.
      params: the policy.
    """
    rates = scorer(params)
    half = 1.96 * rates.std(ddof=1) / len(rates) ** 0.5 if len(rates) > 1 else 0.0
    mean = float(rates.mean())
    return Evaluation(
        mean=mean,
        low=max(0.0, mean - float(half)),
        high=min(1.0, mean + float(half)),
        greedy=None,
        unscorable=0.0,
        reward=mean,
        cost=scorer.cost,
    )
