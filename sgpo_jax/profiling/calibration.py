"""Calibration: predicted against observed success on samples held out of a profile."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sgpo_jax import streams, theory
from sgpo_jax.profiling.posterior import Fitted, Posterior, Prior
from sgpo_jax.profiling.profile import Profile


def split_samples(
    profile: Profile, first: int, *, seed: int
) -> tuple[Profile, Profile]:
    """Divide the samples of each query at random: `first` of them, and the rest.

    Samples of a query are exchangeable, so the successes among `first` of n are
    hypergeometric. Queries with no sample left over keep none in the second part. Only
    counts are divided; tokens and rewards stay behind.
    """
    rng = streams.generator(seed)
    count = np.minimum(first, profile.samples)
    failures = profile.samples - profile.successes
    solved = rng.hypergeometric(profile.successes, failures, count)

    def part(successes: np.ndarray, samples: np.ndarray) -> Profile:
        return Profile(
            ids=profile.ids, samples=samples, successes=successes, source=profile.source
        )

    rest = part(profile.successes - solved, profile.samples - count)
    return part(solved, count), rest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of posteriors: predictions from some samples of the others.

    Attributes:
      predicted: mean predicted success rate of each bin of queries, [B].
      observed: success rate of their held-out samples, [B].
      queries: queries of each bin, [B].
      error: mean abs(predicted - observed) over bins, weighted by queries.
      log_score: mean log-probability of a query's held-out count, higher is better.
      jeffreys: the same under Jeffreys' prior.
      coverage: share of held-out counts inside the predictive interval.
      level: what the share should be at least.
    """

    predicted: Float[np.ndarray, " B"]
    observed: Float[np.ndarray, " B"]
    queries: Int[np.ndarray, " B"]
    error: float
    log_score: float
    jeffreys: float
    coverage: float
    level: float

    def __str__(self) -> str:
        return (
            f"calibration error {self.error:.3f}, log score {self.log_score:.3f}"
            f" (Jeffreys' prior {self.jeffreys:.3f}), {self.coverage:.1%} of held-out"
            f" counts in the {self.level:.0%} predictive interval"
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw observed against predicted success; returns the matplotlib axes."""
        from sgpo_jax.profiling import show

        return show.plot_calibration(self, axes)


def calibration(
    profile: Profile,
    *,
    first: int = 0,
    prior: Prior = Fitted(),
    level: float = 0.9,
    seed: int = 0,
) -> Calibration:
    """Fit posteriors to some samples of each query and test them on the rest.

    Args:
      profile: with at least two samples per query.
      first: samples to fit with; half of the median number if 0.
      prior: of the posteriors.
      level: of the predictive interval.
      seed: decides which samples are held out.

    Raises:
      ValueError: if no sample is left to test on.
    """
    first = first or max(1, int(np.median(profile.samples)) // 2)
    fit, held_out = split_samples(profile, first, seed=seed)
    rows = np.flatnonzero(held_out.samples > 0)
    if not rows.size:
        raise ValueError(
            f"no query has more than {first} samples: none is left to test on; profile"
            " with more samples"
        )
    belief = Posterior.of(fit, prior)
    k, n = held_out.successes[rows], held_out.samples[rows]
    edges = np.unique(np.quantile(belief.mean[rows], np.linspace(0, 1, 11)))
    bins = np.searchsorted(edges[1:-1], belief.mean[rows], side="right")

    def per_bin(values: np.ndarray) -> np.ndarray:
        return np.bincount(bins, values, minlength=max(len(edges) - 1, 1))

    queries = per_bin(np.ones(len(rows)))
    used = queries > 0
    held = per_bin(n.astype(float))[used]
    predicted = per_bin(belief.mean[rows] * n)[used] / held
    observed = per_bin(k)[used] / held
    weight = queries[used] / queries.sum()
    flat = Posterior.of(fit, lambda profile: theory.BetaMixture())
    return Calibration(
        predicted=predicted,
        observed=observed,
        queries=queries[used].astype(np.int64),
        error=float(weight @ np.abs(predicted - observed)),
        log_score=float(_log_scores(belief, rows, k, n).mean()),
        jeffreys=float(_log_scores(flat, rows, k, n).mean()),
        coverage=_coverage(belief, rows, k, n, level),
        level=level,
    )


def _pick(belief: Posterior, rows: np.ndarray) -> theory.BetaMixture:
    """Return the posteriors of some rows as one mixture of arrays."""
    c, index = belief.classes, belief.index[rows]
    alpha, beta, never, always = (
        np.asarray(part)[index] for part in (c.alpha, c.beta, c.never, c.always)
    )
    return theory.BetaMixture(alpha=alpha, beta=beta, never=never, always=always)


def _log_scores(
    belief: Posterior, rows: np.ndarray, k: np.ndarray, n: np.ndarray
) -> np.ndarray:
    return _pick(belief, rows).log_evidence(k, n)


def _coverage(
    belief: Posterior, rows: np.ndarray, k: np.ndarray, n: np.ndarray, level: float
) -> float:
    """Return the share of counts between the predictive quantiles.

    Counts are discrete, so more than `level` is expected.
    """
    mixture, tail = _pick(belief, rows), (1 - level) / 2
    outcomes = np.arange(int(n.max()) + 1)
    below = np.zeros(len(rows))
    upto = np.zeros(len(rows))
    for value in outcomes:
        inside = value <= n
        mass = np.exp(mixture.log_evidence(np.minimum(value, n), n)) * inside
        below += mass * (value < k)
        upto += mass * (value <= k)
    return float(((upto > tail) & (below < 1 - tail)).mean())
