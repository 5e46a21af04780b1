"""Integer budgets split over many queries, where each further rollout is worth less."""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def tie_order(ids: Sequence[str]) -> Int[np.ndarray, " Q"]:
    """Return a rank per query that depends on ids alone, not on the order of rows."""
    codes = np.array([zlib.crc32(id_.encode()) for id_ in ids], np.int64)
    return np.lexsort((np.asarray(ids, str), codes)).argsort()


def split_budget(
    gains: Float[np.ndarray, "D M"],
    index: Int[np.ndarray, " Q"],
    rank: Int[np.ndarray, " Q"],
    *,
    budget: int,
    minimum: int,
) -> Int[np.ndarray, " Q"]:
    r"""Maximize a sum of concave values under a budget, exactly.

    .. math:: \max_n \sum_i v_{d(i)}(n_i), \quad \sum_i n_i = B, \quad
              m \le n_i \le m + M

    For concave values the greedy choice is optimal: take the largest gains of one more
    rollout anywhere. Gains are sorted per distinct class, not per query, so the cost is
    that of the few distinct counts of a profile.

    Args:
      gains: value of the rollout after the j-th beyond the minimum, per class; not
        rising along the last axis.
      index: class of each query.
      rank: decides between queries of a class when the last gain does not go round.
      budget: rollouts in all; what queries cannot take is left over.
      minimum: rollouts every query gets.

    Raises:
      ValueError: if the budget does not cover the minimum.

    Example:
      >>> gains = np.array([[3.0, 1.0], [2.0, 1.5]])
      >>> split_budget(gains, np.array([0, 1]), np.arange(2), budget=5, minimum=1)
      array([2, 3])
    """
    count = len(index)
    if budget < minimum * count:
        raise ValueError(
            f"{budget} rollouts do not give {count} queries at least {minimum} each;"
            " allow more rollouts, or filter queries"
        )
    classes, most = gains.shape
    members = np.bincount(index, minlength=classes)
    # Rounding may make a gain rise by a last digit; greedy needs an order.
    gains = np.minimum.accumulate(gains, axis=1)
    place = np.tile(np.arange(most), classes)
    owner = np.repeat(np.arange(classes), most)
    order = np.lexsort((owner, place, -gains.reshape(-1)))
    left = budget - minimum * count
    before = np.cumsum(members[owner[order]]) - members[owner[order]]
    whole = before + members[owner[order]] <= left
    taken = order[whole]
    size = minimum + np.bincount(owner[taken], minlength=classes)[index]
    rest = np.flatnonzero(~whole)
    # The first level that does not fit goes to some members of its class.
    for level in rest[:1]:
        room = left - int(before[level])
        mine = np.flatnonzero(index == owner[order[level]])
        size[mine[np.argsort(rank[mine])[:room]]] += 1
    return size
