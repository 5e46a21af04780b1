"""Policies that a run has left, to be used and not trained on."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Literal

from sgpo_jax import models, training
from sgpo_jax.hosts import FolderInUseError, folder_lock
from sgpo_jax.pipeline.folder import RunFolder, UserError
from sgpo_jax.pipeline.initial import initial_policy
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.pipeline.profiled import plans, profile
from sgpo_jax.pipeline.run import Run


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
    """Keep a run folder to oneself while its policies are read, or a file is added.

    Opening checkpoints puts aside what is not whole, and a run deletes its older ones.

    Args:
      path: the folder; one that cannot be written has no run, and is read as it is.

    Raises:
      UserError: if another process works on it.
    """
    with contextlib.ExitStack() as held:
        try:
            with contextlib.suppress(OSError):
                held.enter_context(folder_lock(path))
        except FolderInUseError as error:
            raise UserError(str(error)) from error
        yield


def trained_methods(folder: RunFolder) -> list[str]:
    """Return the methods of a run folder that have a checkpoint."""
    return sorted(
        path.name
        for path in (folder.path / "methods").glob("*")
        if any((path / "checkpoints").glob("*"))
    )


def policy_name(folder: RunFolder, name: str = "") -> str:
    """Return which policy of a run is meant.

    Args:
      folder: of the run.
      name: "initial", a method, or empty: the trained method, the initial policy where
        there is none.

    Raises:
      UserError: if the name is empty and several methods are trained.
    """
    trained = trained_methods(folder)
    if not name and len(trained) > 1:
        raise UserError(
            f"{folder.path} has several trained policies, {', '.join(trained)}: choose"
            " one with --policy NAME (--policy initial is the one before training)"
        )
    return name or next(iter(trained), "initial")


def saved_params(
    run: Run,
    name: str,
    *,
    checkpoint: Literal["newest", "best"] = "newest",
    averaged: bool = False,
) -> models.Params:
    """Return a policy of a run that is there already, and train nothing.

    Args:
      run: the experiment; its display shows what is wrong with checkpoints.
      name: "initial", or a method.
      checkpoint: which of the method's: the newest sound one, or that of its best
        evaluation so far.
      averaged: the average of the method's parameters instead of the raw ones.

    Raises:
      UserError: if there is none, or another process works on the folder.
    """
    with exclusive(run.folder.path):
        return _params(run, name, checkpoint, averaged)


def _params(
    run: Run, name: str, checkpoint: Literal["newest", "best"], averaged: bool
) -> models.Params:
    folder, config = run.folder, run.config
    if name == "initial":
        if averaged or checkpoint == "best":
            option = "--averaged" if averaged else "--checkpoint best"
            raise UserError(f"the initial policy is one, untrained; drop {option}")
        return saved_initial_policy(run).params
    trained = trained_methods(folder)
    if name not in trained:
        raise UserError(
            f"{folder.path} has no policy {name!r}; it has"
            f" {', '.join(['initial', *trained])}"
        )
    path = folder.method(name) / "checkpoints"
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
