"""The prompt pool: what is known of each training prompt when a step is drawn."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from sgpo_jax.methods.needs import needs_of, provided
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile

State = Any
"""A pytree of numpy arrays."""


class Draw(NamedTuple):
    """Prompts of a step.

    Attributes:
      rows: prompt rows, distinct, [P].
      sizes: rollouts of each, [P].
      phase: phase of the curriculum of this step.
    """

    rows: np.ndarray
    sizes: np.ndarray
    phase: int = 0


class History(NamedTuple):
    """Visit statistics of each prompt in training, [Q].

    Attributes:
      visits: steps that sampled the prompt.
      last_step: the last of them; 0 if never.
      last_mean: mean reward at the last visit; NaN if never scored.
      streak: consecutive visits up to the last whose scored rewards were all equal.
      rollouts: scored rollouts so far.
      total: sum of their rewards.
    """

    visits: np.ndarray
    last_step: np.ndarray
    last_mean: np.ndarray
    streak: np.ndarray
    rollouts: np.ndarray
    total: np.ndarray

    @classmethod
    def empty(cls, count: int) -> "History":
        """History of prompts never visited."""
        return cls(
            visits=np.zeros(count, np.int32),
            last_step=np.zeros(count, np.int32),
            last_mean=np.full(count, np.nan, np.float32),
            streak=np.zeros(count, np.int32),
            rollouts=np.zeros(count, np.int32),
            total=np.zeros(count, np.float64),
        )

    def of(self, rows: np.ndarray) -> "History":
        """History of some prompts, in their order."""
        return History(*(column[rows] for column in self))

    def observe(
        self, draw: Draw, group: np.ndarray, rewards: np.ndarray, step: int
    ) -> "History":
        """History after a step; linear in the rollouts plus one copy.

        Args:
          draw: prompts of the step.
          group: place in `draw.rows` of each rollout, [R].
          rewards: one per rollout, NaN where unscorable, [R].
          step: number of the step, from 1.
        """
        places, rows = len(draw.rows), draw.rows
        scored = np.isfinite(rewards)
        group, rewards = group[scored], rewards[scored]
        count = np.bincount(group, minlength=places)
        total = np.bincount(group, rewards, minlength=places)
        low, high = np.full(places, np.inf), np.full(places, -np.inf)
        np.minimum.at(low, group, rewards)
        np.maximum.at(high, group, rewards)
        some = count > 0
        new = History(*(column.copy() for column in self))
        new.visits[rows] += 1
        new.last_step[rows] = step
        mean = total / np.maximum(count, 1)
        new.last_mean[rows[some]] = mean[some]
        equal = low == high
        new.streak[rows[some]] = np.where(equal, self.streak[rows] + 1, 0)[some]
        new.rollouts[rows] += count.astype(np.int32)
        new.total[rows] += total
        return new


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptPool:
    """The training prompts, as a prompt sampler sees them.

    Attributes:
      count: number of prompts Q; rows are 0 to Q - 1.
      history: what training has seen of each.
      seed: identifies the run; the order of its passes follows from it.
      optional: further inputs by name; read them through the properties.
    """

    count: int
    history: History
    seed: int = 0
    optional: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """Profile whose rows are those of the pool; needs "profile"."""
        return provided(self.optional.get("profile"), "pool.profile", "profile")

    @property
    def baseline(self) -> np.ndarray:
        """Expected reward of each prompt by the baseline tracker, [Q]."""
        return provided(self.optional.get("baseline"), "pool.baseline", "baseline")

    @property
    def baseline_weight(self) -> np.ndarray:
        """Rewards that each baseline is worth, [Q]: a + b of a Beta distribution."""
        return provided(
            self.optional.get("baseline_weight"),
            "pool.baseline_weight",
            "baseline_weight",
        )

    @property
    def plan(self) -> Plan | None:
        """A plan that was read from a file and takes the place of the sampler's own."""
        return self.optional.get("plan")

    def restricted(self, needs: frozenset[str]) -> "PromptPool":
        """Copy with only the optional inputs that a sampler needs."""
        kept = {
            name: x
            for name, x in self.optional.items()
            if name in needs or (name == "plan" and "profile" in needs)
        }
        return dataclasses.replace(self, optional=kept)


@runtime_checkable
class PromptSampler(Protocol):
    """Draws the prompts of a step: state in, state out.

    A plain function `draw(pool, *, budget, progress, seed) -> Draw` will do where there
    is no state; see `as_sampler`. All samplers pass one contract test.

    One whose draws do not depend on `progress` says so by an attribute, `phased =
    False`: a run of it may be made longer (`--train.steps`) and is then the run that
    was longer from the start. Without the attribute no run is made longer; a subclass
    that reads `progress` sets it to True.
    """

    def init(self, pool: PromptPool) -> State:
        """Return the state before the first step, a pytree of numpy arrays."""
        ...

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Choose prompts for about `budget` rollouts.

        Args:
          pool: what is known of the prompts.
          state: as from `init` or the last call.
          budget: rollouts wanted; exceeded by less than one group.
          progress: share of the run that is done, in [0, 1).
          seed: identifies run, step and round.
        """
        ...


@dataclasses.dataclass(frozen=True)
class _Stateless:
    """A prompt sampler made of a plain function."""

    function: Callable[..., Draw]

    @property
    def needs(self) -> frozenset[str]:
        return needs_of(self.function)

    def init(self, pool: PromptPool) -> State:
        del pool
        return {}

    def draw(self, pool, state, *, budget, progress, seed):
        draw = self.function(pool, budget=budget, progress=progress, seed=seed)
        return draw, state


def as_sampler(sampler: PromptSampler | Callable[..., Draw]) -> PromptSampler:
    """Prompt sampler from one, or from a plain function without state."""
    if isinstance(sampler, PromptSampler):
        return sampler
    return _Stateless(sampler)


def checked(draw: Draw, pool: PromptPool, sampler: object) -> Draw:
    """The draw itself, if it is one.

    Raises:
      ValueError: if rows repeat, are no rows of the pool, or sizes are not positive.
    """
    rows, sizes = np.asarray(draw.rows), np.asarray(draw.sizes)
    if rows.ndim != 1 or rows.shape != sizes.shape or not len(rows):
        raise ValueError(
            f"prompt sampler {sampler} drew rows of shape {rows.shape} with sizes of"
            f" shape {sizes.shape}; both must be [P], and not empty"
        )
    if len(np.unique(rows)) != len(rows) or rows.min() < 0 or rows.max() >= pool.count:
        raise ValueError(
            f"prompt sampler {sampler} must draw distinct rows in [0, {pool.count}),"
            f" got {rows[:8]}"
        )
    if sizes.min() < 1:
        raise ValueError(f"prompt sampler {sampler} drew a group of {sizes.min()}")
    return Draw(rows.astype(np.int64), sizes.astype(np.int64), draw.phase)
