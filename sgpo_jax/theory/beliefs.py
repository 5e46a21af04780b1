"""Beliefs about success rates: a Beta distribution with point masses at 0 and 1.

Real pools hold many queries that a policy never solves and many that it always solves;
a Beta prior alone cannot say so. Everything broadcasts and computes in float64.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

from sgpo_jax.theory.signal import Numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class BetaMixture:
    r"""Beta distribution mixed with point masses at success rates 0 and 1.

    .. math:: \pi_0 \delta_0 + \pi_1 \delta_1 + (1 - \pi_0 - \pi_1)
              \mathrm{Beta}(\alpha, \beta)

    The conjugate prior of success counts; its posterior is of the same kind.

    Attributes:
      alpha: pseudo-count of successes, above 0; an array for several queries.
      beta: pseudo-count of failures, above 0.
      never: probability that the rate is exactly 0.
      always: probability that it is exactly 1.

    Example:
      >>> half = BetaMixture(never=0.5)
      >>> after = half.posterior(np.array([0, 1]), 8)
      >>> after.never.round(3), after.mean.round(3)
      (array([0.836, 0.   ]), array([0.009, 0.167]))
    """

    alpha: Any = 0.5
    beta: Any = 0.5
    never: Any = 0.0
    always: Any = 0.0

    def __post_init__(self):
        alpha, beta, never, always = self._arrays()
        if not (np.all(alpha > 0) and np.all(beta > 0)):
            raise ValueError(
                f"alpha and beta must be above 0, got {self.alpha} and {self.beta}"
            )
        if np.any(never < 0) or np.any(always < 0) or np.any(never + always >= 1):
            raise ValueError(
                "never and always must be at least 0 and below 1 together, got"
                f" {self.never} and {self.always}"
            )

    def _arrays(self) -> tuple[np.ndarray, ...]:
        parts = (self.alpha, self.beta, self.never, self.always)
        return tuple(np.asarray(part, np.float64) for part in parts)

    def posterior(self, successes: Numbers, samples: Numbers) -> "BetaMixture":
        """Condition on `successes` out of `samples`, by Bayes' rule.

        At least 1e-15 of probability stays between 0 and 1, so that further samples can
        be conditioned on, whatever they are.
        """
        alpha, beta, never, always = self._arrays()
        k, n = np.asarray(successes, np.float64), np.asarray(samples, np.float64)
        # In logarithms: with many samples the evidence is below the smallest float.
        between = special.betaln(k + alpha, n - k + beta) - special.betaln(alpha, beta)
        between = between + np.log1p(-never - always)
        with np.errstate(divide="ignore"):
            zero = np.log(np.where(k == 0, never, 0.0))
            one = np.log(np.where(k == n, always, 0.0))
        total = np.logaddexp(np.logaddexp(zero, one), between)
        zero, one = np.exp(zero - total), np.exp(one - total)
        excess = np.maximum(zero + one, 1 - 1e-15) / (1 - 1e-15)
        return BetaMixture(
            alpha=alpha + k,
            beta=beta + n - k,
            never=zero / excess,
            always=one / excess,
        )

    @property
    def mean(self) -> Float[np.ndarray, "..."]:
        """Expected success rate."""
        alpha, beta, never, always = self._arrays()
        return np.asarray(always + (1 - never - always) * alpha / (alpha + beta))

    @property
    def std(self) -> Float[np.ndarray, "..."]:
        """Standard deviation of the success rate."""
        alpha, beta, never, always = self._arrays()
        total = alpha + beta
        second = alpha * (alpha + 1) / (total * (total + 1))
        second = always + (1 - never - always) * second
        return np.asarray(np.sqrt(np.maximum(second - self.mean**2, 0)))

    def cdf(self, rate: Numbers) -> Float[np.ndarray, "..."]:
        """Probability of a success rate of at most `rate`."""
        alpha, beta, never, always = self._arrays()
        rate = np.asarray(rate, np.float64)
        inside = special.betainc(alpha, beta, np.clip(rate, 0, 1))
        below = np.where(rate >= 0, never, 0) + np.where(rate >= 1, always, 0)
        inside = np.where(rate >= 0, inside, 0)
        return np.asarray(below + (1 - never - always) * inside)

    def quantile(self, level: Numbers) -> Float[np.ndarray, "..."]:
        """Smallest success rate whose `cdf` reaches `level`; inverse by formula."""
        alpha, beta, never, always = self._arrays()
        level = np.asarray(level, np.float64)
        inside = np.clip((level - never) / (1 - never - always), 0, 1)
        rate = special.betaincinv(alpha, beta, inside)
        rate = np.where(level <= never, 0.0, rate)
        return np.where(level > 1 - always, 1.0, rate)

    def log_evidence(
        self, successes: Numbers, samples: Numbers
    ) -> Float[np.ndarray, "..."]:
        r"""Log-probability of `successes` out of `samples`: the beta-binomial mixture.

        .. math:: \log\big(\pi_0 1[k = 0] + \pi_1 1[k = n] + \pi
                  \tbinom{n}{k} B(k + \alpha, n - k + \beta) / B(\alpha, \beta)\big)
        """
        alpha, beta, never, always = self._arrays()
        k, n = np.asarray(successes, np.float64), np.asarray(samples, np.float64)
        choose = -special.betaln(k + 1, n - k + 1) - np.log1p(n)
        between = choose + special.betaln(k + alpha, n - k + beta)
        between = np.exp(between - special.betaln(alpha, beta))
        mass = (1 - never - always) * between
        mass = mass + np.where(k == 0, never, 0) + np.where(k == n, always, 0)
        return np.asarray(np.log(mass))

    def nodes(
        self, count: int = 32
    ) -> tuple[Float[np.ndarray, "... S"], Float[np.ndarray, "... S"]]:
        """Success rates and weights that stand for the mixture: atoms and `beta_nodes`.

        Args:
          count: nodes of the Beta distribution, between the atoms 0 and 1.

        Example:
          >>> rate, share = BetaMixture(alpha=2.0, beta=2.0, never=0.5).nodes(3)
          >>> rate.round(2), share.round(2)
          (array([0.  , 0.17, 0.5 , 0.83, 1.  ]), array([0.5 , 0.12, 0.27, 0.12, 0.  ]))
        """
        parts = np.broadcast_arrays(*self._arrays())
        alpha, beta, never, always = (part.reshape(-1, 1) for part in parts)
        rate, weight = beta_nodes(alpha[:, 0], beta[:, 0], count=count)
        weight = (1 - never - always) * weight
        rate = np.hstack([np.zeros_like(never), rate, np.ones_like(always)])
        weight = np.hstack([never, weight, always])
        shape = (*parts[0].shape, count + 2)
        return rate.reshape(shape), weight.reshape(shape)


def beta_nodes(
    alpha: Float[np.ndarray, " D"], beta: Float[np.ndarray, " D"], *, count: int = 32
) -> tuple[Float[np.ndarray, "D S"], Float[np.ndarray, "D S"]]:
    r"""Gauss-Jacobi nodes and weights for expectations under Beta distributions.

    .. math:: E f(p) \approx \sum_s w_s f(p_s)

    exact for polynomials of degree below 2 `count`, so for every expectation over the
    outcomes of a group of fewer than 2 `count` responses. Nodes are eigenvalues of the
    Jacobi matrix (Golub and Welsch, 1969), for all distributions at once.

    Example:
      >>> nodes, weights = beta_nodes(np.array([2.0]), np.array([3.0]))
      >>> float((weights * nodes**2).sum().round(12))  # 2 * 3 / (5 * 6)
      0.2
    """
    # Jacobi's weight is (1 - x)^p (1 + x)^q on [-1, 1], with x = 2 rate - 1.
    p, q = np.asarray(beta)[:, None] - 1.0, np.asarray(alpha)[:, None] - 1.0
    k = np.arange(count)[None]
    both = 2 * k + p + q
    with np.errstate(divide="ignore", invalid="ignore"):
        diagonal = (q * q - p * p) / (both * (both + 2))
        off = 4 * k * (k + p) * (k + q) * (k + p + q)
        off = off / (both**2 * (both + 1) * (both - 1))
    first = p + q
    diagonal[:, :1] = (q - p) / (first + 2)
    # At k = 1 one factor k + p + q cancels against both - 1.
    off[:, 1:2] = 4 * (1 + p) * (1 + q) / ((first + 2) ** 2 * (first + 3))
    matrix = np.zeros((len(diagonal), count, count))
    place = np.arange(count)
    matrix[:, place, place] = diagonal
    matrix[:, place[1:], place[:-1]] = np.sqrt(off[:, 1:])
    values, vectors = np.linalg.eigh(matrix)
    return np.clip((values + 1) / 2, 0, 1), vectors[:, 0] ** 2


def fit_prior(
    successes: Int[np.ndarray, " Q"],
    samples: Int[np.ndarray, " Q"],
    *,
    atoms: bool = True,
) -> BetaMixture:
    r"""Empirical-Bayes prior: the mixture under which the counts are most probable.

    .. math:: \max_{\pi, \alpha, \beta} \sum_i \log P(k_i \mid n_i, \pi, \alpha, \beta)
              - \tfrac18 (\log^2 \alpha + \log^2 \beta)
              + \tfrac1{10} \textstyle\sum_j \log \pi_j

    The last terms weigh as much as a query or two; they keep the prior proper where
    the counts cannot decide (one sample a query, all counts equal). Without any sample
    Jeffreys' prior is returned.

    Args:
      successes: successes k per query.
      samples: samples n per query; queries without samples do not count.
      atoms: whether there are point masses at 0 and 1.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> rate = np.where(rng.random(4000) < 0.4, 0.0, rng.beta(2, 2, 4000))
      >>> prior = fit_prior(rng.binomial(8, rate), np.full(4000, 8))
      >>> round(prior.never, 2), round(prior.alpha, 1), round(prior.beta, 1)
      (0.4, 2.1, 2.1)
    """
    cells, counts = np.unique(
        np.stack([successes, samples])[:, np.asarray(samples) > 0],
        axis=1,
        return_counts=True,
    )
    if not counts.size:
        return BetaMixture()
    k, n = cells.astype(np.float64)
    is_zero, is_full = (k == 0) * 1.0, (k == n) * 1.0
    choose = -special.betaln(k + 1, n - k + 1) - np.log1p(n)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        alpha, beta = np.exp(x[:2])
        log_beta = special.betaln(k + alpha, n - k + beta) - special.betaln(alpha, beta)
        weight = special.softmax(np.append(x[2:], 0.0)) if atoms else np.ones(1)
        parts = np.stack([is_zero, is_full, np.exp(choose + log_beta)][-len(weight) :])
        mass = weight @ parts
        share = weight[:, None] * parts / mass
        both = special.digamma(alpha + beta) - special.digamma(n + alpha + beta)
        slope_a = special.digamma(k + alpha) - special.digamma(alpha) + both
        slope_b = special.digamma(n - k + beta) - special.digamma(beta) + both
        inside = counts * share[-1]
        value = counts @ np.log(mass) - (x[0] ** 2 + x[1] ** 2) / 8
        gradient = [
            alpha * (inside @ slope_a) - x[0] / 4,
            beta * (inside @ slope_b) - x[1] / 4,
        ]
        if atoms:
            value += np.log(weight).sum() / 10
            pull = share @ counts + 0.1 - weight * (counts.sum() + 0.3)
            gradient += pull[:2].tolist()
        scale = counts.sum()
        return -value / scale, -np.asarray(gradient) / scale

    best = optimize.minimize(
        objective,
        np.zeros(4 if atoms else 2),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-6, 8), (-6, 8)] + [(-12, 12)] * (2 if atoms else 0),
        options={"ftol": 1e-13, "gtol": 1e-9, "maxiter": 500},
    )
    alpha, beta = np.exp(best.x[:2]).tolist()
    if not atoms:
        return BetaMixture(alpha=alpha, beta=beta)
    never, always, _ = special.softmax(np.append(best.x[2:], 0.0)).tolist()
    return BetaMixture(alpha=alpha, beta=beta, never=never, always=always)
