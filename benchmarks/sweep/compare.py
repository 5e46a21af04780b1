"""Samplers side by side: the best of so many trials, on functions none has seen."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna

from sgpo_jax.sweep import Interval, Space, study
from sgpo_jax.sweep.proposals import snapped
from sgpo_jax.sweep.space import Choices

from .functions import FORMULAS, random_functions, table_function

SAMPLERS = ("random", "tpe", "gp", "learned")
TRIALS = 24
SHOWN = (6, 12, 24)
PROBES = 20_000


@dataclasses.dataclass(frozen=True)
class Problem:
    """An objective on the unit cube, with what is a good value of it.

    Attributes:
      group: of problems that are averaged.
      function: of a position [D].
      space: its hyper-parameters.
      top: the best value of many.
      usual: the median of many.
      noise: standard deviation of what a sampler sees.
    """

    group: str
    function: Callable[[np.ndarray], float]
    space: Space
    top: float
    usual: float
    noise: float

    def regret(self, value: float) -> float:
        """Share of the way from the best down to the median, 0 to 1 and beyond."""
        return (self.top - value) / (self.top - self.usual)


def formulas() -> list[Problem]:
    """The formulas, with noise of 5 % of the way to the median."""
    rng = np.random.default_rng(0)
    found = []
    for name, (function, dims) in FORMULAS.items():
        values = np.array([function(x) for x in rng.random((PROBES, dims))])
        found.append(_problem(name, function, cube(dims), values, noise=0.05))
    return found


def drawn(count: int) -> list[Problem]:
    """Random functions of the kind that the model was trained on, of another seed."""
    found = []
    for i in range(count):
        rng = np.random.default_rng([7, i])
        dims = 2 + i % 3
        functions = random_functions(rng, 1, dims)

        def function(x: np.ndarray, functions=functions) -> float:
            return float(functions(x[None, None])[0, 0])

        values = functions(rng.random((1, PROBES, dims)))[0]
        group = "random functions"
        found.append(_problem(group, function, cube(dims), values, noise=0.05))
    return found


def of_table(name: str, table: Mapping[tuple[float, ...], float], names) -> Problem:
    """A table of runs; they are reproducible, so there is no noise."""
    axes = [sorted({key[i] for key in table}) for i in range(len(names))]
    space = tuple(
        Choices(name=one, values=tuple(map(str, axis)), ordered=True)
        for one, axis in zip(names, axes, strict=True)
    )
    values = np.array(list(table.values()))
    return _problem(name, table_function(table), space, values, noise=0.0)


def of_few_values() -> Problem:
    """A bowl of two options, and one of three values of which the middle is best."""
    space = (*cube(2), Choices(name="x2", values=("1", "2", "4"), ordered=True))

    def function(x: np.ndarray) -> float:
        return -float(((x - np.array([0.3, 0.7, 0.5])) ** 2).sum())

    x = snapped(space, np.random.default_rng(0).random((PROBES, 3)))
    values = np.array([function(row) for row in x])
    return _problem("bowl, an option of three", function, space, values, noise=0.05)


def cube(dims: int) -> Space:
    return tuple(Interval(name=f"x{i}", low=0.0, high=1.0) for i in range(dims))


def _problem(group, function, space, values, *, noise) -> Problem:
    top, usual = float(values.max()), float(np.median(values))
    return Problem(group, function, space, top, usual, noise * (top - usual))


def run(problem: Problem, sampler: str, seed: int) -> np.ndarray:
    """Regret of the best setting so far after each trial, [T]; the first is random.

    The best is chosen by what the sampler saw, and judged without noise.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.create_study(direction="maximize")
    noise = np.random.default_rng([seed, 1])
    start = np.random.default_rng([seed, 2]).random(len(problem.space))
    found.enqueue_trial(
        {
            one.name: one.value_at(float(p))
            for one, p in zip(problem.space, start, strict=True)
        }
    )
    seen, true = [], []
    for _ in range(TRIALS):
        trial = study.ask(found, problem.space, sampler=sampler, seed=seed)
        x = np.array([one.position(trial.params[one.name]) for one in problem.space])
        true.append(problem.function(x))
        seen.append(true[-1] + problem.noise * noise.standard_normal())
        found.tell(trial, seen[-1])
    chosen = [int(np.argmax(seen[: t + 1])) for t in range(TRIALS)]
    return np.array([problem.regret(true[i]) for i in chosen])


def interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    draws = rng.integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def summary(results: Sequence[dict]) -> str:
    """Tables of mean regret, and of paired differences to the learned one."""
    groups = list(dict.fromkeys(row["group"] for row in results))
    lines = [
        "| problem | trials | " + " | ".join(SAMPLERS) + " |",
        "|---|---:|" + "---:|" * len(SAMPLERS),
    ]
    for group in groups:
        for shown in SHOWN:
            cells = [
                np.mean(
                    [
                        r["regret"][shown - 1]
                        for r in results
                        if r["group"] == group and r["sampler"] == name
                    ]
                )
                for name in SAMPLERS
            ]
            best = min(cells)
            text = [f"**{x:.3f}**" if x == best else f"{x:.3f}" for x in cells]
            lines.append(f"| {group} | {shown} | {' | '.join(text)} |")
    lines += [
        "",
        "| learned less | trials | difference of regret, 95 % interval over runs |",
        "|---|---:|---:|",
    ]
    for other in SAMPLERS[:-1]:
        for shown in SHOWN:
            mean, low, high = gap(results, other, shown)
            text = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
            lines.append(f"| {other} | {shown} | {text} |")
    return "\n".join(lines)


def gap(results: Sequence[dict], other: str, shown: int) -> tuple[float, float, float]:
    """Regret of the learned sampler less another's, on the same runs, and interval."""

    def regrets(sampler: str) -> dict[tuple, float]:
        return {
            (row["problem"], row["seed"]): row["regret"][shown - 1]
            for row in results
            if row["sampler"] == sampler
        }

    ours, theirs = regrets("learned"), regrets(other)
    gaps = np.array([ours[key] - theirs[key] for key in ours])
    return float(gaps.mean()), *interval(gaps, np.random.default_rng(0))


def verdict(results: Sequence[dict]) -> str:
    """In words: where the learned sampler is better, worse, or not told apart."""
    said = []
    for other in SAMPLERS[:-1]:
        parts = []
        for shown in SHOWN:
            _, low, high = gap(results, other, shown)
            word = "not told apart" if low < 0 < high else "better"
            parts.append(f"{'worse' if low > 0 else word} after {shown}")
        said.append(f"against {other} {', '.join(parts)}")
    return "; ".join(said) + " trials."
