"""Subsampling of responses: which of them get a backward pass.

Training on a response costs about three times what sampling it cost, and its share of
the gradient is proportional to its advantage. A subsample is a frozen dataclass, or a
plain function `(advantage, groups, *, seed) -> factor [R]`.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from sgpo_jax.methods.inputs import RewardGroups


@runtime_checkable
class Subsample(Protocol):
    """Factor per response; 0 leaves it out of the training pass."""

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return one factor per response, [R].

        Args:
          advantage: one per response, [R].
          groups: rewards and groups as numpy arrays, not padded.
          seed: identifies run and step.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepAll:
    """Every response, dead groups included, as GRPO was published."""

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return 1 for every response."""
        del groups, seed
        return np.ones(len(advantage), np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropZeroAdvantage:
    """Responses of advantage exactly 0 left out: the same gradient for less work.

    Exact only for objectives that are 0 where the advantage is, without a KL penalty.
    """

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return 1 where there is an advantage."""
        del groups, seed
        return (advantage != 0).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RussianRoulette:
    r"""Random thinning with inverse-probability weights: an unbiased gradient.

    .. math:: p_i = \min(1, |A_i| / c), \qquad \mathrm{factor}_i = 1 / p_i

    A Horvitz-Thompson estimate of the same gradient from fewer responses: those with
    small advantages are mostly left out, the few that stay stand for the others.

    Attributes:
      keep_above: the advantage c from which on a response is always kept.
    """

    keep_above: float = 2.0

    def __post_init__(self):
        if not self.keep_above > 0:
            raise ValueError(f"keep_above must be positive, got {self.keep_above}")

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return 1/p for the kept responses and 0 for the others."""
        del groups
        probability = np.minimum(np.abs(advantage) / self.keep_above, 1.0)
        kept = np.random.default_rng(seed).random(len(advantage)) < probability
        safe = np.where(kept, probability, 1.0)
        return np.where(kept, 1 / safe, 0.0).astype(np.float32)
