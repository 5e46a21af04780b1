"""Prompts drawn by the tracked baseline: filter, allocation and curriculum in one."""

import dataclasses

import numpy as np

from sgpo_jax.bounds import GroupSize, Positive, bounded
from sgpo_jax.methods.prompts.pool import Draw, PromptPool, State
from sgpo_jax.methods.prompts.weighted import draw_by_weight


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ByBelief:
    r"""Prompts drawn by the deviation of their reward under the tracked baseline.

    .. math:: \mathrm{weight} \propto \sqrt{m (1 - m)} + \mathrm{floor}

    for the expected reward m of `Method.baseline`, without replacement. Unsolvable and
    trivial prompts fade by themselves and return at the floor rate. The priority of
    Single-stream Policy Optimization (arXiv:2509.13232).

    Attributes:
      group_size: rollouts per drawn prompt.
      floor: lowest weight of a prompt.
    """

    group_size: GroupSize = 1
    floor: Positive = 0.02

    needs = ("baseline",)

    phased = False

    def init(self, pool: PromptPool) -> State:
        """Return no state: the baseline is the memory."""
        del pool
        return {}

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Draw prompts by weight."""
        del progress
        rows = draw_by_weight(
            self.weight(pool.baseline), -(-budget // self.group_size), seed=seed
        )
        return Draw(rows, np.full(len(rows), self.group_size)), state

    def weight(self, mean: np.ndarray) -> np.ndarray:
        """Weights of prompts of expected rewards, not normalized."""
        mean = np.clip(mean, 0, 1)
        return np.sqrt(mean * (1 - mean)) + self.floor
