"""The command; see the package's first lines."""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

from sgpo_jax.sweep import learned, study

from . import __doc__ as DESCRIPTION
from . import compare, grid, train

RESULTS = pathlib.Path(__file__).parents[1] / "results"
TABLES = RESULTS / "sweep"
NAMES = ["optimizer.learning-rate", "train.rollouts", "prompts.group-size"]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--grid", action="store_true", help="make the tables of runs")
    parser.add_argument("--train", type=int, default=0, metavar="STEPS")
    parser.add_argument("--seeds", type=int, default=0, help="compare with so many")
    args = parser.parse_args(argv)
    if args.grid:
        for method in grid.TABLES:
            grid.make(TABLES / f"{method}.json", method)
    held_out, *others = grid.TABLES
    if args.train:
        tables = [
            (grid.values(TABLES / f"{name}.json"), learned.buckets(NAMES))
            for name in others
        ]
        train.train(args.train, tables, learned.WEIGHTS)
    if args.seeds:
        table = grid.values(TABLES / f"{held_out}.json")
        problems = [
            *compare.formulas(),
            compare.of_table("table of runs", table, NAMES),
            *compare.drawn(2 * args.seeds),
            compare.of_few_values(),
        ]
        compare_all(problems, args.seeds)
    write(RESULTS / "sweep.json")
    return 0


def compare_all(problems: list[compare.Problem], seeds: int) -> None:
    """Run what the results lack; a random function has one seed, the others all."""
    path = RESULTS / "sweep.json"
    found = json.loads(path.read_text())["runs"] if path.exists() else []
    done = {(row["problem"], row["sampler"], row["seed"]) for row in found}
    for i, problem in enumerate(problems):
        for seed in range(1 if problem.group == "random functions" else seeds):
            for sampler in compare.SAMPLERS:
                if (i, sampler, seed) in done:
                    continue
                began = time.process_time()
                regret = compare.run(problem, sampler, seed)
                found.append(
                    {
                        "group": problem.group,
                        "problem": i,
                        "sampler": sampler,
                        "seed": seed,
                        "seconds": round(time.process_time() - began, 2),
                        "regret": [round(float(x), 4) for x in regret],
                    }
                )
        path.write_text(json.dumps({"runs": found}) + "\n")
        print(f"{i + 1}/{len(problems)} {problem.group}", flush=True)


def write(path: pathlib.Path) -> None:
    """Make the page from the JSON."""
    if not path.exists():
        return
    rows = json.loads(path.read_text())["runs"]
    seconds = ", ".join(
        f"{name} {np.mean(cost) * 1000 / compare.TRIALS:.0f} ms"
        for name in compare.SAMPLERS
        if (cost := [row["seconds"] for row in rows if row["sampler"] == name])
    )
    path.with_suffix(".md").write_text(
        f"{page(rows)}\n\nTime per trial, of one core: {seconds}.\n"
    )
    print(path.with_suffix(".md"))


def page(rows: list[dict]) -> str:
    seeds = 1 + max(row["seed"] for row in rows)
    count = len({r["problem"] for r in rows if r["group"] == "random functions"})
    return f"""# Samplers of `sgpo sweep`, side by side

`python -m benchmarks.sweep --seeds {seeds}`, after `--grid` (the tables of runs) and
`--train {STEPS}` (the learned sampler), each minutes on a core.

**The learned sampler**, over everything below: {compare.verdict(rows)}

Regret of the best setting after so many trials: 0 is the best of {compare.PROBES:,}
random settings, 1 the median. The first trial is random and the same for all; the best
is chosen by what a sampler saw, noise of 5 % of the median's regret included, and
judged without.
Means over {seeds} seeds of each formula, of the table and of the bowl, and over
{count} random functions of two to four options. The learned sampler was trained on
random functions of that kind, other ones, and on a table of runs of another method with
another seed; the formulas are new to it, and so is the table: 45 settings (5 step
sizes, 3 numbers of rollouts, 3 group sizes) of `grpo_token` on `--preset quick`,
evaluated exactly, at equal total compute.

All samplers but `random` begin with {study.RANDOM} random trials, a number chosen for
`gp` and `learned` on this comparison. Intervals are over runs: of kinds of problems
there are {len({row["group"] for row in rows})}.

{compare.summary(rows)}"""


STEPS = 1600
"""Of the training that made the weights of the package."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
