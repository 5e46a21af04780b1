"""Drift of a profile: is its order of difficulty still that of the policy?"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy import stats

from sgpo_jax import streams
from sgpo_jax.planning.allocators import Allocator, InverseSuccess
from sgpo_jax.planning.curricula import Mixed
from sgpo_jax.planning.filters import DropTrivial, Filter
from sgpo_jax.planning.plan import Plan, make_plan
from sgpo_jax.planning.prediction import Setting
from sgpo_jax.profiling import Decision, Fitted, Posterior, Prior, Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """A first profile against later counts of the same queries.

    Attributes:
      queries: queries that both have samples of.
      first: mean success rate in the first profile.
      later: mean success rate later.
      correlation: Spearman's rank correlation of the first posterior means with the
        later rates.
      low: lower end of its 95 % bootstrap interval.
      high: upper end of it.
      unchanged: median correlation if the policy had stayed as it was: later counts
        drawn from the first posterior. Noise alone keeps it below 1.
      unchanged_low: 2.5 % quantile of that.
      moved: expected share of queries in another class (unsolvable, learnable, trivial)
        than the first profile's most probable one.
      cost: generations of another profile of as many samples.
      saving: generations saved per pass by planning from the later counts instead, at
        equal groups with signal; below 0 if the old plan is the better one.
    """

    queries: int
    first: float
    later: float
    correlation: float
    low: float
    high: float
    unchanged: float
    unchanged_low: float
    moved: float
    cost: float
    saving: float

    @property
    def changed(self) -> bool:
        """True if the order changed by more than sampling noise explains."""
        return self.high < self.unchanged_low

    @property
    def pays_after(self) -> float:
        """Passes over the queries after which profiling again pays; inf if never."""
        return self.cost / self.saving if self.saving > 0 else math.inf

    def __str__(self) -> str:
        order = (
            "has changed" if self.changed else "is what noise alone would make of it"
        )
        pays = (
            "another profile does not pay: the old plan is as good"
            if self.pays_after == math.inf
            else f"another profile pays after {self.pays_after:.1f} passes"
            f" ({self.cost:,.0f} generations for {self.saving:,.0f} saved per pass)"
        )
        return (
            f"success of {self.queries:,} queries {self.first:.3f} at first,"
            f" {self.later:.3f} later; rank correlation {self.correlation:.2f}"
            f" ({self.low:.2f} to {self.high:.2f}; {self.unchanged:.2f} if nothing had"
            f" changed): the order {order}; {self.moved:.0%} in another class; {pays}"
        )


def drift(
    first: Profile,
    later: Profile,
    *,
    filter: Filter = DropTrivial(),
    allocate: Allocator = InverseSuccess(),
    setting: Setting = Setting(),
    prior: Prior = Fitted(),
    draws: int = 200,
    seed: int = 0,
) -> Drift:
    """Compare a first profile with later counts: of training, or of a second profile.

    Counts of training mix policies of all its steps, so they show less change than a
    second profile would.

    Args:
      first: the profile that plans were made from.
      later: counts of the same queries, under the same ids.
      filter: of the plans that are compared.
      allocate: of the plans that are compared.
      setting: what a trained response costs.
      prior: of both posteriors.
      draws: of the bootstrap, and of counts without change.
      seed: of the draws.

    Raises:
      ValueError: if fewer than 3 queries have samples in both.
    """
    rows = [
        (row, later.place[id_])
        for row, id_ in enumerate(first.ids)
        if id_ in later.place and first.samples[row] and later.samples[later.place[id_]]
    ]
    if len(rows) < 3:
        raise ValueError(
            f"{len(rows)} queries have samples in both profiles; drift needs at least 3"
        )
    one, two = (np.array(part, np.int64) for part in zip(*rows, strict=True))
    old = Posterior.of(first, prior).rows(one)
    new = Posterior.of(later, prior).rows(two)
    rng = streams.generator(seed)
    found, low, high = _correlated(old.mean, new.profile.success_rate, draws, rng)
    still = _unchanged(old, new.profile.samples, draws, rng)
    decision = Decision()
    label = decision.probabilities(old.classes).argmax(-1)[old.index]
    now = decision.probabilities(new.classes)[new.index]
    stays = now[np.arange(len(label)), label].mean()
    saving = _saving(old, new, filter, allocate, setting)
    return Drift(
        queries=len(rows),
        first=float(old.profile.successes.sum() / old.profile.samples.sum()),
        later=float(new.profile.successes.sum() / new.profile.samples.sum()),
        correlation=found,
        low=low,
        high=high,
        unchanged=float(np.median(still)),
        unchanged_low=float(np.quantile(still, 0.025)),
        moved=float(1 - stays),
        cost=float(old.profile.drawn.sum()),
        saving=saving,
    )


def _correlated(
    x: np.ndarray, y: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return Spearman's correlation and its bootstrap interval over queries."""
    found = [_spearman(x, y)]
    for _ in range(draws):
        rows = rng.integers(len(x), size=len(x))
        found.append(_spearman(x[rows], y[rows]))
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return found[0], float(low), float(high)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    a, b = stats.rankdata(x), stats.rankdata(y)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _unchanged(
    belief: Posterior, samples: np.ndarray, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " D"]:
    """Return correlations with counts of a policy that stayed as it was."""
    c, index = belief.classes, belief.index
    parts = [np.asarray(part) for part in (c.alpha, c.beta, c.never, c.always)]
    alpha, beta, never, always = (np.broadcast_to(p, len(c.mean))[index] for p in parts)
    found = []
    for _ in range(draws):
        rate = rng.beta(alpha, beta)
        kind = rng.random(len(rate))
        rate = np.where(kind < never, 0.0, np.where(kind > 1 - always, 1.0, rate))
        found.append(_spearman(belief.mean, rng.binomial(samples, rate) / samples))
    return np.array(found)


def _saving(
    old: Posterior,
    new: Posterior,
    filter: Filter,
    allocate: Allocator,
    setting: Setting,
) -> float:
    """Return generations per pass that a new plan saves, at equal live groups."""
    try:
        plans = [
            make_plan(part, filter=filter, allocate=allocate, curriculum=Mixed())
            for part in (old, new)
        ]
    except ValueError:
        return 0.0
    (spent, live), (spent_new, live_new) = (_cost(p, new, setting) for p in plans)
    if not live or not live_new:
        return 0.0
    return spent - live * spent_new / live_new


def _cost(plan: Plan, belief: Posterior, setting: Setting) -> tuple[float, float]:
    """Return generations of a pass, and groups with signal, under a belief."""
    (phase,) = plan.phases
    place = belief.profile.place
    rest = belief.rows(np.array([place[id_] for id_ in phase.ids], np.int64))
    sizes = np.array(phase.sizes)
    dead = rest.dead(sizes)
    trained = 1 - dead if setting.drop_dead else np.ones(len(dead))
    units = (sizes * (1 + setting.training * trained)).sum()
    return float(units), float((1 - dead).sum())
