"""Seconds and memory of a plan of a million queries."""

import resource
import time

import numpy as np

from sgpo_jax import planning
from sgpo_jax.profiling import Profile

from .pools import mixture


def run(_):
    rows = []
    for count in (10_000, 100_000, 1_000_000):
        rng = np.random.default_rng(0)
        profile = Profile(
            ids=tuple(f"q{i}" for i in range(count)),
            samples=np.full(count, 8),
            successes=rng.binomial(8, mixture(count, rng)),
            tokens=np.full(count, 800),
            prompt_tokens=np.full(count, 50),
        )
        start = time.perf_counter()
        plan = planning.make_plan(profile, allocate=planning.Knapsack())
        planning.predict(plan, profile)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"queries": count, "seconds": seconds, "peak_gib": peak})
    return rows


def markdown(rows):
    lines = [
        "## Scale",
        "",
        "Plan with the knapsack allocator, with its prediction:",
        "",
        "| queries | seconds | peak GiB |",
        "|---:|---:|---:|",
    ]
    return lines + [
        f"| {r['queries']:,} | {r['seconds']:.2f} | {r['peak_gib']:.2f} |" for r in rows
    ]


def plot(rows, path):
    del rows, path
