"""Checksums of a checkpoint's files, and which of a folder's steps are sound.

Orbax publishes a step by a rename, so a step is there whole or not at all; but it
restores a flipped bit silently, and takes an empty folder for the newest step.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator

NAME = "manifest.json"
ASIDE = "unsound-"
"""Prefix of the name of a quarantined step."""


def write(step: pathlib.Path) -> None:
    """Record size and SHA-256 of every file of a step, as its last file."""
    content = {
        str(path.relative_to(step)): [path.stat().st_size, _digest(path)]
        for path in _files(step)
    }
    (step / NAME).write_text(json.dumps(content, indent=0, sort_keys=True))


def fault(step: pathlib.Path) -> str | None:
    """Return what is wrong with a step, or None if every file is as it was written.

    Files that the manifest does not name do no harm and are not looked at.
    """
    if step.is_symlink():
        return "it is a symbolic link"
    if not step.is_dir():
        return "it is no folder"
    try:
        content = json.loads((step / NAME).read_text())
        entries = [(name, int(size), str(sha)) for name, (size, sha) in content.items()]
    except FileNotFoundError:
        empty = not any(step.iterdir())
        return "it is empty" if empty else f"it has no {NAME}"
    except (
        *(OSError, ValueError, AttributeError, TypeError),
        *(OverflowError, RecursionError),
    ) as error:
        return f"{NAME} cannot be read: {' '.join(str(error).split())[:200]}"
    for name, size, sha in entries:
        path = step / name
        try:
            there = path.is_file() and not path.is_symlink()
        except OSError:  # a name that no file can have
            there = False
        if not there:
            return f"{name[:200]} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
        if _digest(path) != sha:
            return f"{name} is not what was written (checksum)"
    return None


@dataclasses.dataclass(frozen=True)
class Found:
    """Checkpoints of a folder: the newest sound step, and unsound ones.

    Attributes:
      newest: the newest sound step; None if there is none.
      unsound: what is wrong with each newer step.
    """

    newest: int | None
    unsound: dict[int, str]


def search(folder: pathlib.Path) -> Found:
    """Look for the newest sound step, newest first; names that are no step are not."""
    if not folder.is_dir():
        return Found(None, {})
    unsound: dict[int, str] = {}
    names = [p.name for p in folder.iterdir() if p.name.isdecimal()]
    for step in sorted(map(int, names), reverse=True):
        problem = fault(folder / str(step))
        if problem is None:
            return Found(step, unsound)
        unsound[step] = problem
    return Found(None, unsound)


def put_aside(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Rename a step so that nothing takes it for one; nothing is deleted."""
    target = folder / f"{ASIDE}{step}"
    number = 1
    while target.exists() or target.is_symlink():
        target = folder / f"{ASIDE}{step}.{number}"
        number += 1
    return (folder / str(step)).rename(target)


def _files(step: pathlib.Path) -> Iterator[pathlib.Path]:
    # The files at the top are Orbax's notes about the step, which it still changes.
    for item in sorted(step.iterdir()):
        if item.is_dir():
            yield from sorted(path for path in item.rglob("*") if path.is_file())


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
