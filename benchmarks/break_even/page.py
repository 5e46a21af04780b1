"""The page and the figure, made from the JSON alone."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax import theory

from .measured import errors
from .model import DRIFTS, GROUP, OTHERS, SAMPLES, VISITS, others, planned, pool

DEAD = np.linspace(0.02, 0.95, 32)
PAGE = """\
# When a profile pays

`{command}`

A profile costs a pass of generation over all questions, and tells which of them teach
nothing. Whether that pays depends on how long training would otherwise spend groups on
those: on **visits per question** (groups of {group}, over the questions there are) and
on the **share of questions that are never or always solved**. The model is
[`theory.break_even`](../../sgpo_jax/theory/break_even.py): compute at equal numbers of
groups with signal, prompts encoded once per group, training at four times the cost of
generation. `sgpo plan` prints the same for a profile at hand.

![map](break_even.png)

Blue: less compute with a profile of 8 samples per question. What it is compared with
decides most: GRPO that trains on every group (left), GRPO that leaves dead groups out
of the training pass (middle), a belief that learns in training which questions to draw
(right). Of the questions without signal four in five are never solved; success rates
of the others are uniform.

**Visits per question after which a profile pays**, rates that stay:

{table}

* The length of the prompt hardly matters: not at all with as many samples as a group
  has responses; with N = 4 and half of the pool dead it pays after {short_low:.1f} to
  {short_high:.1f} visits against GRPO without dead groups, as prompts grow from a tenth
  of a response to ten.
* Drift does. Where {drift:.0%} of the questions get another success rate with each
  visit of the pool, a profile saves at most {drifted:.2f} times against GRPO without
  dead groups, half of the pool dead; where rates stay, {stays:.2f} times. On the right
  the model flatters the belief then: it knows a new rate at once.
* A profile that only starts a belief (`drawn` after `drawn_flat` below) never pays for
  itself here: the belief learns the same from groups that train. The map is of a
  profile as a filter.
* The map counts groups with signal. It does not know what the questions that are left
  out would have taught: see what it says below of runs that were not reached.
"""
CHECK = """\

## Against runs

The profiles of [the headline's runs](headline.md) give the pool, their ledgers the cost
of training. Visits per question: {visits}.

**Share of groups with signal**, over whole runs:

{live}

Predicted over measured: {live_error}.

**Compute of the first over that of the second**, at 90 % of GRPO's gain:

{factors}

Predicted over measured: {factor_error}. {worst}

Not in these errors: {lost} comparisons whose second method never reached the target.
The model had it ahead in {promised} of them: what a profile leaves out is what later
teaches.
"""


def write(found: Mapping[str, Any], out: pathlib.Path) -> None:
    """Write the page and the figure beside the JSON."""
    rows, checked = found["table"], found["check"]
    draw(checked, out.with_suffix(".png"))

    def of(**wanted: Any) -> list[Mapping[str, Any]]:
        return [row for row in rows if all(row[k] == v for k, v in wanted.items())]

    table = ["| never or always solved | N | " + " | ".join(OTHERS.values()) + " |"]
    table += ["|---:|---:|" + "---:|" * len(OTHERS)]
    for row in of(prompt=1.0, drift=0.0):
        after = ["never" if v is None else f"{v:.1f}" for v in row["after"].values()]
        cells = [f"{row['dead']:.0%}", str(row["samples"]), *after]
        table.append("| " + " | ".join(cells) + " |")
    live = ["| testbed | method | predicted | measured |", "|---|---|---:|---:|"]
    factors = [
        "| testbed | from, to | visits | predicted | measured |",
        "|---|---|---:|---:|---:|",
    ]
    for name, part in checked.items():
        live += [
            f"| {name} | {x['method']} | {x['predicted']:.2f} | {x['measured']:.2f} |"
            for x in part["live"]
        ]
        for x in part["factors"]:
            seen = f"{x['measured']:.2f}" if x["measured"] else "not reached"
            factors.append(
                f"| {name} | {x['before']} to {x['after']} | {x['visits']:.2f} |"
                f" {x['predicted']:.2f} | {seen} |"
            )
    short = [row["after"]["grpo_nonzero"] for row in of(samples=4, dead=0.5, drift=0.0)]
    half = {row["drift"]: row for row in of(samples=8, dead=0.5, prompt=1.0)}
    visits = [f"{x['visits']:.2g} ({name})" for name, x in checked.items()]
    text = PAGE.format(
        command=found["command"],
        group=GROUP,
        table="\n".join(table),
        short_low=min(short),
        short_high=max(short),
        drift=DRIFTS[-1],
        drifted=half[DRIFTS[-1]]["most"]["grpo_nonzero"],
        stays=half[0.0]["most"]["grpo_nonzero"],
    )
    if checked:
        text += CHECK.format(
            visits=", ".join(visits),
            live="\n".join(live),
            factors="\n".join(factors),
            live_error=spread(errors(checked, "live")),
            factor_error=spread(errors(checked, "factors")),
            worst=worst(checked),
            **not_reached(checked),
        )
    out.with_suffix(".md").write_text(text)


def spread(logs: np.ndarray) -> str:
    """Typical and largest factor between prediction and measurement."""
    size = np.abs(logs)
    return (
        f"median {np.exp(np.median(logs)):.2f}, off by a factor of"
        f" {np.exp(size.mean()):.2f} on average and {np.exp(size.max()):.2f} at most"
    )


def worst(checked: Mapping[str, Any]) -> str:
    """Say which comparison the model gets most wrong."""
    every = [
        (abs(math.log(row["predicted"] / row["measured"])), name, row)
        for name, part in checked.items()
        for row in part["factors"]
        if row["measured"]
    ]
    _, name, row = max(every, key=lambda x: x[0])
    return (
        f"Most wrong: {row['before']} to {row['after']} on {name},"
        f" {row['predicted']:.2f} predicted, {row['measured']:.2f} measured."
    )


def not_reached(checked: Mapping[str, Any]) -> dict[str, int]:
    """How many methods did not get there, and how many should have been ahead."""
    rows = [row for part in checked.values() for row in part["factors"]]
    lost = [row["predicted"] for row in rows if not row["measured"]]
    return {"lost": len(lost), "promised": sum(x > 1 for x in lost)}


def draw(checked: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draw the map: saving by a profile of 8, and break-even for other sizes."""
    cost = theory.GroupCost(group_size=GROUP)
    figure, axes = plt.subplots(
        len(DRIFTS), len(OTHERS), figsize=(13, 7.6), sharex=True, sharey=True
    )
    levels = (0.25, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
    colors = plt.get_cmap("RdYlBu")(
        [0.0, 0.12, 0.3, 0.62, 0.7, 0.77, 0.84, 0.92, 1.0][: len(levels) - 1]
    )
    styles = {4: ":", 8: "-", 16: "--"}
    shown = VISITS >= 0.1
    for row, drift in enumerate(DRIFTS):
        savings = {(n, name): [] for n in SAMPLES for name in OTHERS}
        for dead in DEAD:
            rate, share = pool(dead)
            without = others(rate, share, cost, drift)
            for n in SAMPLES:
                made = planned(rate, share, cost, samples=n, drift=drift)
                for name, other in without.items():
                    savings[n, name].append(made.saving_over(other)[shown])
        for axis, (name, label) in zip(axes[row], OTHERS.items(), strict=True):
            filled = axis.contourf(
                VISITS[shown],
                DEAD,
                np.array(savings[8, name]),
                levels,
                colors=colors,
                extend="both",
            )
            for n, style in styles.items():
                axis.contour(
                    VISITS[shown],
                    DEAD,
                    np.array(savings[n, name]),
                    [1.0],
                    colors="black",
                    linestyles=style,
                    linewidths=2.0 if n == 8 else 1.1,
                )
            for testbed, found in checked.items():
                axis.plot(found["visits"], found["dead"], "k^", ms=6)
                axis.annotate(
                    testbed,
                    (found["visits"], found["dead"]),
                    (6, 4),
                    textcoords="offset points",
                    fontsize=8,
                )
            axis.set_xscale("log")
            if row == 0:
                axis.set_title(f"against {label}", fontsize=11)
            else:
                axis.set_xlabel("visits per question (groups of 8)")
        said = f"drift {drift:.0%} a visit" if drift else "success rates stay"
        axes[row, 0].set_ylabel(f"share never or always solved\n({said})")
    lines = [
        plt.Line2D([], [], color="black", ls=style, label=f"break-even, N = {n}")
        for n, style in styles.items()
    ]
    lines.append(
        plt.Line2D(
            [], [], color="black", marker="^", ls="", label="runs of the headline"
        )
    )
    figure.legend(handles=lines, loc="lower center", ncols=4, frameon=False)
    bar = figure.colorbar(filled, ax=axes, fraction=0.025, pad=0.015)
    bar.set_label("compute without a profile over compute with one (N = 8)")
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
