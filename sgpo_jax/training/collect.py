"""Rollouts of a step: prompts drawn, sampled and scored, dead groups refilled."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sgpo_jax import ledger
from sgpo_jax.data import Query
from sgpo_jax.methods import Draw
from sgpo_jax.profiling import Scored
from sgpo_jax.rewards import SOLVED, Watch
from sgpo_jax.sampling import Rollouts, Stats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collected:
    """Rewarded rollouts of a step, of all its rounds.

    Attributes:
      queries: one per group, [P].
      draw: rows and sizes of the groups, [P].
      rollouts: all rollouts; `request` is the place of the group.
      rewards: one per rollout, [R]; NaN where unscorable.
      cost: of sampling.
      scoring_seconds: time spent waiting for verifiers.
      scoring_queue: completions that waited for a verifier, the mean over that time.
      rounds: rounds of sampling.
      solved_at: reward from which a completion counts as a success.
      watch: signs of hacking among rewarded completions, of all that were sampled.
    """

    queries: list[Query]
    draw: Draw
    rollouts: Rollouts
    rewards: np.ndarray
    cost: ledger.Entry
    scoring_seconds: float
    scoring_queue: float
    rounds: int = 1
    solved_at: float = SOLVED
    watch: Watch = Watch()

    @property
    def group(self) -> np.ndarray:
        """Group of each rollout, [R]."""
        return self.rollouts.request

    @property
    def live(self) -> np.ndarray:
        """True for groups with two scored rewards that differ, [P]."""
        count = len(self.draw.rows)
        low, high = np.full(count, np.inf), np.full(count, -np.inf)
        scored = np.isfinite(self.rewards)
        np.minimum.at(low, self.group[scored], self.rewards[scored])
        np.maximum.at(high, self.group[scored], self.rewards[scored])
        return low < high

    def only(self, groups: np.ndarray) -> "Collected":
        """Keep some groups, renumbered in order.

        Args:
          groups: True for those kept, [P].
        """
        place = np.cumsum(groups) - 1
        kept = groups[self.group]
        rows = {
            field.name: getattr(self.rollouts, field.name)[kept]
            for field in dataclasses.fields(Rollouts)
            if field.name not in ("stats", "version")
        }
        rows["request"] = place[rows["request"]].astype(np.int32)
        return dataclasses.replace(
            self,
            queries=[q for q, keep in zip(self.queries, groups, strict=True) if keep],
            draw=Draw(self.draw.rows[groups], self.draw.sizes[groups], self.draw.phase),
            rollouts=dataclasses.replace(self.rollouts, **rows),
            rewards=self.rewards[kept],
        )


def collected(queries: Sequence[Query], draw: Draw, scored: Scored) -> Collected:
    """One round of rollouts."""
    return Collected(
        queries=list(queries),
        draw=draw,
        rollouts=scored.rollouts,
        rewards=scored.rewards,
        cost=scored.cost,
        scoring_seconds=scored.scoring_seconds,
        scoring_queue=scored.scoring_queue,
        solved_at=scored.solved_at,
        watch=scored.watch,
    )


def joined(parts: Sequence[Collected]) -> Collected:
    """Rounds of a step as one; a prompt drawn in two rounds makes two groups."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.rollouts.tokens.shape[1] for part in parts)

    def wide(x: np.ndarray) -> np.ndarray:
        if x.ndim == 1:
            return x
        return np.pad(x, ((0, 0), (0, width - x.shape[1])))

    offsets = np.cumsum([0, *(len(part.queries) for part in parts[:-1])])
    rows = {
        field.name: np.concatenate(
            [wide(getattr(part.rollouts, field.name)) for part in parts]
        )
        for field in dataclasses.fields(Rollouts)
        if field.name not in ("stats", "version", "request")
    }
    rows["request"] = np.concatenate(
        [part.group + offset for part, offset in zip(parts, offsets, strict=True)]
    ).astype(np.int32)
    stats = [dataclasses.astuple(part.rollouts.stats) for part in parts]
    return Collected(
        queries=[query for part in parts for query in part.queries],
        draw=Draw(
            np.concatenate([part.draw.rows for part in parts]),
            np.concatenate([part.draw.sizes for part in parts]),
            parts[0].draw.phase,
        ),
        rollouts=Rollouts(
            **rows,
            stats=Stats(*(sum(x) for x in zip(*stats, strict=True))),
            version=parts[0].rollouts.version,
        ),
        rewards=np.concatenate([part.rewards for part in parts]),
        cost=sum((part.cost for part in parts), ledger.Entry()),
        scoring_seconds=sum(part.scoring_seconds for part in parts),
        scoring_queue=float(np.mean([part.scoring_queue for part in parts])),
        rounds=len(parts),
        solved_at=parts[0].solved_at,
        watch=sum((part.watch for part in parts), Watch()),
    )
