"""Forgetting of tracked baselines: back to the prior, or as the policy moves."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from sgpo_jax.advantages.tracked import BetaState, BetaTracker, add_visits
from sgpo_jax.bounds import NonNegative, Positive, Share, bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class DiscountedBetaTracker(BetaTracker):
    r"""A Beta distribution per query whose old counts return to the prior.

    .. math:: a \leftarrow \lambda a + (1 - \lambda) a_0 + \sum_i R_i, \quad
              b \leftarrow \lambda b + (1 - \lambda) b_0 + \sum_i (1 - R_i)

    Model Predictive Prompt Selection (MoPPS, arXiv:2507.04632). Unlike `BetaTracker`
    it never forgets the prior, so the distribution stays as wide as the prior is.

    Attributes:
      forgetting: lambda, the share of the old counts kept at a visit.
      prior: pseudo-counts of success and of failure; 1 is the uniform prior.
      profile_weight: what a sample of the profile counts; 0 starts without a profile.

    Example:
      >>> tracker = DiscountedBetaTracker(forgetting=0.5)
      >>> state = tracker.init(jnp.array([0]), jnp.array([0]))
      >>> tracker.update(state, jnp.ones(4), jnp.zeros(4, int))
      BetaState(successes=Array([5.], dtype=float32),
                failures=Array([1.], dtype=float32))
    """

    forgetting: Share = 0.5
    prior: Positive = 1.0
    profile_weight: NonNegative = 0.0

    def update(
        self, state: BetaState, rewards: Float[Array, " R"], query_id: Int[Array, " R"]
    ) -> BetaState:
        """Return the counts after this step's rewards."""
        visited = add_visits(state, rewards, query_id, keep=self.forgetting)
        back = jnp.where(visited.scored > 0, (1 - self.forgetting) * self.prior, 0)
        return BetaState(visited.state.successes + back, visited.state.failures + back)


class DriftState(NamedTuple):
    """Pseudo-counts per query, and where the policy was when they were last touched.

    Attributes:
      successes: a, above 0.
      failures: b, above 0.
      drift: movement of the policy, summed up to the last visit.
    """

    successes: Float[Array, " Q"]
    failures: Float[Array, " Q"]
    drift: Float[Array, " Q"]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class AdaptiveBetaTracker:
    r"""A Beta distribution per query that forgets by how far the policy has moved.

    .. math:: a \leftarrow \rho a + \sum_i R_i, \quad
              b \leftarrow \rho b + \sum_i (1 - R_i), \quad
              \rho = \mathrm{clip}(2^{-D / D_{1/2}}, \rho_{min}, \rho_{max})

    Single-stream Policy Optimization (SPO, arXiv:2509.13232), section 3.1 and its
    reference code, whose defaults these are. There D is the mean absolute change of the
    log-probabilities of the query's last response, from a further forward pass over
    all of them. Here it is the movement of the policy between the two visits, the sum
    over steps of the mean absolute change on what each step trained on: an upper bound
    that needs no stored responses, for one more forward pass as well.

    Attributes:
      half_life: D at which half of the old counts is kept.
      lowest: the smallest share kept; 1 / (1 - lowest) is the shortest memory.
      highest: the largest share kept.
      prior: pseudo-counts of success and of failure.
      strength: pseudo-counts into which the profile of a query is rescaled; 0 starts
        without a profile.

    Example:
      >>> tracker = AdaptiveBetaTracker(lowest=0.5, highest=0.75)
      >>> state = tracker.init(jnp.array([2]), jnp.array([4]))
      >>> one, query = jnp.ones(1), jnp.zeros(1, int)
      >>> tracker.update(state, one, query, drift=jnp.array(0.0)).successes
      Array([4.375], dtype=float32)
      >>> tracker.update(state, one, query, drift=jnp.array(9.0)).successes
      Array([3.25], dtype=float32)
    """

    half_life: Positive = 0.06
    lowest: Share = 0.875
    highest: Share = 0.96
    prior: Positive = 0.5
    strength: NonNegative = 8.0

    def __post_init__(self):
        if self.lowest > self.highest:
            raise ValueError(
                "forgetting needs lowest <= highest, got"
                f" {self.lowest} and {self.highest}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The drift of the policy, and a profile, if it counts."""
        return ("drift", "profile") if self.strength else ("drift",)

    def init(
        self, successes: Num[Array, " Q"], samples: Num[Array, " Q"]
    ) -> DriftState:
        """Start from the success rate of a profile, at a fixed strength."""
        count = samples.astype(jnp.float32)
        scale = jnp.where(count > 0, self.strength / jnp.maximum(count, 1), 0)
        right = scale * successes.astype(jnp.float32)
        wrong = scale * count - right
        return DriftState(right + self.prior, wrong + self.prior, jnp.zeros_like(right))

    def mean(self, state: DriftState) -> Float[Array, " Q"]:
        """Return the expected success rate of each query."""
        return state.successes / (state.successes + state.failures)

    def weight(self, state: DriftState) -> Float[Array, " Q"]:
        """Return the pseudo-counts a + b of each query."""
        return state.successes + state.failures

    def update(
        self,
        state: DriftState,
        rewards: Float[Array, " R"],
        query_id: Int[Array, " R"],
        *,
        drift: Float[Array, ""] | None = None,
    ) -> DriftState:
        """Return the counts after this step's rewards.

        Args:
          state: counts, and the drift at the last visit of each query.
          rewards: one per response.
          query_id: row of each response's query.
          drift: movement of the policy since the run began; None for none since the
            last visits.
        """
        now = state.drift if drift is None else drift.astype(state.drift.dtype)
        moved = 2.0 ** (-(now - state.drift) / self.half_life)
        keep = jnp.clip(moved, self.lowest, self.highest)
        counts = BetaState(state.successes, state.failures)
        visited = add_visits(counts, rewards, query_id, keep=keep)
        return DriftState(
            *visited.state, jnp.where(visited.scored > 0, now, state.drift)
        )
