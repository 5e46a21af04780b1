"""Tables of real runs: each step size, rollouts of a step and group size of a grid."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import tempfile
from typing import Any

import numpy as np

from benchmarks.headline.worker import evaluator
from sgpo_jax import pipeline, rewards, training
from sgpo_jax.commands.options import experiment
from sgpo_jax.pipeline import stages
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.session import cache_programs
from sgpo_jax.sweep import objective
from sgpo_jax.testing import MemoryStore

RATES = (5e-5, 1.5e-4, 5e-4, 1.5e-3, 5e-3)
ROLLOUTS = (32, 64, 128)
GROUPS = (4, 8, 16)
DEFAULT = (1.5e-4, 64, 8)
STEPS = 40
EVALUATIONS = 8
TABLES = {"grpo_token": 1000, "dr_grpo": 1001}
"""Methods and seeds; the first is for comparisons, the others for training."""


def make(path: pathlib.Path, method: str) -> None:
    """Train what the table lacks, the default first: its compute is the budget."""
    table = json.loads(path.read_text()) if path.exists() else {"runs": []}
    done = {tuple(row["setting"]) for row in table["runs"]}
    cells = [DEFAULT, *itertools.product(RATES, ROLLOUTS, GROUPS)]
    left = [cell for cell in dict.fromkeys(cells) if cell not in done]
    if not left:
        return
    with tempfile.TemporaryDirectory() as out, rewards.Worker() as worker:
        seed = str(TABLES[method])
        options = ["--preset", "quick", "--methods", method, "--seed", seed]
        config = experiment("run", [*options, "--out", out])
        cache_programs(config.cache)
        run = pipeline.open_run(config, worker)
        initial = stages.initial_policy(run)
        evaluate = evaluator(run.session, run.held_out, config.eval.samples)
        for cell in left:
            budget = table["runs"][0]["flops"][-1] if table["runs"] else np.inf
            row = train(run, initial.params, evaluate, cell, float(budget))
            table["runs"].append(row)
            path.write_text(json.dumps(table, indent=1) + "\n")
            print(cell, [round(x, 3) for x in row["success"]], flush=True)


def train(run: pipeline.Run, params, evaluate, cell, budget: float) -> dict[str, Any]:
    """Train with one setting until the budget is spent; return its curve."""
    rate, rollouts, group = cell
    ((label, method),) = run.config.methods.items()
    method = method.replace(
        optimizer=dataclasses.replace(method.optimizer, learning_rate=rate),
        prompts=dataclasses.replace(method.prompts, group_size=group),
    )
    share = ROLLOUTS[1] / rollouts
    steps = int(STEPS * share * (1 if np.isinf(budget) else 2))
    every = max(1, int(STEPS * share) // EVALUATIONS)
    settings = training.TrainConfig(steps=steps, rollouts=rollouts, eval_every=every)
    config = dataclasses.replace(run.config, methods={label: method}, train=settings)
    learner = make_learner(dataclasses.replace(run, config=config), label, None, None)

    def metrics(progress: training.TrainProgress) -> training.Metrics:
        found, _ = evaluate(progress.train.params)
        return {
            "eval/success": float(found["mean"].mean()),
            **training.compute_spent(progress),
        }

    progress = learner.start(learner.programs.init(params))
    store, lines = MemoryStore(), []
    store.save(0, progress)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(training.MetricsWriter(pathlib.Path(folder))) as log,
    ):
        log.rewind(0)
        for _, _, line in training.steps(
            learner,
            progress,
            start=0,
            stop=steps,
            store=store,
            log=log,
            evaluate=metrics,
        ):
            if "eval/success" in line:
                lines.append(line)
                if line["total_flops"] >= budget:
                    break
    return {
        "setting": list(cell),
        "flops": [line["total_flops"] for line in lines],
        "success": [round(line["eval/success"], 5) for line in lines],
    }


def values(path: pathlib.Path) -> dict[tuple[float, int, int], float]:
    """Objective of every setting: the area, as `sgpo sweep` has it by default."""
    runs = json.loads(path.read_text())["runs"]
    budget = runs[0]["flops"][-1]
    found = {}
    for row in runs:
        lines = [
            {
                "step": i,
                "eval/success": success,
                "total_flops": flops,
                "total_flops_repeated": flops,
                "eval/low": 0.0,
                "eval/high": 1.0,
            }
            for i, (flops, success) in enumerate(
                zip(row["flops"], row["success"], strict=True)
            )
        ]
        area = objective.values("area", lines, budget, ended=True)[-1]
        found[tuple(row["setting"])] = area
    return found
