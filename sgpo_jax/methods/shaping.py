"""Reward shaping: what is added to the verifier's rewards before the advantage.

A frozen dataclass, or a plain function `(RewardGroups) -> [R]` that returns the shaped
rewards. Prompt samplers, baselines, refill and the logged reward see the verifier's own
rewards; the advantage and objectives that regress on rewards see the shaped ones.
"""

import dataclasses
from typing import Annotated, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from sgpo_jax import advantages
from sgpo_jax.bounds import TINY, Positive, Range, bounded
from sgpo_jax.methods.inputs import RewardGroups
from sgpo_jax.methods.needs import needs_of


@runtime_checkable
class Shaping(Protocol):
    """Rewards of groups to shaped rewards, on the host."""

    def __call__(self, groups: RewardGroups, /) -> np.ndarray:
        """Return one reward per response, [R]; NaN stays NaN."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class OverlongPenalty:
    r"""Soft overlong punishment: DAPO (arXiv:2503.14476), eq. 13.

    .. math:: R_i \mathrel{-}= c\,\mathrm{clip}\Big(
              \frac{L_i - (L_{max} - L_c)}{L_c}, 0, 1\Big)

    L_max is the longest response the run allows.

    Attributes:
      cache: width of the zone L_c in which the penalty grows, as a share of L_max; the
        paper's 4,096 of 20,480 tokens are 0.2.
      coef: the largest penalty c.
    """

    cache: Annotated[float, Range(TINY, 1)] = 0.2
    coef: Positive = 1.0

    def __call__(self, groups: RewardGroups, /) -> np.ndarray:
        """Return rewards plus `advantages.overlong_penalty`."""
        limit = groups.max_length
        penalty = advantages.overlong_penalty(
            jnp.asarray(groups.length),
            max_length=limit,
            cache=max(1, round(self.cache * limit)),
        )
        return groups.rewards + self.coef * np.asarray(penalty)


def shape(shaping: Shaping, groups: RewardGroups) -> np.ndarray:
    """Shaped rewards, [R].

    Raises:
      ValueError: if the shaping is not one finite number per scored response.
    """
    found = np.asarray(shaping(groups.restricted(needs_of(shaping))))
    scored = np.isfinite(groups.rewards)
    if found.shape != groups.rewards.shape or not np.isfinite(found[scored]).all():
        raise ValueError(
            f"shaping {shaping} must return a finite reward for each of the"
            f" {len(groups.rewards)} responses that has one"
        )
    return np.where(scored, found, np.nan)
