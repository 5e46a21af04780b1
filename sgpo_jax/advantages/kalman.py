"""Baselines filtered within a group (KRPO)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgpo_jax.advantages.groups import ScoredGroups

# Keeps the quotient finite when both noises are tiny; part of the published formula.
EPS = 1e-8


class KalmanPosterior(NamedTuple):
    """A filter's belief about the reward of a group, after each of its responses.

    Attributes:
      estimate: x_i, 0 where unscored.
      variance: P_i, 0 where unscored.
    """

    estimate: Float[Array, " R"]
    variance: Float[Array, " R"]


def kalman_posterior(
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    process_noise: float = 1e-5,
    observation_noise: float = 1e-2,
) -> KalmanPosterior:
    r"""Filter the rewards of each group in the order of the responses.

    .. math:: P^- = P + Q, \quad K = P^- / (P^- + V), \quad
              x \leftarrow x + K (R_i - x), \quad P \leftarrow (1 - K) P^-

    A random walk in one dimension, started from x = 0, P = 1 in every group. KRPO
    (arXiv:2505.07527) and its reference code, whose defaults these are.

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      process_noise: Q.
      observation_noise: V.

    Returns:
      The belief after each response was seen. It never settles exactly, not even on
      constant rewards.

    Example:
      >>> rewards, group_id = jnp.array([1.0]), jnp.array([0])
      >>> noise = {"process_noise": 0.0, "observation_noise": 0.25}
      >>> kalman_posterior(rewards, group_id, num_groups=1, **noise)
      KalmanPosterior(estimate=Array([0.8], dtype=float32),
                      variance=Array([0.19999999], dtype=float32))
    """
    groups = ScoredGroups.of(rewards, group_id, num_groups)
    return _filter(groups, process_noise, observation_noise)


def kalman(
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    process_noise: float = 1e-5,
    observation_noise: float = 1e-2,
) -> Float[Array, " R"]:
    r"""Reward in posterior standard deviations from a filtered baseline (KRPO).

    .. math:: A_i = (R_i - x_i) / (\sqrt{P_i} + 10^{-8})

    with the belief x, P after seeing R_i: see `kalman_posterior`. The advantages depend
    on the order of the responses and do not sum to 0; the first shrinks most.
    `kalman_averaged` has neither problem. Unlike in the published form, groups of
    equal rewards give 0.

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      process_noise: Q.
      observation_noise: V.

    Returns:
      One advantage per response, exactly 0 where `is_live` is False.

    Example:
      >>> rewards = jnp.array([1.0, 0.0, 1.0])
      >>> kalman(rewards, jnp.zeros(3, int), num_groups=1).round(3)
      Array([ 0.1      , -7.0480003,  5.815    ], dtype=float32)
    """
    groups = ScoredGroups.of(rewards, group_id, num_groups)
    estimate, variance = _filter(groups, process_noise, observation_noise)
    scale = jnp.sqrt(jnp.where(groups.live, variance, 1)) + EPS
    return jnp.where(groups.live, (groups.rewards - estimate) / scale, 0)


def kalman_averaged(
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    process_noise: float = 1e-5,
    observation_noise: float = 1e-2,
) -> Float[Array, " R"]:
    r"""Mean of `kalman` over all orders of a group's responses.

    Gains and variances depend on the position t of a response, not on rewards, and
    the filter is linear. So the mean over all n! orders is exact and cheap:

    .. math:: A_i = \frac{1}{n} \sum_{t=1}^{n} \frac{1 - K_t}{\sqrt{P_t} + 10^{-8}}
              \left( R_i - \Big(1 - \prod_{s<t} (1 - K_s)\Big) \bar R_{-i} \right)

    where R_{-i} is the mean of the other rewards of the group.

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      process_noise: Q.
      observation_noise: V.

    Returns:
      One advantage per response, exactly 0 where `is_live` is False.

    Example:
      >>> rewards = jnp.array([1.0, 0.0])
      >>> kalman_averaged(rewards, jnp.zeros(2, int), num_groups=1).round(3)
      Array([ 3.6090002, -3.5240002], dtype=float32)
    """
    groups = ScoredGroups.of(rewards, group_id, num_groups)
    own, others = _position_means(
        rewards.shape[0], process_noise, observation_noise, groups.rewards.dtype
    )
    size = groups.size.astype(jnp.int32)
    total = groups.sum(groups.rewards)
    mean_of_others = (total - groups.rewards) / jnp.maximum(groups.size - 1, 1)
    advantage = own[size] * groups.rewards - others[size] * mean_of_others
    return jnp.where(groups.live, advantage, 0)


def _filter(
    groups: ScoredGroups, process_noise: float, observation_noise: float
) -> KalmanPosterior:
    def observe(belief, response):
        estimate, variance = belief
        reward, group = response
        gain, after = _gain(variance[group], process_noise, observation_noise)
        updated = estimate[group] + gain * (reward - estimate[group])
        # Unscored responses have the id num_groups: reads clamp, writes are dropped.
        estimate = estimate.at[group].set(updated, mode="drop")
        variance = variance.at[group].set(after, mode="drop")
        return (estimate, variance), (updated, after)

    start = jnp.zeros(groups.num_groups, groups.rewards.dtype)
    _, (estimate, variance) = jax.lax.scan(
        observe, (start, start + 1), (groups.rewards, groups.group_id)
    )
    return KalmanPosterior(
        jnp.where(groups.scored, estimate, 0), jnp.where(groups.scored, variance, 0)
    )


def _position_means(
    count: int, process_noise: float, observation_noise: float, dtype: jnp.dtype
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Coefficients of a reward and of the others' mean, by group size 0 .. count."""

    def observe(carry, _):
        variance, prior_weight = carry
        gain, after = _gain(variance, process_noise, observation_noise)
        own = (1 - gain) / (jnp.sqrt(after) + EPS)
        others = own * (1 - prior_weight)
        return (after, prior_weight * (1 - gain)), (own, others)

    one = jnp.ones((), dtype)
    _, coefficients = jax.lax.scan(observe, (one, one), length=count)
    size = jnp.maximum(jnp.arange(count + 1), 1).astype(dtype)
    own, others = (
        jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(c)]) / size
        for c in coefficients
    )
    return own, others


def _gain(
    variance: Float[Array, ""], process_noise: float, observation_noise: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the gain of the next observation and the variance after it."""
    predicted = variance + process_noise
    gain = predicted / (predicted + observation_noise)
    return gain, (1 - gain) * predicted
