"""From run folders to one small JSON: curves, costs, intervals, power."""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgpo_jax import methods
from sgpo_jax.ledger import LIVE, PHASES, Ledger
from sgpo_jax.profiling import Profile
from sgpo_jax.training import read_metrics

from .analysis import (
    AVERAGED_SUFFIX,
    FREE_SUFFIX,
    LIVE_SUFFIX,
    ORACLE_SUFFIX,
    SHARES,
    Bootstrap,
    Interval,
    Power,
    Runs,
    power,
)
from .schedule import Run

ORACLE = "grpo_thin"
"""Its runs bound what any choice of prompts can save with the same updates."""
PAIRS = (
    ("grpo_thin", "grpo_thin" + ORACLE_SUFFIX),
    ("grpo_thin", "filtered_thin"),
    ("grpo_thin", "filtered_thin" + FREE_SUFFIX),
    ("grpo_thin", "drawn_flat"),
    ("drawn_flat", "drawn"),
    ("drawn_flat", "drawn" + FREE_SUFFIX),
    ("tracked_flat", "tracked"),
    ("tracked_flat", "tracked" + FREE_SUFFIX),
)
"""The second of each differs from the first by one ingredient."""
OTHERS = ("grpo_16", "dapo")
"""What methods are compared with besides the baseline, where it has been run."""
RESOLVE = 1.1
CURVES = ("eval/success", "eval/greedy", "eval/pass@8")
"""Metrics whose curves are kept."""
KEPT = ("flops", "tokens", "rollouts")
"""What is kept of a phase of the ledger."""


def curve(run: Run) -> dict[str, Any]:
    """Curves of one run, its ledger at the end, and shares over its steps."""
    lines = read_metrics(run.metrics)
    seen = [line for line in lines if "eval/success" in line]
    steps = [line for line in lines if "reward" in line]
    ledger = Ledger(seen[-1]["ledger"])
    usage = json.loads((run.folder / "usage.json").read_text())
    return {
        "testbed": run.testbed,
        "method": run.label,
        "seed": run.seed,
        "steps": [line["step"] for line in seen],
        "flops": [line["total_flops"] for line in seen],
        "flops_live": [line["total_flops_live"] for line in seen],
        **{name: [round(line[name], 5) for line in seen] for name in CURVES},
        "no_signal": float(np.mean([line["frac_no_signal"] for line in steps])),
        "trained": sum(x["trained"] for x in steps) / sum(x["rollouts"] for x in steps),
        "ledger": {
            phase: {name: getattr(ledger[phase], name) for name in KEPT}
            for phase in (*PHASES, LIVE, "evaluation")
        },
        "cpu_seconds": round(usage["cpu"], 1),
        "wall_seconds": round(usage["wall"], 1),
    }


def success(run: Run, kind: str = "mean") -> np.ndarray:
    """Success of each held-out question at each evaluation, [E, Q].

    Args:
      run: finished.
      kind: "mean", or "averaged" for that of the averaged parameters.
    """
    steps = [x["step"] for x in read_metrics(run.metrics) if "eval/success" in x]
    folder = run.metrics.parent / "questions"
    return np.stack([np.load(folder / f"{step:06d}.npz")[kind] for step in steps])


def averages(run: Run) -> bool:
    """Whether the run has averaged parameters beside the raw ones."""
    return methods.from_json(_config(run)["methods"][run.label]).averaging > 0


def oracle(lines: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Compute at each evaluation if groups without signal had cost nothing, [E].

    Their rollouts are taken to be as long as the others. The same updates for less
    than this take another estimate of the gradient, not another choice of prompts.
    """
    costs, paid, spared, dead = [], 0.0, 0.0, []
    for line in lines:
        if "frac_no_signal" in line:
            dead.append(line["frac_no_signal"])
        if "eval/success" in line:
            generation = Ledger(line["ledger"])["generation"].flops
            spared += (generation - paid) * np.mean(dead or [0.0])
            paid, dead = generation, []
            costs.append(line["total_flops_live"] - spared)
    return np.array(costs)


def exact_without_dead_groups(run: Run) -> bool:
    """Whether leaving responses of advantage 0 out would change no update."""
    method = methods.from_json(_config(run)["methods"][run.label])
    in_loss = method.kl is not None and not method.kl.in_reward
    return not in_loss and not method.entropy_bonus


def _config(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "config.json").read_text())


def collect(runs: Sequence[Run], baseline: str, *, replicates: int = 1000) -> dict:
    """Everything the page shows."""
    done = [run for run in runs if run.finished]
    found = {
        testbed: analyse(
            [x for x in done if x.testbed == testbed], baseline, replicates
        )
        for testbed in dict.fromkeys(run.testbed for run in done)
    }
    return {
        "baseline": baseline,
        "runs": [curve(run) for run in done],
        "unfinished": [
            f"{run.testbed}/{run.label}/seed{run.seed}"
            for run in runs
            if run not in done
        ],
        "testbeds": {k: v for k, v in found.items() if v},
    }


def analyse(runs: Sequence[Run], baseline: str, replicates: int) -> dict[str, Any]:
    """Compare methods of one testbed on the seeds that all of them have finished."""
    by_method: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_method.setdefault(run.label, {})[run.seed] = run
    if baseline not in by_method:
        return {}
    every = by_method[baseline].keys()
    # A method that is behind is compared when it has caught up.
    complete = {k: v for k, v in by_method.items() if every <= v.keys()}
    seeds = sorted(every)
    table: dict[str, Runs] = {}
    for label, members in complete.items():
        metrics = [curve(members[seed]) for seed in seeds]
        each = np.stack([success(members[seed]) for seed in seeds])
        table[label] = Runs(flops=np.array([x["flops"] for x in metrics]), success=each)
        if averages(members[seeds[0]]):
            smooth = np.stack([success(members[s], "averaged") for s in seeds])
            paid = table[label].flops
            table[label + AVERAGED_SUFFIX] = Runs(flops=paid, success=smooth)
        live = np.array([x["flops_live"] for x in metrics])
        # Where a method refills, less than a per cent is left to leave out.
        fewer = (live < 0.99 * table[label].flops).any()
        if fewer and exact_without_dead_groups(members[seeds[0]]):
            table[label + LIVE_SUFFIX] = Runs(flops=live, success=each)
        if label == ORACLE:
            lines = [read_metrics(members[seed].metrics) for seed in seeds]
            bound = np.array([oracle(x) for x in lines])
            table[label + ORACLE_SUFFIX] = Runs(flops=bound, success=each)
        price = np.array([[x["ledger"]["profiling"]["flops"]] for x in metrics])
        if price.any():
            free = table[label].flops - price
            table[label + FREE_SUFFIX] = Runs(flops=free, success=each)
    return {
        "seeds": seeds,
        "questions": table[baseline].success.shape[2],
        "training_questions": len(
            Profile.load(complete[baseline][seeds[0]].folder / "profile.parquet")
        ),
        **compare(table, baseline, replicates),
        "against": {
            other: against(table, other, replicates)
            for other in OTHERS
            if other in table and other != baseline
        },
        "power": _power(power({name: table[name] for name in complete}, baseline)),
    }


def compare(
    table: Mapping[str, Runs], baseline: str, replicates: int
) -> dict[str, Any]:
    """Savings against the baseline, of each ingredient, and equal-compute success."""
    booted = Bootstrap(table, baseline, count=replicates)
    smooth = booted.curves[baseline].smooth()
    gain = smooth.max() - smooth[0]
    first = [baseline, baseline + LIVE_SUFFIX, "grpo_thin"]
    first = [name for name in first if name in table]
    pairs = [*itertools.pairwise(first), *PAIRS]
    return {
        "gain": [float(smooth[0]), float(smooth.max())],
        "targets": [float(smooth[0] + share * gain) for share in SHARES],
        "savings": {
            name: [_plain(x) for x in booted.saving(baseline, name)] for name in table
        },
        "ingredients": [
            {
                "before": before,
                "after": after,
                "savings": [_plain(x) for x in booted.saving(before, after)],
            }
            for before, after in pairs
            if before in table and after in table
        ],
        "equal_compute": {name: _plain(booted.difference(name)) for name in table},
        "final_flops": {
            name: float(x.flops[:, -1].mean()) for name, x in table.items()
        },
        "final": {name: float(x.success[:, -1].mean()) for name, x in table.items()},
    }


def against(table: Mapping[str, Runs], other: str, replicates: int) -> dict[str, Any]:
    """Savings against another method, at shares of its own gain."""
    booted = Bootstrap(table, other, count=replicates)
    smooth = booted.curves[other].smooth()
    return {
        "gain": [float(smooth[0]), float(smooth.max())],
        "savings": {
            name: [_plain(x) for x in booted.saving(other, name)] for name in table
        },
    }


def _plain(interval: Interval) -> dict[str, float | None]:
    """As JSON, which has no infinity: None stands for it."""
    content = dataclasses.asdict(interval)
    return {k: v if math.isfinite(v) else None for k, v in content.items()}


def _power(found: Power | None) -> dict[str, Any] | None:
    if found is None:
        return None
    sizes = sorted({found.count // 4, found.count, found.count * 4})
    return {
        **dataclasses.asdict(found),
        "seeds_to_resolve": {str(n): found.seeds(RESOLVE, n) for n in sizes},
    }
