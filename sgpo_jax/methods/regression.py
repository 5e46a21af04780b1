"""Objectives that regress log-ratios of whole responses on their rewards.

The mean of the residuals over a group is a constant of the gradient. It is computed
for the whole step before the update, so a group may be split over micro-batches.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax import losses
from sgpo_jax.bounds import Positive, bounded
from sgpo_jax.methods.inputs import Responses
from sgpo_jax.methods.log_z import LogZ


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class VarGrad:
    r"""Trajectory balance with the normalizer of the group: `losses.vargrad`.

    .. math:: \ell_i = (u_i - \bar u_g)^2, \quad
              u_i = \sum_t \log \frac{\pi_\theta}{\pi_{ref}} - \frac{R_i}{\beta}

    TBA (arXiv:2503.18929). Use with `losses.PerSequence`.

    Attributes:
      beta: strength of the reference, in units of reward per nat.
    """

    beta: Positive = 0.1

    needs = ("reference",)
    zero_without_advantage = False

    def residual(self, responses: Responses, /) -> Float[Array, " R"]:
        """Return u of each response; 0 where it could not be scored."""
        ratio = losses.log_ratio(
            responses.log_prob, responses.reference_log_prob, responses.mask
        )
        return _residual(ratio, responses, scale=1 / self.beta)

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of the response at each of its tokens."""
        centered = self.residual(responses) - responses.residual_mean
        return _at_tokens(centered**2, responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Rebel:
    r"""Regression to relative rewards, all pairs of a group: `losses.rebel`.

    .. math:: \ell_i = 2 (u_i - \bar u_g)^2, \quad
              u_i = \sum_t \log \frac{\pi_\theta}{\pi_{old}} - \eta R_i

    REBEL (arXiv:2404.16767). Use with `losses.PerSequence`.

    Attributes:
      eta: step size; large values trust the rewards.
    """

    eta: Positive = 1.0

    zero_without_advantage = False

    def residual(self, responses: Responses, /) -> Float[Array, " R"]:
        """Return u of each response; 0 where it could not be scored."""
        return _residual(responses.log_ratio, responses, scale=self.eta)

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of the response at each of its tokens."""
        centered = self.residual(responses) - responses.residual_mean
        return _at_tokens(2 * centered**2, responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class AdvantageRegression:
    r"""Regression of the log-ratio on the advantage: A*-PO (arXiv:2505.20686).

    .. math:: \ell_i = \Big(\beta \sum_t \log \frac{\pi_\theta}{\pi_{ref}} - A_i\Big)^2

    Use with `OptimalAdvantage` and `losses.PerSequence`; `losses.a_star_po`.

    Attributes:
      beta: strength of the reference.
    """

    beta: Positive = 1e-3

    needs = ("reference",)
    zero_without_advantage = False

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of the response at each of its tokens."""
        scored = jnp.isfinite(responses.reward)
        target = jnp.where(scored, responses.advantage, jnp.nan)
        value = jnp.zeros_like(target)
        ratio = _reference_ratio(responses)
        loss = losses.a_star_po(ratio, target, value, beta=self.beta)
        return _at_tokens(loss, responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Dro:
    r"""Policy gradient with a quadratic penalty on the log-ratio: DRO (2405.19107).

    .. math:: \ell_i = -\Big(\Delta_i A_i - \frac{\beta}{2} \Delta_i^2\Big), \quad
              \Delta_i = \sum_t \log \frac{\pi_\theta}{\pi_{ref}}

    Use with `losses.PerSequence`; `losses.dro`.

    Attributes:
      beta: strength of the penalty.
    """

    beta: Positive = 1.0

    needs = ("reference",)
    zero_without_advantage = False

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of the response at each of its tokens."""
        scored = jnp.isfinite(responses.reward)
        ratio = jnp.where(scored, _reference_ratio(responses), 0)
        loss = losses.dro(ratio, responses.advantage, beta=self.beta)
        return _at_tokens(loss, responses)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class TrajectoryBalance:
    r"""Trajectory balance with a learnt normalizer: `losses.trajectory_balance`.

    .. math:: \ell_i = \Big(\log Z_\phi(x_i) + \sum_t \log
              \frac{\pi_\theta}{\pi_{ref}} - \frac{R_i}{\beta}\Big)^2

    Malkin et al. 2022 (arXiv:2201.13259). Use with `losses.PerSequence`.

    Attributes:
      beta: strength of the reference, in units of reward per nat.
      log_z: the learnt normalizer.
    """

    beta: Positive = 0.1
    log_z: LogZ = LogZ()

    needs = ("reference", "log_z")
    zero_without_advantage = False

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of the response at each of its tokens."""
        loss = losses.trajectory_balance(
            _reference_ratio(responses),
            responses.reward,
            responses.log_z,
            beta=self.beta,
        )
        return _at_tokens(loss, responses)

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """The learnt log-normalizer."""
        return {"log_z": _at_tokens(responses.log_z, responses)}


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class FlowBalance:
    r"""Length-normalized trajectory balance: FlowRL (arXiv:2509.15207).

    .. math:: \ell_i = w_i \Big(\log Z_\phi(x_i) + \frac{1}{|y_i|} \sum_t \log
              \frac{\pi_\theta}{\pi_{ref}} - \beta A_i\Big)^2, \quad
              w_i = \mathrm{sg}\Big[\min\Big(\prod_t
              \frac{\pi_\theta}{\pi_{old}}, C\Big)\Big]

    The advantage A is the paper's group-normalized reward. Use with
    `losses.PerSequence`; `losses.flow_balance`.

    Attributes:
      beta: scale of the advantages.
      max_weight: the largest importance weight C.
      log_z: the learnt normalizer.
    """

    beta: Positive = 15.0
    max_weight: Positive = 10.0
    log_z: LogZ = LogZ()

    needs = ("reference", "log_z")
    zero_without_advantage = False

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the loss of the response at each of its tokens."""
        scored = jnp.isfinite(responses.reward)
        length = jnp.maximum(responses.mask.sum(axis=1), 1)
        loss = losses.flow_balance(
            _reference_ratio(responses) / length.astype(jnp.float32),
            jnp.where(scored, responses.advantage, jnp.nan),
            responses.log_z,
            losses.sequence_log_ratio(responses.log_ratio, responses.mask),
            beta=self.beta,
            max_weight=self.max_weight,
        )
        return _at_tokens(loss, responses)

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """The learnt log-normalizer."""
        return {"log_z": _at_tokens(responses.log_z, responses)}


def _reference_ratio(responses: Responses) -> Float[Array, " R"]:
    """Summed log-ratio to the reference of each response."""
    ratio = losses.log_ratio(
        responses.log_prob, responses.reference_log_prob, responses.mask
    )
    return losses.sequence_log_ratio(ratio, responses.mask)


def _residual(
    log_ratio: Float[Array, "R T"], responses: Responses, *, scale: float
) -> Float[Array, " R"]:
    """Summed log-ratio minus scaled reward; masked before any arithmetic."""
    scored = jnp.isfinite(responses.reward)
    total = losses.sequence_log_ratio(log_ratio, responses.mask)
    reward = jnp.where(scored, responses.reward, 0)
    return jnp.where(scored, total, 0) - scale * reward


def _at_tokens(loss: Float[Array, " R"], responses: Responses) -> Float[Array, "R T"]:
    return jnp.where(responses.mask, loss[:, None], 0)
