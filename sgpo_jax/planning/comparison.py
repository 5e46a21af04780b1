"""All allocators side by side on one profile."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from sgpo_jax import theory
from sgpo_jax.planning.allocators import ALLOCATORS, Allocator
from sgpo_jax.planning.curricula import Mixed
from sgpo_jax.planning.filters import DropTrivial, Filter
from sgpo_jax.planning.plan import make_plan
from sgpo_jax.planning.prediction import Baseline, Setting, predict
from sgpo_jax.profiling import Fitted, Posterior, Prior, Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocatorPrediction:
    """Predicted properties of one allocator on a profile.

    Attributes:
      name: of the allocator.
      rollouts: of one pass.
      mean_size: rollouts per query.
      largest: largest group.
      dead: expected share of groups with equal rewards.
      mixed: expected number of groups with a success and a failure.
      hits: expected number of queries with at least one success.
      units: compute of all passes, profile included, in generations of a rollout.
      saving: compute of the baseline over it.
      size_by_rate: mean group size in each bin of `AllocatorComparison.rate`.
    """

    name: str
    rollouts: int
    mean_size: float
    largest: int
    dead: float
    mixed: float
    hits: float
    units: float
    saving: float
    size_by_rate: Float[np.ndarray, " B"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocatorComparison:
    """Allocators side by side; prints as a table.

    Attributes:
      rows: one per allocator.
      rate: mean posterior success rate of each bin of queries.
      baseline: what compute is compared with.
    """

    rows: tuple[AllocatorPrediction, ...]
    rate: Float[np.ndarray, " B"]
    baseline: str

    def __str__(self) -> str:
        from sgpo_jax.planning import show

        return show.as_text(show.comparison_table(self))

    def to_arrow(self) -> pa.Table:
        """Return a table with one row per allocator."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return pa.Table.from_pylist(
            [{k: v for k, v in row.items() if k != "size_by_rate"} for row in rows]
        )

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame; needs pandas."""
        return self.to_arrow().to_pandas()

    def plot(self, axes: Any = None) -> Any:
        """Draw group size against success rate; returns the matplotlib axes."""
        from sgpo_jax.planning import show

        return show.plot_comparison(self, axes)


def compare(
    profile: Profile | Posterior,
    *,
    allocators: Mapping[str, Allocator] = ALLOCATORS,
    filter: Filter = DropTrivial(),
    setting: Setting = Setting(),
    against: Baseline = Baseline(),
    prior: Prior = Fitted(),
    seed: int = 0,
) -> AllocatorComparison:
    """Compare allocators on one profile, with the same filter and one mixed phase.

    Args:
      profile: success counts per query, or their posterior.
      allocators: by name.
      filter: which queries are trained on.
      setting: of training, for the compute.
      against: the baseline of the compute.
      prior: of the posterior, if a profile is given.
      seed: of the filter.

    Raises:
      ValueError: if no query is left.
    """
    belief = profile if isinstance(profile, Posterior) else Posterior.of(profile, prior)
    rows, rate, bins = [], np.zeros(0), np.zeros(0, np.int64)
    for name, allocate in allocators.items():
        plan = make_plan(
            belief, seed=seed, filter=filter, allocate=allocate, curriculum=Mixed()
        )
        (phase,) = plan.phases
        sizes = np.array(phase.sizes)
        place = belief.profile.place
        rest = belief.rows(np.array([place[id_] for id_ in phase.ids], np.int64))
        if not rate.size:
            rate, bins = _bins(rest.mean)
        found = predict(plan, belief, setting=setting, against=against)
        table, column = np.unique(sizes, return_inverse=True)
        hit = rest.expect_sizes(theory.probability_any_success, table)
        rows.append(
            AllocatorPrediction(
                name=name,
                rollouts=phase.rollouts,
                mean_size=float(sizes.mean()),
                largest=int(sizes.max()),
                dead=phase.dead,
                mixed=float((1 - phase.dead) * len(sizes)),
                hits=float(hit[rest.index, column.reshape(-1)].sum()),
                units=found.units,
                saving=found.saving,
                size_by_rate=np.bincount(bins, sizes) / np.bincount(bins),
            )
        )
    return AllocatorComparison(rows=tuple(rows), rate=rate, baseline=against.name)


def _bins(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin queries by posterior mean: each distinct value, or 40 bins if more."""
    distinct, bins = np.unique(np.round(mean, 6), return_inverse=True)
    if len(distinct) > 40:
        edges = np.unique(np.quantile(mean, np.linspace(0, 1, 41))[1:-1])
        bins = np.searchsorted(edges, mean)
        _, bins = np.unique(bins, return_inverse=True)
    bins = bins.reshape(-1)
    return np.bincount(bins, mean) / np.bincount(bins), bins
