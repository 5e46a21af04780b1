"""Reading a plan that was edited by hand: every mistake is named by its entry."""

import json
import pathlib
from collections.abc import Collection
from typing import Any

from sgpo_jax.artefacts import digest

LARGEST_GROUP = 4096
"""Group sizes above this are taken for a slip of the pen."""

_FIELDS = {
    "phases": list,
    "profile": str,
    "rules": dict,
    "trivial": int,
    "unsolved": int,
    "prediction": (dict, type(None)),
    "checksum": str,
}


class _Wrong(ValueError):
    """Error of a plan file, with the name of the entry."""


def read_plan(
    path: pathlib.Path, *, ids: Collection[str] | None = None
) -> tuple[dict[str, Any], bool]:
    """Return the checked content of a plan file, and whether it was edited.

    Its phases are dicts. Without its checksum a file counts as edited.

    Raises:
      ValueError: one line that names the file and the entry that is wrong.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a plan: not JSON: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} is not a plan: {error.strerror}") from None
    known = None if ids is None else frozenset(ids)
    try:
        plan = _plan(content, known)
    except _Wrong as error:
        raise ValueError(f"{path} is not a plan: {error}") from None
    given = plan.pop("checksum", None)
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return plan, given != digest(rest)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _fields(value: Any, place: str, fields: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"{place} is {_show(value)}, not an object")
    optional = {"prediction", "checksum"}
    for name in fields:
        if name not in value and name not in optional:
            raise _Wrong(f"{place} has no {name!r}")
    for name, found in value.items():
        if name not in fields:
            raise _Wrong(f"{place} has {_show(name)}, which no plan has")
        kind = fields[name]
        if not isinstance(found, kind) or isinstance(found, bool):
            raise _Wrong(f"{place}.{name} is {_show(found)}, of another type")
    return value


def _plan(content: Any, known: frozenset[str] | None) -> dict[str, Any]:
    plan = dict(_fields(content, "plan", _FIELDS))
    for name in ("trivial", "unsolved"):
        if plan[name] < 0:
            raise _Wrong(f"plan.{name} is {_show(plan[name])}, below 0")
    for name, rule in plan["rules"].items():
        if not isinstance(rule, str):
            raise _Wrong(f"plan.rules[{name!r}] is {_show(rule)}, not text")
    if not plan["phases"]:
        raise _Wrong("plan.phases is empty; a plan needs a phase")
    plan["phases"] = [
        _phase(phase, f"phases[{i}]", known) for i, phase in enumerate(plan["phases"])
    ]
    return plan


def _phase(phase: Any, place: str, known: frozenset[str] | None) -> dict[str, Any]:
    kinds = {"ids": list, "sizes": list, "dead": (int, float)}
    phase = _fields(phase, place, kinds)
    ids, sizes, dead = phase["ids"], phase["sizes"], phase["dead"]
    if not ids:
        raise _Wrong(f"{place}.ids is empty; take the phase out")
    if len(ids) != len(sizes):
        raise _Wrong(
            f"{place} has {len(ids)} ids and {len(sizes)} sizes; each id needs one size"
        )
    seen: dict[str, int] = {}
    for i, id_ in enumerate(ids):
        if not isinstance(id_, str):
            raise _Wrong(f"{place}.ids[{i}] is {_show(id_)}, not text")
        if id_ in seen:
            raise _Wrong(f"{place}.ids[{i}] is {_show(id_)}, as is ids[{seen[id_]}]")
        if known is not None and id_ not in known:
            raise _Wrong(f"{place}.ids[{i}] is {_show(id_)}, which no query has")
        seen[id_] = i
    for i, size in enumerate(sizes):
        whole = isinstance(size, int) and not isinstance(size, bool)
        if not whole or not 1 <= size <= LARGEST_GROUP:
            raise _Wrong(
                f"{place}.sizes[{i}] is {_show(size)}; a group size is a whole number"
                f" from 1 to {LARGEST_GROUP}"
            )
    if not 0 <= dead <= 1:
        raise _Wrong(f"{place}.dead is {_show(dead)}, not a share in [0, 1]")
    return {"ids": tuple(ids), "sizes": tuple(sizes), "dead": float(dead)}
