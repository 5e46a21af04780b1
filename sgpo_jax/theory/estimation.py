"""Estimation error of success rates from N samples per query."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from sgpo_jax.theory.signal import Numbers, binomial

Bucket = Callable[[Float[np.ndarray, "..."]], Int[np.ndarray, "..."]]

UNSOLVED = 0
"""Bucket of queries without a success."""
TRIVIAL = -1
"""Bucket of queries that are solved too often to train on."""


def power_of_two_size(
    rate: Float[np.ndarray, "..."],
    *,
    smallest: int = 2,
    largest: int = 8,
    trivial_above: float = 0.75,
) -> Int[np.ndarray, "..."]:
    r"""Group size of sGPO for a success rate.

    .. math:: G = 2^{\lfloor \log_2 (1 / p) \rfloor} \text{ clipped to [smallest,
              largest]}

    With the defaults: (1/4, 3/4] gives 2, (1/8, 1/4] gives 4, (0, 1/8] gives 8. After
    sGPO (arXiv:2606.08854); cut and sizes as a re-implementation quotes them.

    Args:
      rate: success rate, true or estimated, in [0, 1].
      smallest: lower bound of the size.
      largest: upper bound of the size.
      trivial_above: rates above it count as trivial.

    Returns:
      The size; `UNSOLVED` (0) at rate 0 and `TRIVIAL` (-1) above the cut.

    Example:
      >>> power_of_two_size(np.arange(9) / 8)
      array([ 0,  8,  4,  2,  2,  2,  2, -1, -1])
    """
    rate = np.asarray(rate, np.float64)
    # The margin keeps 1/8, written as a quotient that rounds up, in its bucket.
    exponent = np.floor(-np.log2(np.where(rate > 0, rate, 1)) + 1e-9)
    size = np.clip(2**exponent, smallest, largest).astype(np.int64)
    size = np.where(rate > trivial_above, TRIVIAL, size)
    return np.asarray(np.where(rate > 0, size, UNSOLVED))


def bucket_probabilities(
    p: Numbers,
    num_samples: int,
    labels: Int[np.ndarray, " B"],
    *,
    bucket: Bucket = power_of_two_size,
) -> Float[np.ndarray, "... B"]:
    r"""Probability that a profile puts a query of success rate p into each bucket.

    .. math:: P(b \mid p) = \sum_k \binom{N}{k} p^k (1 - p)^{N-k} 1(b(k / N) = b)

    Args:
      p: true success rate, in [0, 1].
      num_samples: profiling samples N.
      labels: the buckets, as `bucket` names them.
      bucket: maps rates to integer labels.

    Returns:
      The probabilities along a new last axis, in the order of `labels`.

    Example:
      >>> labels = np.array([UNSOLVED, 8, 4, 2, TRIVIAL])
      >>> bucket_probabilities(0.25, 8, labels).round(2)
      array([0.1 , 0.27, 0.31, 0.32, 0.  ])
    """
    assigned = bucket(np.arange(num_samples + 1) / num_samples)
    hits = (assigned[:, None] == labels[None, :]).astype(np.float64)
    return np.asarray(binomial(p, num_samples) @ hits)


def misbucketing(
    p: Numbers, num_samples: int, *, bucket: Bucket = power_of_two_size
) -> Float[np.ndarray, "..."]:
    r"""Probability that a profile of N samples picks another bucket than p belongs to.

    .. math:: P(b(k / N) \ne b(p)), \quad k \sim \mathrm{Binomial}(N, p)

    Args:
      p: true success rate, in [0, 1].
      num_samples: profiling samples N.
      bucket: maps rates to integer labels.

    Example:
      >>> misbucketing(np.array([0.05, 0.25, 0.5]), 8).round(2)
      array([0.72, 0.69, 0.18])
      >>> misbucketing(np.array([0.05, 0.25, 0.5]), 64).round(2)
      array([0.04, 0.44, 0.  ])
    """
    p = np.asarray(p, np.float64)
    assigned = bucket(np.arange(num_samples + 1) / num_samples)
    wrong = assigned != bucket(p)[..., None]
    return np.asarray((binomial(p, num_samples) * wrong).sum(axis=-1))


def posterior_mean(
    successes: Numbers, samples: Numbers, *, prior: float = 0.5
) -> Float[np.ndarray, "..."]:
    r"""Mean of the Beta posterior of a success rate.

    .. math:: (k + a) / (N + 2 a)

    Args:
      successes: verified successes k.
      samples: profiling samples N.
      prior: pseudo-counts a of success and of failure; 1/2 is Jeffreys' prior, 1 the
        uniform one.

    Example:
      >>> posterior_mean(np.array([0, 4, 8]), 8).round(3)
      array([0.056, 0.5  , 0.944])
    """
    return np.asarray(
        (np.asarray(successes) + prior) / (np.asarray(samples) + 2 * prior)
    )


def posterior_std(
    successes: Numbers, samples: Numbers, *, prior: float = 0.5
) -> Float[np.ndarray, "..."]:
    r"""Standard deviation of the Beta posterior of a success rate.

    .. math:: \sqrt{m (1 - m) / (N + 2 a + 1)}

    with m of `posterior_mean`.

    Args:
      successes: verified successes k.
      samples: profiling samples N.
      prior: pseudo-counts a of success and of failure.

    Example:
      >>> posterior_std(np.array([0, 4, 8]), 8).round(3)
      array([0.072, 0.158, 0.072])
    """
    mean = posterior_mean(successes, samples, prior=prior)
    return np.sqrt(mean * (1 - mean) / (np.asarray(samples) + 2 * prior + 1))


def pass_at_k(
    successes: Int[np.ndarray, "..."], samples: Int[np.ndarray, "..."], k: int
) -> Float[np.ndarray, "..."]:
    r"""Unbiased estimate of the probability that one of k samples succeeds.

    .. math:: 1 - \binom{n - c}{k} \Big/ \binom{n}{k}

    The share of the k-subsets of the n samples that hold a success; its mean over
    draws of the n samples is :math:`1 - (1 - p)^k` (arXiv:2107.03374).

    Args:
      successes: successes c of each query.
      samples: samples n of each query, at least `k`.
      k: tries.

    Raises:
      ValueError: if a query has fewer samples than k, or k is below 1.

    Example:
      >>> pass_at_k(np.array([0, 1, 4]), np.array([4, 4, 4]), 2)
      array([0. , 0.5, 1. ])
    """
    c, n = np.broadcast_arrays(successes, samples)
    if k < 1 or (n.size and n.min() < k):
        raise ValueError(
            f"pass@{k} needs k >= 1 and k samples of each query, got {n.min()}"
        )
    missed = np.ones(c.shape)
    for i in range(k):
        missed = missed * np.clip(n - c - i, 0, None) / (n - i)
    return 1 - missed
