"""CPU time and memory of drawing one step of 512 groups from a million prompts.

    python benchmarks/prompt_sampling.py [--prompts 1000000]

Prints, for every prompt sampler, the median of ten draws after the first, the first,
and what observing the rewards of a step takes.
"""

import argparse
import resource
import time

import numpy as np

from sgpo_jax import advantages, methods
from sgpo_jax.profiling import Profile
from sgpo_jax.training import Prompts

GROUPS = 512


def prompts_of(sampler, count: int) -> Prompts:
    rng = np.random.default_rng(0)
    profile = None
    if "profile" in methods.needs_of(sampler):
        zeros = np.zeros(count, np.int64)
        profile = Profile(
            ids=tuple(f"q{i}" for i in range(count)),
            samples=zeros + 8,
            successes=rng.integers(0, 9, size=count),
            unscorable=zeros,
            tokens=zeros + 64,
            truncated=zeros,
        )
    tracker = advantages.BetaTracker(profile_weight=0.0)
    return Prompts(
        method=methods.Method(prompts=sampler, baseline=tracker),
        count=count,
        profile=profile,
    )


def row(name: str, sampler, count: int) -> str:
    prompts = prompts_of(sampler, count)
    state, draws, learned = prompts.init(), [], []
    for step in range(11):
        begun = time.process_time()
        size = getattr(sampler, "group_size", 4)
        draw, state = prompts.draw(state, budget=GROUPS * size, progress=0.0, seed=step)
        drawn = time.process_time()
        group = np.repeat(np.arange(len(draw.rows)), draw.sizes)
        rewards = (np.arange(len(group)) % 2).astype(np.float64)
        state = prompts.observe(
            state, draw, group=group, rewards=rewards, step=step + 1
        )
        draws.append(drawn - begun)
        learned.append(time.process_time() - drawn)
    times = (np.median(draws[1:]), draws[0], np.median(learned[1:]))
    return f"| {name} | " + " | ".join(f"{1e3 * t:.1f}" for t in times) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    count = parser.parse_args().prompts
    print(f"{GROUPS} groups of {count:,} prompts, milliseconds of CPU\n")
    print("| sampler | draw | first draw | observe |\n|---|---:|---:|---:|")
    for name, sampler in {
        "shuffled": methods.Shuffled(),
        "by belief": methods.ByBelief(group_size=4),
        "planned": methods.Planned(),
        "skip zero variance": methods.SkipZeroVariance(),
        "drop solved": methods.DropSolved(),
        "Thompson sampling": methods.ThompsonSampling(),
        "knapsack": methods.KnapsackAllocation(),
    }.items():
        print(row(name, sampler, count), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
