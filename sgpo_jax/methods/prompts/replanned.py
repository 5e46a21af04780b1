"""A plan made again at the end of each phase, from the rollouts of training itself."""

import contextlib
import dataclasses
from typing import Any

import numpy as np

from sgpo_jax import planning, streams
from sgpo_jax.bounds import Count, bounded
from sgpo_jax.methods.prompts.planned import Planned, phase_rows
from sgpo_jax.methods.prompts.pool import Draw, PromptPool, State
from sgpo_jax.methods.prompts.shuffled import take
from sgpo_jax.profiling import Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Replanned(Planned):
    """`Planned`, with a new plan at every phase's end: re-profiling without a sample.

    Prompts that training has sampled often enough count by their rewards in training,
    which are older than a new profile would be but free; the others by the profile.
    Phase i of the new plan follows phase i - 1 of the old one, so that prompts which
    became easier move to smaller groups, and trivial ones are dropped. Where the rules
    leave no prompt at all, the old plan stays.

    Attributes:
      least: scored rollouts from which training's counts replace the profile's.
    """

    least: Count = 8

    def init(self, pool: PromptPool) -> State:
        """Return the first phase: a cursor, its number, and the group sizes."""
        zero = np.zeros((), np.int64)
        return {"cursor": zero, "phase": zero, "sizes": self._sizes(pool, 0)}

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts of the phase, planned again if it is a new one."""
        del seed  # the order depends on the cursor alone
        count = len(self._phases(pool).phases)
        phase = min(int(progress * count), count - 1)
        if phase != int(state["phase"]):
            state = {
                "cursor": np.zeros((), np.int64),
                "phase": np.asarray(phase, np.int64),
                "sizes": self._sizes(pool, phase),
            }
        rows = np.flatnonzero(state["sizes"])
        sizes = state["sizes"][rows]
        items, cursor = take(
            int(state["cursor"]),
            sizes,
            budget=budget,
            seeds=streams.passes(pool.seed, phase),
        )
        after = {**state, "cursor": np.asarray(cursor, np.int64)}
        return Draw(rows[items], sizes[items], phase), after

    def _sizes(self, pool: PromptPool, phase: int) -> np.ndarray:
        """Return the group size of each prompt in a phase, 0 if it is not in it."""
        phases: Any = self._phases(pool).phases
        if phase:
            known = refreshed(pool, least=self.least)
            with contextlib.suppress(planning.EmptyPlanError):
                phases = phase_rows(self.plan(known, seed=pool.seed), known)
        rows, sizes = phases[min(phase, len(phases) - 1)]
        found = np.zeros(pool.count, np.int64)
        found[rows] = sizes
        return found


def refreshed(pool: PromptPool, *, least: int) -> Profile:
    """Return the pool's profile with training's counts where there are enough."""
    known, history = pool.profile, pool.history
    often = history.rollouts >= least
    solved = np.clip(np.round(history.total), 0, history.rollouts)
    return Profile(
        ids=known.ids,
        samples=np.where(often, history.rollouts, known.samples),
        successes=np.where(often, solved, known.successes),
        tokens=known.tokens,
        unscorable=known.unscorable,
        source={**known.source, "refreshed": int(often.sum())},
    )
