"""Objectives on whole responses, by regression instead of policy gradient.

They take the log-ratio of each response, Delta_i = `sequence_log_ratio`, and return a
loss per response [R], 0 where the reward is NaN. To average them:
`aggregate(loss[:, None], scored[:, None], aggregation=PerSequence())`, or `PerGroup`.

This is where generative flow networks enter. A partial answer has exactly one parent,
the answer without its last token, so the backward policy of an autoregressive model is
1. Trajectory-likelihood maximization (arXiv:2410.15474), which learns the backward
policy, has nothing left to learn, and trajectory balance reduces to the losses below:
with a learnt normalizer (`trajectory_balance`, `flow_balance`) or with the group's own
(`vargrad`). Regression on pairs (`rebel`) is the same object: see `vargrad`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgpo_jax.losses.aggregation import Groups
from sgpo_jax.losses.ratios import widened


def rebel_pairs(
    log_ratio: tuple[Float[Array, " N"], Float[Array, " N"]],
    rewards: tuple[Float[Array, " N"], Float[Array, " N"]],
    *,
    eta: float = 1.0,
) -> Float[Array, " N"]:
    r"""Regress the difference of rewards on the difference of log-ratios (REBEL).

    .. math:: \big( (\Delta - \Delta') - \eta (R - R') \big)^2

    Gao et al. 2024 (arXiv:2404.16767), in the scale of its reference code; the paper
    divides the difference by eta instead, a factor of eta^2 in the loss.

    Args:
      log_ratio: log-ratios of the first and of the second response of each pair.
      rewards: rewards of the first and of the second; NaN where unscorable.
      eta: step size; large values trust the rewards.

    Returns:
      The loss of each pair, 0 where a reward is NaN.

    Example:
      >>> log_ratio = jnp.array([0.5]), jnp.array([0.0])
      >>> rebel_pairs(log_ratio, (jnp.array([1.0]), jnp.array([0.0])))
      Array([0.25], dtype=float32)
    """
    scored = jnp.isfinite(rewards[0]) & jnp.isfinite(rewards[1])
    first, second = (
        _residual(d, r, scored, scale=eta)
        for d, r in zip(log_ratio, rewards, strict=True)
    )
    return (first - second) ** 2


def rebel(
    log_ratio: Float[Array, " R"],
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    eta: float = 1.0,
) -> Float[Array, " R"]:
    r"""`rebel_pairs` over all pairs of a group, at the cost of its responses.

    .. math:: \ell_i = 2 (u_i - \bar u_g)^2, \quad u_i = \Delta_i - \eta R_i

    The mean over a group is the mean over its ordered pairs, a response paired with
    itself included: both are twice the population variance of u.

    Args:
      log_ratio: log-ratio of each response.
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      eta: step size.

    Returns:
      The share of each response, 0 where unscored or alone in its group. A group of
      equal rewards is not 0 in general: it pulls its log-ratios together.

    Example:
      >>> log_ratio, rewards = jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0])
      >>> rebel(log_ratio, rewards, jnp.zeros(2, int), num_groups=1)
      Array([0.125, 0.125], dtype=float32)
    """
    groups = Groups(group_id, num_groups)
    scored = _scored(rewards, groups)
    residual = _residual(log_ratio, rewards, scored, scale=eta)
    return 2 * (residual - _mean(residual, scored, groups)) ** 2


def vargrad(
    log_ratio: Float[Array, " R"],
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    beta: float,
) -> Float[Array, " R"]:
    r"""Trajectory balance with the normalizer estimated from the group (VarGrad).

    .. math:: \ell_i = (\log \hat Z_g + u_i)^2, \quad
              u_i = \Delta_i - R_i / \beta, \quad
              \log \hat Z_g = -\frac{1}{G} \sum_j \mathrm{sg}[u_j]

    The loss of TBA (arXiv:2503.18929), with Delta against the reference policy; it
    tolerates off-policy responses. Value and gradient of the group's mean are those of
    the variance of u, and so of half of `rebel` with eta = 1 / beta.

    Args:
      log_ratio: log-ratio of each response, policy over reference.
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      beta: strength of the reference, in units of reward per nat.

    Returns:
      The loss of each response, 0 where unscored or alone in its group.

    Example:
      >>> log_ratio, rewards = jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0])
      >>> vargrad(log_ratio, rewards, jnp.zeros(2, int), num_groups=1, beta=1.0)
      Array([0.0625, 0.0625], dtype=float32)
    """
    groups = Groups(group_id, num_groups)
    scored = _scored(rewards, groups)
    residual = _residual(log_ratio, rewards, scored, scale=1 / beta)
    mean = _mean(jax.lax.stop_gradient(residual), scored, groups)
    return (residual - mean) ** 2


def trajectory_balance(
    log_ratio: Float[Array, " R"],
    rewards: Float[Array, " R"],
    log_z: Float[Array, " R"],
    *,
    beta: float,
) -> Float[Array, " R"]:
    r"""Trajectory balance with a learnt normalizer.

    .. math:: \ell_i = (\log Z(x_i) + \Delta_i - R_i / \beta)^2

    Malkin et al. 2022 (arXiv:2201.13259), for a backward policy of 1 and the target
    pi_ref exp(R / beta).

    Args:
      log_ratio: log-ratio of each response, policy over reference.
      rewards: one reward per response; NaN in padding slots and where unscorable.
      log_z: log-normalizer of each response's prompt, differentiated through.
      beta: strength of the reference, in units of reward per nat.

    Returns:
      The loss of each response, 0 where unscored.

    Example:
      >>> trajectory_balance(
      ...     jnp.array([0.5]), jnp.array([1.0]), jnp.array([0.25]), beta=2.0
      ... )
      Array([0.0625], dtype=float32)
    """
    scored = jnp.isfinite(rewards)
    residual = _residual(log_ratio, rewards, scored, scale=1 / beta)
    return (jnp.where(scored, widened(log_z), 0) + residual) ** 2


def flow_balance(
    mean_log_ratio: Float[Array, " R"],
    rewards: Float[Array, " R"],
    log_z: Float[Array, " R"],
    log_weight: Float[Array, " R"],
    *,
    beta: float = 15.0,
    max_weight: float = 10.0,
) -> Float[Array, " R"]:
    r"""Length-normalized trajectory balance with importance weights (FlowRL).

    .. math:: \ell_i = w_i \Big(\log Z(x_i) + \frac{\Delta_i}{|y_i|} - \beta \hat R_i
              \Big)^2, \quad w_i = \mathrm{sg}[\min(e^{\omega_i}, C)]

    Zhu et al. 2025 (arXiv:2509.15207).

    Args:
      mean_log_ratio: length-normalized log-ratio of each response, policy over
        reference.
      rewards: `standardized` rewards; NaN in padding slots and where unscorable.
      log_z: log-normalizer of each response's prompt, differentiated through.
      log_weight: log-ratio of each response, new over old policy; 0 on policy.
      beta: scale of the rewards.
      max_weight: the largest weight C.

    Returns:
      The loss of each response, 0 where unscored.

    Example:
      >>> one = jnp.ones(1)
      >>> flow_balance(one, one, 2 * one, 0 * one, beta=2.0)
      Array([1.], dtype=float32)
    """
    weight = jax.lax.stop_gradient(
        jnp.minimum(jnp.exp(jnp.minimum(widened(log_weight), 20)), max_weight)
    )
    balance = trajectory_balance(mean_log_ratio, rewards, log_z, beta=1 / beta)
    return jnp.where(jnp.isfinite(rewards), weight, 0) * balance


def dro(
    log_ratio: Float[Array, " R"], advantage: Float[Array, " R"], *, beta: float
) -> Float[Array, " R"]:
    r"""Policy gradient with a quadratic penalty on the log-ratio (DRO).

    .. math:: \ell_i = -\Big(\Delta_i A_i - \frac{\beta}{2} \Delta_i^2\Big)

    After Richemond et al. 2024 (arXiv:2405.19107), whose value estimate enters through
    the advantage. The paper writes log pi in the first term where we write Delta: the
    same gradient.

    Args:
      log_ratio: log-ratio of each response, policy over reference.
      advantage: one per response; no gradient flows into it.
      beta: strength of the penalty.

    Returns:
      The loss of each response; least at Delta = A / beta.

    Example:
      >>> dro(jnp.array([0.5]), jnp.array([1.0]), beta=2.0)
      Array([-0.25], dtype=float32)
    """
    log_ratio = widened(log_ratio)
    advantage = jax.lax.stop_gradient(widened(advantage))
    return -(log_ratio * advantage - beta / 2 * log_ratio**2)


def _residual(
    log_ratio: Float[Array, " R"],
    rewards: Float[Array, " R"],
    scored: Bool[Array, " R"],
    *,
    scale: float,
) -> Float[Array, " R"]:
    """Delta - scale R where scored, else 0; masked before any arithmetic."""
    rewards = jax.lax.stop_gradient(jnp.where(scored, widened(rewards), 0))
    return jnp.where(scored, widened(log_ratio), 0) - scale * rewards


def _scored(rewards: Float[Array, " R"], groups: Groups) -> Bool[Array, " R"]:
    inside = (groups.group_id >= 0) & (groups.group_id < groups.num_groups)
    return jnp.isfinite(rewards) & inside


def _mean(
    values: Float[Array, " R"], scored: Bool[Array, " R"], groups: Groups
) -> Float[Array, " R"]:
    """Mean over the scored responses of each group; 0 at the others."""
    count = groups.sum(scored.astype(values.dtype))
    mean = groups.sum(jnp.where(scored, values, 0)) / jnp.maximum(count, 1)
    return jnp.where(scored, mean, 0)
