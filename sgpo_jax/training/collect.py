"""Rollouts of a step: prompts drawn, sampled and scored, groups continued, refilled."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sgpo_jax import ledger
from sgpo_jax.data import Query
from sgpo_jax.methods import Continuation, Draw, Method, RewardGroups
from sgpo_jax.rewards import SOLVED, HackingSigns
from sgpo_jax.rollouts import RewardedRollouts
from sgpo_jax.sampling import Rollouts, Stats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collected:
    """Rewarded rollouts of a step, of all its rounds.

    Attributes:
      queries: one per group, [P].
      draw: rows and sizes of the groups, [P].
      rollouts: all rollouts; `request` is the place of the group.
      rewards: one per rollout, [R]; NaN where unscorable.
      texts: decoded completions, one per rollout.
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
    texts: list[str]
    cost: ledger.Entry
    scoring_seconds: float
    scoring_queue: float
    rounds: int = 1
    solved_at: float = SOLVED
    watch: HackingSigns = HackingSigns()

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
            texts=[text for text, keep in zip(self.texts, kept, strict=True) if keep],
        )


def collected(
    queries: Sequence[Query], draw: Draw, scored: RewardedRollouts
) -> Collected:
    """One round of rollouts."""
    return Collected(
        queries=list(queries),
        draw=draw,
        rollouts=scored.rollouts,
        rewards=scored.rewards,
        texts=scored.texts,
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
        texts=[text for part in parts for text in part.texts],
        cost=sum((part.cost for part in parts), ledger.Entry()),
        scoring_seconds=sum(part.scoring_seconds for part in parts),
        scoring_queue=float(np.mean([part.scoring_queue for part in parts])),
        rounds=sum(part.rounds for part in parts),
        solved_at=parts[0].solved_at,
        watch=sum((part.watch for part in parts), HackingSigns()),
    )


def extended(pilot: Collected, more: Collected, groups: np.ndarray) -> Collected:
    """Groups with further rollouts.

    Args:
      pilot: groups so far.
      more: further rollouts of some of them, in order.
      groups: places of these in the pilot.
    """
    both = joined([pilot, more])
    count = len(pilot.queries)
    places = np.concatenate([np.arange(count), groups]).astype(np.int32)
    sizes = pilot.draw.sizes.copy()
    sizes[groups] += more.draw.sizes
    return dataclasses.replace(
        both,
        queries=pilot.queries,
        draw=pilot.draw._replace(sizes=sizes),
        rollouts=dataclasses.replace(both.rollouts, request=places[both.group]),
    )


def collect(
    method: Method,
    draw: Callable[[int, int], Draw],
    sample: Callable[[int, Draw], Collected],
    *,
    budget: int,
    numbers: Iterator[int],
) -> Collected:
    """Sample a step: once, or in rounds if groups are continued or dead ones refilled.

    Args:
      method: its refill and continuation.
      draw: prompts of a round; gets its number and the rollouts wanted.
      sample: rollouts of a draw; gets the number of the round.
      budget: rollouts wanted in all; with a refill, in live groups.
      numbers: of the rounds, each of which has noise of its own.
    """
    refill, continuation = method.refill, method.continuation
    growth = continuation.growth if continuation else 1.0
    parts, live, drawn, first = [], 0, 0, 0
    for _ in range(1 + (refill.max_rounds if refill else 0)):
        # As many as the live rollouts per drawn one so far say are missing, together
        # with a guess of half the growth that weighs as much as the first round: few
        # groups tell little, and a share that comes out small samples far too many.
        share = growth
        if drawn:
            share = (live + growth / 2 * first) / (drawn + first)
        number = next(numbers)
        chosen = draw(number, int(np.ceil((budget - live) / share)))
        drawn += int(chosen.sizes.sum())
        first = first or drawn
        part = sample(number, chosen)
        if continuation is not None:
            part = _continued(part, continuation, sample, numbers)
        parts.append(part)
        live += int(part.live[part.group].sum())
        if live >= budget:
            break
    return joined(parts)


def _continued(
    part: Collected,
    continuation: Continuation,
    sample: Callable[[int, Draw], Collected],
    numbers: Iterator[int],
) -> Collected:
    """Groups of a round with the further rollouts that their rewards ask for."""
    for _ in range(continuation.max_rounds):
        more = np.asarray(continuation(_reward_groups(part)))
        if more.shape != part.draw.sizes.shape or more.min(initial=0) < 0:
            raise ValueError(
                f"continuation {continuation} must return a number of further rollouts,"
                f" at least 0, for each of {len(part.queries)} groups, got {more}"
            )
        places = np.flatnonzero(more)
        if not len(places):
            break
        again = Draw(part.draw.rows[places], more[places], part.draw.phase)
        part = extended(part, sample(next(numbers), again), places)
    return part


def _reward_groups(part: Collected) -> RewardGroups:
    return RewardGroups(
        rewards=part.rewards,
        id=part.group,
        length=part.rollouts.length.astype(np.float32),
        size=part.draw.sizes[part.group].astype(np.float32),
        count=len(part.queries),
    )
