"""Statistics of groups of responses, given by integer ids.

One rule for everything that does not count, here and in every advantage:

* A response is *scored* if its reward is finite and its group id is in
  [0, num_groups). Padding slots and answers no verifier could judge carry NaN.
* A scored response is *live* if its group has two scored responses that differ.
* Only scored responses enter a statistic; only live ones have an advantage other than
  exactly 0.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class ScoredGroups:
    """Rewards by group, with unscored responses taken out.

    Every statistic has shape [R]: each response holds the value of its own group, and
    unscored responses hold 0.
    """

    rewards: Float[Array, " R"]
    scored: Bool[Array, " R"]
    group_id: Int[Array, " R"]
    num_groups: int

    @classmethod
    def of(
        cls, rewards: Float[Array, " R"], group_id: Int[Array, " R"], num_groups: int
    ) -> "ScoredGroups":
        """Read rewards in at least float32 and set unscored ones to 0."""
        if rewards.dtype.itemsize < 4:
            rewards = rewards.astype(jnp.float32)
        scored = is_scored(rewards, group_id, num_groups=num_groups)
        # Segment sums drop the id num_groups, and only that one: -1 would wrap around.
        group_id = jnp.where(scored, group_id, num_groups)
        return cls(jnp.where(scored, rewards, 0), scored, group_id, num_groups)

    def sum(self, values: Float[Array, " R"]) -> Float[Array, " R"]:
        """Sum over the scored responses of the group."""
        values = jnp.where(self.scored, values, 0)
        return self._spread(jax.ops.segment_sum(values, self.group_id, self.num_groups))

    def max(self, values: Float[Array, " R"]) -> Float[Array, " R"]:
        """Maximum over the scored responses of the group."""
        values = jnp.where(self.scored, values, -jnp.inf)
        return self._spread(jax.ops.segment_max(values, self.group_id, self.num_groups))

    def mean(self, values: Float[Array, " R"]) -> Float[Array, " R"]:
        """Mean over the scored responses of the group."""
        return self.sum(values) / jnp.maximum(self.size, 1)

    def std(self, *, ddof: int) -> Float[Array, " R"]:
        """Standard deviation of the group's rewards; 0 where the group is not live."""
        # Two passes: E[x^2] - E[x]^2 loses all digits when rewards are nearly equal.
        variance = self.sum(self.deviation**2) / jnp.maximum(self.size - ddof, 1)
        # The inner where keeps the gradient of sqrt at 0 from turning into NaN.
        return jnp.where(self.live, jnp.sqrt(jnp.where(self.live, variance, 1)), 0)

    @functools.cached_property
    def size(self) -> Float[Array, " R"]:
        """Number of scored responses in the group."""
        return self.sum(jnp.ones_like(self.rewards))

    @functools.cached_property
    def deviation(self) -> Float[Array, " R"]:
        """Reward minus the mean of its group; exactly 0 where not live."""
        return jnp.where(self.live, self.rewards - self.mean(self.rewards), 0)

    @functools.cached_property
    def live(self) -> Bool[Array, " R"]:
        """Mask of responses whose group has two scored rewards that differ."""
        # Rounding can leave a spurious variance in a group of equal rewards, so the
        # test is equality of the extremes. It also covers groups of one.
        return self.scored & (self.max(self.rewards) != -self.max(-self.rewards))

    def _spread(self, per_group: Float[Array, " P"]) -> Float[Array, " R"]:
        return jnp.take(per_group, self.group_id, mode="fill", fill_value=0)


def is_scored(
    rewards: Float[Array, " R"], group_id: Int[Array, " R"], *, num_groups: int
) -> Bool[Array, " R"]:
    """Mask of scored responses: a finite reward, a group id in [0, num_groups).

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.

    Returns:
      True where the response enters the statistics of its group.

    Example:
      >>> rewards = jnp.array([1.0, jnp.nan, 0.0, 1.0])
      >>> is_scored(rewards, jnp.array([0, 0, 0, 1]), num_groups=1)
      Array([ True, False,  True, False], dtype=bool)
    """
    return jnp.isfinite(rewards) & (group_id >= 0) & (group_id < num_groups)


def is_live(
    rewards: Float[Array, " R"], group_id: Int[Array, " R"], *, num_groups: int
) -> Bool[Array, " R"]:
    """Mask of scored responses whose group has reward variance.

    Responses that are not live have advantage exactly 0 under every group-relative
    advantage. Leave them out of the loss mask to also take them out of the
    denominator (the convention of DAPO, arXiv:2503.14476).

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.

    Returns:
      True where the response can carry a learning signal.

    Example:
      A mixed group, a group whose second answer could not be scored, and a tie:

      >>> rewards = jnp.array([1.0, 0.0, 1.0, jnp.nan, 1.0, 1.0])
      >>> is_live(rewards, jnp.array([0, 0, 1, 1, 2, 2]), num_groups=3)
      Array([ True,  True, False, False, False, False], dtype=bool)
    """
    return ScoredGroups.of(rewards, group_id, num_groups).live


def group_mean(
    rewards: Float[Array, " R"], group_id: Int[Array, " R"], *, num_groups: int
) -> Float[Array, " R"]:
    """Mean reward of each response's group, over scored responses; else 0.

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.

    Example:
      >>> group_mean(jnp.array([1.0, 0.0, jnp.nan]), jnp.array([0, 0, 0]), num_groups=1)
      Array([0.5, 0.5, 0. ], dtype=float32)
    """
    groups = ScoredGroups.of(rewards, group_id, num_groups)
    return groups.mean(groups.rewards)


def group_std(
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    ddof: int = 0,
) -> Float[Array, " R"]:
    """Standard deviation of each response's group; exactly 0 where it is not live.

    Args:
      rewards: one reward per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      ddof: 0 divides by the number of scored responses, 1 by one less.

    Example:
      >>> group_std(jnp.array([1.0, 0.0, 1.0]), jnp.array([0, 0, 1]), num_groups=2)
      Array([0.5, 0.5, 0. ], dtype=float32)
    """
    return ScoredGroups.of(rewards, group_id, num_groups).std(ddof=ddof)
