"""The plan: what to train on, with how many rollouts, in which order."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from sgpo_jax import streams
from sgpo_jax.artefacts import digest
from sgpo_jax.planning.allocators import Allocator, InverseSuccess
from sgpo_jax.planning.curricula import Curriculum, EasyToHard
from sgpo_jax.planning.filters import DropTrivial, Filter
from sgpo_jax.planning.reading import read_plan
from sgpo_jax.profiling import Fitted, Posterior, Prior, Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """Queries trained on together.

    Attributes:
      ids: query ids.
      sizes: group size of each query.
      dead: predicted share of groups whose rewards are all equal, from the profile's
        posterior: such groups cost rollouts and teach nothing.
    """

    ids: tuple[str, ...]
    sizes: tuple[int, ...]
    dead: float

    @property
    def rollouts(self) -> int:
        """Rollouts of one pass over the phase."""
        return sum(self.sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan: phases and their provenance. It is data: it can be read and edited.

    Attributes:
      phases: in training order.
      profile: fingerprint of the profile it was made from.
      rules: the filter, allocator and curriculum, as text.
      trivial: queries left out although they were solved, or could not be scored.
      unsolved: queries without any success in the profile, kept or not.
      prediction: what training by it is expected to cost, as `Prediction.to_json`
        writes it; None if not computed. Not part of `hash`, and dropped when a file
        is read that was edited.
    """

    phases: tuple[Phase, ...]
    profile: str
    rules: dict[str, str]
    trivial: int
    unsolved: int
    prediction: dict[str, Any] | None = None

    def __str__(self) -> str:
        from sgpo_jax.planning import show

        return show.plan_text(self)

    @property
    def rollouts(self) -> int:
        """Rollouts of one pass over all phases."""
        return sum(phase.rollouts for phase in self.phases)

    @property
    def hash(self) -> str:
        """Return 16 hexadecimal digits that identify the plan."""
        fields = dataclasses.asdict(self)
        del fields["prediction"]
        content = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def to_arrow(self) -> Any:
        """Return a pyarrow table, one row per query and phase."""
        from sgpo_jax.planning import exports

        return exports.plan_table(self)

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame; needs pandas."""
        return self.to_arrow().to_pandas()

    def plot(self, axes: Any = None) -> Any:
        """Draw rollouts per phase and size; returns the matplotlib axes."""
        from sgpo_jax.planning import show

        return show.plot_plan(self, axes)

    def save(self, path: pathlib.Path) -> None:
        """Write the plan as JSON; whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        content = json.loads(json.dumps(dataclasses.asdict(self)))
        content["checksum"] = digest(content)
        temporary.write_text(json.dumps(content, indent=1))
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: pathlib.Path, *, ids: Collection[str] | None = None) -> "Plan":
        """Read a plan that a person may have edited.

        Args:
          path: of the JSON file.
          ids: the queries there are; None accepts any id.

        Raises:
          ValueError: one line that names the file and the entry that is wrong.
        """
        content, edited = read_plan(path, ids=ids)
        if edited:  # what was predicted was of another plan
            content["prediction"] = None
        phases = tuple(Phase(**phase) for phase in content.pop("phases"))
        return cls(phases=phases, **content)


class EmptyPlanError(ValueError):
    """A filter keeps no query of a profile; the message has the reason."""


def make_plan(
    profile: Profile | Posterior,
    *,
    seed: int = 0,
    filter: Filter = DropTrivial(),
    allocate: Allocator = InverseSuccess(),
    curriculum: Curriculum = EasyToHard(),
    prior: Prior = Fitted(),
) -> Plan:
    """Turn a profile into a plan.

    The defaults are the rule of sGPO (arXiv:2606.08854). Unsolved queries take the
    group size of the phase they are mixed into, so that a phase has one size.

    Args:
      profile: success counts per query, or their posterior.
      seed: decides which unsolved queries are kept.
      filter: which queries are trained on.
      allocate: how many rollouts each gets.
      curriculum: in which order.
      prior: of the posterior, if a profile is given.

    Raises:
      ValueError: if no query is left, with what the profile holds.
    """
    belief = profile if isinstance(profile, Posterior) else Posterior.of(profile, prior)
    counts = belief.profile
    kept = filter(belief, rng=streams.plan(seed))
    if not kept.any():
        raise EmptyPlanError(_why_empty(counts, filter))
    rest = belief.rows(np.flatnonzero(kept))
    sizes = allocate(rest)
    phases = []
    for rows in curriculum(rest, sizes):
        unsolved = rest.profile.successes[rows] == 0
        size = sizes[rows].copy()
        of_solved = np.unique(size[~unsolved])
        if isinstance(curriculum, EasyToHard) and len(of_solved) == 1:
            size[unsolved] = of_solved[0]
        part = rest.rows(rows)
        phases.append(
            Phase(
                ids=part.profile.ids,
                sizes=tuple(size.tolist()),
                dead=float(np.mean(part.dead(size))),
            )
        )
    rate = counts.success_rate
    return Plan(
        phases=tuple(phases),
        profile=counts.fingerprint(),
        rules={
            "filter": repr(filter),
            "allocate": repr(allocate),
            "curriculum": repr(curriculum),
        },
        trivial=int((~kept & ~(rate == 0)).sum()),
        unsolved=int((rate == 0).sum()),
    )


def _why_empty(profile: Profile, filter: Filter) -> str:
    start = f"the filter {filter} keeps none of {len(profile)} queries"
    if not profile.samples.any():
        return f"{start}: not one sample could be scored; look at the verifier first"
    if not profile.successes.any():
        return (
            f"{start}: the policy solved none of them in {profile.samples.sum()}"
            " samples; take easier queries, train on demonstrations first, or profile"
            " with more samples"
        )
    return (
        f"{start}: those that were solved are trivial; take harder queries or a weaker"
        " filter"
    )
