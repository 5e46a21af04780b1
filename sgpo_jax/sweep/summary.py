"""Report of a sweep: `report.md` and `sweep.png` in its folder."""

import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib import ticker

from sgpo_jax.sweep.objective import TENTHS
from sgpo_jax.sweep.space import Choices, Interval, Space, Value
from sgpo_jax.sweep.sweep import Sweep, without

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

LEAST = 4
"""Whole trials from which importance is estimated."""
END = 0.02
"""Share of an interval, from either bound, that counts as its end."""
WHAT = {
    "area": "mean held-out success over the compute: the area under its curve. It"
    " counts how early success comes, averages the noise of all evaluations, and can be"
    " compared while trials run",
    "final": "held-out success when the budget of compute is spent, three evaluations"
    " averaged: what methods are compared by, and noisier than the area",
}


def write(sweep: Sweep, found: "optuna.Study", command: str) -> pathlib.Path:
    """Write the report and its figure; return the report's path.

    Args:
      sweep: the sweep.
      found: its study.
      command: that made it.
    """
    from optuna.trial import TrialState

    trials = found.get_trials(deepcopy=False)
    whole = [x for x in trials if x.state == TrialState.COMPLETE]
    path = sweep.folder / "report.md"
    parts = [f"# Sweep of {sweep.label}", f"`{command}`", _told(sweep, found, trials)]
    if whole:
        draw(sweep, trials, sweep.folder / "sweep.png")
        parts += [*_best(sweep, found), "![Trials](sweep.png)"]
        parts += list(_importance(sweep, found, whole))
    parts += ["## Trials", _table(sweep, trials)]
    path.write_text("\n\n".join(parts) + "\n")
    return path


def tuned_command(sweep: Sweep, found: "optuna.Study", *, seed: int) -> str:
    """Return the command that trains with the best options, from another seed.

    As many steps as the trial took for its compute.
    """
    trial = found.best_trial
    options = {one.name: one.text(trial.params[one.name]) for one in sweep.space}
    source = trial.user_attrs.get("same as", trial.number)
    words = sweep.arguments(source, options)
    steps = sweep.lines(source)[-1]["step"]
    words = without(words, "--seed", "--out", "--train.steps")
    seeded = ["--out", f"runs/tuned-{seed}", "--seed", str(seed)]
    words = ["sgpo", "run", *seeded, *words]
    return f"{shlex.join(words)} --train.steps {steps}"


def _told(sweep: Sweep, found: "optuna.Study", trials: Sequence["FrozenTrial"]) -> str:
    counts: dict[str, int] = {}
    for one in trials:
        counts[one.state.name.lower()] = counts.get(one.state.name.lower(), 0) + 1
    states = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    budget = sweep.total_compute(found)
    spent = f"{budget / 1e9:.4g} GFLOP each" if budget else "not known yet"
    return (
        f"{len(trials)} trials ({states}) of sampler {sweep.sampler}, pruner"
        f" {sweep.pruner}, at equal total compute, profiling included: {spent}. The"
        f" objective, {sweep.objective}, is {WHAT[sweep.objective]}."
    )


def _best(sweep: Sweep, found: "optuna.Study") -> Iterator[str]:
    best, default = found.best_trial, found.get_trials(deepcopy=False)[0]
    yield "## Best"
    gain = ""
    if default.value is not None:
        gain = f"; the default, trial 0, has {default.value:.3f}"
    yield (
        f"Trial {best.number}: {sweep.objective} {best.value:.3f}{gain}. **The best of"
        " many noisy trials looks better than it is**, and it was chosen on these"
        " questions with this seed: claim nothing from it. Train it and the default"
        " again with other seeds, and compare those:"
    )
    yield "\n".join(["```sh", tuned_command(sweep, found, seed=0), "```"])
    ends = at_the_ends(sweep.space, best.params)
    if ends:
        yield (
            f"The best value is at the end of what was searched: {', '.join(ends)}."
            " A better one may lie beyond; --search takes a wider range."
        )


def at_the_ends(space: Space, values: Mapping[str, Value]) -> list[str]:
    """Return the hyper-parameters whose value is a bound of its range, as text.

    An interval's end is its outermost 2 %; choices that are not numbers have none.

    Args:
      space: the hyper-parameters.
      values: of each, by name.

    >>> rate = Interval(name="lr", low=1e-4, high=1e-2, log=True)
    >>> size = Choices(name="size", values=("4", "8", "16"), ordered=True)
    >>> at_the_ends((rate, size), {"lr": 1.02e-4, "size": 1})
    ['lr 0.000102']
    """
    found = []
    for one in space:
        ordered = isinstance(one, Interval) or one.ordered
        position = one.position(values[one.name])
        if ordered and min(position, 1 - position) < END:
            found.append(f"{one.name} {one.text(values[one.name])}")
    return found


def _importance(
    sweep: Sweep, found: "optuna.Study", whole: Sequence["FrozenTrial"]
) -> Iterator[str]:
    """Yield the share of each hyper-parameter in what makes a trial a good one."""
    values = {trial.value for trial in whole}
    if len(whole) < LEAST or len(values) < 2 or len(sweep.space) < 2:
        return
    import optuna

    shares = optuna.importance.get_param_importances(
        found, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    yield "## Importance"
    yield "\n".join(
        [
            "| option | share |\n|---|---:|",
            *(f"| {name} | {share:.2f} |" for name, share in shares.items()),
        ]
    )
    yield (
        f"By PED-ANOVA (arXiv 2304.10255) over {len(whole)} whole trials: how far the"
        " values of the better trials are from those of all. Pruned trials are not in"
        " it; with few trials it says little."
    )


def _table(sweep: Sweep, trials: Sequence["FrozenTrial"]) -> str:
    names = [one.name for one in sweep.space]
    header = ["trial", *names, "state", "compute", sweep.objective]
    rows = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]

    def order(trial: "FrozenTrial") -> tuple[int, float]:
        return max(trial.intermediate_values, default=0), _last(trial) or 0.0

    for trial in sorted(trials, key=order, reverse=True):
        if trial.params.keys() < set(names):
            continue
        cells = [one.text(trial.params[one.name]) for one in sweep.space]
        state, value = trial.state.name.lower(), _last(trial)
        if "exit code" in trial.user_attrs:
            state = f"failed with {trial.user_attrs['exit code']}"
        if "same as" in trial.user_attrs:
            state += f", as trial {trial.user_attrs['same as']}"
        share = max(trial.intermediate_values, default=0) / TENTHS
        cells += [state, f"{share:.0%}", "" if value is None else f"{value:.3f}"]
        rows.append(f"| {trial.number} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _last(trial: "FrozenTrial") -> float | None:
    """Objective at the last share of the budget that a trial reached."""
    return trial.intermediate_values.get(max(trial.intermediate_values, default=0))


def draw(sweep: Sweep, trials: Sequence["FrozenTrial"], path: pathlib.Path) -> None:
    """Draw the best so far, and the objective against each hyper-parameter."""
    from optuna.trial import TrialState

    whole = [x for x in trials if x.state == TrialState.COMPLETE]
    pruned = [x for x in trials if x.state == TrialState.PRUNED and _last(x)]
    count = 1 + len(sweep.space)
    figure, axes = plt.subplots(
        1, count, figsize=(3.4 * count, 3.2), sharey=True, layout="constrained"
    )
    best: list[float] = []
    for trial in whole:
        best.append(max([_value(trial), *best[-1:]]))
    first = axes[0]
    first.step([x.number for x in whole], best, where="post", color=BEST)
    first.set(xlabel="trial", ylabel=sweep.objective, title="best so far")
    _points(first, [x.number for x in whole], [x.number for x in pruned], whole, pruned)
    for axis, one in zip(axes[1:], sweep.space, strict=True):
        at = [[x.params[one.name] for x in group] for group in (whole, pruned)]
        _points(axis, at[0], at[1], whole, pruned)
        default = one.value(sweep.default[one.name])
        axis.axvline(default, color="#999999", linewidth=0.8, linestyle=":")
        axis.set_xlabel(one.name.rpartition(".")[2])
        if isinstance(one, Choices):
            axis.set_xticks(range(len(one.values)), one.values)
        else:
            axis.set_xscale("log" if one.log else "linear")
            axis.set_xlim(one.low, one.high)
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    if pruned:
        axes[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)


BEST, PRUNED = "#1b6ca8", "#d95f02"


def _value(trial: "FrozenTrial") -> float:
    assert trial.value is not None  # it is whole
    return trial.value


def _points(
    axis: Any,
    at: Sequence[Value],
    at_pruned: Sequence[Value],
    whole: Sequence["FrozenTrial"],
    pruned: Sequence["FrozenTrial"],
) -> None:
    axis.scatter(at, [_value(x) for x in whole], s=18, color=BEST, label="whole")
    values = [_last(x) for x in pruned]
    axis.scatter(at_pruned, values, s=16, marker="x", color=PRUNED, label="pruned")
    axis.spines[["top", "right"]].set_visible(False)
