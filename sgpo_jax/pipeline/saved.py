"""Policies that a run has left, to be used and not trained on."""

import contextlib
from typing import Literal

from sgpo_jax import models, training
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, UserError
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.pipeline.policy import warmup
from sgpo_jax.pipeline.setup import Setup


def saved_params(
    name: str,
    setup: Setup,
    folder: RunFolder,
    display: Display,
    *,
    checkpoint: Literal["newest", "best"] = "newest",
    averaged: bool = False,
) -> models.Params:
    """Return a policy of a run that is there already, and train nothing.

    Not for a method that another process trains meanwhile: opening its checkpoints puts
    aside what is not whole.

    Args:
      name: "initial", or a method.
      setup: the experiment.
      folder: the run.
      display: shows what is wrong with checkpoints.
      checkpoint: which of the method's: the newest sound one, or that of its best
        evaluation so far.
      averaged: the average of the method's parameters instead of the raw ones.

    Raises:
      UserError: if there is none.
    """
    if name == "initial":
        if not folder.policy.exists():
            raise UserError(
                f"{folder.path} has no initial policy yet; sgpo warmup makes it"
            )
        if averaged:
            raise UserError("the initial policy has no averaged parameters")
        return warmup(setup, folder, display)
    path = folder.method(name) / "checkpoints"
    if not path.exists():
        trained = sorted(p.name for p in (folder.path / "methods").glob("*"))
        raise UserError(
            f"{folder.path} has no policy {name!r}; it has"
            f" {', '.join(['initial', *trained])}"
        )
    if name not in setup.config.methods:
        raise UserError(f"{folder.path} was not told what {name} is; add --methods")
    if averaged and not setup.config.methods[name].averaging:
        raise UserError(
            f"{name} keeps no averaged parameters: its averaging is 0; drop --averaged"
        )
    learner = make_learner(name, setup, folder, display)
    beginning = learner.start(learner.programs.init(warmup(setup, folder, display)))
    with contextlib.closing(training.Checkpoints(path, hosts=setup.hosts)) as saved:
        display.lines(saved.problems)
        step = saved.latest()
        if step is None:
            raise UserError(f"{path} holds no sound checkpoint")
        like = beginning.arrays
        (state, _, copies), plain = saved.restore(step, like)
        if checkpoint == "best" and plain["best"] and plain["best"][0] != step:
            step = int(plain["best"][0])
            (state, _, copies), _ = saved.restore(step, like)
    display.say(f"{name}: policy of step {step}")
    if averaged:
        return training.with_copy(state, copies["averaged"])
    return state.params
