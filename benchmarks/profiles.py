"""Profiling strategies per sample, and planning a million queries.

    python benchmarks/profiles.py

writes benchmarks/results/profiles.md and profiles.png. The pool is simulated: two
fifths never solved, a fifth always, the rest Beta(1, 1.5).
"""

import pathlib
import resource
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax import planning
from sgpo_jax.profiling import (
    Decision,
    Flat,
    Posterior,
    Profile,
    Sequential,
    profile_adaptively,
)

RESULTS = pathlib.Path(__file__).parent / "results"


def pool(count, rng):
    kind = rng.choice(3, size=count, p=[0.4, 0.2, 0.4])
    return np.choose(kind, [np.zeros(count), np.ones(count), rng.beta(1, 1.5, count)])


def decided_rightly(rule, budget, seed, count=1000):
    rng = np.random.default_rng(seed)
    rate = pool(count, rng)
    flips = rng.random((count, 64)) < rate[:, None]
    ids = tuple(f"q{i}" for i in range(count))

    def draw(ranges):
        some = [i for i, r in enumerate(ranges) if len(r)]
        return Profile(
            ids=tuple(ids[i] for i in some),
            samples=[len(ranges[i]) for i in some],
            successes=[int(flips[i, ranges[i]].sum()) for i in some],
            first_sample=[ranges[i].start for i in some],
        )

    found = profile_adaptively(draw, ids, rule=rule, budget=budget)
    belief = Posterior.of(found)
    decision = Decision()
    choice = decision.probabilities(belief.classes).argmax(-1)[belief.index]
    return found.drawn.mean(), (choice == decision.label(rate)).mean()


def million(count):
    rng = np.random.default_rng(0)
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(count)),
        samples=np.full(count, 8),
        successes=rng.binomial(8, pool(count, rng)),
        tokens=np.full(count, 800),
        prompt_tokens=np.full(count, 50),
    )
    start = time.perf_counter()
    plan = planning.make_plan(profile, allocate=planning.Knapsack())
    planning.predict(plan, profile)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    lines = ["# Profiles and plans", "", "`python benchmarks/profiles.py`", ""]
    lines += [
        "Decisions right (unsolvable up to 0.01, trivial above 0.75) of 1,000 queries,",
        "mean of three pools, by samples per query:",
        "",
        "| budget | flat: samples | right | sequential: samples | right |",
        "|---:|---:|---:|---:|---:|",
    ]
    points = {"flat": [], "sequential": []}
    for samples in (4, 6, 8, 12, 16, 24):
        row = []
        for name, rule in (
            ("flat", Flat(samples=samples)),
            ("sequential", Sequential(first=min(4, samples), most=64)),
        ):
            mean = np.mean(
                [decided_rightly(rule, samples * 1000, s) for s in range(3)], axis=0
            )
            points[name].append(mean)
            row += [f"{mean[0]:.1f}", f"{mean[1]:.3f}"]
        lines.append(f"| {samples} | " + " | ".join(row) + " |")
    lines += ["", "![decisions per sample](profiles.png)", ""]
    lines += ["Plan with the knapsack allocator, with its prediction:", ""]
    lines += ["| queries | seconds | peak GiB |", "|---:|---:|---:|"]
    for count in (10_000, 100_000, 1_000_000):
        seconds, peak = million(count)
        lines.append(f"| {count:,} | {seconds:.2f} | {peak:.2f} |")
    (RESULTS / "profiles.md").write_text("\n".join(lines) + "\n")
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for name, values in points.items():
        x, y = np.array(values).T
        axes.plot(x, y, marker="o", label=name)
    axes.set_xlabel("samples per query")
    axes.set_ylabel("decisions right")
    axes.legend(frameon=False)
    figure.savefig(RESULTS / "profiles.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
