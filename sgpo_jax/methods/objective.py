"""Objectives: the loss of each response token, from arrays [R, T].

An objective is a frozen dataclass, or a plain function `(Responses) -> [R, T]`. It is
static under jit, hence hashable. A loss of whole responses is repeated at each of their
tokens; with `losses.PerSequence` its sum is then the loss of the response.

Besides the call, an objective may have

* `needs`: optional inputs it reads (`methods.needs`);
* `metrics(responses) -> {name: [R, T]}`: numbers whose masked mean is logged;
* `residual(responses) -> [R]`: a number per response whose mean over the group the
  objective reads back as `responses.residual_mean`. It is computed before the update
  for the whole step, so a group may be split over micro-batches;
* `zero_without_advantage`: False if responses of advantage 0 count all the same, so
  that no subsample may leave them out; True if not given;
* `log_z`: the head of an objective that needs "log_z" (`methods.LogZ`), trained beside
  the policy.
"""

import dataclasses
from typing import Annotated, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax import losses
from sgpo_jax.bounds import HUGE, Decay, NonNegative, Range, bounded
from sgpo_jax.methods.inputs import Responses


@runtime_checkable
class Objective(Protocol):
    """Loss per token; hashable, since it is static under jit."""

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of each token, not yet averaged."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ClippedSurrogate:
    """Clipped surrogate with a ratio per token: PPO, GRPO, DAPO.

    `losses.clipped_surrogate` (arXiv:1707.06347, eq. 7; bounds of arXiv:2503.14476).

    Attributes:
      low: distance of the lower bound of the importance ratio from 1.
      high: distance of the upper bound.
      dual: bound of the ratio where the advantage is negative; 0 for none.
    """

    low: Decay = 0.2
    high: NonNegative = 0.28
    dual: Annotated[float, Range(1.001, HUGE, zero=True)] = 0.0

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return `losses.clipped_surrogate`."""
        return losses.clipped_surrogate(
            responses.log_ratio,
            responses.advantage,
            low=self.low,
            high=self.high,
            dual=self.dual or None,
        )

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Clipped shares and the divergence from the old policy (k3)."""
        return clip_metrics(
            responses, responses.log_ratio, low=self.low, high=self.high
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedLoss:
    """Negative log-likelihood of each token: supervised fine-tuning."""

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return -log pi(token)."""
        return -responses.log_prob


def clip_metrics(
    responses: Responses, log_ratio: Float[Array, "R T"], *, low: float, high: float
) -> dict[str, Float[Array, "R T"]]:
    """Shares of tokens beyond the clipping bounds, and KL from the old policy (k3)."""
    ratio = jnp.exp(log_ratio)
    positive = responses.advantage[:, None] > 0
    return {
        "clip_ratio/low": ((ratio < 1 - low) & ~positive).astype(ratio.dtype),
        "clip_ratio/high": ((ratio > 1 + high) & positive).astype(ratio.dtype),
        **old_policy_metrics(responses),
    }


def old_policy_metrics(responses: Responses) -> dict[str, Float[Array, "R T"]]:
    """KL from the old policy (k3)."""
    old = responses.log_prob - responses.log_ratio
    return {"kl_old": losses.k3(responses.log_prob, old)}


def metrics_of(
    objective: Objective, responses: Responses
) -> dict[str, Float[Array, "R T"]]:
    """Metrics an objective logs, if it has any."""
    found = getattr(objective, "metrics", None)
    return {} if found is None else found(responses)
