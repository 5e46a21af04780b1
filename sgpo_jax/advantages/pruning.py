"""Completion pruning (CPPO) and overlong penalty."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num


class Pruned(NamedTuple):
    """Result of `prune_completions`.

    Attributes:
      keep: the responses to train on.
      refill: how many times more prompts fit where the pruned responses were; 1 / (1 -
        rate) if that divides every group, 0 if nothing is kept.
    """

    keep: Bool[Array, " R"]
    refill: Float[Array, ""]


def prune_completions(
    advantage: Float[Array, " R"],
    group_id: Int[Array, " R"],
    mask: Bool[Array, " R"],
    *,
    num_groups: int,
    rate: float = 0.5,
) -> Pruned:
    r"""Keep the responses of largest advantage magnitude in each group (CPPO).

    .. math:: k_g = \max(1, \lfloor G_g (1 - P) \rfloor)

    CPPO (arXiv:2503.22342). Advantages come from the full group, before pruning. Ties
    go to the response that comes first. `keep` is all that packing needs: leave out
    the other responses, and fill the room with `refill` times as many prompts.

    Args:
      advantage: one advantage per response.
      group_id: the group of each response, in any order; out of range in padding.
      mask: the responses that count, for example `is_live`.
      num_groups: number of groups P.
      rate: share of each group to prune P, in [0, 1).

    Raises:
      ValueError: rate is not in [0, 1).

    Example:
      >>> advantage = jnp.array([0.2, -0.9, 0.5, 0.2])
      >>> mask = jnp.ones(4, bool)
      >>> prune_completions(advantage, jnp.zeros(4, int), mask, num_groups=1)
      Pruned(keep=Array([False,  True,  True, False], dtype=bool),
             refill=Array(2., dtype=float32))
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    counted = mask & (group_id >= 0) & (group_id < num_groups)
    group_id = jnp.where(counted, group_id, num_groups)
    ones = counted.astype(jnp.int32)
    size = jax.ops.segment_sum(ones, group_id, num_groups + 1)
    # The margin keeps 10 * (1 - 0.9), which is below 1 in floating point, at 1.
    limit = jnp.floor(size.astype(jnp.float32) * (1 - rate) + 1e-4).astype(jnp.int32)

    # Sorted by group, magnitude and place, a response's rank is its distance from the
    # start of its group.
    position = jnp.arange(advantage.shape[0], dtype=jnp.int32)
    order = jnp.lexsort((position, -jnp.abs(advantage), group_id))
    place = jnp.zeros_like(position).at[order].set(position)
    start = jnp.cumsum(size) - size
    rank = place - start[group_id]
    keep = counted & (rank < jnp.maximum(limit, 1)[group_id])

    kept = keep.sum().astype(jnp.float32)
    refill = counted.sum().astype(jnp.float32) / jnp.maximum(kept, 1)
    return Pruned(keep, refill)


def max_variance(
    rewards: Float[Array, " R"],
    group_id: Int[Array, " R"],
    *,
    num_groups: int,
    keep: int,
) -> Bool[Array, " R"]:
    r"""Responses of each group whose rewards vary most (PODS).

    .. math:: S_g = \arg\max_{|S| = m} \mathrm{Var}(R_S)

    The best m are always some lowest and some highest rewards, so m + 1 sets are tried
    after one sort (arXiv:2504.13818, section 3.2). Binary rewards: half right and half
    wrong, if there are that many. Ties of a reward go to the response that comes first.

    Args:
      rewards: one per response; NaN in padding slots and where unscorable.
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
      keep: responses kept m; all of a group that has no more.

    Returns:
      True for those kept.

    Example:
      >>> rewards = jnp.array([0.0, 1.0, 0.5, 0.25, 0.0])
      >>> max_variance(rewards, jnp.zeros(5, int), num_groups=1, keep=3)
      Array([ True,  True, False, False,  True], dtype=bool)
    """
    scored = jnp.isfinite(rewards) & (group_id >= 0) & (group_id < num_groups)
    group_id = jnp.where(scored, group_id, num_groups)
    value = jnp.where(scored, rewards, 0)
    size = jax.ops.segment_sum(scored.astype(jnp.int32), group_id, num_groups + 1)
    position = jnp.arange(rewards.shape[0], dtype=jnp.int32)
    order = jnp.lexsort((position, value, group_id))
    place = jnp.zeros_like(position).at[order].set(position)
    rank = place - (jnp.cumsum(size) - size)[group_id]

    def lowest(count: Int[Array, " *R"]) -> Bool[Array, " R"]:
        highest = size[group_id] - (keep - count)
        return scored & ((rank < count) | (rank >= highest))

    def spread(count: Int[Array, ""]) -> Float[Array, " P"]:
        chosen = lowest(count)

        def mean(x: Float[Array, " R"]) -> Float[Array, " P"]:
            total = jax.ops.segment_sum(
                jnp.where(chosen, x, 0), group_id, num_groups + 1
            )
            return total / keep

        centered = value - mean(value)[group_id]
        return mean(centered**2)

    counts = jnp.arange(keep + 1, dtype=jnp.int32)
    best = counts[jnp.argmax(jax.vmap(spread)(counts), axis=0)]
    return lowest(best[group_id]) | (scored & (size[group_id] <= keep))


def overlong_penalty(
    lengths: Num[Array, " R"], *, max_length: int = 20_480, cache: int = 4_096
) -> Float[Array, " R"]:
    r"""Penalty to add to the reward of a response near or over the length limit.

    .. math:: \begin{cases} 0 & L \le L_\max - L_c \\
              (L_\max - L_c - L) / L_c & L_\max - L_c < L \le L_\max \\
              -1 & L > L_\max \end{cases}

    The soft overlong punishment of DAPO (arXiv:2503.14476), whose defaults these are.
    Lengths are in tokens, not in characters.

    Args:
      lengths: tokens of each response.
      max_length: the limit.
      cache: width of the zone below the limit in which the penalty grows.

    Returns:
      A number in [-1, 0] per response.

    Raises:
      ValueError: cache is not in (0, max_length].

    Example:
      >>> overlong_penalty(jnp.array([16_384, 18_432, 20_480]))
      Array([-0. , -0.5, -1. ], dtype=float32)
    """
    if not 0 < cache <= max_length:
        raise ValueError(f"cache must be in (0, {max_length}], got {cache}")
    excess = lengths.astype(jnp.float32) - (max_length - cache)
    return -jnp.clip(excess / cache, 0, 1)
