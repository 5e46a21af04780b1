"""Query filters on the posterior of the success rate."""

import dataclasses
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from sgpo_jax import theory
from sgpo_jax.bounds import Range, Share, bounded
from sgpo_jax.profiling import Posterior

Kept = Bool[np.ndarray, " Q"]


@runtime_checkable
class Filter(Protocol):
    """Chooses queries. All filters pass one contract test."""

    def __call__(self, belief: Posterior, *, rng: np.random.Generator) -> Kept:
        """Return True for each query that is kept, [Q]."""
        ...


def _keep_some(
    kept: np.ndarray,
    rows: np.ndarray,
    share: float,
    belief: Posterior,
    rng: np.random.Generator,
) -> None:
    """Keep a fixed random share of some rows, rounded up; ids decide, not rows."""
    ids = np.array([belief.profile.ids[row] for row in rows.tolist()], str)
    rows = rows[np.argsort(ids)]
    kept[rng.permutation(rows)[: int(np.ceil(share * len(rows)))]] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepAllQueries:
    """Keeps every query that could be scored at all."""

    def __call__(self, belief: Posterior, *, rng: np.random.Generator) -> Kept:
        """Return True where there is at least one scored sample."""
        del rng
        return belief.profile.samples > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class DropTrivial:
    """Drops trivial queries and keeps a fixed random share of unsolved ones.

    The rule of sGPO (arXiv:2606.08854, section 4.3.1; both numbers second-hand): a
    query is trivial if its success rate exceeds 0.75 and unsolved if it is 0; a tenth
    of the unsolved ones stay.

    Attributes:
      trivial_above: queries with a success rate above this are dropped.
      unsolved_share: share of the unsolved queries that is kept, rounded up.
      trivial_share: share of the trivial queries that is kept, against forgetting.
    """

    trivial_above: Share = 0.75
    unsolved_share: Share = 0.1
    trivial_share: Share = 0.0

    def __call__(self, belief: Posterior, *, rng: np.random.Generator) -> Kept:
        """Return True for learnable queries and for the shares of the others."""
        rate = belief.profile.success_rate
        kept = (rate > 0) & (rate <= self.trivial_above)
        _keep_some(kept, np.flatnonzero(rate == 0), self.unsolved_share, belief, rng)
        trivial = np.flatnonzero(rate > self.trivial_above)
        _keep_some(kept, trivial, self.trivial_share, belief, rng)
        return kept


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Confident:
    """Drops queries that are trivial or unsolvable with high probability.

    The posterior decides, not k / n: after one sample almost nothing is dropped, after
    32 failures almost everything that is unsolvable.

    Attributes:
      trivial_above: success rate above which a query is trivial.
      unsolvable_below: success rate up to which it is unsolvable.
      confidence: posterior probability from which a query is dropped.
      unsolvable_share: share of the unsolvable queries that is kept, rounded up.
    """

    trivial_above: Share = 0.75
    unsolvable_below: Share = 0.01
    confidence: Share = 0.9
    unsolvable_share: Share = 0.1

    def __call__(self, belief: Posterior, *, rng: np.random.Generator) -> Kept:
        """Return True where the posterior leaves room for learning."""
        scored = belief.profile.samples > 0
        trivial = belief.trivial(self.trivial_above) >= self.confidence
        unsolvable = belief.unsolvable(self.unsolvable_below) >= self.confidence
        kept = scored & ~trivial & ~unsolvable
        rows = np.flatnonzero(scored & unsolvable)
        _keep_some(kept, rows, self.unsolvable_share, belief, rng)
        return kept


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SignalRange:
    r"""Keeps queries whose groups are mixed with a probability in a range.

    .. math:: low \le E[1 - p^G - (1 - p)^G] \le high

    Attributes:
      low: least posterior probability of a mixed group.
      high: largest one.
      size: group size G.
    """

    low: Share = 0.2
    high: Share = 1.0
    size: Annotated[int, Range(2, 4096)] = 8

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError(
                f"a range needs low <= high, got {self.low} and {self.high}"
            )

    def __call__(self, belief: Posterior, *, rng: np.random.Generator) -> Kept:
        """Return True where the expected signal is in the range."""
        del rng
        signal = belief.expect(lambda p: theory.probability_mixed(p, self.size))
        inside = (signal >= self.low) & (signal <= self.high)
        return inside[belief.index] & (belief.profile.samples > 0)


FILTERS: dict[str, Filter] = {
    "drop-trivial": DropTrivial(),
    "keep-all": KeepAllQueries(),
    "confident": Confident(),
    "signal": SignalRange(),
}
"""Filters by the name the command line has for them, with their defaults."""
