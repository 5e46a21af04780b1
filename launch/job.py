"""The description of a run on a pod: what every launcher is rendered from."""

import dataclasses
import pathlib
import re
import shlex
import tomllib

import flags

from sgpo_jax import chips

REFUSED = (1, 2)
"""Exit codes of faults and of mistakes: doing the same again would fail again."""

RESTART = 42
"""Exit code of a run that was stopped, saved, and asks for the same command again."""

KILLED = (134, 137)
"""Exit codes of a run whose peer was lost, or that was killed from outside."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run on a pod.

    Attributes:
      name: of the JobSet; a DNS label.
      image: container image, built from `launch/Dockerfile`.
      slice: what each slice is, such as v5e-256.
      args: arguments of `sgpo`.
      num_slices: equal slices.
      queue: Kueue's local queue; empty for none.
      pvc: claim of the file system with the run folders, mounted at /runs.
      restarts: how often a preempted run is started again.
      grace: seconds between SIGTERM and SIGKILL; a step and a checkpoint must fit.
      flags: sets of compiler flags of `launch/flags.py`, joined by commas.
    """

    name: str
    image: str
    slice: str
    args: tuple[str, ...]
    num_slices: int = 1
    queue: str = ""
    pvc: str = ""
    restarts: int = 50
    grace: int = 300
    flags: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(f"name {self.name!r} must be a DNS label of at most 40")
        if not self.args:
            raise ValueError("say what to run after --, such as: -- run --out /runs/x")
        if self.num_slices < 1 or self.restarts < 0 or self.grace < 1:
            raise ValueError("num_slices and grace must be positive, restarts not < 0")
        if self.num_slices > 1 and self.piece.hosts == 1:
            # GKE's page "Deploy TPU Multislices" says so.
            raise ValueError(f"{self.slice} has one host: several slices need more")
        flags.arguments(self.flags, self.piece.chip.name)

    @property
    def piece(self) -> chips.Slice:
        """One slice."""
        return chips.parse_slice(self.slice)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables of the run."""
        arguments = flags.arguments(self.flags, self.piece.chip.name)
        return {"LIBTPU_INIT_ARGS": arguments} if arguments else {}

    @property
    def command(self) -> list[str]:
        """Arguments of `sgpo`; several hosts are told to find each other."""
        args = list(self.args)
        many = self.num_slices * self.piece.hosts > 1
        if many and not any(a.startswith("--distributed.") for a in args):
            args += ["--distributed.coordinator", "auto"]
        return args

    @property
    def cloud_name(self) -> str:
        """A slice's name as gcloud, xpk, gcluster and SkyPilot spell it."""
        return str(self.piece).replace("v5e-", "v5litepod-")

    @property
    def inside(self) -> str:
        """The command inside a container whose entrypoint a launcher replaces."""
        # Without exec the launcher's shell would get SIGTERM in Python's place.
        entry = "/opt/sgpo_jax/launch/entrypoint.sh"
        return "exec " + shlex.join([entry, *self.command])


def read(path: pathlib.Path, given: dict) -> Job:
    """Read a description, and replace what is given.

    Args:
      path: a TOML file with the fields of a `Job`; args as a list or a line.
      given: fields by name.

    Raises:
      ValueError: if the file cannot be read, or names what a job does not have.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    fields = {field.name: field for field in dataclasses.fields(Job)}
    unknown = sorted(content.keys() - fields.keys())
    if unknown:
        raise ValueError(
            f"{path}: no field {', '.join(unknown)}; there are {', '.join(fields)}"
        )
    if isinstance(content.get("args"), str):
        content["args"] = shlex.split(content["args"])
    content = {**content, **given}
    absent = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and name not in content
    ]
    if absent:
        raise ValueError(f"{path}: {', '.join(absent)} must be given")
    for name, value in content.items():
        wanted = int if type(fields[name].default) is int else str
        if name == "args":
            content[name] = value = tuple(value)
            wanted = tuple
        if type(value) is not wanted or any(
            type(arg) is not str for arg in (value if name == "args" else ())
        ):
            raise ValueError(f"{path}: {name} = {value!r} is not what it should be")
    return Job(**content)
