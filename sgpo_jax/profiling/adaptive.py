"""Sequential profiling: more samples only where the decision is still open."""

import dataclasses
import itertools
import zlib
from collections.abc import Callable
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from sgpo_jax import theory
from sgpo_jax.bounds import TINY, Count, NonNegative, Range, Share, bounded
from sgpo_jax.profiling.posterior import Fitted, Posterior, Prior
from sgpo_jax.profiling.profile import Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Decision:
    """The question a profile has to answer: in which interval is the success rate?

    Attributes:
      edges: ends of the intervals; (0.01, 0.75) asks whether a query is unsolvable,
        learnable or trivial, (0.01, 1/8, 1/4, 3/4) also for sGPO's group size.
    """

    edges: tuple[Share, ...] = (0.01, 0.75)

    def __post_init__(self):
        ends = (0.0, *self.edges, 1.0)
        if any(a >= b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"edges must rise within (0, 1), got {self.edges}")

    def probabilities(self, belief: theory.BetaMixture) -> Float[np.ndarray, "... C"]:
        """Return the probability of each interval (low, high]."""
        upto = [belief.cdf(edge) for edge in self.edges]
        zero, one = np.zeros_like(upto[0]), np.ones_like(upto[0])
        return np.diff(np.stack([zero, *upto, one], -1), axis=-1)

    def label(self, rate: Float[np.ndarray, " Q"]) -> Int[np.ndarray, " Q"]:
        """Return the interval of known rates."""
        return np.searchsorted(np.asarray(self.edges), rate, side="left")

    def expected_gain(
        self, prior: theory.BetaMixture, k: np.ndarray, n: np.ndarray, *, more: int
    ) -> Float[np.ndarray, " D"]:
        r"""Expected rise of the probability that the decision is right.

        .. math:: \sum_j P(j \mid k, n, m) \max_c P(c \mid k + j, n + m)
                  - \max_c P(c \mid k, n)

        the preposterior value of m further samples, which is never below 0.
        """
        now = prior.posterior(k, n)
        parts = dataclasses.asdict(now).items()
        each = theory.BetaMixture(**{name: part[:, None] for name, part in parts})
        j = np.arange(more + 1.0)
        chance = np.exp(each.log_evidence(j, more))
        best = self.probabilities(each.posterior(j, more)).max(-1)
        value = (chance * best).sum(-1) - self.probabilities(now).max(-1)
        # What no outcome can change is worth nothing; sums leave rounding behind.
        return np.where(value > 1e-12, value, 0.0)


@runtime_checkable
class SamplingRule(Protocol):
    """Decides which queries get how many further samples. Frozen, deterministic."""

    def __call__(
        self, belief: Posterior, prior: theory.BetaMixture, *, budget: int
    ) -> tuple[Int[np.ndarray, " Q"], float]:
        """Return further samples per query, at most `budget` in all, and their gain.

        No sample at all ends profiling. The gain is the expected number of decisions
        that become right.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Flat:
    """The same number of samples for every query, at once."""

    samples: Annotated[int, Range(1, 2**16)] = 8

    def __call__(
        self, belief: Posterior, prior: theory.BetaMixture, *, budget: int
    ) -> tuple[Int[np.ndarray, " Q"], float]:
        """Fill each query up to `samples`."""
        missing = np.maximum(self.samples - belief.profile.drawn, 0)
        return _within(missing, np.zeros(len(missing)), budget, belief.profile), 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Sequential:
    """Rounds of a few samples for the queries whose decision gains most from them.

    The gain of a query is the most that its decision gains per sample over one, two,
    four ... batches, up to `most` samples: one batch may be too small to change any
    decision although two are not (KG(*), Frazier and Powell 2010,
    doi 10.1287/deca.1100.0190). A query is clear, and left alone, once one interval has
    probability `confidence` or nothing gains more than `least_gain`.

    Attributes:
      first: samples every query starts with.
      batch: samples added at a time.
      most: samples after which a query is left alone.
      confidence: posterior probability that ends a query early.
      least_gain: smallest gain per sample worth paying for.
      share: share of the open queries that a round takes, those that gain most.
      decision: what is to be decided.
    """

    first: Count = 4
    batch: Count = 4
    most: Annotated[int, Range(1, 2**16)] = 32
    confidence: Annotated[float, Range(TINY, 1)] = 0.95
    least_gain: NonNegative = 0.0
    share: Annotated[float, Range(TINY, 1)] = 0.5
    decision: Decision = Decision()

    def __post_init__(self):
        if self.most < self.first:
            raise ValueError(
                f"profiling needs first <= most, got {self.first} and {self.most}"
            )

    def __call__(
        self, belief: Posterior, prior: theory.BetaMixture, *, budget: int
    ) -> tuple[Int[np.ndarray, " Q"], float]:
        """Return a batch for the open queries that gain most."""
        drawn, profile = belief.profile.drawn, belief.profile
        start = np.maximum(self.first - drawn, 0)
        if start.any():
            return _within(start, np.zeros(len(start)), budget, profile), np.nan
        sure = self.decision.probabilities(belief.classes).max(-1)[belief.index]
        counts = np.stack([profile.successes, profile.samples]).astype(np.float64)
        cells, index = np.unique(counts, axis=1, return_inverse=True)
        gain = self._gain(prior, *cells)[index.reshape(-1)]
        open_ = (sure < self.confidence) & (drawn + self.batch <= self.most)
        open_ &= gain > self.least_gain
        wanted = np.where(open_, self.batch, 0)
        count = max(1, int(np.ceil(self.share * open_.sum())))
        room = min(budget, count * self.batch)
        more = _within(wanted, np.where(open_, gain, -1.0), room, profile)
        return more, float(more @ gain)

    def _gain(
        self, prior: theory.BetaMixture, k: np.ndarray, n: np.ndarray
    ) -> Float[np.ndarray, " D"]:
        """Most that the decision gains per sample over a power of two of batches."""
        best, more = np.zeros(len(n)), self.batch
        while more <= self.most:
            gain = self.decision.expected_gain(prior, k, n, more=more) / more
            best = np.where(n + more <= self.most, np.maximum(best, gain), best)
            more *= 2
        return best


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """Budget and expected gain of a round of profiling.

    Attributes:
      number: from 1.
      samples: samples it will draw.
      queries: queries they go to.
      clear: queries whose decision is clear already.
      gain: decisions expected to become right per sample, times the samples; NaN in
        the first round.
      left: budget left after it.
    """

    number: int
    samples: int
    queries: int
    clear: int
    gain: float
    left: int

    def __str__(self) -> str:
        gain = "" if np.isnan(self.gain) else f", {self.gain:.1f} more decisions right"
        return (
            f"round {self.number}: {self.samples:,} samples of {self.queries:,} queries"
            f" ({self.clear:,} clear){gain}; {self.left:,} samples left after it"
        )


def profile_adaptively(
    draw: Callable[[list[range]], Profile],
    ids: tuple[str, ...],
    *,
    rule: SamplingRule,
    budget: int,
    prior: Prior = Fitted(),
    on_round: Callable[[Round], None] = lambda _: None,
    confidence: float = 0.95,
) -> Profile:
    """Profile in rounds under a budget.

    Counts decide each round, so an interrupted profile resumes if `draw` does, as
    `measure` with chunks does. Posteriors are not biased by stopping early; k / n of
    the queries that were stopped is.

    Args:
      draw: takes the range of sample indices of each query and returns the profile of
        those with a range that is not empty; `measure` behind a lambda.
      ids: the queries.
      rule: which queries get more.
      budget: samples in all.
      prior: refitted each round.
      on_round: told before a round is paid for.
      confidence: what counts as clear in what `on_round` is told.
    """
    total = Profile(ids=ids, samples=[0] * len(ids), successes=[0] * len(ids))
    decision = getattr(rule, "decision", Decision())
    number = 0
    while True:
        before = prior(total)
        belief = Posterior.of(total, lambda profile, before=before: before)
        spent = int(total.drawn.sum())
        more, gain = rule(belief, before, budget=budget - spent)
        if not more.any():
            return total
        number += 1
        sure = decision.probabilities(belief.classes).max(-1)[belief.index]
        on_round(
            Round(
                number=number,
                samples=int(more.sum()),
                queries=int((more > 0).sum()),
                clear=int((sure >= confidence).sum()),
                gain=gain,
                left=budget - spent - int(more.sum()),
            )
        )
        start = total.first_sample + total.drawn
        ranges = [
            range(a, a + m) for a, m in zip(start.tolist(), more.tolist(), strict=True)
        ]
        found = draw(ranges)
        if number == 1:
            total = dataclasses.replace(total, source=found.source)
        total = total.merge(found)


def _within(
    wanted: np.ndarray, value: np.ndarray, budget: int, profile: Profile
) -> np.ndarray:
    """Cut a wish down to a budget: most valuable first, ties by a hash of the id."""
    if wanted.sum() <= budget:
        return wanted
    tie = [zlib.crc32(id_.encode()) for id_ in profile.ids]
    order = np.lexsort((np.asarray(tie), -value))
    before = np.cumsum(wanted[order]) - wanted[order]
    granted = np.zeros_like(wanted)
    granted[order] = np.clip(budget - before, 0, wanted[order])
    return granted
