"""Manifest of a run folder: its parts and their provenance."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sgpo_jax import data, rewards
from sgpo_jax.artefacts import DamagedError, read_json, write_json
from sgpo_jax.pipeline.folder import RunFolder, UserError
from sgpo_jax.pipeline.questions import Queries


@dataclasses.dataclass(frozen=True)
class Manifest:
    """`manifest.json` of a run folder: by part, what it was made from.

    Attributes:
      path: the file.
    """

    path: pathlib.Path

    def read(self) -> dict[str, Any]:
        """Return all entries.

        Raises:
          DamagedError: if the file is not what was written.
        """
        if not self.path.exists():
            return {}
        remedy = (
            "delete it: it is written again from the questions and settings at hand"
        )
        found = read_json(self.path, remedy=remedy)
        if not all(isinstance(entry, dict) for entry in found.values()):
            raise DamagedError(f"{self.path} is damaged: not of parts; {remedy}")
        return found

    def made_from(self, part: str) -> Mapping[str, Any] | None:
        """Return what a part was made from; None if that is not known."""
        return self.read().get(part)

    def record(self, part: str, made_from: Mapping[str, Any]) -> None:
        """Remember what a part is made from."""
        found = self.read()
        if found.get(part) != made_from:
            write_json(self.path, found | {part: dict(made_from)})

    def forget(self, part: str) -> None:
        """Drop an entry, before its part is made again."""
        found = self.read()
        if found.pop(part, None) is not None:
            write_json(self.path, found)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in which fields two entries differ, as words; empty if in none.

    Example:
      >>> differences({"policy": "a1", "seed": 0}, {"policy": "b2", "seed": 0})
      'policy (a1, now b2)'
    """
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found.append(f"{name}: {differences(before, now)}")
        else:
            found.append(f"{name} ({before}, now {now})")
    return ", ".join(found)


def check_questions(folder: RunFolder, train: Queries, held_out: Queries) -> None:
    """Refuse other questions, answers or verifiers than the folder's results are of.

    Raises:
      UserError: naming what differs.
    """
    manifest, parts = Manifest(folder.manifest), _parts(train, held_out)
    if not any(folder.done(stage) for stage in ("profile", "plan", "train", "eval")):
        return
    for part, now in parts.items():
        before = manifest.made_from(part)
        if before is None or before == now:
            continue
        if part == "verifiers":
            changed = ", ".join(
                name
                for name in sorted(before.keys() | now.keys())
                if before.get(name) != now.get(name)
            )
            what = f"the source of these verifiers has changed: {changed}"
        else:
            fields = data.Fingerprint(**before), data.Fingerprint(**now)
            what = f"the {part} questions differ in {fields[0].difference(fields[1])}"
        raise UserError(
            f"{folder.path} holds results of other data: {what}; put it back as it was,"
            " or use another --out"
        )


def record_questions(folder: RunFolder, train: Queries, held_out: Queries) -> None:
    """Remember the questions by content."""
    manifest = Manifest(folder.manifest)
    for part, content in _parts(train, held_out).items():
        manifest.record(part, content)


def _parts(train: Queries, held_out: Queries) -> dict[str, dict[str, Any]]:
    return {
        "training": dict(data.fingerprint(train).to_json()),
        "held-out": dict(data.fingerprint(held_out).to_json()),
        "verifiers": rewards.sources(query.verifier for query in (*train, *held_out)),
    }
