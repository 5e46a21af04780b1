"""Canonical JSON of methods, and the fingerprint made of it.

A dataclass is written as its type and its fields, a plain function as
"package.module:name" and a hash of its source, so that two methods of equal JSON do the
same.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def to_json(value: Any) -> Any:
    """Plain JSON of a part, a method, or a value inside one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
        return {"type": _path(type(value)), **fields}
    if callable(value):
        return {"function": _path(value), "source": _source_hash(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return {
            "array": value.tolist(),
            "dtype": value.dtype.name,
        }
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot write {value!r} as JSON; use numbers, text, dataclasses")


def from_json(content: Any) -> Any:
    """Value of its canonical JSON.

    Raises:
      ValueError: if it is not such JSON, a type or a function cannot be imported, or
        its source has changed.
    """
    try:
        return _from_json(content)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        text = f"{type(error).__name__}: {_short(error)}"
        raise ValueError(f"this is no method that was saved: {text}") from None


def _from_json(content: Any) -> Any:
    if isinstance(content, list):
        return tuple(_from_json(item) for item in content)
    if not isinstance(content, dict):
        return content
    if "array" in content:
        return np.asarray(content["array"], content["dtype"])
    if "function" in content:
        function = locate(content["function"])
        if not callable(function):
            raise ValueError(f"{content['function']} is not a function")
        if _source_hash(function) != content["source"]:
            raise ValueError(
                f"the source of {content['function']} has changed since the method was"
                " saved; give it another label, or use another --out"
            )
        return function
    made = locate(content["type"])
    # A file must not be able to call anything but the making of a part.
    if not (isinstance(made, type) and dataclasses.is_dataclass(made)):
        raise ValueError(f"{content['type']} is not a dataclass, as parts are")
    fields = {name: _from_json(x) for name, x in content.items() if name != "type"}
    try:
        return made(**fields)
    except TypeError as error:
        raise ValueError(f"{content['type']}: {_short(error)}") from None


def locate(path: str) -> Any:
    """Object at "package.module:name" or "FILE.py:name".

    Modules in the current folder and beside the file are found too, after all others.

    Raises:
      ValueError: if there is none.
    """
    place, _, name = path.partition(":")
    file = pathlib.Path(place).expanduser().resolve()
    named = file.suffix == ".py"
    folder = str(file.parent if named else pathlib.Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        if named and not file.exists():
            raise ImportError("there is no such file")
        found: Any = importlib.import_module(file.stem if named else place)
        if named and pathlib.Path(found.__file__ or "").resolve() != file:
            raise ImportError(f"another module is called {file.stem}: rename the file")
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"cannot import {_short(path)}: {_short(error)}; write FILE.py:name, or"
            " package.module:name of what is installed, in the current folder or on"
            " PYTHONPATH"
        ) from None
    return found


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits that identify a part or a method.

    >>> from sgpo_jax.methods import Method
    >>> fingerprint(Method()) == fingerprint(Method())
    True
    >>> fingerprint(Method()) == fingerprint(Method(minibatches=2))
    False
    """
    text = json.dumps(to_json(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines that name what differs between two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for name in sorted(old.keys() | new.keys()):
            inner = f"{prefix}.{name}" if prefix else name
            lines += differences(old.get(name), new.get(name), inner)
        return lines
    return [] if old == new else [f"{prefix}: {old} before, {new} now"]


def _closed(value: Any) -> str:
    """Text of a value that a function closes over; of other objects, their type.

    The default text of an object is its address, which differs in every process.
    """
    try:
        return json.dumps(to_json(value), sort_keys=True)
    except TypeError:
        return _path(type(value))


def _path(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def remember_sources(value: Any) -> None:
    """Attach to every function of a part the hash of its source.

    Pickled with it, the hash identifies the function where its source is not at hand.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            remember_sources(getattr(value, field.name))
    elif inspect.isfunction(value):
        value.__dict__[_HASH] = _source_hash(value)


_HASH = "_sgpo_source_hash"


def _source_hash(function: Callable[..., Any]) -> str:
    """Hash of a function's source and of what it closes over."""
    if _HASH in getattr(function, "__dict__", {}):
        return function.__dict__[_HASH]
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = repr(getattr(function, "__code__", function))
    cells = getattr(function, "__closure__", None) or ()
    closed = [_closed(cell.cell_contents) for cell in cells]
    return hashlib.sha256("\0".join([text, *closed]).encode()).hexdigest()[:16]
