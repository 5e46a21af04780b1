"""Success of queries that were not profiled, predicted from features of the others."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special, stats

from sgpo_jax import streams, theory
from sgpo_jax.profiling.profile import Profile


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Discriminant:
    r"""Gaussian discriminant analysis with one covariance for both classes.

    .. math:: z = w^\top f + b, \quad w = P (\mu_1 - \mu_0), \quad
              b = \log\frac{\pi_1}{\pi_0}
                  - \tfrac12 (\mu_1^\top P \mu_1 - \mu_0^\top P \mu_0)

    with the precision of arXiv:2402.04087,
    :math:`P = Q ((Q - 1) \hat\Sigma + \mathrm{tr}(\hat\Sigma) I)^{-1}`, with the number
    of queries Q for its factor F, so that P estimates an inverse covariance. Nothing is
    trained: means and a covariance in closed form.

    Attributes:
      weight: w, [F].
      bias: b.
    """

    weight: Float[np.ndarray, " F"]
    bias: float

    @classmethod
    def fit(
        cls,
        features: Float[np.ndarray, "Q F"],
        successes: Int[np.ndarray, " Q"],
        samples: Int[np.ndarray, " Q"],
    ) -> "Discriminant":
        """Fit to success counts: a query belongs to each class by its share of samples.

        Raises:
          ValueError: if no sample failed, or none succeeded.
        """
        share = successes / np.maximum(samples, 1)
        known = samples > 0
        weights = np.stack([(1 - share) * known, share * known])
        total = weights.sum(1)
        if not (total > 0).all():
            raise ValueError(
                "a predictor needs successes and failures among the profiled queries;"
                " profile more of them"
            )
        x = features.astype(np.float64)
        means = weights @ x / total[:, None]
        count, width = int(known.sum()), x.shape[1]
        scatter = np.zeros((width, width))
        for mean, weight in zip(means, weights, strict=True):
            centered = x - mean
            scatter += (weight[:, None] * centered).T @ centered
        covariance = scatter / count
        shrunk = (count - 1) * covariance + np.trace(covariance) * np.eye(width)
        # A feature that never varies leaves no direction to divide by.
        shrunk += 1e-9 * max(np.trace(shrunk) / width, 1e-30) * np.eye(width)
        right, wrong = np.linalg.solve(shrunk, count * means[::-1].T).T
        bias = np.log(total[1] / total[0])
        bias -= 0.5 * (means[1] @ right - means[0] @ wrong)
        return cls(weight=right - wrong, bias=float(bias))

    def logits(self, features: Float[np.ndarray, "Q F"]) -> Float[np.ndarray, " Q"]:
        """Return the log-odds of success, uncalibrated."""
        return features.astype(np.float64) @ self.weight + self.bias


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    r"""Predicted distribution of each query's success rate.

    .. math:: p \sim \mathrm{Beta}(s m, s (1 - m)), \quad m = \sigma(a z + c)

    a, c and s maximize the likelihood of the counts given log-odds z of discriminants
    that did not see them (cross-fitting): GDA alone is overconfident.

    Attributes:
      discriminant: gives the log-odds.
      slope: a, not below 0.
      offset: c.
      strength: s, the number of samples a prediction is worth.
    """

    discriminant: Discriminant
    slope: float
    offset: float
    strength: float

    @classmethod
    def fit(
        cls,
        features: Float[np.ndarray, "Q F"],
        profile: Profile,
        *,
        folds: int = 5,
        seed: int = 0,
    ) -> "Predictor":
        """Fit to the profiled share of the queries.

        Args:
          features: of the profile's queries, for example `hidden_states`.
          profile: their counts; queries without samples do not count.
          folds: of the cross-fitting.
          seed: of the folds.

        Raises:
          ValueError: if features do not fit the profile, or there is nothing to learn
            from.
        """
        k, n = profile.successes, profile.samples
        if features.shape[0] != len(profile) or not np.isfinite(features).all():
            raise ValueError(
                f"features must be finite, one row for each of {len(profile)} queries,"
                f" got shape {features.shape}"
            )
        rows = np.flatnonzero(n > 0)
        if len(rows) < 2 * folds:
            raise ValueError(
                f"a predictor needs at least {2 * folds} profiled queries, got"
                f" {len(rows)}"
            )
        fold = streams.generator(seed).permutation(len(rows)) % folds
        z = np.zeros(len(rows))
        for part in range(folds):
            fit, out = rows[fold != part], rows[fold == part]
            found = Discriminant.fit(features[fit], k[fit], n[fit])
            z[fold == part] = found.logits(features[out])
        slope, offset, strength = _calibrate(z, k[rows], n[rows])
        return cls(
            discriminant=Discriminant.fit(features[rows], k[rows], n[rows]),
            slope=slope,
            offset=offset,
            strength=strength,
        )

    def mean(self, features: Float[np.ndarray, "Q F"]) -> Float[np.ndarray, " Q"]:
        """Return the predicted success rates."""
        return special.expit(self.slope * self._logits(features) + self.offset)

    def belief(self, features: Float[np.ndarray, "Q F"]) -> theory.BetaMixture:
        """Return the predicted distribution of each success rate."""
        mean = np.clip(self.mean(features), 1e-4, 1 - 1e-4)
        return theory.BetaMixture(
            alpha=self.strength * mean, beta=self.strength * (1 - mean)
        )

    def _logits(self, features: np.ndarray) -> np.ndarray:
        return np.clip(self.discriminant.logits(features), -50, 50)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """A prior from a predictor: a `Prior` with another mean for each query.

    Attributes:
      predictor: fitted on a profiled share.
      features: of each query, by id.
    """

    predictor: Predictor
    features: Mapping[str, Float[np.ndarray, " F"]]

    def __call__(self, profile: Profile) -> theory.BetaMixture:
        """Return the predicted distributions as the prior, [Q].

        Raises:
          ValueError: naming a query without features.
        """
        missing = [id_ for id_ in profile.ids if id_ not in self.features]
        if missing:
            raise ValueError(
                f"no features of {len(missing)} queries, the first {missing[0]!r}"
            )
        return self.predictor.belief(
            np.stack([self.features[id_] for id_ in profile.ids])
        )


def _calibrate(z: np.ndarray, k: np.ndarray, n: np.ndarray) -> tuple[float, ...]:
    """Maximize the beta-binomial likelihood over slope, offset and strength."""
    scale = max(float(np.std(z)), 1e-6)
    z = np.clip(z, -50, 50)

    def loss(x: np.ndarray) -> float:
        mean = np.clip(special.expit(x[0] / scale * z + x[1]), 1e-4, 1 - 1e-4)
        strength = np.exp(x[2])
        alpha, beta = strength * mean, strength * (1 - mean)
        value = special.betaln(k + alpha, n - k + beta) - special.betaln(alpha, beta)
        # As much as a query or two, against a strength without bound.
        return float(-value.sum() + (x**2).sum() / 50)

    best = optimize.minimize(
        loss,
        np.array([1.0, 0.0, 0.5]),
        method="L-BFGS-B",
        bounds=[(0, 20), (-10, 10), (-4, 6)],
    )
    slope, offset, strength = best.x.tolist()
    return slope / scale, offset, float(np.exp(strength))


def auc(score: Float[np.ndarray, " Q"], positive: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    positive = np.asarray(positive, bool)
    ranks = stats.rankdata(score)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
