"""Screening: the queries that a predictor says are not worth profiling."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from sgpo_jax import streams, theory
from sgpo_jax.bounds import Share, bounded
from sgpo_jax.profiling.discriminant import Predictor, auc
from sgpo_jax.profiling.profile import Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Screen:
    """Rule that leaves out queries whose success rate is surely about 0 or 1.

    Attributes:
      unsolvable: largest success rate that counts as never solved.
      trivial: a rate above it counts as always solved.
      sure: probability of either, from which a query is left out.
    """

    unsolvable: Share = 0.02
    trivial: Share = 0.98
    sure: Share = 0.5

    def __post_init__(self):
        if self.unsolvable >= self.trivial:
            raise ValueError(
                f"unsolvable must be below trivial, got {self.unsolvable} and"
                f" {self.trivial}"
            )

    def __call__(self, belief: theory.BetaMixture) -> Bool[np.ndarray, " Q"]:
        """Return which queries are left out."""
        never = belief.cdf(self.unsolvable) > self.sure
        return never | (1 - belief.cdf(self.trivial) > self.sure)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Quality of a predictor on the queries of a profile that it did not see.

    Attributes:
      queries: profiled queries.
      auc: probability that a query solved at least once is ranked above one that never
        was; NaN if all were, or none.
      error: mean absolute difference of predicted and observed success rate.
      skipped: share of queries that the screen leaves out.
      wrong: share of those whose samples were neither all right nor all wrong.
      lost: share of all queries with mixed samples that the screen leaves out.
    """

    queries: int
    auc: float
    error: float
    skipped: float
    wrong: float
    lost: float

    def __str__(self) -> str:
        wrong = f", {self.wrong:.1%} of them wrongly" if self.skipped else ""
        return (
            f"predictor on {self.queries:,} profiled queries it did not see: AUC ever"
            f" solved {self.auc:.3f}, mean error of the success rate {self.error:.3f};"
            f" it would skip {self.skipped:.1%}{wrong}, {self.lost:.1%} of those with"
            " right and wrong samples"
        )


def cross_validation(
    features: Float[np.ndarray, "Q F"],
    profile: Profile,
    *,
    screen: Screen = Screen(),
    folds: int = 5,
    seed: int = 0,
) -> CrossValidation:
    """Fit a predictor to all folds but one, test it on that one, for each.

    Args:
      features: of the profile's queries.
      profile: their counts; queries without samples do not count.
      screen: what would be left out.
      folds: parts of the queries.
      seed: of the parts.

    Raises:
      ValueError: if the queries are too few, or no sample was right, or none wrong.
    """
    rows = np.flatnonzero(profile.samples > 0)
    order = streams.generator(seed).permutation(rows)
    parts = [part for part in np.array_split(order, folds) if len(part)]
    mean, out = np.zeros(len(profile)), np.zeros(len(profile), bool)
    for part in parts:
        fit = np.setdiff1d(rows, part)
        predictor = Predictor.fit(features[fit], profile.rows(fit), seed=seed)
        belief = predictor.belief(features[part])
        mean[part], out[part] = belief.mean, screen(belief)
    k, n = profile.successes[rows], profile.samples[rows]
    mean, out, mixed = mean[rows], out[rows], (k > 0) & (k < n)
    return CrossValidation(
        queries=len(rows),
        auc=auc(mean, k > 0),
        error=float(np.abs(mean - k / n).mean()),
        skipped=float(out.mean()),
        wrong=float((out & mixed).sum() / max(out.sum(), 1)),
        lost=float((out & mixed).sum() / max(mixed.sum(), 1)),
    )
