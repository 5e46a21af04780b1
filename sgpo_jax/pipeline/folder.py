"""The run folder: what is in it, and whether new settings still fit what it holds."""

import dataclasses
import pathlib
import pickle
import shutil
from collections.abc import Iterable
from typing import Any

from sgpo_jax import methods
from sgpo_jax.artefacts import DamagedError
from sgpo_jax.artefacts import read_json as read_json
from sgpo_jax.artefacts import write_json as write_json
from sgpo_jax.bounds import shown
from sgpo_jax.config import Experiment

STAGES = ("sft", "profile", "plan", "train", "eval")

# The first stage each part of the experiment has a say in. What is not listed
# (the mesh, the cache, the folder itself) may change at any time; how processes find
# each other is not even remembered.
_FIRST_STAGE = {
    "seed": "sft",
    "data": "sft",
    "split": "sft",
    "model": "sft",
    "sft": "sft",
    "pack": "sft",
    "sampler": "profile",
    "profile": "profile",
    "reward": "profile",
    "methods": "train",
    "train": "train",
    "eval.samples": "train",
    "eval.exact": "train",
    "eval": "eval",
}


# Who samples may change: inference servers come and go.
_CLIENT = ("sampler.server", "sampler.model", "sampler.refresh", "sampler.weights")
_CLIENT += ("sampler.client.",)


class UserError(Exception):
    """A mistake in what the user asked for; the command line exits with code 2."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of a run. Every stage reads the files of those before it."""

    path: pathlib.Path

    @classmethod
    def of(cls, config: Experiment) -> "RunFolder":
        """Return the folder of an experiment."""
        return cls(pathlib.Path(config.out).expanduser())

    @property
    def config(self) -> pathlib.Path:
        """The resolved experiment."""
        return self.path / "config.json"

    @property
    def manifest(self) -> pathlib.Path:
        """Provenance of each part of the folder."""
        return self.path / "manifest.json"

    @property
    def policy(self) -> pathlib.Path:
        """Checkpoint of the initial policy."""
        return self.path / "policy"

    @property
    def chunks(self) -> pathlib.Path:
        """Finished chunks of the profile."""
        return self.path / "profile.chunks"

    @property
    def profile(self) -> pathlib.Path:
        """The profile."""
        return self.path / "profile.parquet"

    @property
    def plans(self) -> pathlib.Path:
        """Folder of the plans."""
        return self.path / "plans"

    def plan(self, name: str) -> pathlib.Path:
        """The plan of one method."""
        return self.plans / f"{name}.json"

    @property
    def report(self) -> pathlib.Path:
        """The report."""
        return self.path / "report.md"

    @property
    def rewards(self) -> pathlib.Path:
        """Reward functions of a notebook."""
        return self.path / "rewards"

    def method(self, name: str) -> pathlib.Path:
        """Metrics and checkpoints of one method."""
        return self.path / "methods" / name

    def completions(self, name: str) -> pathlib.Path:
        """Completions of one method's training, where they are kept."""
        return self.method(name) / "completions"

    def evaluation(self, name: str) -> pathlib.Path:
        """Final evaluation of one method ("initial" for the initial policy)."""
        return self.path / "eval" / f"{name}.json"

    def evaluations(self, labels: Iterable[str]) -> list[pathlib.Path]:
        """Final evaluations of methods that are there, averaged parameters too."""
        names = [x for label in labels for x in (label, f"{label}.averaged")]
        return [x for x in map(self.evaluation, names) if x.exists()]

    def done(self, stage: str) -> bool:
        """Return whether a stage has begun to leave results."""
        paths = {
            "sft": self.policy,
            "profile": self.chunks,
            "plan": self.plans,
            "train": self.path / "methods",
            "eval": self.path / "eval",
        }
        return paths[stage].exists()


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a config to dotted names, as the command line spells them.

    Methods stay whole, as their canonical JSON.

    >>> flatten(Experiment())["profile.samples"]
    8
    """
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "methods":
            flat["methods"] = {name: methods.to_json(x) for name, x in value.items()}
        elif dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = list(value) if type(value) is tuple else value
    return flat


def unflatten(default: Any, flat: dict[str, Any], prefix: str = "") -> Any:
    """Replace the fields of a config that a flat dict names.

    Raises:
      ValueError: for a name that is no setting, or a value that is none.
    """
    if not prefix and (unknown := sorted(flat.keys() - flatten(default).keys())):
        raise DamagedError(
            f"config.json: there is no setting {shown(unknown[0])}; put the file back,"
            " or correct the name"
        )
    changes = {}
    for field in dataclasses.fields(default):
        value, name = getattr(default, field.name), prefix + field.name
        if name == "methods":
            saved, run = flat.get("methods", {}), RunFolder(pathlib.Path(flat["out"]))
            if not isinstance(saved, dict):
                raise DamagedError(f"config.json: methods is {shown(saved)}")
            changes["methods"] = {
                label: _read_method(content, run.method(label) / METHOD_CODE)
                for label, content in saved.items()
            } or value
        elif dataclasses.is_dataclass(value):
            changes[field.name] = unflatten(value, flat, f"{name}.")
        elif name in flat:
            changes[field.name] = _read_value(name, value, flat[name])
    try:
        return dataclasses.replace(default, **changes)
    except ValueError as error:
        if len(str(error)) <= 600:
            raise
        # It quotes a value, whatever its length.
        raise ValueError(f"{str(error)[:600]}...") from None


def _read_value(name: str, like: Any, given: Any) -> Any:
    """Return a setting of `config.json`, of the kind of its default.

    Numbers are checked by the dataclass that holds them.
    """
    many = type(like) is tuple and type(given) is list
    text = isinstance(like, bool | str) and type(given) is not type(like)
    items = given if isinstance(given, list) else []
    nested = any(isinstance(item, list | dict | None) for item in items)
    if text or nested or (type(like) is tuple) != many or isinstance(given, dict):
        raise DamagedError(f"config.json: {name} is {shown(given)}, like {like!r}")
    return tuple(items) if many else given


def read_experiment(path: pathlib.Path) -> Experiment:
    """Return the experiment of a run folder.

    Raises:
      UserError: if there is none.
    """
    run = RunFolder(path.expanduser())
    if not run.config.exists():
        raise UserError(
            f"{run.path} holds no run: there is no {run.config.name}; choose one with"
            " --out"
        )
    flat = read_json(run.config) | {"out": str(run.path)}
    return unflatten(Experiment(), flat)


METHOD_CODE = "method.pickle"
"""Method of a notebook, with functions that no module holds."""


def _read_method(content: Any, code: pathlib.Path) -> methods.Method:
    """Return a method of its JSON, or of its code if a notebook saved that.

    Raises:
      ValueError: if neither gives this method.
    """
    try:
        found = methods.from_json(content)
        if not isinstance(found, methods.Method):
            raise DamagedError(f"config.json: {shown(content)} is no method")
        return found
    except ValueError:
        if not code.exists():
            raise
    found = pickle.loads(code.read_bytes())
    if methods.to_json(found) != content:
        raise ValueError(f"{code} is not the method of config.json; save it again")
    return found


def open_folder(config: Experiment, *, write: bool = True) -> RunFolder:
    """Create the run folder, or check that its results fit the settings.

    Args:
      config: the experiment.
      write: whether to write; one process of many does.

    Raises:
      UserError: if it cannot be written, or holds results of other settings.
    """
    folder, begun = RunFolder.of(config), []
    flat = flatten(config)
    flat = {k: v for k, v in flat.items() if not k.startswith("distributed.")}
    if folder.config.exists():
        saved = read_json(folder.config)
        begun = _begun_again(folder, saved.get("methods", {}), flat["methods"])
        changed = {k for k in flat if k in saved and saved[k] != flat[k]}
        changed.discard("methods")
        for name in sorted(changed):
            first = first_stage(name, config)
            if name.startswith(_CLIENT):
                continue
            if name == "train.steps" and _may_grow(folder, config, saved, flat):
                begun += folder.evaluations(saved["methods"])
                continue
            later = STAGES[STAGES.index(first) :] if first else ()
            brought = name.startswith("profile.") and folder.profile.exists()
            if brought or any(folder.done(stage) for stage in later):
                raise UserError(
                    f"{folder.path} holds results with {name}={saved[name]}, not"
                    f" {flat[name]}; use another --out, or delete the folder"
                )
    if not write:
        return folder
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        for path in begun:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(folder.config, flat)
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {folder.path}: {error.strerror}; choose"
            " another --out"
        ) from error
    return folder


def _may_grow(
    folder: RunFolder, config: Experiment, saved: dict[str, Any], flat: dict[str, Any]
) -> bool:
    """Return whether training may go on beyond the steps it was to have.

    A longer run continues a shorter one if nothing depends on the length: no trained
    method draws its prompts by the share of the run that is done.
    """
    if saved["train.steps"] > flat["train.steps"]:
        return False
    trained = [x for x in saved.get("methods", {}) if folder.method(x).exists()]
    return all(
        label in config.methods
        and not getattr(config.methods[label].prompts, "phased", True)
        for label in trained
    )


def first_stage(name: str, config: Experiment) -> str | None:
    """Return the first stage that a setting has a say in, None for no matter when."""
    if name == "sampler.max_response" and config.sft.steps:
        return "sft"  # demonstrations are cut to it
    return _FIRST_STAGE.get(name, _FIRST_STAGE.get(name.split(".")[0]))


def _begun_again(
    folder: RunFolder, saved: dict[str, Any], wanted: dict[str, Any]
) -> list[pathlib.Path]:
    """Return folders of methods that were changed before their first checkpoint.

    Raises:
      UserError: if a method was changed that has been trained.
    """
    found = []
    for label in saved.keys() & wanted.keys():
        path = folder.method(label)
        if saved[label] == wanted[label] or not path.exists():
            continue
        steps = [one.name for one in (path / "checkpoints").glob("*")]
        trained = any(name.partition(".")[0] != "0" for name in steps)
        if trained or folder.evaluation(label).exists():
            lines = methods.differences(saved[label], wanted[label])
            raise UserError(
                f"{folder.path} holds another method called {label}"
                f" ({'; '.join(lines[:3])}); use another label or another --out, or"
                f" delete {path}"
            )
        found.append(path)
    return found
