"""Baselines that are carried across steps, one per query.

A tracker remembers how well each query has gone so far, starting from a profile. The
advantage of a response is its reward minus that memory, so no group is ever dead and
a group may hold a single response. The idea of a tracker per query, started from a few
samples, is that of Single-stream Policy Optimization (arXiv:2509.13232).
"""

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from sgpo_jax.advantages.groups import is_scored
from sgpo_jax.bounds import NonNegative, Positive, Share, bounded


@runtime_checkable
class Tracker(Protocol):
    """Baseline tracker: prior and update of a success-rate belief per query.

    The belief itself is a pytree of arrays [Q]; like an optimizer's state it is
    handed in and out.
    """

    def init(self, successes: Num[Array, " Q"], samples: Num[Array, " Q"]) -> Any:
        """Start from `successes` out of `samples` profiling responses per query.

        Both 0 for a query that was not profiled.
        """
        ...

    def mean(self, state: Any) -> Float[Array, " Q"]:
        """Return the expected reward of each query."""
        ...

    def weight(self, state: Any) -> Float[Array, " Q"]:
        """Return how many rewards of its query each mean is worth."""
        ...

    def update(
        self, state: Any, rewards: Float[Array, " R"], query_id: Int[Array, " R"]
    ) -> Any:
        """Return the belief after a step's rewards; unscored ones are ignored.

        A tracker that needs "drift" is also given that keyword: the movement of the
        policy since the run began, in mean absolute log-probability per token.
        """
        ...


class BetaState(NamedTuple):
    """Pseudo-counts of a Beta distribution per query.

    Attributes:
      successes: a, above 0.
      failures: b, above 0.
    """

    successes: Float[Array, " Q"]
    failures: Float[Array, " Q"]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class BetaTracker:
    r"""A Beta distribution over the success rate of each query, with forgetting.

    .. math:: a \leftarrow \gamma a + \sum_i R_i, \quad
              b \leftarrow \gamma b + \sum_i (1 - R_i), \quad m = a / (a + b)

    over the responses a query got in this step, if any. Forgetting acts once a visit,
    not once a response: it stands for the change of the policy between visits. A
    query that was not visited keeps its state. Rewards outside [0, 1] count as the
    nearer end, so that counts stay positive; `KalmanTracker` takes any scale.

    Attributes:
      forgetting: gamma, the share of the old counts kept at a visit.
      prior: pseudo-counts of success and of failure; 1/2 is Jeffreys' prior.
      profile_weight: what a sample of the profile counts; 0 starts without a profile.

    Example:
      >>> tracker = BetaTracker()
      >>> state = tracker.init(jnp.array([0, 4]), jnp.array([8, 8]))
      >>> tracker.mean(state)
      Array([0.05555556, 0.5       ], dtype=float32)
      >>> tracker.mean(tracker.update(state, jnp.array([1.0]), jnp.array([0])))
      Array([0.15934068, 0.5       ], dtype=float32)
    """

    forgetting: Share = 0.9
    prior: Positive = 0.5
    profile_weight: NonNegative = 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        """A profile, if it counts."""
        return ("profile",) if self.profile_weight else ()

    def init(self, successes: Num[Array, " Q"], samples: Num[Array, " Q"]) -> BetaState:
        """Start from the posterior of a profile."""
        successes = self.profile_weight * successes.astype(jnp.float32)
        failures = self.profile_weight * samples.astype(jnp.float32) - successes
        return BetaState(successes + self.prior, failures + self.prior)

    def mean(self, state: BetaState) -> Float[Array, " Q"]:
        """Return the expected success rate of each query."""
        return state.successes / (state.successes + state.failures)

    def weight(self, state: BetaState) -> Float[Array, " Q"]:
        """Return the pseudo-counts a + b of each query."""
        return state.successes + state.failures

    def update(
        self, state: BetaState, rewards: Float[Array, " R"], query_id: Int[Array, " R"]
    ) -> BetaState:
        """Return the counts after this step's rewards."""
        return add_visits(state, rewards, query_id, keep=self.forgetting).state


class Visited(NamedTuple):
    """Result of `add_visits`.

    Attributes:
      state: pseudo-counts after the rewards.
      scored: scored rewards of each query.
    """

    state: BetaState
    scored: Float[Array, " Q"]


def add_visits(
    state: BetaState,
    rewards: Float[Array, " R"],
    query_id: Int[Array, " R"],
    *,
    keep: Float[Array, " Q"] | float,
) -> Visited:
    """Add the rewards of a step to pseudo-counts, of which visits keep a share.

    Args:
      state: pseudo-counts.
      rewards: one per response; NaN where unscorable.
      query_id: row of each response's query; out of range in padding.
      keep: share of the old counts that a visit keeps.
    """
    # Clipping would make an infinite reward, which is unscored, a finite one.
    bounded = jnp.where(jnp.isfinite(rewards), jnp.clip(rewards, 0, 1), jnp.nan)
    count, total = _visits(bounded, query_id, state.successes)
    kept = jnp.where(count > 0, keep, 1.0)
    counts = BetaState(
        kept * state.successes + total, kept * state.failures + count - total
    )
    return Visited(counts, count)


class KalmanState(NamedTuple):
    """A Gaussian belief per query.

    Attributes:
      estimate: m, the expected reward.
      variance: P, its uncertainty.
    """

    estimate: Float[Array, " Q"]
    variance: Float[Array, " Q"]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class KalmanTracker:
    r"""A Gaussian belief about the expected reward of each query, a random walk.

    .. math:: P^- = P + Q, \quad P = (1 / P^- + n / V)^{-1}, \quad
              m \leftarrow m + (P n / V) (\bar R - m)

    for the n > 0 responses a query got in this step, with process noise Q and
    observation noise V: the scalar Kalman filter of KRPO (arXiv:2505.07527), carried
    across steps and started from a profile. A query not visited keeps its state.

    Attributes:
      process_noise: Q, the drift per visit. With V = 0.25, the default ends at a gain
        of 0.1 for one response per visit, the memory of `BetaTracker`'s default.
      observation_noise: V, the variance of one reward; 0.25 is the largest a binary
        reward can have.
      prior: pseudo-counts of success and of failure of the Beta posterior whose mean
        and variance start the filter.
      profile_weight: what a sample of the profile counts; 0 starts without a profile.

    Example:
      >>> KalmanTracker().init(jnp.array([4]), jnp.array([8]))
      KalmanState(estimate=Array([0.5], dtype=float32),
                  variance=Array([0.025], dtype=float32))
    """

    process_noise: Positive = 1 / 360
    observation_noise: Positive = 0.25
    prior: Positive = 0.5
    profile_weight: NonNegative = 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        """A profile, if it counts."""
        return ("profile",) if self.profile_weight else ()

    def init(
        self, successes: Num[Array, " Q"], samples: Num[Array, " Q"]
    ) -> KalmanState:
        """Start from the mean and variance of the Beta posterior of a profile."""
        weight = self.profile_weight
        count = weight * samples.astype(jnp.float32) + 2 * self.prior
        mean = (weight * successes.astype(jnp.float32) + self.prior) / count
        return KalmanState(mean, mean * (1 - mean) / (count + 1))

    def mean(self, state: KalmanState) -> Float[Array, " Q"]:
        """Return the expected reward of each query."""
        return state.estimate

    def weight(self, state: KalmanState) -> Float[Array, " Q"]:
        """Return V / P, the rewards that are as precise as each estimate."""
        return self.observation_noise / state.variance

    def update(
        self,
        state: KalmanState,
        rewards: Float[Array, " R"],
        query_id: Int[Array, " R"],
    ) -> KalmanState:
        """Return the belief after this step's rewards."""
        count, total = _visits(rewards, query_id, state.estimate)
        precision = 1 / (state.variance + self.process_noise)
        variance = 1 / (precision + count / self.observation_noise)
        gain = variance / self.observation_noise
        return KalmanState(
            state.estimate + gain * (total - count * state.estimate),
            jnp.where(count > 0, variance, state.variance),
        )


def tracked(
    rewards: Float[Array, " R"],
    query_id: Int[Array, " R"],
    state: Any,
    *,
    tracker: Tracker = BetaTracker(),
) -> tuple[Float[Array, " R"], Any]:
    r"""Reward minus the query's baseline from before this step.

    .. math:: A_i = R_i - m_{q(i)}

    The baseline m is read before the rewards of this step update it, so it does not
    depend on the response it judges and the policy gradient stays unbiased. Combine
    with `whiten(..., center=False)` to fix the scale of a step.

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      query_id: the row of each response's query in the state, several responses may
        share one; out of range in padding.
      state: the belief about the queries, from `tracker.init`.
      tracker: how the belief is read and updated.

    Returns:
      One advantage per response, exactly 0 where unscored, and the updated state.

    Example:
      >>> state = BetaTracker().init(jnp.array([6.5]), jnp.array([9.0]))
      >>> rewards = jnp.array([1.0, 0.0, jnp.nan])
      >>> advantage, state = tracked(rewards, jnp.zeros(3, int), state)
      >>> advantage
      Array([ 0.3, -0.7,  0. ], dtype=float32)
    """
    mean = tracker.mean(state)
    scored = is_scored(rewards, query_id, num_groups=mean.shape[0])
    rewards = rewards.astype(mean.dtype)
    baseline = jnp.take(mean, query_id, mode="clip")
    advantage = jnp.where(scored, rewards - baseline, 0)
    return advantage, tracker.update(state, rewards, query_id)


def _visits(
    rewards: Float[Array, " R"], query_id: Int[Array, " R"], like: Float[Array, " Q"]
) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
    """Count and sum the scored rewards of each query."""
    num_queries = like.shape[0]
    scored = is_scored(rewards, query_id, num_groups=num_queries)
    query_id = jnp.where(scored, query_id, num_queries)
    rewards = jnp.where(scored, rewards, 0).astype(like.dtype)
    count = jax.ops.segment_sum(scored.astype(like.dtype), query_id, num_queries)
    return count, jax.ops.segment_sum(rewards, query_id, num_queries)
