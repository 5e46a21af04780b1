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
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import Curve

Lines = Sequence[Mapping[str, Any]]
COLORS = ("#555555", "#d95f02", "#1b6ca8", "#66a61e", "#7570b3")


def _save(figure: Any, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _axes() -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def success_histogram(profile: Profile, plan: Plan | None, path: pathlib.Path) -> None:
    """Draw success rates in the profile, coloured by the group size chosen."""
    size: dict[str, int] = {}
    for phase in plan.phases if plan is not None else ():
        for id_, group in zip(phase.ids, phase.sizes, strict=True):
            size[id_] = max(size.get(id_, 0), group)
    rate = profile.success_rate
    rows = np.array([size.get(id_, 0) for id_ in profile.ids])
    figure, axes = _axes()
    width = 1 / max(int(profile.samples.max()), 1)
    edges = np.arange(-0.5, 1 / width + 1) * width
    sizes = sorted(set(rows.tolist()))
    shades = plt.get_cmap("viridis")(np.linspace(0.15, 0.9, len(sizes)))
    axes.hist(
        [rate[rows == group] for group in sizes],
        bins=edges.tolist(),
        stacked=True,
        rwidth=0.85,
        color=[
            "#cccccc" if group == 0 else tuple(shade)
            for group, shade in zip(sizes, shades, strict=True)
        ],
        label=[_of_size(group, planned=plan is not None) for group in sizes],
    )
    axes.set_xlabel("success rate in the profile")
    axes.set_ylabel("questions")
    axes.legend(frameon=False)
    _save(figure, path)


def _of_size(group: int, *, planned: bool) -> str:
    if group:
        return f"group of {group}"
    return "not trained on" if planned else "profiled"


def accuracy_by_compute(curves: Mapping[str, Curve], path: pathlib.Path) -> None:
    """Draw held-out success against total compute, profiling included."""
    figure, axes = _axes()
    for (name, curve), color in zip(curves.items(), itertools.cycle(COLORS)):
        x = curve.flops / 1e9
        axes.plot(x, curve.smooth(), color=color, label=name)
        axes.plot(x, curve.success, ".", color=color, alpha=0.5, markersize=4)
        axes.fill_between(x, curve.low, curve.high, color=color, alpha=0.08, lw=0)
    axes.set_xlabel("total compute, GFLOP (profiling, generation, training)")
    axes.set_ylabel("held-out success")
    axes.legend(frameon=False)
    _save(figure, path)


def dead_groups(
    metrics: Mapping[str, Lines], plans: Mapping[str, Plan], path: pathlib.Path
) -> None:
    """Draw the share of dead groups, and what the plans predicted per phase."""
    figure, axes = _axes()
    for (name, lines), color in zip(metrics.items(), itertools.cycle(COLORS)):
        steps = [line["step"] for line in lines if "phase" in line]
        dead = [line["frac_no_signal"] for line in lines if "phase" in line]
        axes.plot(steps, dead, color=color, alpha=0.25, lw=0.8)
        window = min(10, len(dead))
        mean = np.convolve(dead, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], mean, color=color, label=name)
        if name in plans:
            phases = [line["phase"] for line in lines if "phase" in line]
            for step, (a, b) in enumerate(itertools.pairwise(phases)):
                if a != b:
                    axes.axvline(steps[step], color=color, lw=0.8, ls=":")
            for i, phase in enumerate(plans[name].phases):
                inside = [s for s, p in zip(steps, phases, strict=True) if p == i]
                if inside:
                    axes.hlines(
                        phase.dead, inside[0], inside[-1], color=color, ls="--", lw=1
                    )
    axes.set_xlabel("step (dotted: phases of the plan; dashed: predicted)")
    axes.set_ylabel("groups without signal")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False)
    _save(figure, path)


def padding_and_compiles(metrics: Mapping[str, Lines], path: pathlib.Path) -> None:
    """Draw the share of padding in training rows, and programs compiled so far."""
    figure, axes = _axes()
    right = axes.twinx()
    right.spines[["top"]].set_visible(False)
    for (name, lines), color in zip(metrics.items(), itertools.cycle(COLORS)):
        seen = [line for line in lines if "compiles" in line]
        steps = [line["step"] for line in seen]
        axes.plot(steps, [x["padding"] for x in seen], color=color, lw=1, label=name)
        right.step(steps, [x["compiles"] for x in seen], color=color, ls=":", lw=1.5)
    axes.set_xlabel("step")
    axes.set_ylabel("padding in training rows")
    axes.set_ylim(-0.02, 1.02)
    right.set_ylabel("training programs compiled (dotted)")
    right.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _save(figure, path)
