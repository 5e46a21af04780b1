"""From the command line's options to an experiment."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sgpo_jax.bounds import concise
from sgpo_jax.presets import LEARNING_RATES, PRESETS

# Everything else is imported where it is used: help and typos are answered at once.
if TYPE_CHECKING:
    from sgpo_jax.config import Experiment

T = TypeVar("T")

PURPOSE = {
    "run": "Profile, plan, train, evaluate and report; finished stages are skipped.",
    "sft": "Make the initial policy by supervised fine-tuning, once.",
    "profile": "Sample every training question a few times and count successes.",
    "plan": "Decide from the profile what to train on: group sizes and order.",
    "train": "Train the methods, and what they need before.",
    "eval": "Evaluate the initial and the trained policies on held-out questions.",
    "report": "Write the report of what a run folder holds, with figures.",
}
"""First lines of the help of the stages."""


def experiment(command: str, args: list[str]) -> "Experiment":
    """Parse a preset and options over it; `args` loses its preset.

    Raises:
      ValueError: one line that names the option and the value.
      SystemExit: with code 0, for `--help`.
    """
    named = take_option(args, "--preset", "")
    # The split and the fine-tuning of a testbed are for its own questions.
    brought = "data" in given_options(args)
    preset = named or ("" if brought else "default")
    if preset and preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise ValueError(concise(f"unknown preset {preset!r}; known: {known}"))
    from sgpo_jax.commands.method_options import override, take_overrides

    names, overrides = take_list(args, "--methods"), take_overrides(args)
    from sgpo_jax.config import LEARNING_RATE, Experiment, tuned_methods

    default = dataclasses.replace(PRESETS.get(preset, Experiment)(), preset=preset)
    if names:
        rates = LEARNING_RATES.get(preset, LEARNING_RATE)
        default = dataclasses.replace(default, methods=tuned_methods(names, rates))
    default = for_published(default, args)
    config = parse(command, args, default, named=bool(named), chosen=bool(names))
    refuse_without_effect(config, args)
    for path, text in overrides:
        try:
            found = override(config.methods, path, text)
        except ValueError as error:
            raise ValueError(concise(str(error))) from None
        config = dataclasses.replace(config, methods=found)
    return config


def for_published(default: "Experiment", args: Sequence[str]) -> "Experiment":
    """Drop fine-tuning from the defaults, if the options name a published policy.

    Fine-tuning on noisy demonstrations is for randomly initialized policies, unless
    requested; a preset with a published policy sets the number of steps itself.
    """
    source = take_option(list(args), "--model.source", "")
    if not source or default.model.source or "sft.steps" in given_options(args):
        return default
    return dataclasses.replace(
        default,
        sft=dataclasses.replace(default.sft, steps=0),
        split=dataclasses.replace(default.split, demonstrated=0.0),
    )


def refuse_without_effect(config: "Experiment", args: Sequence[str]) -> None:
    """Refuse options that have no effect, with these settings or in this folder.

    Raises:
      ValueError: naming the option and the remedy.
    """
    from sgpo_jax.pipeline import folder

    flat, run = folder.flatten(config), folder.RunFolder.of(config)
    brought = run.profile.exists() and not run.config.exists()
    for option in given_options(args):
        group, _, name = option.partition(".")
        if config.model.source and group == "model" and name in _SIZES:
            raise ValueError(
                f"--{option} has no effect: {config.model.source} has its own sizes;"
                f" drop it, or --model.source"
            )
        if brought and group == "profile":
            raise ValueError(
                f"--{option} has no effect: {run.profile} is used as it is; drop the"
                " option, or delete the file"
            )
        for prefix, needed in _PARTS.items():
            if not option.startswith(prefix) or option == needed:
                continue
            if not flat[needed.replace("-", "_")]:
                raise ValueError(
                    f"--{option} has no effect without --{needed}; drop it, or give"
                    " that too"
                )


_SIZES = frozenset(
    ("num-layers", "embed-dim", "num-heads", "num-kv-heads", "head-dim", "mlp-dim")
)

_PARTS: Mapping[str, str] = {
    "sft.": "sft.steps",
    "model.lora-alpha": "model.lora-rank",
    "model.rslora": "model.lora-rank",
    "sampler.model": "sampler.server",
    "sampler.client.": "sampler.server",
    "sampler.end-of-thinking": "sampler.thinking",
    "log.project": "log.trackers",
}
"""By the beginning of options: the one without which they have no effect."""


def given_options(args: Sequence[str]) -> list[str]:
    """Return the names of the options in arguments, as they are spelled in help.

    >>> given_options(["--model.num_layers=2", "--seed", "-1"])
    ['model.num-layers', 'seed']
    """
    return [
        arg.removeprefix("--").partition("=")[0].replace("_", "-")
        for arg in args
        if arg.startswith("--")
    ]


def parse(
    command: str,
    args: Sequence[str],
    default: "Experiment",
    *,
    named: bool = False,
    chosen: bool = False,
) -> "Experiment":
    """Parse options over a default.

    A run folder that exists gives its own settings as defaults, so that a later stage
    need not repeat them.

    Args:
      command: the command.
      args: the options.
      default: an experiment to start from.
      named: its preset was named: a folder must have begun as that one, or be without
        results.
      chosen: its methods were: they join those that the folder has trained.

    Raises:
      ValueError: one line that names the option and the value.
      SystemExit: with code 0, for `--help`.
    """
    from sgpo_jax.config import Experiment
    from sgpo_jax.pipeline import folder

    def read(over: Experiment) -> Experiment:
        return parse_dataclass(
            Experiment,
            args,
            prog=f"sgpo {command}",
            description=PURPOSE.get(command),
            default=over,
            further=lambda: further_help(over),
        )

    first = read(default)
    run = folder.RunFolder.of(first)
    if not run.config.exists():
        return first
    flat = {"preset": ""} | folder.read_json(run.config) | {"out": str(run.path)}
    if named and flat["preset"] != default.preset:
        if not any(run.done(stage) for stage in folder.STAGES):
            return first
        began = f"of the preset {flat['preset']}" if flat["preset"] else "of no preset"
        raise ValueError(
            f"{run.path} holds a run {began}, not of {default.preset}: drop --preset to"
            " go on with its settings, or use another --out"
        )
    if not chosen:
        return read(folder.unflatten(default, flat))
    # What is trained already stays a part of the run, baseline first.
    flat["methods"] = {
        label: content
        for label, content in flat.get("methods", {}).items()
        if label not in default.methods and run.method(label).exists()
    }
    config = folder.unflatten(default, flat)
    both = {**config.methods, **default.methods}
    return read(dataclasses.replace(config, methods=both))


def parse_dataclass(
    kind: type[T],
    args: Sequence[str],
    *,
    prog: str,
    description: str | None = None,
    default: T | None = None,
    further: Callable[[], str] = str,
) -> T:
    """Parse the options of a command, which are the fields of a dataclass.

    Args:
      kind: the dataclass.
      args: the options.
      prog: what the command is called.
      description: first line of the help; the dataclass's own if None.
      default: what the fields are that no option sets.
      further: text on options that are no fields, at the end of the help.

    Raises:
      ValueError: one line naming what is wrong.
      SystemExit: with code 0, for `--help`.
    """
    import tyro

    over: dict[str, Any] = {} if default is None else {"default": default}
    if any(arg in ("-h", "--help") for arg in args):
        try:
            tyro.cli(kind, args=["--help"], prog=prog, description=description, **over)
        finally:
            print(further(), end="")
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
            return tyro.cli(kind, args=list(args), prog=prog, **over)
    except SystemExit:
        # tyro draws a box; an error is one line here.
        text = re.sub(r"[─│╭╮╰╯├┤]+", " ", shown.getvalue())
        text = " ".join(re.sub(r"-{4,}", " ", text).split())
        text = text.partition(" For full helptext")[0].removeprefix("Parsing error ")
        # Its title says what its text does.
        text = re.sub(r"^(Unrecognized options) \1", "unknown options", text)
        # What a part of the experiment refuses is named as it is spelled here.
        text = re.sub(r"^Value error Error parsing (--[\w.-]+): ", r"\1 ", text)
        text = re.sub(r"^Value error Error parsing ([\w.-]+): ", r"--\1.", text)
        text = text.replace(f"--{kind.__name__}.", "--", 1)
        for noun, words in NOT_A_NUMBER.items():
            text = text.replace(words, f"must be a {noun}, got")
        text = concise(text.replace(" Argument helptext:", ":"))
        raise ValueError(f"{text} (see {prog} --help)") from None


NOT_A_NUMBER = {
    "whole number": "invalid literal for int() with base 10:",
    "number": "could not convert string to float:",
}
"""Python's message on an argument that is not one."""


FURTHER = """\
options of the command itself:
  --preset NAME           a complete experiment to start from (without: default, or
                          with --data none): {presets}
  --methods NAME...       what is trained: names of `sgpo methods`, or
                          package.module:function
  --dry-run               print the resolved experiment and its predicted cost
  --help                  this

options of the methods, one for each number, switch and text of their parts; a part that
is None begins with its defaults when one of its fields is set:
"""


def further_help(config: "Experiment") -> str:
    """Text on the options that are no fields of the experiment."""
    from sgpo_jax.commands.method_options import every_option

    lines = [FURTHER.format(presets=", ".join(PRESETS))]
    for label, method in config.methods.items():
        lines += [f"  {line}\n" for line in every_option(label, method)]
    return "".join(lines)


def take_option(args: list[str], name: str, default: str) -> str:
    """Remove `name VALUE` or `name=VALUE` from the arguments; return the value."""
    for i, arg in enumerate(args):
        if arg.startswith(name + "="):
            return args.pop(i).partition("=")[2]
        if arg == name:
            if i + 1 == len(args):
                raise ValueError(f"{name} needs a value")
            value = args[i + 1]
            del args[i : i + 2]
            return value
    return default


def take_list(args: list[str], name: str) -> list[str]:
    """Remove `name VALUE...` from the arguments; return the values.

    >>> args = ["--methods", "grpo", "dapo", "--seed", "1"]
    >>> take_list(args, "--methods"), args
    (['grpo', 'dapo'], ['--seed', '1'])
    """
    if name not in args:
        return []
    start = args.index(name)
    end = start + 1
    while end < len(args) and not args[end].startswith("--"):
        end += 1
    values = args[start + 1 : end]
    if not values:
        raise ValueError(f"{name} needs at least one value")
    del args[start:end]
    return values


def take_flag(args: list[str], name: str) -> bool:
    """Remove a flag from the arguments; return whether it was there."""
    found = name in args
    while name in args:
        args.remove(name)
    return found
