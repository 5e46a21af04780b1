"""In which order queries are trained on, decided from their posterior."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from sgpo_jax import streams
from sgpo_jax.bounds import Count, Seed, Share, bounded
from sgpo_jax.planning.concave import tie_order
from sgpo_jax.profiling import Posterior

Rows = list[np.ndarray]


@runtime_checkable
class Curriculum(Protocol):
    """Splits queries into phases. All curricula pass one contract test."""

    def __call__(self, belief: Posterior, sizes: np.ndarray) -> Rows:
        """Return the rows of each phase, first phase first; every row is somewhere."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed:
    """One phase with everything."""

    def __call__(self, belief: Posterior, sizes: np.ndarray) -> Rows:
        """Return all rows as one phase."""
        del sizes
        return [np.arange(len(belief))]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class EasyToHard:
    """One phase per group size, small groups (easy queries) first.

    sGPO's sequential training (arXiv:2606.08854, section 4.3.3, second-hand). Unsolved
    queries are mixed into every phase.

    Attributes:
      reverse: hard queries first.
      replay: share of the queries of earlier phases that every later phase repeats,
        against forgetting; a fixed choice by a hash of the id.
    """

    reverse: bool = False
    replay: Share = 0.0

    def __call__(self, belief: Posterior, sizes: np.ndarray) -> Rows:
        """Return one phase per group size in use."""
        unsolved = belief.profile.successes == 0
        solved_sizes = np.unique(sizes[~unsolved])
        if self.reverse:
            solved_sizes = solved_sizes[::-1]
        own = [~unsolved & (sizes == size) for size in solved_sizes.tolist()]
        if not own:
            return [np.arange(len(belief))]
        rank = tie_order(belief.profile.ids)
        phases, earlier = [], np.zeros(len(belief), bool)
        for mask in own:
            rows = np.flatnonzero(earlier)
            count = int(np.ceil(self.replay * len(rows)))
            again = rows[np.argsort(rank[rows])[:count]]
            phases.append(np.union1d(np.flatnonzero(mask | unsolved), again))
            earlier |= mask
        return phases


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ByDifficulty:
    """Phases of equal size, by posterior mean of the success rate.

    Attributes:
      phases: how many.
      reverse: hard queries first.
    """

    phases: Count = 3
    reverse: bool = False

    def __call__(self, belief: Posterior, sizes: np.ndarray) -> Rows:
        """Return the phases, easiest first unless reversed."""
        del sizes
        mean = belief.mean if self.reverse else -belief.mean
        order = np.lexsort((tie_order(belief.profile.ids), mean))
        parts = np.array_split(order, min(self.phases, len(order)))
        return [np.sort(part) for part in parts]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class RandomOrder:
    """Phases of equal size that pay no heed to difficulty: a control.

    Attributes:
      phases: how many.
      seed: of the order; ids decide, not rows.
    """

    phases: Count = 3
    seed: Seed = 0

    def __call__(self, belief: Posterior, sizes: np.ndarray) -> Rows:
        """Return the phases."""
        del sizes
        sorted_rows = np.argsort(np.asarray(belief.profile.ids, str))
        order = streams.generator(self.seed).permutation(sorted_rows)
        parts = np.array_split(order, min(self.phases, len(order)))
        return [np.sort(part) for part in parts]


CURRICULA: dict[str, Curriculum] = {
    "easy-to-hard": EasyToHard(),
    "hard-to-easy": EasyToHard(reverse=True),
    "replay": EasyToHard(replay=0.2),
    "by-difficulty": ByDifficulty(),
    "random": RandomOrder(),
    "mixed": Mixed(),
}
"""Curricula by the name the command line has for them, with their defaults."""
