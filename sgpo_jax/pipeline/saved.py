"""Policies that a run has left, to be used and not trained on."""

import contextlib
import pathlib
from typing import Literal

from sgpo_jax import models, training
from sgpo_jax.pipeline.folder import UserError
from sgpo_jax.pipeline.initial import initial_policy
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.pipeline.profiled import plans, profile
from sgpo_jax.pipeline.run import Run


def saved_params(
    run: Run,
    name: str,
    *,
    checkpoint: Literal["newest", "best"] = "newest",
    averaged: bool = False,
) -> models.Params:
    """Return a policy of a run that is there already, and train nothing.

    Not for a method that another process trains meanwhile: opening its checkpoints puts
    aside what is not whole.

    Args:
      run: the experiment; its display shows what is wrong with checkpoints.
      name: "initial", or a method.
      checkpoint: which of the method's: the newest sound one, or that of its best
        evaluation so far.
      averaged: the average of the method's parameters instead of the raw ones.

    Raises:
      UserError: if there is none.
    """
    folder, config = run.folder, run.config
    if name == "initial":
        if averaged:
            raise UserError("the initial policy has no averaged parameters")
        return saved_initial_policy(run).params
    path = folder.method(name) / "checkpoints"
    if not path.exists():
        trained = sorted(p.name for p in (folder.path / "methods").glob("*"))
        raise UserError(
            f"{folder.path} has no policy {name!r}; it has"
            f" {', '.join(['initial', *trained])}"
        )
    if name not in config.methods:
        raise UserError(f"{folder.path} was not told what {name} is; add --methods")
    if averaged and not config.methods[name].averaging:
        raise UserError(
            f"{name} keeps no averaged parameters: its averaging is 0; drop --averaged"
        )
    return _of_method(run, name, path, checkpoint, averaged)


def saved_initial_policy(run: Run) -> models.Policy:
    """Return the initial policy of a run that is there already.

    Raises:
      UserError: if there is none.
    """
    if not run.folder.policy.exists():
        raise UserError(
            f"{run.folder.path} has no initial policy yet; sgpo sft makes it"
        )
    return initial_policy(run)


def _of_method(
    run: Run,
    name: str,
    path: pathlib.Path,
    checkpoint: Literal["newest", "best"],
    averaged: bool,
) -> models.Params:
    initial, known, made = initial_policy(run), None, {}
    if "profile" in run.config.methods[name].needs:
        known = profile(run, initial)
        made = plans(run, known)
    learner = make_learner(run, name, known, made.get(name))
    beginning = learner.start(learner.programs.init(initial.params))
    with contextlib.closing(training.Checkpoints(path, hosts=run.hosts)) as saved:
        run.display.lines(saved.problems)
        step = saved.latest()
        if step is None:
            raise UserError(f"{path} holds no sound checkpoint")
        like = beginning.arrays
        (state, _, copies), plain = saved.restore(step, like)
        if checkpoint == "best" and plain["best"] and plain["best"][0] != step:
            step = int(plain["best"][0])
            (state, _, copies), _ = saved.restore(step, like)
    run.display.say(f"{name}: policy of step {step}")
    if averaged:
        return training.with_copy(state, copies["averaged"])
    return state.params
