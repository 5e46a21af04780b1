"""One run: an initial policy with its profile, or one method on one testbed and seed.

Started by the scheduler in a process of its own, with the options of `sgpo run`.
"""

import dataclasses
import functools
import json
import pathlib
import resource
import sys
import time
from collections.abc import Sequence

import numpy as np

from sgpo_jax import hosts, sampling, theory, training
from sgpo_jax.commands import options
from sgpo_jax.config import Experiment
from sgpo_jax.data import Query
from sgpo_jax.ledger import Entry
from sgpo_jax.models import Params
from sgpo_jax.pipeline import (
    Display,
    RunFolder,
    UserError,
    open_folder,
    open_run,
    stages,
)
from sgpo_jax.session import Session, cache_programs, make_worker

TRIES = (2, 4, 8)
"""The k of pass@k."""
COLD = 1e-4
"""A temperature at which only the most likely token is drawn."""

Questions = dict[str, np.ndarray]
"""Success of every held-out question: "mean", "greedy", "pass@k"; each [Q]."""


def exact(session: Session, queries: Sequence[Query]):
    """Evaluation by teacher forcing; nothing is sampled, so nothing is noisy."""
    warm = session.reference_scorer(queries)
    cold = dataclasses.replace(warm, temperature=COLD)

    def evaluate(params: Params) -> tuple[Questions, Entry]:
        mean = warm(params)
        found = {"mean": mean, "greedy": (cold(params) > 0.5).astype(float)}
        found |= {f"pass@{k}": 1 - (1 - mean) ** k for k in TRIES}
        return found, warm.cost + cold.cost

    return evaluate


def sampled(session: Session, queries: Sequence[Query], samples: int):
    """Evaluation by sampling, where a right answer has several spellings."""
    draw = functools.partial(session.rollouts, step=2**31 - 1)  # as training.evaluate
    count, samples = len(queries), max(samples, *TRIES)

    def evaluate(params: Params) -> tuple[Questions, Entry]:
        scored = draw(params, queries, [samples] * count)
        best = draw(params, queries, [1] * count, strategy=sampling.Greedy())
        right = scored.solved
        wins = np.bincount(scored.rollouts.request, right, minlength=count).astype(int)
        found = {"mean": wins / samples}
        found["greedy"] = best.solved.astype(float)
        tried = np.full(count, samples)
        found |= {f"pass@{k}": theory.pass_at_k(wins, tried, k) for k in TRIES}
        return found, scored.cost + best.cost

    return evaluate


def evaluator(session: Session, queries: Sequence[Query], samples: int):
    """Exact where the verifier is equality and each text has one spelling."""
    try:
        training.check_exact(queries, session.tokenizer)
    except ValueError:
        return sampled(session, queries, samples)
    return exact(session, queries)


def summary(found: Questions) -> training.Metrics:
    """Means over the questions; 95 % interval of the mean success."""
    metrics = {f"eval/{name}": float(values.mean()) for name, values in found.items()}
    mean = metrics["eval/success"] = metrics.pop("eval/mean")
    half = 1.96 * float(found["mean"].std()) / len(found["mean"]) ** 0.5
    return metrics | {"eval/low": mean - half, "eval/high": mean + half}


def metrics_of(
    evaluate,
    folder: pathlib.Path,
    processes: hosts.ProcessGroup,
    progress: training.TrainProgress,
) -> training.Metrics:
    """Held-out metrics of a step; success by question goes into a file of its own."""
    found, cost = evaluate(progress.train.params)
    progress.ledger.add("evaluation", cost)
    metrics = summary(found)
    if "averaged" in progress.copies:
        params = training.with_copy(progress.train, progress.copies["averaged"])
        smooth, cost = evaluate(params)
        progress.ledger.add("evaluation", cost)
        found["averaged"] = smooth["mean"]
        metrics["eval/success_averaged"] = float(smooth["mean"].mean())
    if processes.index == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{progress.logged:06d}.npz"  # the step
        np.savez_compressed(path, **{k: np.float32(v) for k, v in found.items()})
    return metrics | training.compute_spent(progress)


def work(config: Experiment, only_initial: bool, processes: hosts.ProcessGroup) -> int:
    """Do the run, or go on with it."""
    display = Display(quiet=processes.index > 0)
    with make_worker(config.reward, processes.poll) as verifiers:
        run = open_run(config, verifiers, hosts=processes, display=display)
        run.check()
        folder = open_folder(config, write=processes.index == 0)
        try:
            initial = stages.initial_policy(run)
            needed = only_initial or run.needs_profile
            known = stages.profile(run, initial) if needed else None
            if only_initial:
                return 0
            (label,) = config.methods
            plan = stages.plans(run, known).get(label)
            evaluate = functools.partial(
                metrics_of,
                evaluator(run.session, run.held_out, config.eval.samples),
                folder.method(label) / "questions",
                run.hosts,
            )
            stages.train(run, label, initial, known, plan, evaluate=evaluate)
        except hosts.Stopped as stopped:
            display.say(f"stopped by {stopped}; the same command resumes")
            return hosts.RESTART
        finally:
            _add_usage(folder)
    return 0


STARTED = time.monotonic()


def _add_usage(folder: RunFolder) -> None:
    """Add this process's seconds, of the clock and of all its threads, to a file."""
    path = folder.path / "usage.json"
    used = json.loads(path.read_text()) if path.exists() else {"wall": 0.0, "cpu": 0.0}
    spent = resource.getrusage(resource.RUSAGE_SELF)
    used["wall"] += time.monotonic() - STARTED
    used["cpu"] += spent.ru_utime + spent.ru_stime
    path.write_text(json.dumps(used))


def main(argv: list[str]) -> int:
    only_initial = options.take_flag(argv, "--only-initial")
    try:
        config = options.experiment("run", argv)
    except ValueError as error:
        print(f"headline: error: {error}", file=sys.stderr)
        return 2
    cache_programs(config.cache)
    try:
        return hosts.work_on(
            config.distributed, functools.partial(work, config, only_initial)
        )
    except UserError as error:
        print(f"headline: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
