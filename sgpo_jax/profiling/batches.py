"""Batch active learning of queries: a Gaussian model of log-odds, choices of sets."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, special

from sgpo_jax import streams
from sgpo_jax.bounds import Count, bounded

Rows = Int[np.ndarray, " B"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LogitModel:
    r"""Logistic-normal model of success rates that are alike where features are.

    .. math:: z \sim N(\mu, K), \quad k_q \sim \mathrm{Binomial}(n, \sigma(z_q))

    Attributes:
      mean: prior mean of the log-odds, [Q].
      covariance: K, [Q, Q].
      samples: samples n that profiling gives a query.
    """

    mean: Float[np.ndarray, " Q"]
    covariance: Float[np.ndarray, "Q Q"]
    samples: int = 8

    @classmethod
    def of(
        cls,
        features: Float[np.ndarray, "Q F"],
        *,
        mean: Float[np.ndarray, " Q"] | float = 0.0,
        std: float = 2.0,
        own: float = 0.3,
        samples: int = 8,
    ) -> "LogitModel":
        r"""Return the model with a squared-exponential kernel of standardized features.

        .. math:: K_{ij} = s^2 \big((1 - o) e^{-|f_i - f_j|^2 / 2 \ell^2}
                  + o\, 1[i = j]\big)

        The length is half the median distance.

        Args:
          features: of each query.
          mean: prior mean of the log-odds.
          std: prior standard deviation s.
          own: share o of the variance that no other query tells of.
          samples: samples per profiled query.
        """
        spread = features.std(0)
        x = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
        x = x.astype(np.float64)
        norm = (x**2).sum(1)
        square = np.maximum(norm[:, None] + norm[None] - 2 * x @ x.T, 0)
        length = np.median(square[np.triu_indices(len(x), 1)]) / 4 if len(x) > 1 else 1
        kernel = np.exp(-square / (2 * max(length, 1e-12)))
        kernel = std**2 * ((1 - own) * kernel + own * np.eye(len(x)))
        means = np.broadcast_to(np.asarray(mean, np.float64), (len(x),)).copy()
        return cls(mean=means, covariance=kernel, samples=samples)

    @property
    def noise(self) -> Float[np.ndarray, " Q"]:
        r"""Variance of the log-odds that n samples show, at the prior's rates.

        .. math:: 1 / (n\, E[\sigma(z) (1 - \sigma(z))])
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        std = np.sqrt(np.diag(self.covariance))
        rate = special.expit(self.mean[:, None] + std[:, None] * nodes)
        curvature = (rate * (1 - rate)) @ weights / weights.sum()
        return 1 / (self.samples * np.maximum(curvature, 1e-6))

    def information(self, rows: Rows) -> float:
        r"""Joint mutual information of a set's outcomes and the log-odds, nats.

        .. math:: I(S) = \tfrac12 \log\det(I + D_S^{-1/2} K_{SS} D_S^{-1/2})

        with Gaussian outcomes of variance D, `noise`.
        """
        scale = 1 / np.sqrt(self.noise[rows])
        inner = self.covariance[np.ix_(rows, rows)] * scale[:, None] * scale[None]
        return float(np.linalg.slogdet(np.eye(len(rows)) + inner)[1] / 2)

    def posterior(
        self, rows: Rows, successes: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
        """Return mean and variance of all log-odds after profiling some queries.

        Laplace's approximation at the binomial likelihood, by Newton's method.
        """
        inner = self.covariance[np.ix_(rows, rows)]
        mean, n = self.mean[rows], self.samples
        z, step = mean.copy(), np.full(len(rows), np.inf)
        solved, whole, left = np.zeros_like(mean), inner, 50
        while left and np.abs(step).max(initial=0) >= 1e-8:
            rate = special.expit(z)
            weight = np.maximum(n * rate * (1 - rate), 1e-9)
            whole = inner + np.diag(1 / weight)
            target = z - mean + (successes - n * rate) / weight
            solved = linalg.solve(whole, target, assume_a="pos")
            step = mean + inner @ solved - z
            z, left = z + np.clip(step, -4, 4), left - 1
        cross = self.covariance[:, rows]
        gain = linalg.solve(whole, cross.T, assume_a="pos")
        variance = np.diag(self.covariance) - (cross * gain.T).sum(1)
        return self.mean + cross @ solved, np.maximum(variance, 1e-12)

    @staticmethod
    def rate(
        mean: Float[np.ndarray, " Q"], variance: Float[np.ndarray, " Q"]
    ) -> Float[np.ndarray, " Q"]:
        r"""Return the expected success rate, :math:`E \sigma(z)`, of Gaussian z."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        z = mean[:, None] + np.sqrt(variance)[:, None] * nodes
        return special.expit(z) @ weights / weights.sum()


@runtime_checkable
class BatchChoice(Protocol):
    """Chooses the queries to profile. Frozen; the seed decides what is random."""

    def __call__(self, model: LogitModel, size: int, *, seed: int) -> Rows:
        """Return `size` distinct rows of the model."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomBatch:
    """Uniform choice: the control."""

    def __call__(self, model: LogitModel, size: int, *, seed: int) -> Rows:
        """Return rows drawn without replacement."""
        return streams.generator(seed).permutation(len(model.mean))[:size]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MostUncertain:
    r"""The queries with the largest variance of the outcome, :math:`E p (1 - E p)`."""

    def __call__(self, model: LogitModel, size: int, *, seed: int) -> Rows:
        """Return the rows; the seed breaks ties."""
        rate = model.rate(model.mean, np.diag(model.covariance).copy())
        tie = streams.generator(seed).random(len(rate))
        return np.lexsort((tie, -np.round(rate * (1 - rate), 9)))[:size]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Stratified:
    """Equal numbers from strata of the predicted success rate.

    Attributes:
      strata: how many, of equal size.
    """

    strata: Count = 8

    def __call__(self, model: LogitModel, size: int, *, seed: int) -> Rows:
        """Return the rows, drawn within each stratum in turn."""
        rng = streams.generator(seed)
        order = np.lexsort((rng.random(len(model.mean)), model.mean))
        parts = [rng.permutation(part) for part in np.array_split(order, self.strata)]
        longest = max(len(part) for part in parts)
        turns = [part[i] for i in range(longest) for part in parts if i < len(part)]
        return np.array(turns[:size], np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreedyInformation:
    """The query that adds most joint mutual information, again and again.

    Within 1 - 1/e of the best set, since the information is submodular.
    """

    def __call__(self, model: LogitModel, size: int, *, seed: int) -> Rows:
        """Return the rows; the seed breaks ties."""
        rng = streams.generator(seed)
        noise, variance = model.noise, np.diag(model.covariance).copy()
        tie, factors = rng.random(len(variance)) * 1e-9, []
        chosen: list[int] = []
        for _ in range(size):
            gain = np.log1p(variance / noise) / 2 + tie
            gain[chosen] = -np.inf
            row = int(gain.argmax())
            column = model.covariance[row].copy()
            for factor in factors:
                column -= factor[row] * factor
            factor = column / np.sqrt(variance[row] + noise[row])
            factors.append(factor)
            variance = np.maximum(variance - factor**2, 0)
            chosen.append(row)
        return np.array(chosen, np.int64)
