"""Study of a sweep: Optuna's samplers, pruners and journal."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from sgpo_jax.bounds import shown
from sgpo_jax.methods.serialize import locate
from sgpo_jax.sweep.learned import learned
from sgpo_jax.sweep.proposals import Observations, gaussian_process
from sgpo_jax.sweep.space import Space

if TYPE_CHECKING:
    import optuna

INSTALL = "pip install 'sgpo_jax[sweep]'"


Proposer = Callable[[Space, Observations, np.random.Generator], np.ndarray]
"""Sampler of one's own: the next trial's position in the unit cube, [D]."""
PROPOSERS: Mapping[str, Proposer] = {"gp": gaussian_process, "learned": learned}
"""Samplers of this package, by name. Optuna's Gaussian process would need torch."""
SAMPLERS = ("tpe", "random", *PROPOSERS)
"""Names of samplers."""
RANDOM = 4
"""Whole trials that are random, before a sampler proposes."""
PRUNERS = ("median", "halving", "none")
"""Names of pruners; they compare trials at equal shares of the budget."""


def proposer(name: str) -> Proposer | None:
    """Return the sampler called `name`; None for one of Optuna's.

    Args:
      name: one of `SAMPLERS`, or package.module:function of a `Proposer`.

    Raises:
      ValueError: if there is none.

    >>> proposer("gp") is proposer("sgpo_jax.sweep.proposals:gaussian_process")
    True
    """
    if name in SAMPLERS:
        return PROPOSERS.get(name)
    if ":" not in name:
        raise ValueError(
            f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}, or a function of"
            " your own as package.module:function"
        )
    found = locate(name)
    if not callable(found):
        raise ValueError(f"sampler {name!r} is {shown(found)}, not a function")
    return cast(Proposer, found)


def check_sampler(name: str, space: Space) -> None:
    """Try a sampler on two trials, before any is run.

    Args:
      name: see `proposer`.
      space: the hyper-parameters.

    Raises:
      ValueError: if there is none, or it proposes no position in the unit cube.
    """
    propose, dims = proposer(name), len(space)
    if propose is None:
        return
    ends = Observations(np.array([[0.0] * dims, [1.0] * dims]), np.array([0.0, 1.0]))
    try:
        at = np.asarray(propose(space, ends, np.random.default_rng(0)), np.float64)
    except Exception as error:
        raise ValueError(
            f"sampler {name!r} fails on two trials, {type(error).__name__}: {error}; it"
            " is a function of space, observations and rng"
        ) from error
    if at.shape != (dims,) or not np.all((at >= 0) & (at <= 1)):
        raise ValueError(
            f"sampler {name!r} must return a position in the unit cube, {dims} numbers"
            f" from 0 to 1, got {at}"
        )


def make_sampler(name: str, seed: int) -> "optuna.samplers.BaseSampler":
    """Return a sampler of Optuna: of all trials, or of the first `RANDOM`."""
    from optuna import samplers

    if name == "tpe":
        # What is running counts as bad, so that no two trials at a time are the same.
        return samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM, constant_liar=True
        )
    return samplers.RandomSampler(seed=seed)


def make_pruner(name: str) -> "optuna.pruners.BasePruner":
    """Return a pruner by name."""
    from optuna import pruners

    return {
        "median": pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3),
        "halving": pruners.SuccessiveHalvingPruner(reduction_factor=3),
        "none": pruners.NopPruner(),
    }[name]


def check() -> None:
    """Check that Optuna is installed.

    Raises:
      ValueError: with the command that installs it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(f"sgpo sweep needs optuna, not installed: {INSTALL}")


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
      sampler: name of one, see `proposer`.
      seed: root of its randomness.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    mixed = np.random.SeedSequence([seed, len(trials)])
    study.sampler = make_sampler(sampler, int(mixed.generate_state(1)[0]))
    ended = sum(one.state == TrialState.COMPLETE for one in trials)
    waiting = any(one.state == TrialState.WAITING for one in trials)
    propose = proposer(sampler)
    if propose is not None and ended >= RANDOM and not waiting:
        at = propose(space, history(trials, space), np.random.default_rng(mixed))
        study.enqueue_trial(
            {one.name: one.value_at(float(p)) for one, p in zip(space, at, strict=True)}
        )
    trial = study.ask()
    suggest(trial, space)
    return trial


def history(trials: Sequence["optuna.trial.FrozenTrial"], space: Space) -> Observations:
    """Return what is known of a space.

    A pruned trial counts as the worst whole one, if it is not worse, and one that runs
    as the mean, so that no two at a time are the same.

    Args:
      trials: of the study, whole ones among them.
      space: its hyper-parameters.
    """
    from optuna.trial import TrialState

    whole = [one.value for one in trials if one.state == TrialState.COMPLETE]
    whole = np.array([value for value in whole if value is not None])
    x, y = [], []
    for one in trials:
        if one.params.keys() != {each.name for each in space}:
            continue
        x.append([each.position(one.params[each.name]) for each in space])
        if one.state == TrialState.PRUNED and one.value is not None:
            y.append(min(one.value, whole.min()))
        else:
            y.append(whole.mean() if one.value is None else one.value)
    return Observations(np.array(x), np.array(y))


def suggest(trial: "optuna.Trial", space: Space) -> dict[str, str]:
    """Return a trial's options by name; values that it has not yet are drawn."""
    return {one.name: one.text(one.suggest(trial)) for one in space}


def resumed(study: "optuna.Study") -> list["optuna.Trial"]:
    """Return the trials that were running when the sweep ended."""
    import optuna

    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    return [optuna.Trial(study, one._trial_id) for one in running]
