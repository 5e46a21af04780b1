"""Verifiers by name: built-in ones with options, functions of modules and files."""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import pathlib
import pickle
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sgpo_jax.bounds import concise

from . import command, mathematics, structured, verifiers
from .conventions import CONVENTIONS, Item, RewardFunction, adapt

BUILT_IN: Mapping[str, Callable[..., Any]] = {
    "exact": verifiers.exact,
    "integer": verifiers.integer,
    "gsm8k": verifiers.gsm8k,
    "numeric": verifiers.numeric,
    "choice": verifiers.choice,
    "math": mathematics.equal,
    "format": structured.matches,
    "json_schema": structured.valid_json,
    "command": command.run,
}
"""Verifiers that need no module; `reasoning_gym` is one too."""

# Make the arguments of a verifier from its options, or refuse them.
_PREPARE: Mapping[str, Callable[..., dict[str, Any]]] = {
    "math": mathematics.imported,
    "format": structured.compiled,
    "json_schema": structured.schema,
    "command": command.prepared,
}

# These take all that follows the colon as one argument.
_WHOLE = {"format": "pattern", "command": "command"}
_OPTION = re.compile(r"[,+](?=[a-z_]+=)")
_TERM = re.compile(r"\s*(-?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*\*\s*")

LONGEST = 2_000
"""Most characters of a verifier's name, options included."""

SYNTAX = """\
exact | integer | gsm8k | choice[:letters=ABCD] | math
numeric[:tolerance=1e-3,percent=true,unit=km]
format:REGULAR EXPRESSION | json_schema:path=FILE | command:COMMAND LINE
package.module:function[:option=value,...] | my_reward.py:function[:option=value,...]
0.8*NAME + 0.2*NAME"""
"""Syntax of the names of verifiers."""


def terms(name: str) -> list[tuple[float, str]]:
    """Return the weights and verifiers of a weighted sum; of any other, 1 of itself.

    Example:
      >>> terms("0.8*gsm8k + 0.2*format:a+b")
      [(0.8, 'gsm8k'), (0.2, 'format:a+b')]
      >>> terms("gsm8k")
      [(1.0, 'gsm8k')]
    """
    if _TERM.match(name) is None:
        return [(1.0, name)]
    found = []
    for part in re.split(r"\s\+\s(?=\s*-?[0-9.]+(?:[eE][+-]?[0-9]+)?\s*\*)", name):
        weight = _TERM.match(part)
        if weight is None:
            raise ValueError(f"verifier {name!r}: {part!r} is not of the form 0.5*NAME")
        found.append((float(weight[1]), part[weight.end() :].strip()))
    return found


def options(text: str) -> dict[str, Any]:
    """Read `name=value,name=value`; values are JSON where they can be, else text.

    Example:
      >>> options("tolerance=1e-3,percent=true,unit=km")
      {'tolerance': 0.001, 'percent': True, 'unit': 'km'}
    """
    found: dict[str, Any] = {}
    for pair in _OPTION.split(text) if text else []:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"option {pair!r} is not of the form name=value")
        try:
            found[key] = json.loads(value)
        except RecursionError:
            raise ValueError(f"option {key!r} is nested too deeply") from None
        except ValueError:
            found[key] = value
    return found


def find(name: str, payload: bytes | None = None) -> RewardFunction:
    """Import the verifier called `name`.

    Args:
      name: see `SYNTAX`; a prefix of `CONVENTIONS`, as in `trl:`, settles how the
        function is called.
      payload: the function itself, for one that cannot be imported.

    Raises:
      ValueError: if there is no such module or function, or an option is wrong.

    Example:
      >>> find("exact").score([Item({"reference": "7"}, " 7 ")])
      [1.0]
    """
    if payload is not None:
        return _loaded(name, payload)
    if len(name) > LONGEST:
        raise ValueError(
            f"verifier {name[:60]!r}... has {len(name):,} characters, {LONGEST:,} are"
            " allowed: put the expression or the command into a file"
        )
    try:
        return _named(name)
    except ValueError as error:
        raise ValueError(concise(str(error), most=2500)) from error  # with SYNTAX


def _named(name: str) -> RewardFunction:
    kind, _, rest = name.partition(":")
    if kind == "reasoning_gym":
        return _reasoning_gym()
    if kind in BUILT_IN:
        return _built_in(name, kind, rest)
    convention = kind if kind in CONVENTIONS else ""
    path = rest if convention else name
    place, _, function = path.partition(":")
    function, _, given = function.partition(":")
    if place.endswith(".py") and not function:
        raise ValueError(f"verifier {name!r} names no function: {place}:FUNCTION")
    if not place or not function:
        raise ValueError(f"verifier {name!r} is none of\n{SYNTAX}")
    try:
        module = _module(place)
        found = getattr(module, function, None)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ValueError(f"verifier {name!r} cannot be imported: {text}") from error
    if found is None:
        raise ValueError(
            f"verifier {name!r}: {place} has no function {function!r}; it has"
            f" {', '.join(_functions(module)) or 'none'}"
        )
    try:
        return adapt(found, convention, **options(given))
    except ValueError as error:
        raise ValueError(f"verifier {name!r}: {error}") from error


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = pathlib.Path(place).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    # Modules beside it are found too, after all others.
    sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _loaded(name: str, payload: bytes) -> RewardFunction:
    try:
        function, convention = pickle.loads(payload)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"reward function {name!r} does not arrive in the scoring process ({text}):"
            " import what it needs inside the function, or put it into a file and name"
            " it my_reward.py:function"
        ) from error
    return adapt(function, convention)


def _built_in(name: str, kind: str, rest: str) -> RewardFunction:
    function = BUILT_IN[kind]
    if kind in _WHOLE:
        if not rest:
            raise ValueError(f"verifier {name!r} lacks what follows `{kind}:`")
        given: dict[str, Any] = {_WHOLE[kind]: rest}
    else:
        given = options(rest)
    known = inspect.signature(function).parameters
    for key in given:
        if key not in known or key in ("completion", "reference", "query"):
            those = ", ".join(k for k in known if k not in ("completion", "reference"))
            raise ValueError(
                f"verifier {name!r} has no option {key!r}; there are: {those or 'none'}"
            )
    try:
        if kind in _PREPARE:
            given = _PREPARE[kind](**given)
        elif kind == "numeric":
            _check_numeric(**given)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"verifier {name!r}: {error}") from error
    bound = functools.partial(function, **given) if given else function
    if kind == "command":
        return RewardFunction(
            score=functools.partial(_each_query, bound), convention="query"
        )

    def score(items: Sequence[Item]) -> list[Any]:
        return [bound(item.completion, item.query["reference"]) for item in items]

    return RewardFunction(score=score, trusted=True)


def _check_numeric(*, tolerance: Any = 0, percent: Any = False, unit: Any = "") -> None:
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance must be at least 0, got {tolerance!r}")
    if not isinstance(percent, bool):
        raise ValueError(f"percent must be true or false, got {percent!r}")
    if unit and unit not in verifiers.UNITS:
        known = ", ".join(sorted(verifiers.UNITS))
        raise ValueError(f"unit {unit!r} is none of {known}")


def _each_query(function: Callable, items: Sequence[Item]) -> list[Any]:
    return [function(item.completion, item.query) for item in items]


def _functions(module: types.ModuleType) -> list[str]:
    """Return the public functions that a module defines, at most ten."""
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    return found[:10]


def _reasoning_gym() -> RewardFunction:
    from . import reasoning_gym

    try:
        # It takes seconds, which should not count against the first deadline.
        reasoning_gym.import_package()
    except ImportError as error:
        raise ValueError(
            f"verifier 'reasoning_gym' cannot be imported: {error}"
        ) from error
    # Families whose scorers run code are refused; the others' change nothing.
    return dataclasses.replace(adapt(reasoning_gym.score, "plain"), trusted=True)
