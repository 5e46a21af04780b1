"""Ideas that could save more, each given to GRPO, thinned GRPO and drawn prompts."""

import dataclasses
from typing import Any

import numpy as np

from benchmarks.headline import controls
from sgpo_jax import advantages, methods, planning
from sgpo_jax.config import LEARNING_RATE
from sgpo_jax.methods import Draw, PromptPool

RATE = LEARNING_RATE[""]
AVERAGING = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growing:
    r"""A prompt sampler whose steps grow: fewer rollouts while the signal is strong.

    .. math:: B_t = B \cdot \min(1, s + (1 - s) \, t / (w T))

    for step t of T. "Don't decay the learning rate, increase the batch size"
    (arXiv:1711.00489).

    Attributes:
      sampler: draws the prompts.
      start: share s of the rollouts in the first step.
      until: share w of the run after which steps are whole.
    """

    sampler: Any = methods.prompts.Shuffled()
    start: float = 0.25
    until: float = 0.5

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(getattr(self.sampler, "needs", ()))

    def init(self, pool: PromptPool):
        return self.sampler.init(pool)

    def draw(self, pool: PromptPool, state, *, budget: int, progress: float, seed: int):
        share = min(1.0, self.start + (1 - self.start) * progress / self.until)
        return self.sampler.draw(
            pool, state, budget=round(budget * share), progress=progress, seed=seed
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged:
    """The plan of a profile for the first part of a run, then all prompts.

    Attributes:
      first: prompt sampler of the first part.
      then: prompt sampler of the rest.
      at: share of the run after which the second takes over.
    """

    first: Any = methods.prompts.Planned(curriculum=planning.Mixed())
    then: Any = methods.prompts.Shuffled()
    at: float = 0.4

    needs = ("profile",)

    def init(self, pool: PromptPool):
        return {"first": self.first.init(pool), "then": self.then.init(pool)}

    def draw(self, pool: PromptPool, state, *, budget: int, progress: float, seed: int):
        name = "first" if progress < self.at else "then"
        drawn, new = getattr(self, name).draw(
            pool, state[name], budget=budget, progress=progress, seed=seed
        )
        return drawn._replace(phase=0), {**state, name: new}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UntilConverged(methods.prompts.Planned):
    """Phases of a plan that end when their success no longer rises.

    Attributes:
      window: steps whose visits are averaged.
      patience: steps without a new best after which the next phase begins.
      least: rise of the success that counts.
    """

    window: int = 5
    patience: int = 8
    least: float = 0.01

    def init(self, pool: PromptPool):
        zero = np.zeros((), np.int64)
        begun = {"phase": zero, "step": zero, "since": zero, "best": np.zeros(())}
        return {"cursors": super().init(pool), **begun}

    def draw(self, pool: PromptPool, state, *, budget: int, progress: float, seed: int):
        del progress
        phases = self._phases(pool)
        step, phase, since, best = (
            state[name].item() for name in ("step", "phase", "since", "best")
        )
        rows, _ = phases.phases[phase]
        recent = pool.history.of(rows)
        seen = (recent.visits > 0) & (recent.last_step > step - self.window)
        success = float(np.nanmean(recent.last_mean[seen])) if seen.any() else 0.0
        if success >= best + self.least:
            best, since = success, step
        elif step - since >= self.patience and phase + 1 < len(phases.phases):
            phase, since, best = phase + 1, step, 0.0
        drawn, cursors = phases.draw(
            pool,
            state["cursors"],
            budget=budget,
            progress=(phase + 0.5) / len(phases.phases),
            seed=seed,
        )
        now = {"phase": phase, "step": step + 1, "since": since}
        kept = {name: np.asarray(value, np.int64) for name, value in now.items()}
        return drawn, {"cursors": cursors, **kept, "best": np.asarray(best, float)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByPosterior:
    """Prompts drawn by what the Beta posterior says of a group, not by its mean.

    Attributes:
      weight: "signal", the expected probability of a group that is not all equal; or
        "optimism", the largest deviation of a reward within `width` standard
        deviations of the mean.
      group_size: rollouts per drawn prompt.
      floor: lowest weight of a prompt.
      width: of the optimism, in standard deviations.
    """

    weight: str
    group_size: int = 8
    floor: float = 0.02
    width: float = 1.0

    needs = ("baseline", "baseline_weight")

    def init(self, pool: PromptPool):
        del pool
        return {}

    def draw(self, pool: PromptPool, state, *, budget: int, progress: float, seed: int):
        del progress
        mean = np.clip(np.asarray(pool.baseline, np.float64), 1e-6, 1 - 1e-6)
        counts = np.asarray(pool.baseline_weight, np.float64)
        weigh = {"signal": self.signal, "optimism": self.optimism}[self.weight]
        rows = methods.prompts.draw_by_weight(
            weigh(mean, counts) + self.floor, -(-budget // self.group_size), seed=seed
        )
        return Draw(rows, np.full(len(rows), self.group_size)), state

    def signal(self, mean: np.ndarray, counts: np.ndarray) -> np.ndarray:
        r"""Expected 1 - p^G - (1 - p)^G for p of a Beta distribution."""
        steps = np.arange(self.group_size)

        def power(first: np.ndarray) -> np.ndarray:
            each = (first[:, None] + steps) / (counts[:, None] + steps)
            return each.prod(axis=1)

        return 1 - power(mean * counts) - power((1 - mean) * counts)

    def optimism(self, mean: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Deviation of a reward at the rate nearest 1/2 that is still believable."""
        half = self.width * np.sqrt(mean * (1 - mean) / (counts + 1))
        nearest = np.clip(0.5, np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1))
        return np.sqrt(nearest * (1 - nearest))


def _trial(method: methods.Method, rate: float = 1.0, **parts: Any) -> methods.Method:
    """A method with other parts, its averaged parameters evaluated beside the raw."""
    return method.replace(
        averaging=AVERAGING,
        optimizer=methods.AdamW(learning_rate=RATE * rate),
        **parts,
    )


def grpo_averaged() -> methods.Method:
    """`grpo_token`, and its averaged parameters."""
    return _trial(methods.named("grpo_token"))


def thin_averaged() -> methods.Method:
    """`grpo_thin`, and its averaged parameters."""
    return _trial(methods.named("grpo_thin"))


def grpo_fast() -> methods.Method:
    """`grpo_token` at twice the step size, and its averaged parameters."""
    return _trial(methods.named("grpo_token"), 2.0)


def thin_fast() -> methods.Method:
    """`grpo_thin` at twice the step size, and its averaged parameters."""
    return _trial(methods.named("grpo_thin"), 2.0)


def grpo_grown() -> methods.Method:
    """`grpo_token`, a quarter of the rollouts at first, all from half of the run on."""
    return _trial(methods.named("grpo_token"), prompts=Growing())


def thin_grown() -> methods.Method:
    """`grpo_thin`, a quarter of the rollouts at first, all from half of the run on."""
    return _trial(methods.named("grpo_thin"), prompts=Growing())


def thin_grown_fast() -> methods.Method:
    """`thin_grown` at twice the step size."""
    return _trial(methods.named("grpo_thin"), 2.0, prompts=Growing())


def drawn_grown() -> methods.Method:
    """`drawn_flat`, with steps that grow like those of `thin_grown`."""
    flat = controls.drawn_flat()
    return _trial(flat, prompts=Growing(sampler=flat.prompts))


def sgpo_thin() -> methods.Method:
    """`sgpo` without an order, thinned like `grpo_thin`."""
    thin = methods.named("grpo_thin").subsample
    return controls.sgpo_mixed().replace(subsample=thin, averaging=AVERAGING)


def sgpo_converged() -> methods.Method:
    """`sgpo` whose phases end when their success no longer rises."""
    return controls.sgpo_mixed().replace(prompts=UntilConverged())


def offline_thin() -> methods.Method:
    """`grpo_thin` on responses of the initial policy: those a profile has sampled.

    One pass over them costs what the profile costs. Importance weights are cut at 2.
    """
    return methods.named("grpo_thin").replace(
        max_staleness=10_000,
        correction=methods.Truncated(),
        optimizer=methods.AdamW(learning_rate=RATE),
    )


def staged_thin() -> methods.Method:
    """`grpo_thin` that begins with the plan of a profile, which it pays for."""
    return _trial(methods.named("grpo_thin"), prompts=Staged())


def staged_fast() -> methods.Method:
    """`staged_thin` at twice the step size."""
    return _trial(methods.named("grpo_thin"), 2.0, prompts=Staged())


def staged_grown() -> methods.Method:
    """`staged_thin` with steps that grow like those of `thin_grown`."""
    return _trial(methods.named("grpo_thin"), prompts=Growing(sampler=Staged()))


def signal_flat() -> methods.Method:
    """`drawn_flat`, drawn by the expected signal of a group."""
    return controls.drawn_flat().replace(prompts=ByPosterior(weight="signal"))


def optimism_flat() -> methods.Method:
    """`drawn_flat`, drawn by the deviation at the most favourable believable rate."""
    return controls.drawn_flat().replace(prompts=ByPosterior(weight="optimism"))


def signal() -> methods.Method:
    """`drawn`, drawn by the expected signal of a group."""
    return signal_flat().replace(baseline=advantages.BetaTracker())


def optimism() -> methods.Method:
    """`drawn`, drawn by the deviation at the most favourable believable rate."""
    return optimism_flat().replace(baseline=advantages.BetaTracker())


def weak() -> methods.Method:
    """`drawn`, each sample of its profile counted as a quarter of one."""
    return controls.drawn().replace(
        baseline=advantages.BetaTracker(profile_weight=0.25)
    )


def drawn_2() -> methods.Method:
    """`drawn`; run it with `--own drawn_2 "--profile.samples 2"`."""
    return controls.drawn()


def drawn_4() -> methods.Method:
    """`drawn`; run it with `--own drawn_4 "--profile.samples 4"`."""
    return controls.drawn()
