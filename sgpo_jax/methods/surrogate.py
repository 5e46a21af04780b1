"""Policy-gradient objectives with an importance ratio per token."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax import losses
from sgpo_jax.bounds import TINY, NonNegative, Positive, Range, bounded
from sgpo_jax.methods.inputs import Responses
from sgpo_jax.methods.objective import old_policy_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    r"""REINFORCE: advantage times log-probability, for one update per batch.

    .. math:: \ell_{i,t} = -A_i \log \pi_\theta(y_{i,t})

    `losses.policy_gradient`. No ratio: later updates of a batch are biased.
    """

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return `losses.policy_gradient`."""
        return losses.policy_gradient(responses.log_prob, responses.advantage)

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Divergence from the old policy (k3)."""
        return old_policy_metrics(responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Cispo:
    r"""REINFORCE weighted by the truncated ratio: CISPO (arXiv:2506.13585).

    .. math:: \ell_{i,t} = -\mathrm{sg}[\min(r_{i,t}, C)] A_i \log \pi_\theta

    Attributes:
      high: the largest weight C.
    """

    high: Positive = 5.0

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return `losses.cispo`."""
        return losses.cispo(responses.log_ratio, responses.advantage, high=self.high)

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Share of truncated weights, divergence from the old policy (k3)."""
        beyond = jnp.exp(responses.log_ratio) > self.high
        truncated = {"clip_ratio/high": beyond.astype(jnp.float32)}
        return truncated | old_policy_metrics(responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Sapo:
    r"""Importance-weighted loss with a smooth gate: SAPO (arXiv:2511.20347).

    .. math:: \ell_{i,t} = -\frac{4}{\tau} \sigma(\tau (r_{i,t} - 1)) A_i

    Attributes:
      positive_temperature: tau where A > 0.
      negative_temperature: tau elsewhere; larger fades faster.
    """

    positive_temperature: Positive = 1.0
    negative_temperature: Positive = 1.05

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return `losses.sapo`."""
        return losses.sapo(
            responses.log_ratio,
            responses.advantage,
            positive_temperature=self.positive_temperature,
            negative_temperature=self.negative_temperature,
        )

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Divergence from the old policy (k3)."""
        return old_policy_metrics(responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Dppo:
    r"""Trust region in probability, against the sampler: DPPO-TV (arXiv:2602.04879).

    .. math:: \ell_{i,t} = -k_{i,t} A_i r_{i,t} + \lambda (\log r_{i,t})^2, \quad
              r = \pi_\theta / \pi_{sampler}

    where k is 0 once sign(A) (pi_theta - pi_sampler) exceeds the bound. The ratio
    corrects for the sampler, so `Method.correction` stays None.

    Attributes:
      bound: largest change of a token's probability.
      penalty: lambda, on all tokens.
    """

    bound: Annotated[float, Range(TINY, 1)] = 0.2
    penalty: NonNegative = 1e-3

    needs = ("sampler_log_probs",)

    @property
    def zero_without_advantage(self) -> bool:
        """True if responses of advantage 0 add nothing to the loss."""
        return self.penalty == 0

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return `losses.dppo_tv` plus the penalty."""
        mask = responses.mask
        now = jnp.where(mask, responses.log_prob, 0)
        drawn = jnp.where(mask, responses.sampler_log_prob, 0)
        loss = losses.dppo_tv(now, drawn, responses.advantage, bound=self.bound)
        return loss + 2 * self.penalty * losses.k2(now, drawn)

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Share of tokens beyond the bound, divergence from the old policy (k3)."""
        drawn = jnp.where(responses.mask, responses.sampler_log_prob, 0)
        change = jnp.exp(jax.lax.stop_gradient(responses.log_prob)) - jnp.exp(drawn)
        beyond = jnp.sign(responses.advantage)[:, None] * change > self.bound
        metrics = {"clip_ratio/total_variation": beyond.astype(jnp.float32)}
        return metrics | old_policy_metrics(responses)
