"""Candidates for the next trial, in the unit cube, and what is expected of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from sgpo_jax.sweep.space import Space

CANDIDATES = 512
"""Points drawn at random, from which the next trial is chosen."""


@dataclasses.dataclass(frozen=True)
class Observations:
    """Trials that have ended.

    Attributes:
      x: their positions in the unit cube, [N, D].
      y: their objectives, larger is better, [N].
    """

    x: np.ndarray
    y: np.ndarray

    @property
    def standardized(self) -> np.ndarray:
        """Objectives with mean 0 and standard deviation 1, [N]."""
        spread = float(self.y.std())
        return (self.y - self.y.mean()) / (spread if spread > 0 else 1.0)


def snapped(space: Space, x: np.ndarray) -> np.ndarray:
    """Return the nearest points of a space, [M, D]: not every position is a value."""
    columns = [
        [one.position(one.value_at(float(p))) for p in column]
        for one, column in zip(space, x.T, strict=True)
    ]
    return np.array(columns).T


def untried(x: np.ndarray, history: Observations) -> np.ndarray:
    """Return the candidates that no trial was at, [M, D]; all, if there are none.

    Runs are reproducible: one that was tried has nothing new to tell.
    """
    distance = np.abs(x[:, None] - history.x[None]).max(-1)
    new = distance.min(1, initial=np.inf) > 1e-9
    return x[new] if new.any() else x


def expected_improvement(
    mean: np.ndarray, deviation: np.ndarray, best: float
) -> np.ndarray:
    """Mean of max(y - best, 0) of normal predictions, [M]."""
    z = (mean - best) / deviation
    return deviation * (z * stats.norm.cdf(z) + stats.norm.pdf(z))


def around(history: Observations, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return points near the best trial, [M, D]."""
    best = history.x[int(np.argmax(history.y))]
    return np.clip(best + 0.1 * rng.standard_normal((count, len(best))), 0, 1)


def gaussian_process(
    space: Space, history: Observations, rng: np.random.Generator
) -> np.ndarray:
    """Return the candidate of the largest expected improvement under a GP, [D].

    Matérn 5/2; length scales of each option and noise maximize the likelihood, with a
    prior, by random search: with tens of trials more would fit noise.

    Args:
      space: the hyper-parameters.
      history: trials so far, one at least.
      rng: draws candidates.
    """
    x = np.concatenate(
        [rng.random((CANDIDATES, len(space))), around(history, rng, CANDIDATES // 8)]
    )
    x = untried(snapped(space, x), history)
    mean, deviation = fitted(history, rng)(x)
    score = expected_improvement(mean, deviation, float(history.standardized.max()))
    return x[int(np.argmax(score))]


def fitted(history: Observations, rng: np.random.Generator, *, tries: int = 60):
    """Return mean and standard deviation at points as a function, fitted to trials."""
    y, dims = history.standardized, history.x.shape[1]
    best: tuple = (-np.inf, None, None, None, None)
    for attempt in range(tries):
        logs = rng.normal(np.log(0.5), 0.7, dims) if attempt else np.log([0.5] * dims)
        noise = float(np.exp(rng.normal(-2.5, 1.0))) if attempt else 0.1
        gram = matern(history.x, history.x, np.exp(logs)) + noise * np.eye(len(y))
        root = np.linalg.cholesky(gram)
        weights = np.linalg.solve(root.T, np.linalg.solve(root, y))
        prior = -0.5 * float((((logs - np.log(0.5)) / 0.7) ** 2).sum())
        prior -= 0.5 * (np.log(noise) + 2.5) ** 2
        fit = -0.5 * float(y @ weights) - float(np.log(np.diag(root)).sum()) + prior
        if fit > best[0]:
            best = (fit, np.exp(logs), root, weights, noise)
    _, scales, root, weights, _ = best

    def predict(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cross = matern(at, history.x, scales)
        half = np.linalg.solve(root, cross.T)
        variance = np.maximum(1.0 - (half**2).sum(0), 1e-9)
        return cross @ weights, np.sqrt(variance)

    return predict


def matern(a: np.ndarray, b: np.ndarray, scales: Sequence[float] | np.ndarray):
    """Matérn 5/2 covariance of points, [A, B]."""
    scaled = (a[:, None] - b[None]) / np.asarray(scales)
    r = np.sqrt(5 * (scaled**2).sum(-1))
    return (1 + r + r**2 / 3) * np.exp(-r)
