"""The figures of a report."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax.planning import Plan
from sgpo_jax.planning.figures import plot_sizes
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import Curve

Lines = Sequence[Mapping[str, Any]]
COLORS = ("#555555", "#d95f02", "#1b6ca8", "#66a61e", "#7570b3")


def _save(figure: Any, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    plt.close(figure)


# Legible where a page shows it half as wide.
_FONTS: dict[Any, Any] = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def _axes(title: str, rows: int = 1, height: float = 4.2) -> tuple[Any, Any]:
    with plt.rc_context(_FONTS):
        figure, axes = plt.subplots(
            rows, figsize=(7.2, height), sharex=True, layout="constrained"
        )
    first = axes if rows == 1 else axes[0]
    first.set_title(title, fontsize=13, fontweight="bold", loc="left")
    return figure, axes


def _smooth(values: Sequence[float], window: int = 10) -> np.ndarray:
    """Mean of each value and those before it, up to `window` of them.

    >>> _smooth([1.0, 3.0, 5.0], window=2)
    array([1., 2., 4.])
    """
    total = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


def success_histogram(profile: Profile, plan: Plan | None, path: pathlib.Path) -> None:
    """Draw success rates in the profile, coloured by the group size chosen."""
    figure, axes = _axes("")
    plot_sizes(profile, plan, axes)
    title = f"What the initial policy solves ({len(profile):,} questions)"
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left")
    axes.set_xlabel(f"success rate in {int(profile.samples.max())} samples")
    axes.legend(frameon=False, fontsize=11, loc="upper left", ncols=2)
    _save(figure, path)


def accuracy_by_compute(curves: Mapping[str, Curve], path: pathlib.Path) -> None:
    """Draw held-out success against total compute, profiling included."""
    figure, axes = _axes("Held-out success against total compute")
    for (name, curve), color in zip(curves.items(), itertools.cycle(COLORS)):
        x = curve.flops / 1e9
        axes.plot(x, curve.smooth(), color=color, label=name)
        axes.plot(x, curve.success, ".", color=color, alpha=0.5, markersize=4)
        axes.fill_between(x, curve.low, curve.high, color=color, alpha=0.08, lw=0)
    axes.set_xlabel("profiling, generation and training, GFLOP")
    axes.set_ylabel("success (band: 95 % interval)")
    axes.legend(frameon=False, fontsize=11)
    _save(figure, path)


def dead_groups(
    metrics: Mapping[str, Lines], plans: Mapping[str, Plan], path: pathlib.Path
) -> None:
    """Draw the share of dead groups, and what the plans predicted per phase."""
    figure, axes = _axes("Groups without signal (mean of 10 steps)")
    for (name, lines), color in zip(metrics.items(), itertools.cycle(COLORS)):
        stepped = [line for line in lines if "phase" in line]
        steps = [line["step"] for line in stepped]
        dead = [line["frac_no_signal"] for line in stepped]
        axes.plot(steps, _smooth(dead), color=color, lw=2, label=name)
        if name in plans:
            phases = [line["phase"] for line in stepped]
            _predictions(axes, plans[name], steps, phases, color)
    axes.set_xlabel("step")
    axes.set_ylabel("share of groups")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=11)
    _save(figure, path)


def _predictions(
    axes: Any, plan: Plan, steps: Sequence[int], phases: Sequence[int], color: str
) -> None:
    """Draw where phases begin, and the share of dead groups the plan expects."""
    for step, (a, b) in enumerate(itertools.pairwise(phases)):
        if a != b:
            axes.axvline(steps[step], color=color, lw=1, ls=":")
    label = "predicted by its plan"
    for i, phase in enumerate(plan.phases):
        inside = [s for s, p in zip(steps, phases, strict=True) if p == i]
        if inside:
            ends = (inside[0], inside[-1])
            axes.hlines(phase.dead, *ends, color=color, ls="--", lw=1.5, label=label)
            label = ""


def padding_and_compiles(metrics: Mapping[str, Lines], path: pathlib.Path) -> None:
    """Draw the share of padding in training rows, and programs compiled so far."""
    title = "Padding in training rows (mean of 10 steps)"
    figure, (above, below) = _axes(title, rows=2, height=5.4)
    most = 1
    for (name, lines), color in zip(metrics.items(), itertools.cycle(COLORS)):
        seen = [line for line in lines if "compiles" in line]
        steps = [line["step"] for line in seen]
        padding = _smooth([x["padding"] for x in seen])
        above.plot(steps, padding, color=color, lw=2, label=name)
        compiles = [x["compiles"] for x in seen]
        most = max(most, *compiles) if compiles else most
        below.step(steps, compiles, color=color, lw=2, where="post", alpha=0.8)
    above.set_ylabel("share of tokens")
    above.set_ylim(0, 1)
    figure.legend(frameon=False, fontsize=11, loc="outside lower center", ncols=4)
    below.set_title(
        "Training programs compiled so far", fontsize=13, fontweight="bold", loc="left"
    )
    below.set_ylabel("programs")
    below.set_yticks(range(most + 1))
    below.set_ylim(0, most + 0.5)
    below.set_xlabel("step")
    _save(figure, path)
