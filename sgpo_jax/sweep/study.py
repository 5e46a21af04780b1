"""Study of a sweep: Optuna's samplers, pruners and journal."""

import contextlib
import importlib.util
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from sgpo_jax.sweep.space import Space

if TYPE_CHECKING:
    import optuna

INSTALL = "pip install 'sgpo_jax[sweep]'"


SAMPLERS = ("tpe", "random", "gp")
"""Names of samplers."""
PRUNERS = ("median", "halving", "none")
"""Names of pruners; they compare trials at equal shares of the budget."""


def make_sampler(name: str, seed: int) -> "optuna.samplers.BaseSampler":
    """Return a sampler by name."""
    from optuna import samplers

    if name == "tpe":
        # What is running counts as bad, so that no two trials at a time are the same.
        return samplers.TPESampler(seed=seed, constant_liar=True)
    kinds = {"random": samplers.RandomSampler, "gp": samplers.GPSampler}
    return kinds[name](seed=seed)


def make_pruner(name: str) -> "optuna.pruners.BasePruner":
    """Return a pruner by name."""
    from optuna import pruners

    return {
        "median": pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3),
        "halving": pruners.SuccessiveHalvingPruner(reduction_factor=3),
        "none": pruners.NopPruner(),
    }[name]


def check(sampler: str) -> None:
    """Check that what a sampler needs is installed.

    Raises:
      ValueError: with the command that installs it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(f"sgpo sweep needs optuna, not installed: {INSTALL}")
    if sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise ValueError(
            "--sampler gp needs torch, which is not installed: pip install torch, or"
            " choose another sampler"
        )


def open_study(folder: pathlib.Path, pruner: str) -> "optuna.Study":
    """Return the study in a folder, new if there is none.

    The caller holds the folder's lock. What a kill left behind is cleaned up: the
    journal's own lock, and a line cut short.

    Args:
      folder: of the sweep.
      pruner: name of one.
    """
    import optuna
    from optuna.storages import journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / "journal.log"
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        whole, _, cut = file.read().rpartition(b"\n")
        if cut:
            file.truncate(len(whole) + 1 if whole else 0)
    backend = journal.JournalFileBackend(str(path))
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="sweep",
        direction="maximize",
        pruner=make_pruner(pruner),
        load_if_exists=True,
    )


def ask(
    study: "optuna.Study", space: Space, *, sampler: str, seed: int
) -> "optuna.Trial":
    """Return the next trial, its values suggested.

    A sampler is made anew for each from the seed and the trial's number, so that a
    sweep that was killed asks as one that was not.

    Args:
      study: of the sweep.
      space: its hyper-parameters.
      sampler: name of one.
      seed: root of its randomness.
    """
    number = len(study.get_trials(deepcopy=False))
    mixed = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = make_sampler(sampler, int(mixed[0]))
    trial = study.ask()
    suggest(trial, space)
    return trial


def suggest(trial: "optuna.Trial", space: Space) -> dict[str, str]:
    """Return a trial's options by name; values that it has not yet are drawn."""
    return {one.name: one.text(one.suggest(trial)) for one in space}


def resumed(study: "optuna.Study") -> list["optuna.Trial"]:
    """Return the trials that were running when the sweep ended."""
    import optuna

    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    return [optuna.Trial(study, one._trial_id) for one in running]
