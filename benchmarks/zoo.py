"""Every named method on one testbed with equal budgets: success, compute, signal.

    python benchmarks/zoo.py --out runs/zoo [--minutes 7] [--names grpo spo ...]

Trains and evaluates the methods that the run folder does not have yet, all from the
same initial policy with the same number of steps and rollouts, in one process that
shares what it compiles, then writes
benchmarks/results/zoo.md and zoo.json of those that are there. After --minutes no
further method is begun: the same command goes on. Further options go to `sgpo run` as
they are.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

from sgpo_jax import methods, pipeline, rewards
from sgpo_jax.commands.methods import headline
from sgpo_jax.commands.options import cache_programs, experiment
from sgpo_jax.pipeline import stages
from sgpo_jax.training import read_metrics

RESULTS = pathlib.Path(__file__).parent / "results"
BUDGET = [
    *("--train.steps", "60", "--train.rollouts", "128", "--train.eval-every", "60"),
    *("--eval.samples", "4", "--eval.final-samples", "16"),
]


def train(
    out: pathlib.Path, names: list[str], minutes: float, options: list[str]
) -> dict[str, str]:
    """Train and evaluate what is missing; return what went wrong, by name."""
    arguments = ["--out", str(out), "--methods", *names, *BUDGET, *options]
    config = experiment("run", arguments)
    cache_programs(config.cache)
    failed, begun = {}, time.monotonic()
    with rewards.Worker() as worker:
        setup = pipeline.Setup(config=config, worker=worker)
        setup.check()
        folder, display = pipeline.open_folder(config), pipeline.Display()
        for name in names:
            if (out / "eval" / f"{name}.json").exists():
                continue
            if time.monotonic() - begun > 60 * minutes:
                break
            try:
                stages.train(name, setup, folder, display)
                stages.evaluate([name], setup, folder, display)
            except (ValueError, FloatingPointError, pipeline.UserError) as error:
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name}: {failed[name]}", file=sys.stderr)
    return failed


def measured(out: pathlib.Path, name: str) -> dict | None:
    """Numbers of one method; None if it is not there."""
    path = out / "eval" / f"{name}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    row = {"name": name, "mean": found["mean"], "greedy": found["greedy"]}
    row |= {"low": found["low"], "high": found["high"]}
    if name == "initial":
        return row
    lines = read_metrics(out / "methods" / name / "metrics.jsonl")
    steps = [line for line in lines if "step_time_sec" in line]
    ledger = lines[-1]["ledger"]
    return row | {
        "total_gflop": lines[-1]["total_flops"] / 1e9,
        "profiling_gflop": ledger.get("profiling", {"flops": 0.0})["flops"] / 1e9,
        "rollouts": sum(line["rollouts"] for line in steps),
        "trained": sum(line["trained"] for line in steps),
        "no_signal": float(np.mean([line["frac_no_signal"] for line in steps])),
        "seconds": sum(line["step_time_sec"] for line in steps),
        "steps": len(steps),
    }


def table(rows: list[dict]) -> str:
    """Markdown table, the best mean success first."""
    columns = "method | success | greedy | GFLOP | rollouts | trained | no signal | s"
    lines = [f"| {columns} |", "|---" + "|---:" * 7 + "|"]
    for row in sorted(rows, key=lambda row: -row["mean"]):
        cells = [row["name"], f"{row['mean']:.3f}", f"{row['greedy']:.3f}"]
        if "total_gflop" in row:
            cells += [f"{row['total_gflop']:.0f}", f"{row['rollouts']:,}"]
            cells += [f"{row['trained']:,}", f"{row['no_signal']:.2f}"]
            cells += [f"{row['seconds']:.0f}"]
        else:
            cells += [""] * 5
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(out: pathlib.Path, failed: dict[str, str], options: list[str]) -> str:
    """Write both result files; return the Markdown."""
    names = ["initial", *methods.ZOO]
    rows = [row for name in names if (row := measured(out, name)) is not None]
    missing = [name for name in names if name not in {row["name"] for row in rows}]
    command = " ".join(["python benchmarks/zoo.py --out", str(out), *options])
    width = np.mean([row["high"] - row["low"] for row in rows]) / 2 if rows else 0.0
    text = [
        "# Named methods with equal budgets",
        f"`{command}`, one seed, two CPU cores that other work shared (seconds are of"
        f" the steps alone). Every method: `{' '.join(BUDGET)}`.",
        "Held-out success at temperature 1 and of greedy answers; total compute by the"
        " ledger, profiling included; rollouts sampled and trained on; share of groups"
        f" without an advantage. The 95 % interval of a success is ±{width:.3f} over"
        " questions; differences within it say nothing. Step sizes are those of"
        " grpo_token for all.",
        table(rows),
    ]
    if missing:
        why = [f"{name} ({failed.get(name, 'not run yet')})" for name in missing]
        text.append(f"Missing: {', '.join(why)}.")
    text.append(
        "\n".join(f"* {name}: {headline(make)}" for name, make in methods.ZOO.items())
    )
    RESULTS.mkdir(exist_ok=True)
    markdown = "\n\n".join(text) + "\n"
    (RESULTS / "zoo.md").write_text(markdown)
    content = {"command": command, "budget": BUDGET, "methods": rows}
    (RESULTS / "zoo.json").write_text(json.dumps(content, indent=1) + "\n")
    return markdown


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/zoo"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--names", nargs="+", default=list(methods.ZOO))
    args, options = parser.parse_known_args()
    failed = train(args.out, args.names, args.minutes, options)
    print(write(args.out, failed, options))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
