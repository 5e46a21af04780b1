"""Prompts of a run: sampler, history and baseline, as a method asks for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import advantages, methods
from sgpo_jax.methods import Draw, History, Method, PromptPool
from sgpo_jax.methods.prompts.pool import checked
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile
from sgpo_jax.training.progress import PromptState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompt sampler and the baseline tracker of a method over a set of prompts.

    Attributes:
      method: the method.
      count: number of training prompts Q.
      seed: identifies the run.
      profile: profile whose rows are the prompts; None if the method needs none.
      plan: a plan from a file, in place of the sampler's own; None for none.
    """

    method: Method
    count: int
    seed: int = 0
    profile: Profile | None = None
    plan: Plan | None = None

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(
                "there are no training prompts; give more questions, or allow longer"
                " ones"
            )
        if "profile" in self.method.needs and self.profile is None:
            raise ValueError(
                "the method reads a profile of the initial policy; profile the prompts"
                " first, or take a method without (see `sgpo methods`)"
            )
        if self.profile is not None and len(self.profile) != self.count:
            raise ValueError(
                f"the profile has {len(self.profile)} prompts, training {self.count};"
                " select the rows of the training prompts"
            )

    def init(self) -> PromptState:
        """Return what is remembered before the first step."""
        history = History.empty(self.count)
        baseline: Any = {}
        if self.method.baseline is not None:
            known = self.profile
            zeros = jnp.zeros(self.count, jnp.int32)
            counts = (zeros, zeros)
            if known is not None:
                counts = jnp.asarray(known.successes), jnp.asarray(known.samples)
            baseline = jax.tree.map(np.asarray, self.method.baseline.init(*counts))
        state = PromptState({}, history, baseline)
        sampler = methods.as_sampler(self.method.prompts)
        return state._replace(sampler=sampler.init(self._pool(state)))

    def draw(
        self, state: PromptState, *, budget: int, progress: float, seed: int
    ) -> tuple[Draw, PromptState]:
        """Draw the prompts of a step or of a further round."""
        sampler, pool = methods.as_sampler(self.method.prompts), self._pool(state)
        draw, after = sampler.draw(
            pool, state.sampler, budget=budget, progress=progress, seed=seed
        )
        return checked(draw, pool, sampler), state._replace(sampler=after)

    def groups(
        self,
        state: PromptState,
        draw: Draw,
        *,
        group: np.ndarray,
        rewards: np.ndarray,
        length: np.ndarray,
        max_length: int,
    ) -> methods.RewardGroups:
        """Rewards of a step with what the method's parts read of their prompts."""
        rows, optional = draw.rows[group], {}
        if self.method.baseline is not None:
            optional["baseline"] = self.mean(state)[rows]
        if "baseline_weight" in self.method.needs:
            optional["baseline_weight"] = self.weight(state)[rows]
        if self.profile is not None and "profile" in self.method.needs:
            optional["profile"] = np.nan_to_num(self.profile.success_rate)[rows]
        return methods.RewardGroups(
            rewards=np.asarray(rewards),
            id=np.asarray(group),
            length=np.asarray(length, np.float32),
            size=np.bincount(group).astype(np.float32)[group],
            count=len(draw.rows),
            max_length=max_length,
            optional=optional,
        )

    def observe(
        self,
        state: PromptState,
        draw: Draw,
        *,
        group: np.ndarray,
        rewards: np.ndarray,
        step: int,
    ) -> PromptState:
        """Return what is remembered after the rewards of a step."""
        state = state._replace(
            history=state.history.observe(draw, group, rewards, step)
        )
        if self.method.baseline is None:
            return state
        padded, rows = _padded(rewards, draw.rows[group])
        tracker = self.method.baseline
        drift = (state.drift,) if "drift" in methods.needs_of(tracker) else ()
        updated = _update(state.baseline, padded, rows, *drift, tracker=tracker)
        return state._replace(baseline=jax.tree.map(np.asarray, updated))

    def mean(self, state: PromptState) -> np.ndarray:
        """Expected reward of each prompt by the baseline tracker, [Q]."""
        assert self.method.baseline is not None
        belief = jax.tree.map(jnp.asarray, state.baseline)
        return np.asarray(self.method.baseline.mean(belief))

    def weight(self, state: PromptState) -> np.ndarray:
        """Rewards that the baseline of each prompt is worth, [Q]."""
        assert self.method.baseline is not None
        belief = jax.tree.map(jnp.asarray, state.baseline)
        return np.asarray(self.method.baseline.weight(belief))

    def _pool(self, state: PromptState) -> PromptPool:
        optional: dict[str, Any] = {}
        if self.profile is not None:
            optional["profile"] = self.profile
        if self.plan is not None:
            optional["plan"] = self.plan
        needs = methods.needs_of(self.method.prompts)
        if "baseline" in needs:
            optional["baseline"] = self.mean(state)
        if "baseline_weight" in needs:
            optional["baseline_weight"] = self.weight(state)
        pool = PromptPool(
            count=self.count,
            history=state.history,
            seed=self.seed,
            optional=optional,
        )
        return pool.restricted(needs)


def _padded(rewards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pad to a power of two, so that few programs are compiled; NaN is no reward."""
    count = len(rewards)
    room = (1 << max(count - 1, 1).bit_length()) - count
    rewards = np.pad(rewards.astype(np.float32), (0, room), constant_values=np.nan)
    return rewards, np.pad(rows.astype(np.int32), (0, room))


@functools.partial(jax.jit, static_argnames="tracker")
def _update(
    state: Any,
    rewards: jax.Array,
    rows: jax.Array,
    drift: jax.Array | None = None,
    *,
    tracker: advantages.Tracker,
) -> Any:
    further = {} if drift is None else {"drift": drift}
    return tracker.update(state, rewards, rows, **further)
