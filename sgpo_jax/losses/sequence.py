"""Policy-gradient losses with an importance ratio per response.

They return the loss of a response at each of its tokens [R, T], and 0 at masked ones,
so that the same `aggregate` serves all losses; their papers use `PerSequence`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgpo_jax.losses.ratios import bounded, mean_log_ratio, widened
from sgpo_jax.losses.surrogate import clipped_surrogate


def sequence_clipped_surrogate(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"],
    mask: Bool[Array, "R T"],
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Float[Array, "R T"]:
    r"""Clipped surrogate with the length-normalized ratio of the response (GSPO).

    .. math:: \ell_i = -\min(s_i A_i,\ \mathrm{clip}(s_i, 1 - \epsilon_l,
              1 + \epsilon_h) A_i), \quad
              s_i = \exp\Big(\frac{1}{|y_i|} \sum_t \log r_{i,t}\Big)

    Zheng et al. 2025 (arXiv:2507.18071).

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response.
      mask: the response tokens that count.
      low: distance of the lower bound of the ratio from 1.
      high: distance of the upper bound of the ratio from 1.

    Returns:
      The loss of the response at each of its tokens.

    Example:
      >>> log_ratio, mask = jnp.array([[0.2, 0.0]]), jnp.ones((1, 2), bool)
      >>> sequence_clipped_surrogate(log_ratio, jnp.array([1.0]), mask, high=0.05)
      Array([[-1.05, -1.05]], dtype=float32)
    """
    log_s = mean_log_ratio(log_ratio, mask)[:, None]
    loss = clipped_surrogate(log_s, advantage, low=low, high=high)
    return jnp.where(mask, loss, 0)


def token_level_sequence_surrogate(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"] | Float[Array, "R T"],
    mask: Bool[Array, "R T"],
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Float[Array, "R T"]:
    r"""GSPO with advantages per token (GSPO-token).

    .. math:: \ell_{i,t} = -\min(s_{i,t} A_{i,t},\ \mathrm{clip}(s_{i,t},
              1 - \epsilon_l, 1 + \epsilon_h) A_{i,t}), \quad
              s_{i,t} = \mathrm{sg}[s_i] \frac{\pi_\theta}{\mathrm{sg}[\pi_\theta]}

    Zheng et al. 2025 (arXiv:2507.18071). The value is that of the sequence ratio, the
    gradient that of the token. Equal to `sequence_clipped_surrogate`, in value and
    gradient under `PerSequence`, if the advantage is the same at all tokens.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response or one per token.
      mask: the response tokens that count.
      low: distance of the lower bound of the ratio from 1.
      high: distance of the upper bound of the ratio from 1.

    Returns:
      The loss of each token.

    Example:
      >>> log_ratio, mask = jnp.array([[0.2, 0.0]]), jnp.ones((1, 2), bool)
      >>> token_level_sequence_surrogate(log_ratio, jnp.array([[1.0, 2.0]]), mask)
      Array([[-1.0004, -2.0008]], dtype=float32)
    """
    log_ratio = jnp.where(mask, widened(log_ratio), 0)
    log_s = jax.lax.stop_gradient(mean_log_ratio(log_ratio, mask))[:, None]
    gradient_only = log_ratio - jax.lax.stop_gradient(log_ratio)
    loss = clipped_surrogate(log_s + gradient_only, advantage, low=low, high=high)
    return jnp.where(mask, loss, 0)


def luspo(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"],
    mask: Bool[Array, "R T"],
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Float[Array, "R T"]:
    r"""GSPO with each response weighted by its length (LUSPO).

    .. math:: \ell_i = |y_i|\, \ell_i^\text{GSPO}

    Without the weight, `PerSequence` gives the tokens of a long response less gradient
    each than those of a short one.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response.
      mask: the response tokens that count.
      low: distance of the lower bound of the ratio from 1.
      high: distance of the upper bound of the ratio from 1.

    Returns:
      The loss of the response at each of its tokens.

    Example:
      >>> mask = jnp.array([[True, True, False]])
      >>> luspo(jnp.zeros((1, 3)), jnp.array([1.0]), mask)
      Array([[-2., -2.,  0.]], dtype=float32)
    """
    loss = sequence_clipped_surrogate(log_ratio, advantage, mask, low=low, high=high)
    return loss * mask.sum(axis=-1, keepdims=True).astype(loss.dtype)


def gmpo(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"],
    mask: Bool[Array, "R T"],
    *,
    low: float = 0.4,
    high: float = 0.4,
) -> Float[Array, "R T"]:
    r"""Geometric mean of the clipped ratios of a response's tokens (GMPO).

    .. math:: \ell_i = -A_i \exp\Big(\frac{1}{|y_i|} \sum_t z_{i,t}\Big), \quad
              \sigma = \mathrm{sign}(A_i), \\
              z = \sigma \min(\sigma \log r,\
              \sigma\, \mathrm{clip}(\log r, -\epsilon_l, \epsilon_h))

    arXiv:2507.20673. The clip is per token and in log space.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one per response.
      mask: the response tokens that count.
      low: distance of the lower bound of the log-ratio from 0.
      high: distance of the upper bound of the log-ratio from 0.

    Returns:
      The loss of the response at each of its tokens.

    Example:
      >>> log_ratio, mask = jnp.array([[0.1, 0.9]]), jnp.ones((1, 2), bool)
      >>> gmpo(log_ratio, jnp.array([1.0]), mask)  # -exp((0.1 + 0.4) / 2)
      Array([[-1.2840254, -1.2840254]], dtype=float32)
    """
    advantage = jax.lax.stop_gradient(widened(advantage))[:, None]
    log_ratio = bounded(jnp.where(mask, log_ratio, 0))
    # Compared as in `clipped_surrogate`: no split gradient on a bound.
    z = jnp.where((advantage > 0) & (log_ratio > high), high, log_ratio)
    z = jnp.where((advantage < 0) & (log_ratio < -low), -low, z)
    loss = -advantage * jnp.exp(mean_log_ratio(z, mask))[:, None]
    return jnp.where(mask, loss, 0)
