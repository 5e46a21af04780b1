"""Weighted draws without replacement from many prompts."""

import numpy as np

from sgpo_jax import streams


def draw_by_weight(weight: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Rows drawn by weight without replacement, ascending.

    Exponential races (arXiv:1907.10121): the smallest E / w, with E exponential, are a
    weighted draw without replacement. Linear in the number of rows; only those ahead of
    a threshold that about twice as many as wanted pass are sorted.

    >>> draw_by_weight(np.array([0.0, 1.0, 2.0]), 2, seed=0).tolist()
    [1, 2]

    Args:
      weight: one per row, not negative; rows of weight 0 are drawn last.
      count: rows wanted.
      seed: of the draw.

    Raises:
      ValueError: if a weight is negative or not finite, or if all are 0.
    """
    weight = np.asarray(weight, np.float32)
    total = float(weight.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0 and weight.min() >= 0):
        raise ValueError(
            f"weights of {len(weight)} prompts must be finite, not negative and not all"
            f" 0, their sum is {total}: raise the floor of the prompt sampler, or look"
            " at the baselines it reads"
        )
    count = min(count, len(weight))
    race = streams.generator(seed).standard_exponential(len(weight), dtype=np.float32)
    # P(E < w t) is at most w t, and nearly that where few are drawn.
    ahead = np.flatnonzero(race <= weight * np.float32(2 * count / total))
    if len(ahead) < count:
        ahead = np.arange(len(weight))
    with np.errstate(divide="ignore", invalid="ignore"):
        arrival = race[ahead] / weight[ahead]
    return np.sort(ahead[np.argpartition(arrival, count - 1)[:count]])
