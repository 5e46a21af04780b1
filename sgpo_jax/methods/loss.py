"""The loss of a training step: objective, correction, KL penalty, entropy bonus."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax import losses
from sgpo_jax.bounds import NonNegative, bounded
from sgpo_jax.methods.inputs import INPUT_OF, Responses
from sgpo_jax.methods.needs import needs_of
from sgpo_jax.methods.objective import ClippedSurrogate, Objective, metrics_of
from sgpo_jax.methods.penalty import KL, Correction


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class TokenLoss:
    r"""Loss of each token, not yet averaged; static under jit.

    .. math:: \ell_{i,t} = w_{i,t}\, \mathrm{objective}_{i,t}
              + \beta\, \mathrm{KL}_{i,t} - \eta H_{i,t}

    Attributes:
      objective: policy-gradient, regression or supervised loss.
      correction: importance weights w between sampler and trainer; None for 1.
      kl: penalty to the reference; None, or one in the reward, adds nothing here.
      entropy_bonus: eta, in units of loss per nat.
    """

    objective: Objective = ClippedSurrogate()
    correction: Correction | None = None
    kl: KL | None = None
    entropy_bonus: NonNegative = 0.0

    @property
    def needs(self) -> frozenset[str]:
        """Optional inputs that some term reads."""
        kl = None if self.kl is None or self.kl.in_reward else self.kl
        return needs_of(self.objective, self.correction, kl)

    def __call__(
        self, responses: Responses
    ) -> tuple[Float[Array, "R T"], dict[str, Float[Array, "R T"]]]:
        """Return the loss of each token, and metrics per token."""
        own = responses.restricted(needs_of(self.objective))
        value = self.objective(own)
        shape = getattr(value, "shape", None)
        if shape != responses.mask.shape:
            name = getattr(self.objective, "__name__", self.objective)
            raise ValueError(
                f"objective {name} returned {type(value).__name__} of shape {shape} for"
                f" tokens of shape {responses.mask.shape}"
            )
        metrics = {"entropy": responses.entropy, **metrics_of(self.objective, own)}
        mask = responses.mask
        if self.correction is not None:
            old = responses.log_prob - responses.log_ratio
            ratio = losses.log_ratio(old, responses.sampler_log_prob, mask)
            weight = self.correction(ratio, mask)
            value = value * weight
            metrics |= {"correction/weight": weight, "correction/log_ratio": ratio}
        if self.kl is not None and not self.kl.in_reward:
            kl = self.kl(responses.log_prob, responses.reference_log_prob, mask)
            value = value + self.kl.coef * kl
            metrics["kl"] = kl
        if self.entropy_bonus:
            value = value - self.entropy_bonus * responses.entropy
        return jnp.where(mask, value, 0), metrics


def metric_names(loss: Any) -> list[str]:
    """Names of the metrics of a loss, which is traced on shapes alone.

    Raises:
      ValueError: if it fails, or returns anything but one number per token.
    """
    tokens, each = jnp.zeros((2, 3)), jnp.zeros(2)
    optional = {
        INPUT_OF[need]: each if need in ("residual_mean", "log_z") else tokens
        for need in loss.needs
        if need in INPUT_OF
    }
    empty = Responses(
        log_prob=tokens,
        log_ratio=tokens,
        advantage=each,
        reward=each,
        mask=tokens > 0,
        entropy=tokens,
        optional=optional,
    )
    try:
        return list(jax.eval_shape(loss, empty)[1])
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"the loss fails on two responses of three tokens: {type(error).__name__},"
            f" {text[:300]}; an objective returns one number per token, [R, T]"
        ) from error
