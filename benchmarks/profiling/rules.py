"""Decisions right per sample: flat profiling against rounds."""

import numpy as np

from sgpo_jax.profiling import (
    Decision,
    Flat,
    Posterior,
    Profile,
    Sequential,
    profile_adaptively,
)

from .pools import POOLS

SEEDS, QUERIES, MOST = 3, 1000, 64
DECISIONS = {
    "class": Decision(),
    "group size": Decision(edges=(0.01, 0.125, 0.25, 0.75)),
}


def rules(budget, decision):
    first = min(4, budget)
    return {
        "flat": Flat(samples=budget),
        "two-stage": Sequential(
            first=max(2, budget // 2), batch=budget, most=MOST, share=1.0,
            decision=decision,
        ),
        "sequential": Sequential(first=first, most=MOST, decision=decision),
    }  # fmt: skip


def one(rule, budget, decision, pool, seed):
    """Return samples per query, share of decisions right, and expected right."""
    rng = np.random.default_rng(seed)
    rate = pool(QUERIES, rng)
    flips = rng.random((QUERIES, MOST)) < rate[:, None]
    ids = tuple(f"q{i}" for i in range(QUERIES))

    def draw(ranges):
        some = [i for i, r in enumerate(ranges) if len(r)]
        return Profile(
            ids=tuple(ids[i] for i in some),
            samples=[len(ranges[i]) for i in some],
            successes=[int(flips[i, ranges[i]].sum()) for i in some],
            first_sample=[ranges[i].start for i in some],
        )

    found = profile_adaptively(draw, ids, rule=rule, budget=budget * QUERIES)
    belief = Posterior.of(found)
    chance = decision.probabilities(belief.classes)[belief.index]
    right = chance.argmax(-1) == decision.label(rate)
    return found.drawn.mean(), right.mean(), chance.max(-1).mean()


def run(_):
    rows = []
    for pool, draw in POOLS.items():
        for name, decision in DECISIONS.items():
            for budget in (4, 8, 16):
                for rule, made in rules(budget, decision).items():
                    points = np.array(
                        [one(made, budget, decision, draw, s) for s in range(SEEDS)]
                    )
                    mean, error = points.mean(0), points.std(0, ddof=1) / SEEDS**0.5
                    rows.append(
                        {
                            "pool": pool,
                            "decision": name,
                            "budget": budget,
                            "rule": rule,
                            "samples": mean[0],
                            "right": mean[1],
                            "right_error": error[1],
                            "expected_right": mean[2],
                        }
                    )
    return rows


def markdown(rows):
    lines = [
        "## Decisions right per sample",
        "",
        f"{QUERIES:,} queries, {SEEDS} pools each; the budget is a mean number of"
        " samples per query. class: unsolvable (rate up to 0.01), learnable, trivial"
        " (above 0.75); group size: sGPO's, too. In brackets the samples really drawn.",
        "",
        "| pool | decision | budget | flat | two-stage | sequential |",
        "|---|---|---:|---:|---:|---:|",
    ]
    cells: dict = {}
    for row in rows:
        key = (row["pool"], row["decision"], row["budget"])
        text = f"{row['right']:.3f} ± {row['right_error']:.3f} ({row['samples']:.1f})"
        cells.setdefault(key, {})[row["rule"]] = text
    for (pool, decision, budget), found in cells.items():
        rest = " | ".join(found[r] for r in ("flat", "two-stage", "sequential"))
        lines.append(f"| {pool} | {decision} | {budget} | {rest} |")
    return [*lines, "", "![decisions per sample](profiling_rules.png)", ""]


def plot(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(POOLS), 3.6), layout="constrained")
    for axes, pool in zip(figure.subplots(1, len(POOLS)), POOLS, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        for rule, color in (
            ("flat", "#555555"), ("two-stage", "#1b6ca8"), ("sequential", "#d95f02"),
        ):  # fmt: skip
            for decision, style in (("class", "-"), ("group size", "--")):
                mine = [
                    r for r in rows
                    if (r["pool"], r["rule"], r["decision"]) == (pool, rule, decision)
                ]  # fmt: skip
                axes.errorbar(
                    [r["samples"] for r in mine], [r["right"] for r in mine],
                    [r["right_error"] for r in mine], color=color, ls=style, marker=".",
                    label=f"{rule}, {decision}",
                )  # fmt: skip
        axes.set_title(pool)
        axes.set_xlabel("samples per query")
    figure.axes[0].set_ylabel("decisions right")
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=110)
