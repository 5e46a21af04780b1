"""Posterior of the success rate of each query, given a profile."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from sgpo_jax import theory
from sgpo_jax.profiling.profile import Profile

JEFFREYS = theory.BetaMixture()


@runtime_checkable
class Prior(Protocol):
    """Prior of success rates, before the samples of a profile."""

    def __call__(self, profile: Profile) -> theory.BetaMixture:
        """Return a prior for all queries (scalars) or one for each ([Q])."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """A prior that does not depend on the profile; Jeffreys' by default."""

    mixture: theory.BetaMixture = JEFFREYS

    def __call__(self, profile: Profile) -> theory.BetaMixture:
        """Return the mixture."""
        del profile
        return self.mixture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """Empirical Bayes: the prior under which the profile's counts are most probable.

    Attributes:
      atoms: whether there are point masses at 0 and 1, since real pools hold many
        queries that are never and always solved; `theory.fit_prior`.
    """

    atoms: bool = True

    def __call__(self, profile: Profile) -> theory.BetaMixture:
        """Fit the prior to the profile."""
        return theory.fit_prior(profile.successes, profile.samples, atoms=self.atoms)


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """Posterior of each query's success rate.

    Queries with the same counts (and prior) share one entry, so a million queries cost
    as much as their few distinct counts.

    Attributes:
      profile: the counts.
      classes: posterior of each distinct count, [D].
      index: entry of each query, [Q].

    Example:
      >>> profile = Profile(ids=("a", "b", "c"), samples=[8] * 3, successes=[0, 4, 0])
      >>> belief = Posterior.of(profile, Given())
      >>> belief.mean.round(3)
      array([0.056, 0.5  , 0.056])
      >>> belief.interval(0.9)[:, 1].round(2)
      array([0.24, 0.76])
    """

    profile: Profile
    classes: theory.BetaMixture
    index: Int[np.ndarray, " Q"]

    @classmethod
    def of(cls, profile: Profile, prior: Prior = Fitted()) -> "Posterior":
        """Condition a prior on a profile."""
        before = prior(profile)
        parts = [before.alpha, before.beta, before.never, before.always]
        parts = [np.asarray(part, np.float64) for part in parts]
        varying = [part for part in parts if part.ndim]
        keys = np.stack([profile.successes, profile.samples, *varying])
        keys, index = np.unique(keys, axis=1, return_inverse=True)
        rows = iter(keys[2:])
        alpha, beta, never, always = (next(rows) if p.ndim else p for p in parts)
        distinct = theory.BetaMixture(
            alpha=alpha, beta=beta, never=never, always=always
        )
        classes = distinct.posterior(keys[0], keys[1])
        return cls(profile, classes, index.reshape(-1))

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, rows: np.ndarray) -> "Posterior":
        """Return some queries, by number, under the same prior."""
        return Posterior(self.profile.rows(rows), self.classes, self.index[rows])

    @property
    def mean(self) -> Float[np.ndarray, " Q"]:
        """Posterior mean of the success rate."""
        return self.classes.mean[self.index]

    @property
    def std(self) -> Float[np.ndarray, " Q"]:
        """Posterior standard deviation of the success rate."""
        return self.classes.std[self.index]

    def interval(self, level: float = 0.9) -> Float[np.ndarray, "2 Q"]:
        """Return the equal-tailed credible interval, lower and upper ends."""
        tail = (1 - level) / 2
        ends = [self.classes.quantile(tail), self.classes.quantile(1 - tail)]
        return np.stack(ends)[:, self.index]

    def trivial(self, above: float = 0.75) -> Float[np.ndarray, " Q"]:
        """Return the probability that the success rate exceeds `above`."""
        return (1 - self.classes.cdf(above))[self.index]

    def unsolvable(self, at_most: float = 0.01) -> Float[np.ndarray, " Q"]:
        """Return the probability of a success rate of at most `at_most`."""
        return self.classes.cdf(at_most)[self.index]

    def learnable(
        self, at_most: float = 0.01, above: float = 0.75
    ) -> Float[np.ndarray, " Q"]:
        """Return the probability of neither, so of (at_most, above]."""
        between = self.classes.cdf(above) - self.classes.cdf(at_most)
        return between[self.index]

    @functools.cached_property
    def nodes(self) -> tuple[Float[np.ndarray, "D S"], Float[np.ndarray, "D S"]]:
        """Success rates and weights that stand for each distinct posterior."""
        return self.classes.nodes()

    def expect(self, value: Callable[[Any], Any]) -> Float[np.ndarray, " D"]:
        """Return the posterior expectation of a function of the rate, per entry.

        Args:
          value: maps success rates [D, S] to values of the same shape.
        """
        rate, weight = self.nodes
        return (weight * value(rate)).sum(-1)

    def expect_sizes(
        self, value: Callable[[Any, Any], Any], sizes: Int[np.ndarray, " G"]
    ) -> Float[np.ndarray, "D G"]:
        """Return expectations of a function of rate and group size, per entry."""
        rate, weight = self.nodes
        columns = [(weight * value(rate, int(size))).sum(-1) for size in sizes]
        return np.stack(columns, -1)

    def dead(self, sizes: Int[np.ndarray, " Q"]) -> Float[np.ndarray, " Q"]:
        """Return the probability that a group of each query has equal rewards."""
        distinct, column = np.unique(sizes, return_inverse=True)
        table = 1 - self.expect_sizes(theory.probability_mixed, distinct)
        return np.clip(table[self.index, column.reshape(-1)], 0, 1)
