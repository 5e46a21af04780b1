"""Log-ratios of policies, and weights made of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# exp(20) = 5e8: far beyond any useful ratio, and still finite when squared in float32.
MAX_LOG_RATIO = 20.0


def log_ratio(
    log_prob: Float[Array, "R T"],
    old_log_prob: Float[Array, "R T"],
    mask: Bool[Array, "R T"],
) -> Float[Array, "R T"]:
    r"""Log of the ratio between two policies, exactly 0 where masked out.

    .. math:: \log r_{i,t} = \log \pi_\theta(y_{i,t}) - \log \pi_\text{old}(y_{i,t})

    Every loss starts here: this is where padding becomes inert. Whatever the masked
    cells hold, NaN included, reaches neither a loss nor a gradient.

    Args:
      log_prob: log-probability of each token under the policy in training.
      old_log_prob: the same under another policy; no gradient flows into it.
      mask: the response tokens that count.

    Returns:
      The log-ratio in float32, at most 20 in magnitude.

    Example:
      >>> log_prob, old = jnp.array([[-1.0, jnp.nan]]), jnp.array([[-1.5, 0.0]])
      >>> log_ratio(log_prob, old, jnp.array([[True, False]]))
      Array([[0.5, 0. ]], dtype=float32)
    """
    old_log_prob = jax.lax.stop_gradient(old_log_prob)
    difference = widened(log_prob) - widened(old_log_prob)
    return bounded(jnp.where(mask, difference, 0))


def sequence_log_ratio(
    log_ratio: Float[Array, "R T"], mask: Bool[Array, "R T"]
) -> Float[Array, " R"]:
    r"""Log-ratio of whole responses, the sum over their tokens.

    .. math:: \Delta_i = \sum_t m_{i,t} \log r_{i,t}

    Args:
      log_ratio: log-ratio (or log-probability) of each token.
      mask: the response tokens that count.

    Example:
      >>> mask = jnp.array([[True, True, False]])
      >>> sequence_log_ratio(jnp.array([[1.0, 2.0, jnp.nan]]), mask)
      Array([3.], dtype=float32)
    """
    return jnp.where(mask, widened(log_ratio), 0).sum(axis=-1)


def mean_log_ratio(
    log_ratio: Float[Array, "R T"], mask: Bool[Array, "R T"]
) -> Float[Array, " R"]:
    r"""Length-normalized log-ratio of whole responses.

    .. math:: \log s_i = \frac{1}{|y_i|} \sum_t m_{i,t} \log r_{i,t}

    The logarithm of the importance ratio of GSPO (arXiv:2507.18071). A response
    without tokens gives 0.

    Args:
      log_ratio: log-ratio (or log-probability) of each token.
      mask: the response tokens that count.

    Example:
      >>> mask = jnp.array([[True, True, False]])
      >>> mean_log_ratio(jnp.array([[1.0, 2.0, jnp.nan]]), mask)
      Array([1.5], dtype=float32)
    """
    total = sequence_log_ratio(log_ratio, mask)
    return total / jnp.maximum(mask.sum(axis=-1), 1).astype(total.dtype)


def truncated_weight(
    log_ratio: Float[Array, "..."], *, high: float = 2.0
) -> Float[Array, "..."]:
    r"""Truncated importance weight, to correct for a sampler unlike the trainer.

    .. math:: w = \mathrm{sg}[\min(r, C)]

    Multiply it into a per-token loss. On the log-ratio of tokens this is truncated
    importance sampling per token; on that of responses (`sequence_log_ratio`, then
    `[:, None]`), per sequence.

    Args:
      log_ratio: log of the old trainer policy over the sampler's policy.
      high: the largest weight C.

    Returns:
      The weight, a constant to differentiation.

    Example:
      >>> truncated_weight(jnp.log(jnp.array([0.5, 4.0])))
      Array([0.5, 2. ], dtype=float32)
    """
    return jnp.minimum(jnp.exp(bounded(jax.lax.stop_gradient(log_ratio))), high)


def masked_weight(
    log_ratio: Float[Array, "..."], *, low: float = 0.5, high: float = 2.0
) -> Float[Array, "..."]:
    r"""Importance weight that drops what is outside a band (IcePop).

    .. math:: w = \mathrm{sg}[r\, 1(l \le r \le h)]

    Args:
      log_ratio: log of the old trainer policy over the sampler's policy.
      low: the smallest ratio kept.
      high: the largest ratio kept.

    Returns:
      The weight, a constant to differentiation; 0 outside the band.

    Example:
      >>> masked_weight(jnp.log(jnp.array([0.25, 1.0, 4.0])))
      Array([0., 1., 0.], dtype=float32)
    """
    ratio = jnp.exp(bounded(jax.lax.stop_gradient(log_ratio)))
    return jnp.where((ratio >= low) & (ratio <= high), ratio, 0)


def off_policy_mask(
    log_ratio: Float[Array, "R T"],
    advantage: Float[Array, " R"],
    mask: Bool[Array, "R T"],
    *,
    threshold: float,
) -> Bool[Array, " R"]:
    r"""Mask of responses to keep: all but bad ones the policy has moved away from.

    .. math:: \text{drop } i \iff A_i < 0 \text{ and }
              \frac{1}{|y_i|} \sum_t -\log r_{i,t} > \delta

    The sequence mask of DeepSeek-V3.2. Combine it with the loss mask.

    Args:
      log_ratio: log-ratio of each token, new over old.
      advantage: one advantage per response.
      mask: the response tokens that count.
      threshold: delta, the largest mean divergence tolerated.

    Example:
      >>> log_ratio = jnp.array([[-2.0, -1.0], [-2.0, -1.0]])
      >>> mask = jnp.ones((2, 2), bool)
      >>> off_policy_mask(log_ratio, jnp.array([1.0, -1.0]), mask, threshold=1.0)
      Array([ True, False], dtype=bool)
    """
    divergence = -mean_log_ratio(jax.lax.stop_gradient(log_ratio), mask)
    return ~((advantage < 0) & (divergence > threshold))


def bounded(log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
    """Widen, and keep within the range of a useful ratio."""
    x = widened(log_ratio)
    # Not `clip`, which halves the gradient of what lies exactly on a bound.
    return jnp.where(jnp.abs(x) > MAX_LOG_RATIO, jnp.sign(x) * MAX_LOG_RATIO, x)


def widened(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Widen bfloat16 and float16 to float32; leave float64 alone."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
