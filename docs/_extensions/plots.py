"""Plots of the concepts: each computes what it shows with the package's functions."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import matplotlib.colors
import matplotlib.pyplot as plt
import mirrored
import numpy as np
from scipy import stats

from sgpo_jax import advantages, theory
from sgpo_jax.kernels.shared_prefix_attention import from_lengths
from sgpo_jax.planning import DropTrivial, InverseSuccess
from sgpo_jax.profiling import Posterior, from_rates

LIGHT_CYCLE = ("#1b6ca8", "#d95f02", "#2a8a57", "#7570b3", "#a6761d")
DARK_CYCLE = ("#6cb6ff", "#f0883e", "#57c98a", "#b3a7f0", "#e3b341")
RESULTS = mirrored.ROOT / "benchmarks" / "results"


def _headline() -> dict:
    return json.loads((RESULTS / "headline.json").read_text())


def savings() -> None:
    """Total compute at 90 % of the gain, by method."""
    found = _headline()
    name, testbed = next(iter(found["testbeds"].items()))
    shown = {
        "grpo_token": "GRPO, groups of 8",
        "grpo_token, dead groups left out": "without dead groups",
        "grpo_thin": "thinned without bias",
        "tracked_flat": "tracked, no profile",
        "tracked": "tracked, profiled",
        "sgpo": "sGPO, the paper's rule",
    }
    cost = {k: 1 / testbed["savings"][k][2]["value"] for k in shown}
    _, axes = plt.subplots(figsize=(7, 3.2))
    bars = axes.barh(list(shown.values()), list(cost.values()), height=0.62)
    bars[0].set_alpha(0.45)
    for bar, value in zip(bars, cost.values(), strict=True):
        axes.text(value + 0.01, bar.get_y() + 0.31, f"{value:.2f}", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xlabel("total compute at 90 % of GRPO's gain (GRPO = 1)")
    axes.set_title(f"What the same accuracy costs (testbed {name}, {_seeds(testbed)})")


def _seeds(testbed: Mapping[str, Any]) -> str:
    count = len(testbed["seeds"])
    return f"{count} seeds" if count > 1 else "one seed"


def zoo() -> Mapping[str, Mapping[str, Any]]:
    """Measurements of the named methods, the initial policy among them."""
    found = json.loads((RESULTS / "zoo.json").read_text())
    return {m["name"]: m for m in found["methods"]}


def every_method() -> None:
    """Held-out success and total compute of every named method."""
    found = zoo()
    first = found.pop("initial")
    gflop = np.array([m["total_gflop"] for m in found.values()])
    mean = np.array([m["mean"] for m in found.values()])
    base = found["grpo_token"]
    _, axes = plt.subplots(figsize=(7, 3.8))
    axes.axhspan(base["low"], base["high"], alpha=0.12, lw=0)
    axes.scatter(gflop, mean, s=22)
    axes.axhline(first["mean"], lw=1, ls="--", color="gray")
    axes.text(gflop.max(), first["mean"] + 0.004, "initial policy", ha="right")
    labels = {
        "grpo_token": (-30, 14),
        "grpo_thin": (-14, 10),
        "pods": (-8, 8),
        "sgpo": (5, 3),
        "grpo_2": (-8, -15),
        "spo": (-4, 8),
        "pass_at_k": (6, -3),
    }
    for name, offset in labels.items():
        if name in found:
            at = (found[name]["total_gflop"], found[name]["mean"])
            axes.annotate(name, at, offset, textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    ticks = (50, 100, 200, 400, 800)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("total compute in GFLOP, profiling included")
    axes.set_ylabel("held-out success")
    axes.set_title(f"{len(found)} methods after equal rollouts (one testbed, one seed)")


def method(name: str) -> None:
    """Success of a method's rollouts while it trains, beside GRPO's."""
    found = zoo()
    _, axes = plt.subplots(figsize=(6, 2.1))
    for each in dict.fromkeys(("grpo_token", name)):
        curve = found[each]["curve"]
        color = None if each == name else "gray"
        axes.plot(curve["rollouts"], curve["success"], color=color, label=each)
    axes.set_xlim(0)
    axes.set_ylim(0.2, 0.85)
    axes.set_xlabel("rollouts")
    axes.set_ylabel("success")
    axes.set_title(f"{name}: success of training rollouts", fontsize=11)
    axes.legend(loc="lower right", fontsize=9)


def signal() -> None:
    """Probability of a mixed group, by success rate and size; and the best size."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    p = np.linspace(0, 1, 201)
    for size in (2, 4, 8, 16):
        left.plot(p, theory.probability_mixed(p, size), label=f"{size} rollouts")
    left.set_xlabel("success rate p of the question")
    left.set_ylabel("probability of a mixed group")
    left.set_title("Groups with signal")
    left.legend()
    size = np.arange(1, 65)
    for rate in (0.5, 0.1, 0.03):
        chance = theory.probability_any_success(rate, size)
        (line,) = right.plot(size, chance, label=f"p = {rate}")
        at = round(1 / rate)
        right.plot(
            at, theory.probability_any_success(rate, at), "o", color=line.get_color()
        )
    right.axhline(1 - np.exp(-1), lw=0.8, ls=":", color="gray")
    right.set_xlabel("group size G (dots: 1 / p)")
    right.set_ylabel("probability of a success")
    right.set_title("What another rollout adds")
    right.legend(loc="lower right")
    plt.tight_layout()


def sizes() -> None:
    """Group sizes of sGPO's rule by the success rate in the profile."""
    samples = 8
    successes = np.arange(0, samples + 1)
    profile = from_rates(
        [str(k) for k in successes],
        (successes / samples).tolist(),
        samples=samples,
        source="every outcome",
    )
    chosen = InverseSuccess()(Posterior.of(profile))
    rate = successes / samples
    kept = (rate > 0) & (rate <= DropTrivial().trivial_above)
    _, axes = plt.subplots(figsize=(7, 3.2))
    axes.bar(rate[kept], np.asarray(chosen)[kept], width=0.07, label="trained on")
    axes.bar(
        rate[~kept],
        np.asarray(chosen)[~kept],
        width=0.07,
        alpha=0.3,
        label="dropped (of the unsolved, a tenth is kept)",
    )
    p = np.linspace(0.1, 1, 100)
    axes.plot(p, 1 / p, ls="--", color=plt.rcParams["axes.edgecolor"], label="1 / p")
    axes.set_xlabel("success rate in a profile of 8 samples")
    axes.set_ylabel("group size")
    axes.set_ylim(0, 9.5)
    axes.set_title("Profile to plan: group sizes of sGPO's rule")
    axes.legend()


def packing() -> None:
    """Who reads whom in a packed row, from the layout that the kernel is given."""
    groups = [(5, [3, 2, 4]), (4, [3, 3])]
    layout = from_lengths([groups], length=26)
    end, length = np.asarray(layout.end[0]), 26
    i, j = np.arange(length)[:, None], np.arange(length)[None]
    reads = (j <= i) & (i < end[j])
    names: list[str] = []
    kinds: list[int] = []
    for group, (prompt, responses) in enumerate(groups, start=1):
        names += [f"prompt {group}"] + [f"r{n + 1}" for n in range(len(responses))]
        kinds += [prompt, *responses]
    names.append("pad")
    kinds.append(length - sum(kinds))
    edges = np.cumsum([0, *kinds])
    shade = np.zeros((length, length))
    for number, (a, b) in enumerate(itertools.pairwise(edges)):
        shade[:, a:b] = 1 if names[number].startswith("prompt") else 2
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    _, axes = plt.subplots(figsize=(6.2, 6.2))
    image = np.zeros((length, length, 4))
    for kind, color in ((1, colors[0]), (2, colors[1])):
        image[reads & (shade == kind)] = matplotlib.colors.to_rgba(color)
    axes.imshow(image, interpolation="nearest")
    for edge in edges:
        axes.axhline(edge - 0.5, lw=0.6, color="gray")
        axes.axvline(edge - 0.5, lw=0.6, color="gray")
    middle = (edges[:-1] + edges[1:] - 1) / 2
    axes.set_xticks(middle, names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(middle, names)
    axes.tick_params(length=0)
    axes.set_xlabel("key (is read)")
    axes.set_ylabel("query (reads)")
    axes.set_title("Two groups in one row of 26 tokens")


def belief() -> None:
    """A tracked baseline: from a profile, through visits, to a belief."""
    tracker = advantages.BetaTracker()
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    p = np.linspace(0, 1, 300)
    for k in (0, 2, 6):
        left.plot(p, stats.beta(k + 0.5, 8 - k + 0.5).pdf(p), label=f"{k} of 8 right")
    left.set_ylim(0, 6)
    left.set_xlabel("success rate p")
    left.set_ylabel("density")
    left.set_title("What 8 samples say about p")
    left.legend()
    state = tracker.init(jnp.array([1]), jnp.array([8]))
    rng, truth, seen, means = np.random.default_rng(3), [], [], []
    for visit in range(24):
        rate = 0.1 + 0.75 * visit / 23
        means.append(float(tracker.mean(state)[0]))
        rewards = (rng.random(4) < rate).astype(np.float32)
        state = tracker.update(
            state,
            jnp.asarray(rewards),
            jnp.zeros(4, jnp.int32),
        )
        truth.append(rate)
        seen.append(rewards.mean())
    right.plot(truth, ls="--", color="gray", label="true success rate")
    right.plot(seen, ".", label="mean of 4 rollouts")
    right.plot(means, label="tracked baseline")
    right.set_xlabel("visit of the question")
    right.set_ylabel("success")
    right.set_title("A Beta baseline follows the policy")
    right.legend(loc="upper left")
    plt.tight_layout()


def ledger() -> None:
    """Where the compute of a run goes, by method."""
    found = _headline()
    testbed, about = next(iter(found["testbeds"].items()))
    names = ["grpo_token", "grpo_thin", "dapo", "tracked", "sgpo"]
    _, axes = plt.subplots(figsize=(7, 3.2))
    left = np.zeros(len(names))

    def mean(name: str, phase: str) -> float:
        return float(
            np.mean(
                [
                    run["ledger"][phase]["flops"] / 1e9
                    for run in found["runs"]
                    if (run["testbed"], run["method"]) == (testbed, name)
                ]
            )
        )

    for phase in ("profiling", "generation", "training"):
        value = np.array([mean(name, phase) for name in names])
        axes.barh(names, value, left=left, label=phase, height=0.62)
        left += value
    axes.invert_yaxis()
    axes.set_xlabel("GFLOP on real tokens")
    axes.set_title(f"The ledger of five methods (testbed {testbed}, {_seeds(about)})")
    axes.legend()
