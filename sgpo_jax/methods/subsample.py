"""Subsampling of responses: which of them get a backward pass.

Training on a response costs about three times what sampling it cost, and its share of
the gradient is proportional to its advantage. A subsample is a frozen dataclass, or a
plain function `(advantage, groups, *, seed) -> factor [R]`.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from sgpo_jax import advantages, streams
from sgpo_jax.bounds import Decay, Positive, Share, bounded
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

    drops_zero_advantage = True

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return 1 where there is an advantage."""
        del groups, seed
        return (advantage != 0).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class RussianRoulette:
    r"""Random thinning with inverse-probability weights: an unbiased gradient.

    .. math:: p_i = \max(\mathrm{floor}, \min(1, |A_i| / c)), \qquad
              \mathrm{factor}_i = 1 / p_i

    A Horvitz-Thompson estimate of the same gradient from fewer responses: those with
    small advantages are mostly left out, the few that stay are weighted up. With
    floor 0 responses of advantage 0 are never kept; above 0 the estimate is unbiased
    for any loss of single responses, KL penalty and entropy bonus included.

    Attributes:
      keep_above: the advantage c from which on a response is always kept.
      floor: the smallest probability of keeping a response.
    """

    keep_above: Positive = 2.0
    floor: Share = 0.0

    @property
    def drops_zero_advantage(self) -> bool:
        """True if responses of advantage 0 are always dropped."""
        return self.floor == 0

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return 1/p for the kept responses and 0 for the others."""
        del groups
        probability = np.clip(np.abs(advantage) / self.keep_above, self.floor, 1.0)
        kept = streams.generator(seed).random(len(advantage)) < probability
        safe = np.where(kept, probability, 1.0)
        return np.where(kept, 1 / safe, 0.0).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class LargestAdvantage:
    r"""The responses of largest advantage magnitude in each group: CPPO.

    .. math:: k_g = \max(1, \lfloor G_g (1 - P) \rfloor), \qquad
              \mathrm{factor}_i = G_g / k_g

    `advantages.prune_completions` (arXiv:2503.22342). Not an unbiased estimate: what is
    pruned is left out for good. The factor makes the loss the mean over those kept.

    Attributes:
      rate: share P of each group that is pruned.
    """

    rate: Decay = 0.5

    def __call__(
        self, advantage: np.ndarray, groups: RewardGroups, /, *, seed: int
    ) -> np.ndarray:
        """Return G / k for the kept responses and 0 for the others."""
        del seed
        count = len(advantage)
        room = (1 << max(count - 1, 1).bit_length()) - count  # few shapes occur
        ids = np.pad(np.asarray(groups.id), (0, room))
        scored = np.isfinite(np.asarray(groups.rewards, np.float64))
        keep, _ = advantages.prune_completions(
            jnp.asarray(np.pad(advantage, (0, room)), jnp.float32),
            jnp.asarray(ids, jnp.int32),
            jnp.asarray(np.pad(scored, (0, room))),
            num_groups=count + room,
            rate=self.rate,
        )
        kept = np.asarray(keep)[:count]
        ids = ids[:count]
        size = np.bincount(ids, scored)
        left = np.bincount(ids, kept)
        return np.where(kept, (size / np.maximum(left, 1))[ids], 0).astype(np.float32)
