"""Figures of a plan and of a comparison, as files."""

import pathlib
from typing import Any

import numpy as np

from sgpo_jax.planning.comparison import AllocatorComparison
from sgpo_jax.planning.plan import Plan
from sgpo_jax.profiling import Profile

LEFT_OUT = "#cccccc"


def save_plan(profile: Profile, plan: Plan, path: pathlib.Path) -> None:
    """Write success rates by the group size chosen, beside rollouts by phase."""
    figure, axes = _figure("ab", height=3.8)
    plot_sizes(profile, plan, axes["a"])
    plan.plot(axes["b"])
    figure.savefig(path, dpi=110)


def save_comparison(found: AllocatorComparison, path: pathlib.Path) -> None:
    """Write group sizes by success rate, dead groups and compute by allocator."""
    figure, axes = _figure("aa;bc", height=6.6)
    found.plot(axes["a"])
    # The names beside the bars have the same colours.
    axes["a"].get_legend().remove()
    names = [row.name for row in found.rows]
    place = np.arange(len(names))[::-1]
    colors = [f"C{i}" for i in range(len(names))]
    dead = [100 * row.dead for row in found.rows]
    _bars(axes["b"], place, dead, colors, "{:.0f} %")
    _name(axes["b"], place, names, colors)
    axes["b"].set_title("Expected groups without signal", loc="left")
    axes["b"].set_xlabel("share of groups, %")
    saving = [row.saving for row in found.rows]
    _bars(axes["c"], place, saving, colors, "{:.2f}x")
    axes["c"].axvline(1.0, color="#555555", lw=0.8, ls="--")
    _name(axes["c"], place, names, colors)
    axes["c"].set_title("Compute saved, profile paid", loc="left")
    axes["c"].set_xlabel(f"compute of {found.baseline} over its own")
    figure.savefig(path, dpi=110)


def plot_sizes(profile: Profile, plan: Plan, axes: Any) -> None:
    """Draw the histogram of success rates, coloured by the group size chosen."""
    from matplotlib import colormaps

    size: dict[str, int] = {}
    for phase in plan.phases:
        for id_, group in zip(phase.ids, phase.sizes, strict=True):
            size[id_] = max(size.get(id_, 0), group)
    known = profile.samples > 0
    rate = profile.success_rate
    rows = np.array([size.get(id_, 0) for id_ in profile.ids])
    sizes = sorted(set(rows[known].tolist()))
    trained = [group for group in sizes if group]
    parts = np.array_split(np.array(trained, np.int64), min(len(trained), 6) or 1)
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(parts)))
    shown = [(LEFT_OUT, [0])] if 0 in sizes else []
    shown += [
        (tuple(shade), part.tolist())
        for shade, part in zip(shades, parts, strict=True)
        if len(part)
    ]
    most = min(max(int(profile.samples.max(initial=1)), 1), 40)
    axes.hist(
        [rate[known & np.isin(rows, group)] for _, group in shown],
        bins=((np.arange(most + 2) - 0.5) / most).tolist(),
        stacked=True,
        rwidth=0.85,
        color=[color for color, _ in shown],
        label=[_label(group) for _, group in shown],
    )
    axes.set_title("Group sizes by success rate", loc="left")
    axes.set_xlabel("success rate in the profile")
    axes.set_ylabel("questions")
    axes.legend(frameon=False, fontsize=8)


def _label(group: list[int]) -> str:
    if group == [0]:
        return "not trained on"
    if len(group) == 1:
        return f"groups of {group[0]}"
    return f"groups of {group[0]} to {group[-1]}"


def _figure(panels: str, *, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, height), layout="constrained")
    axes = figure.subplot_mosaic(panels)
    for one in axes.values():
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(
    axes: Any, place: np.ndarray, values: list[float], colors: list[str], text: str
) -> None:
    axes.barh(place, values, color=colors, height=0.65)
    for y, value in zip(place, values, strict=True):
        axes.annotate(
            f" {text.format(value)}", (value, y), va="center", ha="left", fontsize=8
        )
    axes.margins(x=0.15)


def _name(axes: Any, place: np.ndarray, names: list[str], colors: list[str]) -> None:
    axes.set_yticks(place, names)
    for label, color in zip(axes.get_yticklabels(), colors, strict=True):
        label.set_color(color)
