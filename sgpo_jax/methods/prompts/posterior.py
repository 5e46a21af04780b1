"""Prompts chosen by their success rate: posterior sampling and knapsack allocation."""

import dataclasses
from typing import Annotated

import numpy as np

from sgpo_jax import streams, theory
from sgpo_jax.bounds import TINY, GroupSize, Range, bounded
from sgpo_jax.methods.prompts.pool import Draw, PromptPool, State
from sgpo_jax.methods.prompts.shuffled import Passes, take
from sgpo_jax.planning.concave import split_budget


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ThompsonSampling(Passes):
    r"""Prompts whose sampled success rate is nearest to a target: MoPPS.

    .. math:: \gamma_q \sim \mathrm{Beta}(a_q, b_q), \quad
              \text{the } B \text{ prompts of least } |\gamma_q - \gamma^*|

    among `candidates` times as many prompts, the next of the shuffled passes. Model
    Predictive Prompt Selection (arXiv:2507.04632).

    Attributes:
      group_size: rollouts per prompt.
      target: the success rate aimed at.
      candidates: prompts looked at per prompt taken.
    """

    group_size: GroupSize = 8
    target: Annotated[float, Range(TINY, 1, below=True)] = 0.5
    candidates: GroupSize = 8

    needs = ("baseline", "baseline_weight")

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Sample success rates of the candidates and take those nearest the target."""
        del progress
        count = -(-budget // self.group_size)
        ones = np.broadcast_to(np.int64(1), pool.count)
        rows, cursor = take(
            int(state["cursor"]),
            ones,
            budget=count * self.candidates,
            seeds=streams.passes(pool.seed),
        )
        weight = np.asarray(pool.baseline_weight[rows], np.float64)
        mean = np.clip(np.asarray(pool.baseline[rows], np.float64), 1e-6, 1 - 1e-6)
        rate = streams.generator(seed).beta(mean * weight, (1 - mean) * weight)
        nearest = np.argsort(np.abs(rate - self.target), kind="stable")[:count]
        rows = rows[np.sort(nearest)]
        return (
            Draw(rows, np.full(len(rows), self.group_size)),
            {"cursor": np.asarray(cursor, np.int64)},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class KnapsackAllocation(Passes):
    r"""Shuffled passes whose rollouts go where they are worth most: Knapsack RL.

    .. math:: \max \sum_q v(N_q, p_q), \quad \sum_q N_q = B, \quad
              v(N, p) = (1 - p^N - (1 - p)^N)\, p (1 - p)^2

    over the prompts of a step, with p the mean reward at the last visit; exact, since v
    is concave in N. Knapsack RL (arXiv:2509.25849). A prompt not yet visited has the
    mean value over rates from 0 to 1. What the values leave over goes to prompts never
    answered right, then to those always answered right.

    Attributes:
      group_size: rollouts per prompt on average.
      minimum: smallest group.
      maximum: largest group.
    """

    group_size: GroupSize = 8
    minimum: GroupSize = 2
    maximum: GroupSize = 32

    def __post_init__(self):
        if not self.minimum <= self.group_size <= self.maximum:
            raise ValueError(
                "group sizes need minimum <= group_size <= maximum, got"
                f" {self.minimum}, {self.group_size} and {self.maximum}"
            )

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts of the shuffled passes and divide the budget."""
        del progress, seed
        rows, cursor = take(
            int(state["cursor"]),
            np.broadcast_to(np.int64(self.group_size), pool.count),
            budget=budget,
            seeds=streams.passes(pool.seed),
        )
        sizes = self.sizes(pool.history.last_mean[rows], budget)
        return Draw(rows, sizes), {"cursor": np.asarray(cursor, np.int64)}

    def sizes(self, rate: np.ndarray, budget: int) -> np.ndarray:
        """Rollouts of prompts of known success rates; NaN where unknown.

        >>> rate = np.array([0.125, 0.5, 0.875])
        >>> KnapsackAllocation().sizes(rate, 24).tolist()
        [15, 7, 2]
        """
        known, index = np.unique(rate, return_inverse=True)  # NaN is the last one
        steps = np.arange(self.minimum, self.maximum + 1)
        grid = (np.arange(32) + 0.5) / 32
        value = np.array(
            [_value(grid if np.isnan(p) else p[None], steps).mean(0) for p in known]
        )
        gains = np.diff(value, axis=1)
        gains[known <= 0] = 1e-12  # left over rollouts look for a first success
        order = np.arange(len(rate))
        budget = max(budget, self.minimum * len(rate))
        return split_budget(gains, index, order, budget=budget, minimum=self.minimum)


def _value(rate: np.ndarray, size: np.ndarray) -> np.ndarray:
    rate = rate[:, None]
    return theory.probability_mixed(rate, size) * rate * (1 - rate) ** 2
