"""Regression on the optimal advantage of prompts that were profiled (A*-PO)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax.losses.ratios import widened


def a_star_po(
    log_ratio: Float[Array, " R"],
    rewards: Float[Array, " R"],
    value: Float[Array, " R"],
    *,
    beta: float = 1e-3,
) -> Float[Array, " R"]:
    r"""Regress the optimal advantage, one response per prompt (A*-PO).

    .. math:: \ell_i = (\beta \Delta_i - (R_i - V^*(x_i)))^2

    Brantley et al. 2025 (arXiv:2505.20686), second stage. The first stage is
    `optimal_value` of a profile.

    Args:
      log_ratio: log-ratio of each response, policy over reference.
      rewards: one reward per response; NaN in padding slots and where unscorable.
      value: optimal value of each response's prompt.
      beta: strength of the reference in this stage.

    Returns:
      The loss of each response, 0 where unscored.

    Example:
      >>> one = jnp.ones(1)
      >>> a_star_po(2 * one, one, 0.5 * one, beta=0.5)
      Array([0.25], dtype=float32)
    """
    scored = jnp.isfinite(rewards)
    optimal = jax.lax.stop_gradient(widened(rewards) - widened(value))
    # Masked before the square, so that the gradient of an unscored response is 0.
    return jnp.where(scored, beta * widened(log_ratio) - optimal, 0) ** 2


def optimal_value(
    success_rate: Float[Array, "..."], *, beta: float = 0.5
) -> Float[Array, "..."]:
    r"""Value of the best policy near the reference, for binary rewards.

    .. math:: V^* = \beta \log E_\text{ref}[e^{R / \beta}]
                  = \beta \log(1 + p\,(e^{1 / \beta} - 1))

    Brantley et al. 2025 (arXiv:2505.20686), first stage, estimated from the success
    rate that a profile of the reference policy holds.

    Args:
      success_rate: success rate p of the reference on each prompt.
      beta: strength of the reference in this stage.

    Returns:
      The value of each prompt, in [0, 1].

    Raises:
      ValueError: beta is not positive and finite.

    Example:
      >>> optimal_value(jnp.array([0.0, 0.5, 1.0]))
      Array([0.       , 0.7168904, 1.       ], dtype=float32)
    """
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be positive and finite, got {beta}")
    rate = widened(success_rate)
    if 1 / beta < 40:
        return beta * jnp.log1p(rate * jnp.expm1(1 / beta))
    # The same for a small beta, whose exponential has no float32.
    return beta * jnp.logaddexp(jnp.log1p(-rate), jnp.log(rate) + 1 / beta)
