"""Figures of a plan and of a comparison, as files."""

import pathlib
from typing import Any

import numpy as np

from sgpo_jax.planning.comparison import AllocatorComparison
from sgpo_jax.planning.plan import Plan
from sgpo_jax.planning.show import legend_above
from sgpo_jax.profiling import Profile

LEFT_OUT, MIXED = "#cccccc", "#d95f02"
SEVERAL = -1
"""Stands for the group size of a query that has several."""


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


def plot_sizes(profile: Profile, plan: Plan | None, axes: Any) -> None:
    """Draw the histogram of success rates, coloured by the group size chosen.

    Queries of several sizes have a colour of their own: unsolved ones in each phase.
    """
    from matplotlib import colormaps

    sizes: dict[str, set[int]] = {}
    for phase in plan.phases if plan is not None else ():
        for id_, group in zip(phase.ids, phase.sizes, strict=True):
            sizes.setdefault(id_, set()).add(group)
    known, rate = profile.samples > 0, profile.success_rate
    rows = np.array([_one_size(sizes.get(id_, {0})) for id_ in profile.ids])
    trained = sorted(set(rows[known & (rows > 0)].tolist()))
    parts = np.array_split(np.array(trained, np.int64), min(len(trained), 6) or 1)
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(parts)))
    shown: list[tuple[Any, list[int]]] = [
        (color, [group])
        for color, group in ((LEFT_OUT, 0), (MIXED, SEVERAL))
        if group in rows[known]
    ]
    shown += [
        (tuple(shade), part.tolist())
        for shade, part in zip(shades, parts, strict=True)
        if len(part)
    ]
    most = min(max(int(profile.samples.max(initial=1)), 1), 40)
    heights, *_ = axes.hist(
        [rate[known & np.isin(rows, group)] for _, group in shown],
        bins=((np.arange(most + 2) - 0.5) / most).tolist(),
        stacked=True,
        rwidth=0.85,
        color=[color for color, _ in shown],
        label=[_label(group, planned=plan is not None) for _, group in shown],
    )
    axes.set_title("Group sizes by success rate", loc="left")
    axes.set_xlabel("success rate in the profile")
    axes.set_ylabel("questions")
    legend_above(axes, np.max(heights), labels=len(shown))


def _one_size(sizes: set[int]) -> int:
    return SEVERAL if len(sizes) > 1 else min(sizes)


def _label(group: list[int], *, planned: bool) -> str:
    if group == [0]:
        return "not trained on" if planned else "profiled"
    if group == [SEVERAL]:
        return "in several phases"
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
