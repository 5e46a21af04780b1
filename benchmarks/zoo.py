"""Every named method on one testbed with equal budgets: success, compute, signal.

    python benchmarks/zoo.py --out runs/zoo [--rollouts 12800] [--names grpo spo ...] \
      --data procedural:families=addition+gcd+bits+count+reversal+sorting

All start from the same initial policy and read the same profile. A method is trained
until it has sampled the budget of rollouts, those of refills, pilots and continued
groups included, and is then evaluated. The same command goes on with the methods that
the run folder does not have yet, and writes benchmarks/results/zoo.md and zoo.json of
those that are there. Further options go to `sgpo run` as they are.
"""

import argparse
import contextlib
import json
import pathlib
import sys

import numpy as np

from sgpo_jax import methods, models, pipeline, rewards, training
from sgpo_jax.commands.methods import headline
from sgpo_jax.commands.options import experiment
from sgpo_jax.ledger import Ledger
from sgpo_jax.pipeline import stages
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.session import cache_programs
from sgpo_jax.testing import MemoryStore

RESULTS = pathlib.Path(__file__).parent / "results"
SAMPLES = ["--eval.final-samples", "8"]


def train(
    out: pathlib.Path, names: list[str], budget: int, options: list[str]
) -> dict[str, str]:
    """Train and evaluate what is missing; return what went wrong, by name."""
    arguments = ["--out", str(out), "--methods", *names, *SAMPLES, *options]
    config = experiment("run", list(arguments))  # it takes options out
    steps = -(-budget // config.train.rollouts)
    arguments += ["--train.steps", str(steps), "--train.eval-every", str(steps)]
    config = experiment("run", arguments)
    cache_programs(config.cache)
    failed = {}
    with rewards.Worker() as worker:
        run = pipeline.open_run(config, worker, display=pipeline.Display())
        run.check()
        pipeline.open_folder(config)
        initial = stages.initial_policy(run)
        known = stages.profile(run, initial)
        plans = stages.plans(run, known)
        for name in ["initial", *names]:
            path = out / "zoo" / f"{name}.json"
            if path.exists():
                continue
            try:
                learner = None
                if name != "initial":
                    learner = make_learner(run, name, known, plans.get(name))
                row = measure(run, name, initial.params, learner, budget)
            except (ValueError, FloatingPointError, pipeline.UserError) as error:
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name}: {failed[name]}", file=sys.stderr)
                continue
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(row, indent=1) + "\n")
            print(table([row]), flush=True)
    return failed


def measure(
    run: pipeline.Run,
    name: str,
    params: models.Params,
    learner: training.Learner | None,
    budget: int,
) -> dict:
    """Train a method until its budget is spent; return its line of the table."""
    spent: dict = {}
    if learner is not None:
        folder = run.folder.method(name)
        progress, lines = trained(learner, params, folder, budget)
        params = progress.train.params
        ledger, optimizer = progress.ledger, learner.method.optimizer
        spent = {
            "total_gflop": ledger.total.flops / 1e9,
            "profiling_gflop": ledger["profiling"].flops / 1e9,
            "rollouts": sum(line["rollouts"] for line in lines),
            "trained": sum(line["trained"] for line in lines),
            "no_signal": float(np.mean([line["frac_no_signal"] for line in lines])),
            "seconds": sum(line["step_time_sec"] for line in lines),
            "steps": len(lines),
            "skipped": sum(line.get("skipped", 0) > 0 for line in lines),
            "learning_rate": getattr(optimizer, "learning_rate", None),
            "curve": curve(lines),
        }
    samples = run.config.eval.final_samples
    found = training.evaluate(
        run.session.rollouts, params, run.held_out, samples=samples, greedy=True
    )
    success = {"mean": found.mean, "greedy": found.greedy}
    return {"name": name, **success, "low": found.low, "high": found.high} | spent


def curve(lines: list[training.Metrics], points: int = 16) -> dict[str, list[float]]:
    """Success of the rollouts of each stretch of steps, and the rollouts by its end."""
    parts = np.array_split(np.arange(len(lines)), points)
    used = np.cumsum([line["rollouts"] for line in lines])
    success = np.array([line["success"] for line in lines])
    return {
        "rollouts": [int(used[part[-1]]) for part in parts],
        "success": [round(float(np.nanmean(success[part])), 4) for part in parts],
    }


def trained(
    learner: training.Learner,
    params: models.Params,
    folder: pathlib.Path,
    budget: int,
) -> tuple[training.TrainProgress, list[training.Metrics]]:
    """Train a method until it has sampled the budget; return the end and the steps."""
    progress = learner.start(learner.programs.init(params))
    if learner.profile is not None:
        progress.ledger.update(Ledger(learner.profile.cost))
    store, lines, used = MemoryStore(), [], 0
    store.save(0, progress)
    with contextlib.closing(training.MetricsWriter(folder)) as log:
        log.rewind(0)
        for step, now, metrics in training.steps(
            learner,
            progress,
            start=0,
            stop=4 * learner.config.steps,  # for methods that draw less per step
            store=store,
            log=log,
            evaluate=training.compute_spent,
        ):
            progress = now
            if step:
                lines.append(metrics)
                used += metrics["rollouts"]
            if used >= budget:
                break
    return progress, lines


def table(rows: list[dict]) -> str:
    """Markdown table, the best mean success first."""
    columns = (
        "method | success | greedy | GFLOP | of it profile | rollouts | trained | steps"
        " | no signal | step size | s"
    )
    lines = [f"| {columns} |", "|---" + "|---:" * 10 + "|"]
    for row in sorted(rows, key=lambda row: -row["mean"]):
        cells = [row["name"], f"{row['mean']:.3f}", f"{row['greedy']:.3f}"]
        if "total_gflop" in row:
            cells += [f"{row['total_gflop']:.1f}", f"{row['profiling_gflop']:.1f}"]
            cells += [f"{row['rollouts']:,}", f"{row['trained']:,}", str(row["steps"])]
            cells += [f"{row['no_signal']:.2f}", f"{row['learning_rate']:.1e}"]
            cells += [f"{row['seconds']:.0f}"]
        else:
            cells += [""] * 8
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(out: pathlib.Path, failed: dict[str, str], command: str, budget: int) -> str:
    """Write both result files; return the Markdown."""
    names = ["initial", *methods.ZOO]
    paths = [out / "zoo" / f"{name}.json" for name in names]
    rows = [json.loads(path.read_text()) for path in paths if path.exists()]
    missing = [name for name in names if name not in {row["name"] for row in rows}]
    width = np.mean([row["high"] - row["low"] for row in rows]) / 2 if rows else 0.0
    text = [
        "# Named methods with equal budgets",
        f"`{command}`, one seed, one core that other work shared (seconds are of the"
        f" steps alone, compilation included). Every method samples {budget:,} rollouts"
        " from the same initial policy, those of refills, pilots and continued groups"
        " included; the profile comes on top, for the methods that read it.",
        "Held-out success at temperature 1 and of greedy answers; total compute by the"
        " ledger, profiling included; rollouts sampled and trained on; steps; share of"
        f" groups without an advantage. The 95 % interval of a success is ±{width:.3f}"
        " over questions; differences within it say nothing. Step sizes are those of"
        " the preset. pass_at_k credits groups with exactly one success only, so its"
        " mean success moves least.",
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
    content = {"command": command, "budget": budget, "methods": rows}
    (RESULTS / "zoo.json").write_text(json.dumps(content, indent=1) + "\n")
    return markdown


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/zoo"))
    parser.add_argument("--rollouts", type=int, default=12_800)
    parser.add_argument("--names", nargs="+", default=list(methods.ZOO))
    args, options = parser.parse_known_args()
    command = " ".join(["python benchmarks/zoo.py --rollouts", str(args.rollouts)])
    command = " ".join([command, *options])
    failed = train(args.out, args.names, args.rollouts, options)
    print(write(args.out, failed, command, args.rollouts))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
