"""Plans and comparisons as tables and figures."""

import collections
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from sgpo_jax.profiling.show import as_text, new_axes

if TYPE_CHECKING:
    from sgpo_jax.planning.comparison import AllocatorComparison
    from sgpo_jax.planning.plan import Plan
    from sgpo_jax.planning.prediction import Prediction


def plan_text(plan: "Plan") -> str:
    """Return phases, rules and predictions as plain text."""
    table = Table(title=f"plan {plan.hash}", title_justify="left")
    for column in ("phase", "queries", "group sizes", "rollouts", "dead", "steps"):
        table.add_column(column, justify="right")
    predicted = (plan.prediction or {}).get("phases", [{}] * len(plan.phases))
    for i, (phase, cost) in enumerate(zip(plan.phases, predicted, strict=True)):
        sizes = sorted(set(phase.sizes))
        shown = ", ".join(map(str, sizes))
        if len(sizes) > 6:
            shown = f"{sizes[0]} to {sizes[-1]}"
        table.add_row(
            str(i + 1),
            f"{len(phase.ids):,}",
            shown,
            f"{phase.rollouts:,}",
            f"{phase.dead:.1%}",
            f"{cost['steps']:,}" if "steps" in cost else "-",
        )
    lines = [as_text(table), *(f"{k}: {v}" for k, v in plan.rules.items())]
    lines.append(trained_on(plan))
    if plan.prediction:
        from sgpo_jax.planning.prediction import Prediction

        lines.append(prediction_text(Prediction.from_json(plan.prediction)))
    return "\n".join(lines)


def trained_on(plan: "Plan") -> str:
    """Return how many queries are trained on, in several phases, and left out."""
    phases = collections.Counter(id_ for phase in plan.phases for id_ in phase.ids)
    several = sum(count > 1 for count in phases.values())
    return (
        f"trained on: {len(phases):,}, {several:,} of them in several phases; left out"
        f" though solved, or unscorable: {plan.trivial:,}; unsolved in the profile,"
        f" kept or not: {plan.unsolved:,}"
    )


def prediction_text(found: Any) -> str:
    """Return a prediction's totals as lines."""
    costs = found.phases
    lines = [
        f"compute: {found.units:,.0f} rollout units, profile {found.profile:,.0f} of"
        f" them; {found.saving:.2f} times less than {found.baseline}"
        f" ({found.baseline_units:,.0f})",
        f"dead groups: {found.dead:.1%}, {found.baseline}: {found.baseline_dead:.1%}",
    ]
    if found.pays_after:
        lines.append(verdict(found))
    if all(c.tokens for c in costs):
        lines.append(f"response tokens: {sum(c.tokens for c in costs):,.0f}")
    if all(c.shapes for c in costs):
        padding = np.average(
            [c.padding for c in costs], weights=[c.steps for c in costs]
        )
        lines.append(
            f"row shapes to compile: {max(c.shapes for c in costs)}; padding of"
            f" training rows: {padding:.0%}"
        )
    if all(c.flops is not None for c in costs):
        lines.append(f"floating-point operations: {sum(c.flops for c in costs):.3g}")
        peak = max(c.memory for c in costs) / 2**30
        lines.append(f"largest memory of a phase: {peak:,.2f} GiB")
    return "\n".join(lines)


def verdict(found: "Prediction") -> str:
    """Return after how many visits per question the profile has paid for itself."""
    after = [
        f"never against {name}" if visits is None else f"{visits:.1f} against {name}"
        for name, visits in found.pays_after.items()
    ]
    planned = f"{found.visits:g} planned"
    return (
        "counting groups with signal, profiling pays after visits per question:"
        f" {', '.join(after)}; {planned}"
    )


def plot_plan(plan: "Plan", axes: Any = None) -> Any:
    """Draw the rollouts of each phase, stacked by group size."""
    from matplotlib import colormaps

    axes = new_axes(axes)
    sizes = sorted({size for phase in plan.phases for size in phase.sizes})
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(sizes)))
    bottom = np.zeros(len(plan.phases))
    place = np.arange(1, len(plan.phases) + 1)
    for size, shade in zip(sizes, shades, strict=True):
        height = [size * phase.sizes.count(size) for phase in plan.phases]
        label = f"groups of {size}" if len(sizes) <= 8 else None
        axes.bar(place, height, bottom=bottom, color=shade, label=label, width=0.7)
        bottom += height
    for x, height, phase in zip(place, bottom, plan.phases, strict=True):
        axes.annotate(
            f"{phase.dead:.0%} dead", (x, height), ha="center", va="bottom", fontsize=9
        )
    axes.set_xticks(place)
    axes.set_title("Rollouts and expected dead groups", loc="left")
    axes.set_xlabel("phase")
    axes.set_ylabel("rollouts of one pass")
    labels = len(sizes) if len(sizes) <= 8 else 0
    legend_above(axes, bottom.max(), labels=labels)
    return axes


def legend_above(axes: Any, most: float, *, labels: int) -> None:
    """Put the legend into room above the highest bar and a word on it."""
    # Not by margins: bars of height 0 would hold the limit at their own place.
    axes.set_ylim(0, most * (1.1 + 0.08 * -(-labels // 2)))
    if labels:
        axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def comparison_table(found: "AllocatorComparison") -> Table:
    """Return one row per allocator."""
    table = Table(title=f"against {found.baseline}", title_justify="left")
    table.add_column("allocator")
    for column in (
        "rollouts", "mean size", "largest", "dead", "mixed groups", "hits", "compute",
        "less",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in found.rows:
        table.add_row(
            row.name,
            f"{row.rollouts:,}",
            f"{row.mean_size:.1f}",
            str(row.largest),
            f"{row.dead:.1%}",
            f"{row.mixed:,.0f}",
            f"{row.hits:,.0f}",
            f"{row.units:,.0f}",
            f"{row.saving:.2f}x",
        )
    return table


def plot_comparison(found: "AllocatorComparison", axes: Any = None) -> Any:
    """Draw what each allocator gives to each success rate."""
    axes = new_axes(axes)
    for row in found.rows:
        axes.plot(found.rate, row.size_by_rate, lw=1.4, label=row.name)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("Group size by success rate", loc="left")
    axes.set_xlabel("posterior mean of the success rate")
    axes.set_ylabel("group size")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return axes
