"""The plan of sGPO as a prompt sampler: phases of profiled prompts."""

import dataclasses
import functools

import numpy as np

from sgpo_jax import planning, streams
from sgpo_jax.methods.prompts.pool import Draw, PromptPool, State
from sgpo_jax.methods.prompts.shuffled import take
from sgpo_jax.profiling import Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledPhases:
    """Shuffled passes over phases of prompts, each prompt with its own group size.

    Every phase gets the same share of the run.

    Attributes:
      phases: per phase, the prompt rows and their group sizes.
    """

    phases: tuple[tuple[np.ndarray, np.ndarray], ...] = dataclasses.field(hash=False)

    def __post_init__(self):
        if not self.phases or not all(len(rows) for rows, _ in self.phases):
            raise ValueError("every phase needs prompts")

    def init(self, pool: PromptPool) -> State:
        """Return cursors at zero."""
        del pool
        return {"cursor": np.zeros(len(self.phases), np.int64)}

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts of the current phase's shuffled passes."""
        del seed  # the order depends on the cursor alone
        phase = min(int(progress * len(self.phases)), len(self.phases) - 1)
        rows, sizes = self.phases[phase]
        items, cursor = take(
            int(state["cursor"][phase]),
            sizes,
            budget=budget,
            seeds=streams.passes(pool.seed, phase),
        )
        cursors = state["cursor"].copy()
        cursors[phase] = cursor
        return Draw(rows[items], sizes[items], phase), {"cursor": cursors}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """Filter, allocator and curriculum over a profile: sGPO (arXiv:2606.08854).

    The defaults are the paper's rule: drop trivial prompts, keep a tenth of the
    unsolved, group sizes near 1 / success rate, easy prompts first.

    Attributes:
      filter: which prompts are trained on.
      allocate: rollouts of each.
      curriculum: phases, in order.
    """

    filter: planning.Filter = planning.DropTrivial()
    allocate: planning.Allocator = planning.InverseSuccess()
    curriculum: planning.Curriculum = planning.EasyToHard()

    needs = ("profile",)

    def plan(self, profile: Profile, *, seed: int) -> planning.Plan:
        """Make the plan of a profile; the seed decides which unsolved ones are kept."""
        return planning.make_plan(
            profile,
            seed=seed,
            filter=self.filter,
            allocate=self.allocate,
            curriculum=self.curriculum,
        )

    def init(self, pool: PromptPool) -> State:
        """Return cursors at zero, one per phase."""
        return self._phases(pool).init(pool)

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts of the current phase's shuffled passes."""
        return self._phases(pool).draw(
            pool, state, budget=budget, progress=progress, seed=seed
        )

    def _phases(self, pool: PromptPool) -> ShuffledPhases:
        return _phases(self, _ById(pool.profile), _ById(pool.plan), pool.seed)


class _ById:
    """A value compared by identity, as a key of a cache."""

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return id(self.value)

    def __eq__(self, other):
        return isinstance(other, _ById) and self.value is other.value


@functools.lru_cache(maxsize=8)
def _phases(sampler: Planned, profile: _ById, plan: _ById, seed: int) -> ShuffledPhases:
    made = plan.value or sampler.plan(profile.value, seed=seed)
    return ShuffledPhases(phases=phase_rows(made, profile.value))


def phase_rows(
    plan: planning.Plan, profile: Profile
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Rows of a plan's prompts in its profile, and their group sizes, by phase.

    Raises:
      ValueError: if the plan names a prompt that the profile does not have.
    """
    try:
        return tuple(
            (np.array([profile.place[id_] for id_ in phase.ids]), np.array(phase.sizes))
            for phase in plan.phases
        )
    except KeyError as error:
        raise ValueError(
            f"the plan names prompt {error.args[0]!r}, which is not in the profile;"
            " make the plan again from this profile"
        ) from None
