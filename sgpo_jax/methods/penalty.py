"""Penalties and corrections around an objective: KL to a reference, importance weights.

Both are frozen dataclasses; the training step applies them to the loss of each token.
"""

import dataclasses
from typing import Annotated, Literal, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgpo_jax import losses
from sgpo_jax.bounds import HUGE, Natural, Positive, Range, Share, bounded

_ESTIMATORS = {"k1": losses.k1, "k2": losses.k2, "k3": losses.k3}


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class KL:
    r"""KL divergence to the initial policy, in the loss or in the reward.

    .. math:: \ell_{i,t} \mathrel{+}= \beta\, \hat k(\pi_\theta, \pi_{ref})
              \quad\text{or}\quad
              R_i \mathrel{-}= \beta \sum_t \log \frac{\pi_{sampler}}{\pi_{ref}}

    Estimators: `losses.k1`, `k2`, `k3` (Schulman 2020). GRPO uses k3 in the loss with
    0.04 (arXiv:2402.03300, eq. 4). In the reward the estimator is k1, summed over the
    response, and no gradient flows through it.

    Attributes:
      coef: beta.
      estimator: of the divergence at each token, in the loss.
      in_reward: subtract it from the reward instead of adding it to the loss.
      refresh: updates after which the reference becomes the current policy; 0 never.
    """

    coef: Positive = 1e-3
    estimator: Literal["k1", "k2", "k3"] = "k3"
    in_reward: bool = False
    refresh: Natural = 0

    needs = ("reference",)

    def __call__(
        self,
        log_prob: Float[Array, "R T"],
        reference_log_prob: Float[Array, "R T"],
        mask: Bool[Array, "R T"],
    ) -> Float[Array, "R T"]:
        """Return the estimate at each token, 0 where masked."""
        log_prob = jnp.where(mask, log_prob, 0)
        reference_log_prob = jnp.where(mask, reference_log_prob, 0)
        return _ESTIMATORS[self.estimator](log_prob, reference_log_prob)


@runtime_checkable
class Correction(Protocol):
    """Weight of each token that corrects for a sampler unlike the trainer."""

    def __call__(
        self, log_ratio: Float[Array, "R T"], mask: Bool[Array, "R T"], /
    ) -> Float[Array, "R T"]:
        """Return a weight per token, held constant by differentiation.

        Args:
          log_ratio: log of the old trainer policy over the sampler's, 0 where masked.
          mask: tokens that count.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Truncated:
    r"""Truncated importance sampling between sampler and trainer.

    .. math:: w = \mathrm{sg}[\min(\pi_{old} / \pi_{sampler}, C)]

    Attributes:
      high: the largest weight C.
      level: a ratio per token, or one per sequence.
    """

    high: Positive = 2.0
    level: Literal["token", "sequence"] = "token"

    needs = ("sampler_log_probs",)

    def __call__(
        self, log_ratio: Float[Array, "R T"], mask: Bool[Array, "R T"], /
    ) -> Float[Array, "R T"]:
        """Return `losses.truncated_weight`."""
        ratio = at_level(log_ratio, mask, self.level)
        return losses.truncated_weight(ratio, high=self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Masked:
    r"""Importance weights that drop what is outside a band (IcePop).

    .. math:: w = \mathrm{sg}[r\, 1(l \le r \le h)], \quad
              r = \pi_{old} / \pi_{sampler}

    Attributes:
      low: the smallest ratio kept.
      high: the largest ratio kept.
      level: a ratio per token, or one per sequence.
    """

    low: Share = 0.5
    high: Annotated[float, Range(1, HUGE)] = 2.0
    level: Literal["token", "sequence"] = "token"

    needs = ("sampler_log_probs",)

    def __call__(
        self, log_ratio: Float[Array, "R T"], mask: Bool[Array, "R T"], /
    ) -> Float[Array, "R T"]:
        """Return `losses.masked_weight`."""
        ratio = at_level(log_ratio, mask, self.level)
        return losses.masked_weight(ratio, low=self.low, high=self.high)


def at_level(
    log_ratio: Float[Array, "R T"],
    mask: Bool[Array, "R T"],
    level: Literal["token", "sequence"],
) -> Float[Array, "R T"]:
    """Log-ratio of each token, or that of its whole response at each token."""
    if level == "token":
        return log_ratio
    total = losses.sequence_log_ratio(log_ratio, mask)
    return jnp.broadcast_to(total[:, None], log_ratio.shape)
