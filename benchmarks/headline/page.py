"""The page and its figures, made from the JSON alone."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax import report

from . import verdict
from .analysis import FREE_SUFFIX, LIVE_SUFFIX, SHARES, costs
from .collect import OTHERS

COLORS = (*plt.get_cmap("tab10").colors, *plt.get_cmap("Dark2").colors)
SHOWN = {"eval/success": "mean", "eval/greedy": "greedy", "eval/pass@8": "pass@8"}
DRAWN = (
    *("grpo_token", "grpo_16", "grpo_thin", "screened_thin", "filtered_thin"),
    *("drawn_flat", "drawn", "tracked_flat", "tracked", "dapo", "dapo_thin", "sgpo"),
)
"""Methods in the figures of a file with more than these; tables have all."""
REPAID, WITHOUT = ("sgpo", "tracked", "drawn"), "grpo_thin"
"""Methods with a profile, and the one without that they are compared with."""
MOST = SHARES.index(0.9)
"""The share of the gain that sentences and the figure of two lines are about."""
INTRODUCTION = """\
# Held-out success against total compute

Made by `python -m benchmarks.headline`; each testbed has its command.

Total compute is that of the ledger: profiling, generation, scoring and training, in
floating-point operations on real tokens; evaluation is not in it. Prompts are encoded
once per group, for every method alike. Where the verifier is equality, success is
exact: the probability of the reference by teacher forcing, and whether it is the most
likely token by token (greedy); pass@k is 1 - (1 - p)^k. Curves are averaged over seeds
at equal steps and then smoothed over three evaluations. Brackets: 95 % of paired
bootstrap draws of seeds and, within them, of questions."""
MADE = "`{command}` (jax {jax}, {cores} CPU cores, {replicates} draws of the bootstrap)"


def write(found: Mapping[str, Any], out: pathlib.Path) -> None:
    """Write the page and its figures beside the JSON."""
    parts = [INTRODUCTION]
    if found["unfinished"]:
        parts.append("Not finished: " + ", ".join(found["unfinished"]) + ".")
    for testbed, result in found["testbeds"].items():
        members = [run for run in found["runs"] if run["testbed"] == testbed]
        name = f"{out.stem}_{testbed}"
        curves(members, result, out.with_name(f"{name}.png"))
        savings(result, found["baseline"], out.with_name(f"{name}_savings.png"))
        parts += section(testbed, members, result, found["baseline"], name)
    pair(found, out.with_suffix(".png"))
    out.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


def section(
    testbed: str,
    members: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    baseline: str,
    name: str,
) -> list[str]:
    """The part of the page on one testbed."""
    low, high = result["gain"]
    seeds = ", ".join(map(str, result["seeds"]))
    compared = [run for run in members if run["method"] in result["final"]]
    return [
        f"## {testbed}",
        MADE.format(**result["made"]),
        f"Seeds {seeds}; {result['questions']} held-out questions each. {baseline}:"
        f" {low:.3f} to {high:.3f}. {verdict.horizon(result, compared)}",
        f"![held-out success against total compute]({name}.png)",
        f"![savings]({name}_savings.png)",
        verdict.text(result, baseline),
        f"**Total compute of {baseline} over that of the method**, where the curves"
        f" reach a share of {baseline}'s gain (0: never reached)",
        saving_table(result),
        *against(result, members),
        *repaid(result, members, baseline),
        "**What each ingredient earns**: compute before over compute after it",
        ingredient_table(result),
        "**In the end**, and at equal compute: success less that of"
        f" {baseline} where the shorter of the two runs ends",
        final_table(members, result),
        "**Where the compute goes** (mean over seeds)",
        ledger_table(members),
        verdict.power(result),
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "| " + " | ".join(columns) + " |\n|---" + "|---:" * (len(columns) - 1) + "|"
    return "\n".join([head, *("| " + " | ".join(row) + " |" for row in rows)])


def times(interval: Mapping[str, float | None]) -> str:
    """An estimate with its interval; None is infinity.

    >>> times({"value": 2.0, "low": 1.5, "high": None})
    '2.00 [1.50, inf]'
    """
    shown = ["inf" if interval[k] is None else f"{interval[k]:.2f}" for k in interval]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def saving_table(result: Mapping[str, Any]) -> str:
    heads = [f"{share:.0%}" for share in SHARES]
    targets = [f"{target:.3f}" for target in result["targets"]]
    rows = [["success", *targets]]
    rows += [[name, *map(times, x)] for name, x in result["savings"].items()]
    return table(["share of the gain", *heads], rows)


def against(
    result: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Tables of savings against other methods than the baseline.

    Where an earlier command has left no intervals: from the mean curves.
    """
    found = result.get("against") or {}
    shown = {
        other: (x["gain"], {name: [*map(times, y)] for name, y in x["savings"].items()})
        for other, x in found.items()
    }
    curves = mean_curves(members)
    for other in OTHERS:
        if other in curves and other in result["final"] and other not in shown:
            ours = costs(curves, other)
            smooth = curves[other].smooth()
            ratios = {name: ours[other] / cost for name, cost in ours.items()}
            cells = {name: [f"{x:.2f}" for x in row] for name, row in ratios.items()}
            shown[other] = (smooth[0], smooth.max()), cells
    parts = []
    for other, ((low, high), cells) in shown.items():
        parts += [
            f"**Total compute of {other} over that of the method**, at shares of the"
            f" gain of {other}, {low:.3f} to {high:.3f}",
            table(
                ["share of the gain", *(f"{share:.0%}" for share in SHARES)],
                [[name, *row] for name, row in cells.items()],
            ),
        ]
    return parts


def repaid(
    result: Mapping[str, Any], members: Sequence[Mapping[str, Any]], baseline: str
) -> list[str]:
    """Table of how many runs have to share a profile before it has paid."""
    rows = repaid_rows(result, members, baseline)
    if not rows:
        return []
    return [
        "**Runs that share a profile before it has paid**, against"
        f" {WITHOUT}: its compute over what one run saves with it, to a share of the"
        " gain (never: a run saves nothing)",
        table(["share of the gain", *(f"{share:.0%}" for share in SHARES)], rows),
    ]


def repaid_rows(
    result: Mapping[str, Any], members: Sequence[Mapping[str, Any]], baseline: str
) -> list[list[str]]:
    """Cells of that table: the method, and runs at each share of the gain."""
    savings = result["savings"]
    if WITHOUT not in savings:
        return []
    curve = mean_curves(members)[baseline]
    # Curves of the file are rounded to five digits.
    whole = [curve.cost_of(target - 1e-5) for target in result["targets"]]
    rows = []
    for name in REPAID:
        if f"{name}{FREE_SUFFIX}" in savings:
            runs = [run for run in members if run["method"] == name]
            price = np.mean([run["ledger"]["profiling"]["flops"] for run in runs])
            free = [x["value"] for x in savings[f"{name}{FREE_SUFFIX}"]]
            without = [x["value"] for x in savings[WITHOUT]]
            rows.append([name, *sharing(whole, float(price), free, without)])
    return rows


def sharing(
    whole: Sequence[float],
    price: float,
    free: Sequence[float],
    without: Sequence[float],
) -> list[str]:
    """How many runs have to share a profile, at each share of the gain.

    Args:
      whole: compute of the baseline.
      price: compute of the profile.
      free: saving of the method with the profile, not charged; 0: never gets there.
      without: saving of the method without a profile.

    >>> sharing([100.0] * 4, 20.0, [4.0, 2.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0])
    ['1', 'never', 'never', 'never']
    >>> sharing([100.0, 100.0], 20.0, [2.5, 2.0], [2.0, 0.0])
    ['2', '1']
    """
    found = []
    for paid, ours, theirs in zip(whole, free, without, strict=True):
        saved = (
            -np.inf if not ours else paid / theirs - paid / ours if theirs else np.inf
        )
        found.append(f"{max(1, np.ceil(price / saved)):.0f}" if saved > 0 else "never")
    return found


def ingredient_table(result: Mapping[str, Any]) -> str:
    rows = [
        [f"{x['before']} to {x['after']}", *map(times, x["savings"])]
        for x in result["ingredients"]
    ]
    return table(["from, to", *(f"{share:.0%}" for share in SHARES)], rows)


def final_table(members: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    first = [f"{np.mean([run[key][0] for run in members]):.3f}" for key in SHOWN]
    rows = [["initial", *first, *"-----"]]
    for label in result["final"]:
        runs = [run for run in members if run["method"] == label]
        if not runs:
            continue
        last = [f"{np.mean([run[key][-1] for run in runs]):.3f}" for key in SHOWN]
        equal = result["equal_compute"][label]
        rows.append(
            [
                label,
                *last,
                f"{equal['value']:+.3f} [{equal['low']:+.3f}, {equal['high']:+.3f}]",
                f"{result['final_flops'][label] / 1e9:.0f}",
                f"{np.mean([run['no_signal'] for run in runs]):.2f}",
                f"{np.mean([run['trained'] for run in runs]):.2f}",
                f"{np.mean([run['cpu_seconds'] for run in runs]):.0f}",
            ]
        )
    columns = ["method", *SHOWN.values(), "at equal compute", "GFLOP"]
    columns += ["groups without signal", "rollouts trained on", "CPU seconds"]
    return table(columns, rows)


def ledger_table(members: Sequence[Mapping[str, Any]]) -> str:
    phases = ("profiling", "generation", "scoring", "training")
    rows = []
    for label in dict.fromkeys(run["method"] for run in members):
        ledgers = [run["ledger"] for run in members if run["method"] == label]
        spent = {p: np.mean([x[p]["flops"] for x in ledgers]) for p in phases}
        total = sum(spent.values())
        rollouts = np.mean([x["generation"]["rollouts"] for x in ledgers])
        tokens = np.mean([sum(x[p]["tokens"] for p in phases) for x in ledgers])
        shares = [f"{spent[p] / total:.0%}" for p in phases]
        rows.append([label, *shares, f"{rollouts:,.0f}", f"{tokens / 1e6:.2f}"])
    return table(["method", *phases, "rollouts", "million tokens"], rows)


def _drawn(labels: Iterable[str]) -> list[str]:
    """The methods of a figure: all, or those of `DRAWN` where there are more."""
    every = list(labels)
    return every if len(every) <= len(DRAWN) else [x for x in every if x in DRAWN]


def _methods(result: Mapping[str, Any], members: Sequence[Mapping[str, Any]]):
    grouped = _by_method(members)
    labels = _drawn(label for label in result["final"] if label in grouped)
    for label, color in zip(labels, itertools.cycle(COLORS), strict=False):
        yield label, grouped[label], color


def _by_method(members: Iterable[Mapping[str, Any]]) -> dict[str, list]:
    found: dict[str, list] = {}
    for run in members:
        found.setdefault(run["method"], []).append(run)
    return found


def curves(
    members: Sequence[Mapping[str, Any]], result: Mapping[str, Any], path: pathlib.Path
) -> None:
    """Draw mean, greedy and pass@8 success against total compute; thin: each seed."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(13, 4.2))
    for axis, (key, title) in zip(axes, SHOWN.items(), strict=True):
        for label, runs, color in _methods(result, members):
            flops = np.array([run["flops"] for run in runs]) / 1e9
            success = np.array([run[key] for run in runs])
            axis.plot(flops.T, success.T, color=color, alpha=0.25, lw=0.7)
            mean = success.mean(0)
            axis.plot(flops.mean(0), mean, color=color, lw=1.6, label=label)
            if f"{label}{LIVE_SUFFIX}" in result["savings"]:
                live = np.mean([run["flops_live"] for run in runs], axis=0) / 1e9
                name = f"{label}{LIVE_SUFFIX}"
                axis.plot(live, mean, color=color, lw=1.2, ls="--", label=name)
        axis.set_title(title)
        axis.set_xlabel("total compute, GFLOP")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("held-out success")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def pair(found: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draw the baseline and its thinned form on the first testbed, where both ran.

    Curves are means over seeds with the range of the seeds; an arrow is the saving at
    90 % of the baseline's gain.
    """
    testbed, result = next(iter(found["testbeds"].items()))
    labels = (found["baseline"], "grpo_thin")
    if labels[1] not in result["final"]:
        return
    members = [
        run
        for run in found["runs"]
        if run["testbed"] == testbed and run["seed"] in result["seeds"]
    ]
    runs, means = _by_method(members), mean_curves(members)
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for label, color in zip(labels, (COLORS[0], COLORS[3]), strict=True):
        success = [run["eval/success"] for run in runs[label]]
        flops = means[label].flops / 1e9
        axis.plot(flops, means[label].smooth(), color=color, lw=2, label=label)
        low, high = np.min(success, axis=0), np.max(success, axis=0)
        axis.fill_between(flops, low, high, color=color, alpha=0.12, lw=0)
    target, saved = result["targets"][MOST], result["savings"][labels[1]][MOST]
    if saved["value"]:
        far, near = (means[label].cost_of(target) / 1e9 for label in labels)
        arrow = {"arrowstyle": "->", "lw": 1.2}
        axis.annotate("", xy=(near, target), xytext=(far, target), arrowprops=arrow)
        axis.annotate(
            f"{saved['value']:.1f} times less",
            ((near + far) / 2, target),
            xytext=(0, -13),
            textcoords="offset points",
            ha="center",
        )
    axis.set_xlabel("total compute, GFLOP")
    axis.set_ylabel("held-out success")
    axis.set_title(f"{testbed}, {len(result['seeds'])} seeds", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def mean_curves(members: Iterable[Mapping[str, Any]]) -> dict[str, report.Curve]:
    """Mean over the seeds of each method, at equal steps."""
    found = {}
    for label, runs in _by_method(members).items():
        flops = np.mean([run["flops"] for run in runs], axis=0)
        found[label] = report.Curve(
            steps=np.asarray(runs[0]["steps"]),
            flops=flops,
            repeated=flops,
            success=np.mean([run["eval/success"] for run in runs], axis=0),
            low=None,
            high=None,
        )
    return found


def savings(result: Mapping[str, Any], baseline: str, path: pathlib.Path) -> None:
    """Draw the saving of each method at each share of the gain, with intervals."""
    kept = _drawn(name for name in result["savings"] if ", " not in name)
    names = [
        name
        for name in result["savings"]
        if name != baseline and name.partition(", ")[0] in kept
    ]
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(names) + 1.4))
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(SHARES)))
    for i, share in enumerate(SHARES):
        for row, name in enumerate(names):
            x = result["savings"][name][i]
            y, high = row + 0.16 * (i - 1.5), x["high"]
            line = {"color": shades[i], "lw": 1.5}
            axis.plot([x["low"], 8 if high is None else min(high, 8)], [y, y], **line)
            label = f"{share:.0%} of the gain" if row == 0 else None
            axis.plot([x["value"]], [y], "o", color=shades[i], ms=4, label=label)
    axis.axvline(1, color="#555555", lw=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel(f"compute of {baseline} over that of the method (0: not reached)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
