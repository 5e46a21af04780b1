"""Options of methods: `--methods NAME...` and `--methods.NAME.PART.FIELD VALUE`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sgpo_jax.methods import (
    KL,
    ContinueMixed,
    Method,
    OverlongPenalty,
    Refill,
    Truncated,
)

PREFIX = "--methods."
ABSENT: Mapping[str, Callable[[], Any]] = {
    "kl": KL,
    "refill": Refill,
    "shaping": OverlongPenalty,
    "correction": Truncated,
    "continuation": ContinueMixed,
}
"""Prefix of options of parts that a method does not have."""


def take_overrides(args: list[str]) -> list[tuple[str, str]]:
    """Remove the options of methods from the arguments; return path and value.

    Raises:
      ValueError: if an option has no value.

    >>> args = ["--methods.grpo.kl.coef", "0.01", "--seed=1"]
    >>> take_overrides(args), args
    ([('grpo.kl.coef', '0.01')], ['--seed=1'])
    """
    found, rest, i = [], [], 0
    while i < len(args):
        name, equals, value = args[i].partition("=")
        if not name.startswith(PREFIX):
            rest.append(args[i])
            i += 1
            continue
        if not equals:
            if i + 1 == len(args):
                raise ValueError(f"{name} needs a value")
            value = args[i + 1]
            i += 1
        found.append((name.removeprefix(PREFIX), value))
        i += 1
    args[:] = rest
    return found


def override(methods: Mapping[str, Method], path: str, text: str) -> dict[str, Method]:
    """Methods with one field set; dashes and underscores are the same.

    Raises:
      ValueError: if there is no such method or field, or the value does not fit.

    >>> from sgpo_jax.methods import Method
    >>> made = override({"mine": Method()}, "mine.prompts.group-size", "4")
    >>> made["mine"].prompts.group_size
    4
    """
    label, *fields = path.replace("-", "_").split(".")
    if label not in methods:
        raise ValueError(
            f"{PREFIX}{path}: no method {label!r} here; it has {', '.join(methods)}"
        )
    if not fields:
        raise ValueError(f"{PREFIX}{path}: name a part, for example .optimizer")
    return {**methods, label: _set(methods[label], fields, text, PREFIX + path)}


def every_option(label: str, method: Method) -> list[str]:
    """Options of a method with their values, a line each.

    >>> every_option("mine", Method())[:2]
    ['--methods.mine.prompts.group-size 8', '--methods.mine.refill.max-rounds 4 (None)']
    """
    lines: list[str] = []

    def walk(part: Any, path: str, absent: bool) -> None:
        for field in dataclasses.fields(part):
            value, name = getattr(part, field.name), f"{path}.{field.name}"
            missing = value is None and field.name in ABSENT and part is method
            if missing:
                value = ABSENT[field.name]()
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                walk(value, name, absent or missing)
            elif isinstance(value, bool | int | float | str):
                option = name.replace("_", "-")
                lines.append(f"{option} {value}{' (None)' if absent else ''}")

    walk(method, f"{PREFIX}{label}", False)
    return lines


def _set(part: Any, fields: list[str], text: str, option: str) -> Any:
    name, *rest = fields
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        raise ValueError(f"{option}: {part!r} has no fields to set")
    names = [field.name for field in dataclasses.fields(part)]
    if name not in names:
        raise ValueError(
            f"{option}: {type(part).__name__} has no {name!r}; it has"
            f" {', '.join(names)}"
        )
    old = getattr(part, name)
    if rest:
        inner = ABSENT[name]() if old is None and name in ABSENT else old
        value = _set(inner, rest, text, option)
    else:
        value = _parsed(old, text, option)
    try:
        return dataclasses.replace(part, **{name: value})
    except (TypeError, ValueError) as error:
        if rest or str(error).startswith(option):
            raise
        raise ValueError(f"{option} {text}: {error}") from None


def _parsed(old: Any, text: str, option: str) -> Any:
    """Parse a text as a value of the type of the present one."""
    if text == "None" and (old is None or dataclasses.is_dataclass(old)):
        return None
    if isinstance(old, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError(f"{option} {text}: must be True or False")
    if isinstance(old, int | float | str):
        try:
            return type(old)(text)
        except (ValueError, OverflowError):
            noun = "whole number" if isinstance(old, int) else "number"
            raise ValueError(f"{option} {text}: must be a {noun} like {old}") from None
    raise ValueError(
        f"{option}: set one of its fields, for example {option}.FIELD, or write the"
        " method as package.module:function"
    )
