"""`sgpo export`: a policy of a run as a Hugging Face folder."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sgpo_jax.commands.options import parse_dataclass

if TYPE_CHECKING:
    from sgpo_jax.config import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a policy of a run folder where transformers and vLLM open it.

    The folder holds config.json, safetensors, the tokenizer and the chat template.

    Attributes:
      to: the folder to write; new or empty.
      out: the run folder.
      policy: which of the run's policies: initial, or the label of a method. Without
        it the trained method's; of several, one must be named.
      checkpoint: of a method: the newest sound one, or that of its best evaluation.
      averaged: the average of the method's parameters, if it keeps one.
      adapters: merged into the matrices, or apart: only they are written, in PEFT's
        layout.
      dtype: of the file; as-trained is that of the run's parameters.
    """

    to: str
    out: str = "runs/default"
    policy: str = ""
    checkpoint: Literal["newest", "best"] = "newest"
    averaged: bool = False
    adapters: Literal["merged", "apart"] = "merged"
    dtype: Literal["as-trained", "float32", "bfloat16"] = "as-trained"


def main(args: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    from sgpo_jax.pipeline import UserError

    try:
        export(parse(args))
    except (UserError, ValueError) as error:
        print(f"sgpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sgpo: cannot write the export: {error}", file=sys.stderr)
        return 1
    return 0


def parse(args: Sequence[str]) -> ExportOptions:
    """Read the options.

    Raises:
      ValueError: one line naming what is wrong.
      SystemExit: with code 0, for `--help`.
    """
    return parse_dataclass(ExportOptions, args, prog="sgpo export")


def export(options: ExportOptions) -> None:
    """Write the policy.

    Raises:
      UserError: if there is no such run, policy or average, or the folder is in use.
      ValueError: if no published family has the policy's shape.
    """
    from sgpo_jax import models, rewards
    from sgpo_jax.hosts import start_backends
    from sgpo_jax.pipeline import Display, UserError, folder, open_run, saved
    from sgpo_jax.session import cache_programs

    config = folder.read_experiment(pathlib.Path(options.out))
    target = pathlib.Path(options.to).expanduser()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is not empty; choose another --to, or delete it")
    apart = options.adapters == "apart"
    adapted = config.model.lora_rank or config.model.adapters
    if apart and not (adapted and config.model.source):
        raise UserError(
            f"{config.out} has no adapters to a published model; drop --adapters apart"
        )
    start_backends()
    cache_programs(config.cache)
    display = Display()
    run = open_run(config, rewards.Worker(), display=display)
    name = saved.policy_name(run.folder, options.policy)
    params = saved.saved_params(
        run, name, checkpoint=options.checkpoint, averaged=options.averaged
    )
    trained = run.policy.with_params(params, identity=name)
    models.save(
        trained,
        target,
        merged=not apart,
        dtype=None if options.dtype == "as-trained" else options.dtype,
        base=_base(config),
    )
    display.say(f"{name} of {config.out} is in {target}")


def _base(config: "Experiment") -> str:
    """Return the name or the path of the model that adapters belong to."""
    from sgpo_jax.models import pretrained

    kind, _, place = config.model.source.partition(":")
    if kind != "hf":
        return config.model.source
    path = pretrained.open_source(config.model.source).path
    # A hub id stays one: where it was downloaded to is each machine's own.
    return place if "snapshots" in path.parts else str(path.resolve())
