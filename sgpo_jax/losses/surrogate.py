"""Policy-gradient losses of single tokens.

All take log-ratios [R, T] (0 where masked, see `log_ratio`) and advantages, one per
response [R] or one per token [R, T], and return the loss of each token, not averaged:
see `aggregate`. No gradient flows into an advantage.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax.losses.ratios import bounded, widened


def policy_gradient(
    log_prob: Float[Array, "R T"], advantage: Float[Array, " R"] | Float[Array, "R T"]
) -> Float[Array, "R T"]:
    r"""REINFORCE: advantage times log-probability.

    .. math:: \ell_{i,t} = -A_i \log \pi_\theta(y_{i,t})

    Williams 1992. On a log-ratio instead of a log-probability the value is shifted by
    a constant and the gradient is the same.

    Args:
      log_prob: log-probability or log-ratio of each token.
      advantage: one per response or one per token.

    Returns:
      The loss of each token.

    Example:
      >>> policy_gradient(jnp.array([[-0.5, -1.0]]), jnp.array([2.0]))
      Array([[1., 2.]], dtype=float32)
    """
    return -per_token(advantage, log_prob) * widened(log_prob)


def clipped_surrogate(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"] | Float[Array, "R T"],
    *,
    low: float = 0.2,
    high: float = 0.28,
    dual: float | None = None,
) -> Float[Array, "R T"]:
    r"""Clipped importance-weighted loss, with separate bounds.

    .. math:: \ell_{i,t} = -\min(r_{i,t} A_i,\
                           \mathrm{clip}(r_{i,t}, 1 - \epsilon_l, 1 + \epsilon_h) A_i)

    Schulman et al. 2017 (arXiv:1707.06347), eq. 7, with the two bounds of DAPO
    (arXiv:2503.14476), whose defaults these are; GRPO uses 0.2 for both. With `dual`,
    where A < 0 the loss is also at most -dual * A (dual-clip PPO, arXiv:1912.09729;
    3 is common).

    A ratio exactly on a bound has the gradient of one inside, as in PyTorch.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response or one per token.
      low: distance of the lower bound of the ratio from 1.
      high: distance of the upper bound of the ratio from 1.
      dual: upper bound of the ratio for negative advantages, above 1; None for none.

    Returns:
      The loss of each token.

    Example:
      >>> log_ratio = jnp.log(jnp.array([[1.0, 2.0], [1.0, 2.0]]))
      >>> clipped_surrogate(log_ratio, jnp.array([1.0, -1.0]))
      Array([[-1.  , -1.28], [ 1.  ,  2.  ]], dtype=float32)
    """
    advantage = per_token(advantage, log_ratio)
    ratio = jnp.exp(bounded(log_ratio))
    # Compared, not `minimum` and `clip`, which split the gradient where two sides are
    # equal: on a bound, where a first update may start, the ratio still counts whole.
    too_high = (advantage > 0) & (ratio > 1 + high)
    too_low = (advantage < 0) & (ratio < 1 - low)
    gain = jnp.where(too_high, (1 + high) * advantage, ratio * advantage)
    gain = jnp.where(too_low, (1 - low) * advantage, gain)
    if dual is not None:
        gain = jnp.where((advantage < 0) & (ratio > dual), dual * advantage, gain)
    return -gain


def cispo(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"] | Float[Array, "R T"],
    *,
    high: float = 5.0,
) -> Float[Array, "R T"]:
    r"""REINFORCE weighted by the truncated ratio: no token loses its gradient.

    .. math:: \ell_{i,t} = -\mathrm{sg}[\min(r_{i,t}, C)] A_i \log r_{i,t}

    CISPO (arXiv:2506.13585). The paper writes log pi where we write log r: the same
    gradient, and a value of 0 on policy.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response or one per token.
      high: the largest weight C.

    Returns:
      The loss of each token.

    Example:
      >>> cispo(jnp.log(jnp.array([[1.0, 2.0]])), jnp.array([1.0]), high=1.5)
      Array([[-0.       , -1.0397208]], dtype=float32)
    """
    log_ratio = bounded(log_ratio)
    weight = jnp.minimum(jnp.exp(jax.lax.stop_gradient(log_ratio)), high)
    return -weight * per_token(advantage, log_ratio) * log_ratio


def sapo(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"] | Float[Array, "R T"],
    *,
    positive_temperature: float = 1.0,
    negative_temperature: float = 1.05,
) -> Float[Array, "R T"]:
    r"""Importance-weighted loss with a smooth gate in place of a clip.

    .. math:: \ell_{i,t} = -\frac{4}{\tau} \sigma(\tau (r_{i,t} - 1)) A_i

    SAPO (arXiv:2511.20347). tau depends on the sign of A. At r = 1 the gradient is
    that of r A; it fades on both sides.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response or one per token.
      positive_temperature: tau where A > 0.
      negative_temperature: tau where A <= 0; larger fades faster.

    Returns:
      The loss of each token.

    Example:
      >>> sapo(jnp.zeros((2, 1)), jnp.array([1.0, -1.0]), negative_temperature=2.0)
      Array([[-2.], [ 1.]], dtype=float32)
    """
    advantage = per_token(advantage, log_ratio)
    tau = jnp.where(advantage > 0, positive_temperature, negative_temperature)
    ratio = jnp.exp(bounded(log_ratio))
    return -4 / tau * jax.nn.sigmoid(tau * (ratio - 1)) * advantage


def dppo_tv(
    log_prob: Float[Array, "R T"],
    sampler_log_prob: Float[Array, "R T"],
    advantage: Float[Array, " R"] | Float[Array, "R T"],
    *,
    bound: float = 0.2,
) -> Float[Array, "R T"]:
    r"""Importance-weighted loss that stops where the probability has moved enough.

    .. math:: \ell_{i,t} = -k_{i,t} A_i r_{i,t}, \quad
              k_{i,t} = 1 - 1(\mathrm{sign}(A_i) (\pi_\theta - \pi_\text{inf}) > \delta)

    DPPO with total variation (arXiv:2602.04879): the trust region is in probability,
    where clipping the ratio over-constrains rare tokens. The policy is compared with
    the one that sampled, in the inference engine. Published with a penalty of
    1e-3 (log r)^2 on all tokens, which is 2e-3 times `k2`.

    Args:
      log_prob: log-probability of each token under the policy in training; masked
        cells must be equal in both arrays, for example 0.
      sampler_log_prob: the same under the policy that sampled; no gradient.
      advantage: one per response or one per token.
      bound: delta, the largest change of a token's probability.

    Returns:
      The loss of each token.

    Example:
      >>> log_prob = jnp.log(jnp.array([[0.5, 0.8]]))
      >>> dppo_tv(log_prob, jnp.log(jnp.array([[0.4, 0.4]])), jnp.array([1.0]))
      Array([[-1.25, -0.  ]], dtype=float32)
    """
    advantage = per_token(advantage, log_prob)
    sampler_log_prob = jax.lax.stop_gradient(widened(sampler_log_prob))
    log_prob = widened(log_prob)
    change = jax.lax.stop_gradient(jnp.exp(log_prob)) - jnp.exp(sampler_log_prob)
    keep = jnp.sign(advantage) * change <= bound
    ratio = jnp.exp(bounded(log_prob - sampler_log_prob))
    return -jnp.where(keep, ratio, 0) * advantage


def per_token(
    advantage: Float[Array, " R"] | Float[Array, "R T"], like: Float[Array, "R T"]
) -> Float[Array, "R T"]:
    """One advantage per token, widened to at least float32 and held constant."""
    advantage = jax.lax.stop_gradient(widened(advantage))
    advantage = advantage[:, None] if advantage.ndim == 1 else advantage
    return jnp.broadcast_to(advantage, like.shape)
