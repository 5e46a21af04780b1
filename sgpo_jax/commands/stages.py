"""The commands that work on a run folder: stages in their order, up to one of them."""

import functools
from collections.abc import Mapping

from sgpo_jax import models, report
from sgpo_jax.pipeline import Run, stages
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile
from sgpo_jax.training import Evaluation


def do(command: str, run: Run) -> None:
    """Run the stages up to a command, each with the results of those before.

    Args:
      command: "run", "sft", "profile", "plan", "train", "eval" or "report".
      run: the experiment.
    """
    if command == "report":
        report.check(run)
    initial = stages.initial_policy(run)
    if command == "sft":
        return
    known, plans = _prepared(command, run, initial)
    if command in ("profile", "plan"):
        return
    evaluates = command != "train" and bool(run.held_out)
    results = _trained(run, initial, known, plans, evaluates=evaluates)
    if command == "eval" and evaluates:
        report.print_evaluations(results, run.display)
    if command in ("run", "report") and evaluates:
        run.hosts.on_main_process(lambda: report.write(run, known, plans, results))
    elif command == "run":
        run.display.say("no question is held out: nothing to evaluate, no report")


def _prepared(
    command: str, run: Run, initial: models.Policy
) -> tuple[Profile | None, dict[str, Plan]]:
    """Make what is known before training: the profile, and the methods' plans."""
    known = None
    if run.needs_profile or command == "profile":
        known = stages.profile(run, initial)
        if command in ("run", "profile"):
            report.print_profile(known, run.train, run.display)
    if command == "profile":
        return known, {}
    plans = stages.plans(run, known)
    if command in ("run", "plan"):
        _print_plans(run, plans, asked=command == "plan")
    return known, plans


def _print_plans(run: Run, plans: Mapping[str, Plan], *, asked: bool) -> None:
    for label, plan in plans.items():
        report.print_plan(label, plan, run.display)
    if asked and not plans:
        names = ", ".join(run.config.methods)
        run.display.say(f"none of {names} makes a plan; sgpo does: --methods sgpo")


def _trained(
    run: Run,
    initial: models.Policy,
    known: Profile | None,
    plans: Mapping[str, Plan],
    *,
    evaluates: bool,
) -> dict[str, Evaluation]:
    """Train each method, and evaluate it while its parameters are at hand."""
    results = {}
    if evaluates:
        results["initial"] = stages.evaluate(run, "initial", lambda: initial.params)
    for label in run.config.methods:
        # Read at most once, and only where something is missing.
        train = functools.partial(stages.train, run, label, initial, known)
        progress = functools.cache(functools.partial(train, plans.get(label)))
        if not stages.finished(run, label):
            progress()
        if evaluates:
            for name, params in stages.policies(run, label, progress):
                results[name] = stages.evaluate(run, name, params)
    return results
