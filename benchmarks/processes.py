"""The main job on one, two and four processes of this machine: is it the same run?

    python benchmarks/processes.py --work runs/processes --counts 1 2 4

Every run begins from the initial policy of the run on one process and does the rest by
itself: profile, plan, train, evaluate, report; further options go to `sgpo run`. A run
that was stopped (SIGTERM, exit code 42) goes on with the same command; one that is
there is read. Writes benchmarks/results/processes.md.

What has no rounding in it must be equal: the profile, the plan, the evaluation of the
initial policy. Gradients are sums over devices, and floats added in another order are
off in their last bits; 1, 2 and 4 devices have three orders. So the lines of a method
are compared up to the first in which samples differ (rewards, lengths, what is trained
on, held-out success), or any of loss, gradient norm and entropy by more than 1e-4 of
its mean size; shown are how many these are, and the largest difference in them. A fault
in sharing, packing or summing would show in the first lines; differences then grow, as
they do in any training, and a step whose gradient is sensitive shows them in every run
at once. After a sample that they have tipped over, runs are two draws of one
experiment, to be compared by the interval of its evaluation. Padding is not compared:
rows of a batch are a multiple of the devices.
"""

import argparse
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from sgpo_jax.pipeline.folder import read_json
from sgpo_jax.profiling import Profile
from sgpo_jax.training import read_metrics

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "processes.md"

SAMPLED = ("reward", "success", "completions/mean_length", "queries", "trained")
SAMPLED += ("frac_reward_zero_std", "eval/success", "eval/low", "eval/high")
"""Metrics that are functions of the sampled tokens, without rounding."""

ROUNDED = ("loss", "grad_norm", "entropy")
TOLERANCE = 1e-4
LEAST = 50
"""Lines that must agree; by then a fault would have shown."""


def run(work: pathlib.Path, count: int, options: Sequence[str]) -> pathlib.Path:
    """Do a run, or go on with it, from the policy of that on one process."""
    sys.path.insert(0, str(ROOT / "launch"))
    import local_multiprocess

    out, first = work / f"processes{count}", work / "processes1"
    if (out / "report.md").exists():
        return out
    if count > 1 and not out.exists():
        shutil.copytree(first / "policy", out / "policy")
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    args = ["run", "--out", str(out), "--cache", "", *options]
    code = local_multiprocess.main([str(count), "--", *args])
    if code:
        sys.exit(code)
    return out


def same(name: str, got: pathlib.Path, want: pathlib.Path) -> bool:
    """Return whether something that has no rounding in it is equal."""
    if name == "profile":
        found = [Profile.load(x / "profile.parquet") for x in (got, want)]
        return found[0].fingerprint() == found[1].fingerprint()
    a, b = ((x / name).read_text() for x in (got, want))
    return a == b


def sizes(lines: Sequence[dict]) -> dict[str, float]:
    """Return the mean size of each rounded metric."""
    return {
        name: float(np.mean([abs(x[name]) for x in lines if name in x]))
        for name in ROUNDED
    }


def apart(ours: dict, theirs: dict, size: dict[str, float]) -> dict[str, float]:
    """Return how far a line's rounded metrics are apart, relative to their size."""
    return {
        name: abs(ours[name] - theirs[name]) / size[name]
        for name in ROUNDED
        if name in ours and name in theirs
    }


def same_samples(ours: Sequence[dict], theirs: Sequence[dict]) -> int:
    """Return how many lines come before what was sampled differs."""
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if any(a.get(name) != b.get(name) for name in SAMPLED):
            return number
    return len(ours)


def agreeing(
    ours: Sequence[dict], theirs: Sequence[dict]
) -> tuple[int, dict[str, float]]:
    """Return how many lines agree, and the largest differences in them."""
    size, most = sizes(theirs), dict.fromkeys(ROUNDED, 0.0)
    sampled = same_samples(ours, theirs)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        differ = apart(a, b, size)
        if number == sampled or max(differ.values(), default=0.0) > TOLERANCE:
            return number, most
        most = {name: max(most[name], differ.get(name, 0.0)) for name in ROUNDED}
    return len(ours), most


def method_row(name: str, got: pathlib.Path, want: pathlib.Path) -> tuple[str, bool]:
    """Compare one method's metrics and final evaluation."""
    ours, theirs = (
        read_metrics(x / "methods" / name / "metrics.jsonl") for x in (got, want)
    )
    equal, most = agreeing(ours, theirs)
    a, b = (read_json(x / "eval" / f"{name}.json") for x in (got, want))
    reach = max(b["mean"] - b["low"], b["high"] - b["mean"])
    between = abs(a["mean"] - b["mean"])
    cells = [
        name,
        f"{same_samples(ours, theirs)} of {len(ours)}",
        f"{equal}",
        *(f"{value:.1e}" for value in most.values()),
        f"{a['mean']:.4f}",
        f"{b['mean']:.4f} +- {reach:.3f}",
    ]
    right = equal >= min(LEAST, len(ours))
    right = right and between < (reach if equal < len(ours) else 1e-9)
    return f"| {' | '.join(cells)} |", right


def compare(got: pathlib.Path, want: pathlib.Path, count: int) -> Iterator[str]:
    """Yield the lines of one comparison."""
    yield f"## {count} processes against one\n"
    for name in ("profile", "plans/sgpo.json", "eval/initial.json"):
        if name.startswith("eval"):
            a, b = (read_json(x / name) for x in (got, want))
            good = all(a[k] == b[k] for k in ("mean", "low", "high", "greedy"))
        else:
            good = same(name, got, want)
        yield f"* {name}: {'equal to the bit' if good else '**DIFFERS**'}"
    yield ""
    yield (
        "| method | the same samples | lines that agree | loss | gradient norm"
        " | entropy | final success | on one process |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    wrong = []
    for name in read_json(want / "config.json")["methods"]:
        row, right = method_row(name, got, want)
        yield row
        wrong += [] if right else [name]
    yield ""
    yield f"**WRONG: {', '.join(wrong)}**\n" if wrong else "As it should be.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=pathlib.Path, default=pathlib.Path("runs/processes")
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4])
    args, options = parser.parse_known_args()
    work = args.work.resolve()
    folders = {count: run(work, count, options) for count in args.counts}
    want = folders.pop(1)
    text = [f"# The same run on several processes\n\n{__doc__.strip()}\n"]
    if options:
        text.append(f"Made with `{' '.join(options)}`.\n")
    for count, got in folders.items():
        text += compare(got, want, count)
    RESULTS.write_text("\n".join(text))
    print("\n".join(text[1:]))
    sys.exit(any("**" in line for line in text))


if __name__ == "__main__":
    main()
