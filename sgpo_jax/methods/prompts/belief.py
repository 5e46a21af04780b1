"""Prompts drawn by the tracked baseline: filter, allocation and curriculum in one."""

import dataclasses

import numpy as np

from sgpo_jax.methods.prompts.pool import Draw, PromptPool, State


def draw_by_weight(weight: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Rows drawn by weight without replacement, ascending.

    Exponential races (arXiv:1907.10121): the smallest E / w, with E exponential, are a
    weighted draw without replacement. Linear in the number of rows.

    >>> draw_by_weight(np.array([0.0, 1.0, 2.0]), 2, seed=0).tolist()
    [1, 2]
    """
    count = min(count, len(weight))
    with np.errstate(divide="ignore"):
        race = np.random.default_rng(seed).exponential(size=len(weight)) / weight
    return np.sort(np.argpartition(race, count - 1)[:count])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByBelief:
    r"""Prompts drawn by the deviation of their reward under the tracked baseline.

    .. math:: \mathrm{weight} \propto \sqrt{m (1 - m)} + \mathrm{floor}

    for the expected reward m of `Method.baseline`, without replacement. Unsolvable and
    trivial prompts fade by themselves and come back at the floor rate. The priority of
    Single-stream Policy Optimization (arXiv:2509.13232).

    Attributes:
      group_size: rollouts per drawn prompt.
      floor: lowest weight of a prompt.
    """

    group_size: int = 1
    floor: float = 0.02

    needs = ("baseline",)

    def __post_init__(self):
        if self.group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {self.group_size}")
        if not 0 < self.floor < float("inf"):
            raise ValueError(f"floor must be positive and finite, got {self.floor}")

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
        mean = np.clip(pool.baseline, 0, 1)
        weight = np.sqrt(mean * (1 - mean)) + self.floor
        rows = draw_by_weight(weight, -(-budget // self.group_size), seed=seed)
        return Draw(rows, np.full(len(rows), self.group_size)), state
