"""Needs: what a part of a method reads beyond its standard inputs.

The pipeline computes, predicts and charges only what some part asks for.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

Need = Literal[
    "profile",
    "baseline",
    "baseline_weight",
    "drift",
    "reference",
    "sampler_log_probs",
    "residual_mean",
    "log_z",
]
NEEDS: tuple[str, ...] = get_args(Need)

Part = TypeVar("Part", bound=Callable[..., Any])


class MissingInput(AttributeError):
    """An input that a part reads without asking for it."""


def needs_of(*parts: object) -> frozenset[str]:
    """Union of the needs of some parts.

    Raises:
      ValueError: if a part needs what is not provided.

    >>> @needing("reference")
    ... def objective(responses): ...
    >>> sorted(needs_of(objective, None))
    ['reference']
    """
    found = frozenset(need for part in parts for need in getattr(part, "needs", ()))
    if any(hasattr(part, "residual") for part in parts):
        found |= {"residual_mean"}
    unknown = found - set(NEEDS)
    if unknown:
        raise ValueError(f"unknown needs {sorted(unknown)}; known: {', '.join(NEEDS)}")
    return found


def needing(*needs: Need) -> Callable[[Part], Part]:
    """Decorator that declares what a plain function reads.

    A dataclass declares the same with an attribute or a property `needs`.
    """

    def declare(function: Part) -> Part:
        function.needs = needs  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return declare


def provided(value: Any, name: str, need: str) -> Any:
    """Value of an optional input.

    Raises:
      MissingInput: if it is absent, with the need that brings it.
    """
    if value is None:
        raise MissingInput(
            f"{name} was not declared: give needs = ({need!r},) on the part, or"
            f" decorate the function with methods.needing({need!r})"
        )
    return value
