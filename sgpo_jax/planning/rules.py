"""Filters, allocators, curricula and priors by name: `knapsack,mean=6`."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sgpo_jax.profiling import Fitted, Flat, Given, Prior, SamplingRule, Sequential

T = TypeVar("T")

PRIORS: dict[str, Prior] = {"fitted": Fitted(), "jeffreys": Given()}
"""Priors by the name the command line has for them."""

SAMPLING_RULES: dict[str, SamplingRule] = {
    "flat": Flat(),
    "sequential": Sequential(),
    "two-stage": Sequential(batch=8, most=12, share=1.0),
}
"""Rules that spend profiling samples, by name."""


def rule(text: str, known: Mapping[str, T], *, kind: str) -> T:
    """Rule of a table by its name, with fields replaced.

    Args:
      text: a name, then fields as `,name=value`; elements of a tuple are joined by `+`.
      known: rules by name.
      kind: what they are, for the error.

    Raises:
      ValueError: naming what there is instead.

    >>> from sgpo_jax.planning import ALLOCATORS
    >>> rule("knapsack,mean=6,maximum=64", ALLOCATORS, kind="allocator")
    Knapsack(mean=6.0, minimum=2, maximum=64)
    """
    name, *settings = text.split(",")
    if name not in known:
        raise ValueError(f"no {kind} {name!r}; there are {', '.join(known)}")
    chosen: Any = known[name]
    types = {
        field: hint
        for field, hint in typing.get_type_hints(type(chosen)).items()
        if _plain(hint)
    }
    changes: dict[str, Any] = {}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if field not in types or not equals:
            there = ", ".join(f"{f}={getattr(chosen, f)}" for f in types)
            raise ValueError(
                f"{kind} {name!r} has no setting {setting!r}; it has {there or 'none'}"
            )
        try:
            changes[field] = _cast(value, types[field])
        except ValueError:
            raise ValueError(
                f"{kind} {name!r}: {field} must be like {getattr(chosen, field)}, got"
                f" {value!r}"
            ) from None
    return dataclasses.replace(chosen, **changes)


def _plain(hint: Any) -> bool:
    if typing.get_origin(hint) in (tuple, typing.Literal):
        return True
    return hint in (int, float, bool, str)


def _cast(value: str, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_cast(part, args[0]) for part in value.split("+"))
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(value)
        return value
    if hint is bool:
        if value not in ("true", "false"):
            raise ValueError(value)
        return value == "true"
    return hint(value)
