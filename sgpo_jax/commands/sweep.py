"""`sgpo sweep`: hyper-parameters of one method, searched at equal compute."""

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sgpo_jax.bounds import Count, Flops, bounded
from sgpo_jax.commands import options
from sgpo_jax.methods import Planned, Replanned

if TYPE_CHECKING:
    from sgpo_jax import sweep
    from sgpo_jax.config import Experiment

SEED = 1000
"""Of a sweep, unless one is given: no seed that results are claimed with."""
SEARCHED = ("methods", "model", "profile", "sampler", "train")
"""Groups of options that may be searched; trials are compared by the others."""
DECIDED = ("train.steps", "train.eval-every")
"""Options that follow from the budget of compute."""


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SweepOptions:
    """Search hyper-parameters of one method, at equal total compute.

    Options of `sgpo run` follow after `--`; they name the method: -- --methods grpo.
    Trial 0 has its defaults, runs alone, and decides the compute of all others. The
    same command goes on where it was stopped; --trials may grow.

    Attributes:
      out: folder of the sweep; trials are run folders below it.
      search: options and their values, NAME=LOW:HIGH, NAME=log:LOW:HIGH or NAME=A,B,C;
        empty for the step size, the rollouts of a step and the group size.
      trials: how many, pruned ones and the default included.
      jobs: trials at a time, sharing the CPU; 1 where they need an accelerator.
      sampler: gp (a Gaussian process), tpe, random, learned (a trained optimizer), or
        package.module:function of your own.
      pruner: median, halving (successive halving) or none.
      objective: area under held-out success over total compute, or final success.
      budget: total compute of a trial in FLOP; 0 for that of trial 0.
    """

    out: str
    search: tuple[str, ...] = ()
    trials: Count = 20
    jobs: Count = 1
    sampler: str = "gp"
    pruner: Literal["median", "halving", "none"] = "median"
    objective: Literal["area", "final"] = "area"
    budget: Flops = 0.0


def main(args: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    from sgpo_jax.hosts import RESTART, FolderInUseError, Signals, Stopped, folder_lock
    from sgpo_jax.pipeline import Display, UserError
    from sgpo_jax.sweep import TrialError, write

    display = Display()
    try:
        made = parse(args)
    except (UserError, ValueError) as error:
        return _refuse(str(error))
    command = shlex.join(["sgpo", "sweep", *args])
    try:
        with folder_lock(made.folder), Signals() as signals:
            study = made.open()
            try:
                made.run(
                    study,
                    display=display,
                    asked=lambda: signals.asked,
                    on_trial=lambda: write(made, study, command),
                )
            except Stopped as stopped:
                display.say(f"stopped by {stopped}; the same command goes on")
                return 130 if str(stopped) == "SIGINT" else RESTART
            except TrialError as error:
                print(f"sgpo: {error}", file=sys.stderr)
                return 1
            report = write(made, study, command)
    except (FolderInUseError, UserError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot write {made.folder}: {error}; choose another --out")
    print(report.read_text().partition("![")[0].strip())
    display.say(f"all of it: {report}")
    return 0


def parse(args: Sequence[str]) -> "sweep.Sweep":
    """Parse and check everything before anything is started.

    Raises:
      ValueError: one line that names the option and the remedy.
      SystemExit: with code 0, for `--help`.
    """
    from sgpo_jax import pipeline, sweep
    from sgpo_jax.sweep import study

    split = list(args).index("--") if "--" in args else len(args)
    given = options.parse_dataclass(SweepOptions, args[:split], prog="sgpo sweep")
    study.check()
    rest = list(args[split + 1 :])
    for name in ("out", "dry-run"):
        if name in options.given_options(rest):
            raise ValueError(f"--{name} after -- is none of a trial: drop it")
    if "seed" not in options.given_options(rest):
        rest += ["--seed", str(SEED)]
    config = _experiment(given.out, rest)
    if len(config.methods) != 1:
        raise ValueError(
            f"a sweep tunes one method, these are {', '.join(config.methods)}: name it"
            " after --, as in -- --methods grpo"
        )
    ((label, method),) = config.methods.items()
    settings = known_settings(config)
    space = sweep.parse(given.search or usual_search(config), settings)
    _check_space(space, given.out, rest, settings)
    study.check_sampler(given.sampler, space)
    names = (one.name.replace("-", "_") for one in space)
    stages = {pipeline.first_stage(name, config) for name in names}
    profile = ("profile.chunks", "profile.parquet")
    return sweep.Sweep(
        folder=pathlib.Path(given.out).expanduser(),
        space=space,
        options=tuple(rest),
        default={one.name: settings[one.name] for one in space},
        label=label,
        steps=config.train.steps,
        rollouts=config.train.rollouts,
        eval_every=config.train.eval_every,
        planned=isinstance(method.prompts, Planned | Replanned),
        shared=(
            *(("policy",) if "sft" not in stages else ()),
            *(profile if not stages & {"sft", "profile"} else ()),
        ),
        trials=given.trials,
        jobs=given.jobs,
        sampler=given.sampler,
        pruner=given.pruner,
        objective=given.objective,
        budget=given.budget,
        seed=config.seed,
    )


def known_settings(config: "Experiment") -> dict[str, str]:
    """Return the text of every option of an experiment, by name."""
    from sgpo_jax.commands.method_options import every_option
    from sgpo_jax.pipeline.folder import flatten

    flat = {k: v for k, v in flatten(config).items() if k != "methods"}
    found = {name.replace("_", "-"): str(value) for name, value in flat.items()}
    for label, method in config.methods.items():
        for line in every_option(label, method):
            name, value, *_ = [*line.split(" "), ""]
            found[name.removeprefix("--")] = value
    return found


def usual_search(config: "Experiment") -> list[str]:
    """Return a search of step size, rollouts of a step, and group size."""
    ((label, method),) = config.methods.items()
    rollouts = config.train.rollouts
    found = [f"train.rollouts={','.join(_around(rollouts))}"]
    rate = getattr(method.optimizer, "learning_rate", None)
    if isinstance(rate, float):
        name = f"methods.{label}.optimizer.learning-rate"
        found.insert(0, f"{name}=log:{rate / 10:g}:{rate * 10:g}")
    size = getattr(method.prompts, "group_size", None)
    if isinstance(size, int) and size > 1:
        found.append(f"methods.{label}.prompts.group-size={','.join(_around(size))}")
    return found


def _around(count: int) -> list[str]:
    return [str(each) for each in (max(1, count // 2), count, 2 * count)]


def _experiment(out: str, args: Sequence[str]) -> "Experiment":
    # A folder that is no run, so that no saved settings are mixed in.
    return options.experiment("train", [*args, "--out", f"{out}/trials"])


def _check_space(
    space: "sweep.Space", out: str, args: Sequence[str], settings: dict[str, str]
) -> None:
    """Check each value by the parser of the run, the others at their defaults."""
    for one in space:
        if one.name in DECIDED:
            raise ValueError(
                f"--search {one.name}: decided by the budget of compute; drop it"
            )
        if one.name.partition(".")[0] not in SEARCHED:
            raise ValueError(
                f"--search {one.name}: trials are compared with it equal; put it after"
                f" --, and search options of {', '.join(SEARCHED)}"
            )
        one.value(settings[one.name])
        for text in one.checked():
            _experiment(out, [*args, f"--{one.name}={text}"])


def _refuse(message: str) -> int:
    print(f"sgpo: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
