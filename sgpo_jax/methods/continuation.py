"""Continuation of groups within a step: a pilot first, more rollouts by its rewards.

A continuation is a frozen dataclass, or any object with `max_rounds`, `growth` and the
call `(RewardGroups) -> further rollouts [P]`.
"""

import dataclasses
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import numpy as np

from sgpo_jax.bounds import HUGE, Finite, GroupSize, Natural, Range, bounded
from sgpo_jax.methods.inputs import RewardGroups
from sgpo_jax.rewards import SOLVED


@runtime_checkable
class Continuation(Protocol):
    """Further rollouts of each group, decided from those it has."""

    @property
    def max_rounds(self) -> int:
        """Rounds of sampling after the pilot."""
        ...

    @property
    def growth(self) -> float:
        """Rollouts a step is expected to end with, per rollout of its pilots."""
        ...

    def __call__(self, groups: RewardGroups, /) -> np.ndarray:
        """Return the further rollouts of each group, [P]; 0 where it is finished.

        Args:
          groups: rewards and groups so far as numpy arrays, not padded.
        """
        ...


class Outcomes(NamedTuple):
    """Rewards of groups in short, [P]; NaN means where nothing was scored.

    Attributes:
      mean: of the scored rewards.
      successes: rewards that count as a success.
      failures: the other scored rewards.
      equal: True where no two scored rewards differ.
    """

    mean: np.ndarray
    successes: np.ndarray
    failures: np.ndarray
    equal: np.ndarray

    @classmethod
    def of(cls, groups: RewardGroups) -> "Outcomes":
        """Summarize groups; linear in the responses."""
        rewards, places = np.asarray(groups.rewards, np.float64), groups.count
        scored = np.isfinite(rewards)
        ids, rewards = np.asarray(groups.id)[scored], rewards[scored]
        count = np.bincount(ids, minlength=places)
        total = np.bincount(ids, rewards, minlength=places)
        right = np.bincount(ids, rewards >= SOLVED, minlength=places).astype(int)
        low, high = np.full(places, np.inf), np.full(places, -np.inf)
        np.minimum.at(low, ids, rewards)
        np.maximum.at(high, ids, rewards)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return cls(mean, right, count - right, ~(low < high))


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ContinueMixed:
    r"""More rollouts for groups whose pilot was neither all right nor all wrong.

    .. math:: n \leftarrow n + \mathrm{more} \quad\text{if}\quad
              \mathrm{low} \le \bar R_g \le \mathrm{high}

    and two rewards of the pilot differ. The screening of SPEED-RL (arXiv:2506.09016)
    and, with narrower bounds, that of Pilot-Commit (arXiv:2605.26606).

    Attributes:
      more: further rollouts of a continued group.
      low: smallest mean reward of a pilot that is continued.
      high: largest mean reward of a pilot that is continued.
      growth: rollouts of a continued group, per rollout of its pilot.
    """

    more: GroupSize = 4
    low: Finite = 0.0
    high: Finite = 1.0
    growth: Annotated[float, Range(1, HUGE)] = 2.0

    max_rounds = 1

    def __post_init__(self):
        if not self.low <= self.high:
            raise ValueError(f"need low <= high, got {self.low} and {self.high}")

    def __call__(self, groups: RewardGroups, /) -> np.ndarray:
        """Return `more` for continued groups."""
        found = Outcomes.of(groups)
        between = (found.mean >= self.low) & (found.mean <= self.high)
        return np.where(between & ~found.equal, self.more, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class UntilBalanced:
    r"""Rounds of rollouts until a group holds enough successes and failures.

    Successive elimination of Reinforce-Ada (arXiv:2510.04996): its balanced rule is
    half of the group kept on either side, its positive rule one success.

    Attributes:
      more: rollouts of a round.
      successes: successes after which a group may stop.
      failures: failures after which a group may stop.
      max_rounds: rounds after the first.
      growth: rollouts expected in all, per rollout of the first round.
    """

    more: GroupSize = 4
    successes: Natural = 2
    failures: Natural = 2
    max_rounds: Annotated[int, Range(1, 15)] = 3
    growth: Annotated[float, Range(1, HUGE)] = 2.0

    def __call__(self, groups: RewardGroups, /) -> np.ndarray:
        """Return `more` for groups that lack successes or failures."""
        found = Outcomes.of(groups)
        lacks = (found.successes < self.successes) | (found.failures < self.failures)
        return np.where(lacks & np.isfinite(found.mean), self.more, 0)
