"""Learning signal of a group of responses, by the success rate of its query.

Rewards are binary: the number of successes k in a group of G responses is binomial
with success rate p. All functions broadcast p against G and compute in float64.
"""

import numpy as np
from jaxtyping import Float, Int, Num

Numbers = Num[np.ndarray, "..."] | float | int


def binomial(
    p: Numbers, count: Numbers, *, largest: int | None = None
) -> Float[np.ndarray, "... K"]:
    r"""Probability of k successes in `count` trials, for k = 0, 1, ..., largest.

    .. math:: \binom{G}{k} p^k (1 - p)^{G - k}

    Args:
      p: success rate, in [0, 1].
      count: number of trials G.
      largest: last k of the table; the largest count if None.

    Returns:
      The probabilities along a new last axis; 0 where k > G.

    Example:
      >>> binomial(0.5, 2)
      array([0.25, 0.5 , 0.25])
    """
    p, count = np.asarray(p, np.float64), np.asarray(count, np.int64)
    p, count = np.broadcast_arrays(p, count)
    k = np.arange((int(count.max(initial=0)) if largest is None else largest) + 1)
    p, count = p[..., None], count[..., None]
    log_factorial = np.concatenate(
        [[0.0], np.cumsum(np.log(np.arange(1, max(k[-1], count.max(initial=0)) + 1)))]
    )
    rest = np.maximum(count - k, 0)
    log_choose = log_factorial[count] - log_factorial[k] - log_factorial[rest]
    # Logarithms keep large groups finite; 0 * log 0 = 0 makes p = 0 and 1 exact.
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.where(k > 0, k * np.log(p), 0) + np.where(
            rest > 0, rest * np.log1p(-p), 0
        )
    return np.where(k <= count, np.exp(log_choose + log_p), 0)


def probability_mixed(p: Numbers, group_size: Numbers) -> Float[np.ndarray, "..."]:
    r"""Probability that a group has both a success and a failure.

    .. math:: P(\text{mixed}) = 1 - p^G - (1 - p)^G

    Groups that are not mixed carry no signal under any group-relative advantage.

    Args:
      p: success rate, in [0, 1].
      group_size: number of responses G.

    Example:
      >>> probability_mixed(0.25, np.array([2, 4, 8])).round(3)
      array([0.375, 0.68 , 0.9  ])
    """
    p, group_size = _arrays(p, group_size)
    return np.asarray(1 - p**group_size - (1 - p) ** group_size)


def probability_any_success(
    p: Numbers, group_size: Numbers
) -> Float[np.ndarray, "..."]:
    r"""Probability that a group has a success; 1 - 1/e in the limit of G = 1/p.

    .. math:: P(k \ge 1) = 1 - (1 - p)^G

    Args:
      p: success rate, in [0, 1].
      group_size: number of responses G.

    Example:
      >>> float(probability_any_success(0.001, 1000).round(3))
      0.632
    """
    p, group_size = _arrays(p, group_size)
    # 1 - (1 - p)^G loses its digits for small p.
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(group_size * np.log1p(-p)))


def expected_mixed(
    successes: Numbers, failures: Numbers, group_size: Numbers
) -> Float[np.ndarray, "..."]:
    r"""Probability of a mixed group under a Beta belief about the success rate.

    .. math:: 1 - \prod_{i=0}^{G-1} \frac{a + i}{a + b + i}
                - \prod_{i=0}^{G-1} \frac{b + i}{a + b + i}

    Differs from `probability_mixed` at the mean, by much if the belief is vague.

    Args:
      successes: a, above 0; for a profile, its successes plus the prior's.
      failures: b, above 0.
      group_size: number of responses G.

    Example:
      >>> float(expected_mixed(1.0, 1.0, 2).round(3))
      0.333
    """
    a, b, group_size = _arrays(successes, failures, group_size)
    i = np.arange(int(group_size.max(initial=1)))
    inside = i < group_size[..., None]
    total = (a + b)[..., None] + i
    all_right = np.where(inside, (a[..., None] + i) / total, 1).prod(axis=-1)
    all_wrong = np.where(inside, (b[..., None] + i) / total, 1).prod(axis=-1)
    return np.asarray(1 - all_right - all_wrong)


def expected_centered(p: Numbers, group_size: Numbers) -> Float[np.ndarray, "..."]:
    r"""Expected magnitude of a response's `centered` advantage.

    .. math:: E|R_i - \bar R| = 2 p (1 - p) (G - 1) / G

    A fraction (G - 1) / G of its limit whatever p is: centered advantages alone give
    no reason to let the group size depend on difficulty.

    Args:
      p: success rate, in [0, 1].
      group_size: number of responses G.

    Example:
      >>> float(expected_centered(0.5, 2))
      0.25
    """
    p, group_size = _arrays(p, group_size)
    return np.asarray(2 * p * (1 - p) * (group_size - 1) / group_size)


def expected_standardized(p: Numbers, group_size: Numbers) -> Float[np.ndarray, "..."]:
    r"""Expected magnitude of a response's `standardized` advantage.

    .. math:: E|A_i| = \frac{2}{G} E \sqrt{k (G - k)}

    with the population standard deviation and eps = 0. Tends to 2 sqrt(p (1 - p)) for
    large groups; G = 1/p reaches the same fraction of that limit at every small p.

    Args:
      p: success rate, in [0, 1].
      group_size: number of responses G.

    Example:
      >>> expected_standardized(0.125, np.array([2, 4, 8])).round(3)
      array([0.219, 0.368, 0.495])
    """
    p, group_size = _arrays(p, group_size)
    probability = binomial(p, group_size)
    k = np.arange(probability.shape[-1])
    size = group_size[..., None]
    magnitude = 2 * np.sqrt(k * np.maximum(size - k, 0)) / size
    return np.asarray((probability * magnitude).sum(axis=-1))


def success_advantage(p: Numbers, group_size: Numbers) -> Float[np.ndarray, "..."]:
    r"""Expected advantage of a success per generated response, J(p, G).

    .. math:: J(p, G) = \frac{1}{G} \sum_{k=1}^{G-1} \binom{G}{k} p^k (1 - p)^{G-k}
                        \sqrt{\frac{G - k}{k}}

    sqrt((G - k) / k) is the standardized advantage of each of the k successes. A
    criterion whose best integer group size is 1/p for p = 1/3, 1/4, 1/5 and 1/8, and
    about 0.855/p in the limit of small p. It matches the motivation sGPO states for
    its group sizes (arXiv:2606.08854, abstract); the formula is this library's.

    Args:
      p: success rate, in [0, 1].
      group_size: number of responses G.

    Example:
      >>> success_advantage(0.25, np.array([2, 3, 4, 5, 8])).round(4)
      array([0.1875, 0.232 , 0.2422, 0.2386, 0.2026])
    """
    p, group_size = _arrays(p, group_size)
    probability = binomial(p, group_size)
    k = np.arange(probability.shape[-1])
    size = group_size[..., None]
    advantage = np.sqrt(np.maximum(size - k, 0) / np.maximum(k, 1))
    return np.asarray((probability * advantage)[..., 1:].sum(axis=-1) / group_size)


def best_group_size(p: Numbers, sizes: Int[np.ndarray, " S"]) -> Int[np.ndarray, "..."]:
    """Size among `sizes` at which `success_advantage` is largest.

    Args:
      p: success rate, in [0, 1].
      sizes: candidates; the first wins a tie, so p = 0 and p = 1 give the first.

    Example:
      >>> best_group_size(np.array([1 / 8, 1 / 3]), np.arange(2, 33))
      array([8, 3])
      >>> best_group_size(np.array([0.05, 0.3, 0.6]), np.array([2, 4, 8, 16]))
      array([16,  4,  2])
    """
    # Profiles hold few distinct rates: the table need not be [queries, sizes, k].
    distinct, inverse = np.unique(np.asarray(p, np.float64), return_inverse=True)
    best = sizes[success_advantage(distinct[:, None], sizes[None, :]).argmax(axis=-1)]
    return np.asarray(best[inverse].reshape(np.shape(p)))


def smallest_group_size(
    p: Numbers, probability: float, *, largest: int = 1024
) -> Int[np.ndarray, "..."]:
    """Smallest group size whose `probability_mixed` reaches `probability`.

    Args:
      p: success rate, in [0, 1].
      probability: the share of mixed groups wanted, in (0, 1).
      largest: the answer where no size up to it suffices, as for p = 0.

    Example:
      >>> smallest_group_size(np.array([0.05, 0.125, 0.25, 0.5]), 0.9)
      array([45, 18,  9,  5])
    """
    sizes = np.arange(2, largest + 1)
    distinct, inverse = np.unique(np.asarray(p, np.float64), return_inverse=True)
    reached = probability_mixed(distinct[:, None], sizes[None, :]) >= probability
    answer = np.where(reached.any(axis=-1), sizes[reached.argmax(axis=-1)], largest)
    return np.asarray(answer[inverse].reshape(np.shape(p)))


def mixed_per_cost(
    p: Numbers, group_size: Numbers, *, overhead: float = 0.0
) -> Float[np.ndarray, "..."]:
    r"""Mixed groups per unit of generation.

    .. math:: P(\text{mixed}) / (c_0 + G)

    Without overhead the best group size is 2 at every p: only a cost per group (prefill
    of the prompt, set-up of the reward) or a criterion such as `success_advantage`
    makes larger groups pay.

    Args:
      p: success rate, in [0, 1].
      group_size: number of responses G.
      overhead: cost of a group c0, in responses.

    Example:
      >>> float(mixed_per_cost(0.25, 4, overhead=2.0).round(4))
      0.1133
    """
    return np.asarray(probability_mixed(p, group_size) / (overhead + group_size))


def _arrays(*values: Numbers) -> list[Float[np.ndarray, "..."]]:
    """Broadcast to one shape, in float64."""
    return list(np.broadcast_arrays(*(np.asarray(v, np.float64) for v in values)))
