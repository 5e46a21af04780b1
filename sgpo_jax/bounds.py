"""Bounds of numeric settings, declared in a field's type and checked when it is made.

A field declares its range with its type; the decorator `bounded` checks all fields
of a dataclass before anything else looks at them:

>>> import dataclasses
>>> @dataclasses.dataclass(frozen=True)
... @bounded
... class Settings:
...     steps: Count = 100
...     noise: tuple[Share, ...] = (0.0, 0.5)
>>> Settings(steps=0)
Traceback (most recent call last):
ValueError: steps must be a whole number from 1 to 1000000000, got 0
>>> Settings(noise=(0.5, float("nan")))
Traceback (most recent call last):
ValueError: noise must be numbers from 0 to 1, got nan
"""

import dataclasses
import functools
import math
import numbers
import re
import types
import typing
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Range:
    """Closed interval that a number must be in.

    Attributes:
      low: least value.
      high: largest value.
      below: whether `high` itself is excluded.
      zero: whether 0, which is a setting's word for "off", is allowed beside it.
    """

    low: int | float
    high: int | float
    below: bool = False
    zero: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether a number lies inside; NaN never does.

        >>> Range(0, 1, below=True).holds(1.0), Range(1, 9, zero=True).holds(0)
        (False, True)
        """
        under = value < self.high if self.below else value <= self.high
        return (self.low <= value and under) or (self.zero and value == 0)

    def __str__(self) -> str:
        zero = "0 or " if self.zero else ""
        to = "to below" if self.below else "to"
        return f"{zero}from {_show(self.low)} {to} {_show(self.high)}"


def shown(value: Any, most: int = 60) -> str:
    """A value as an error shows it: as Python writes it, cut if it is long.

    >>> shown("abc"), shown("a" * 999, most=9)
    ("'abc'", "'aaaaa...")
    """
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def concise(text: str, most: int = 1500) -> str:
    """Shorten what an error quotes: words of more than 200 characters, then the whole.

    >>> len(concise("unknown preset " + 3000 * "x"))
    138
    """
    text = re.sub(r"\S{201,}", lambda m: f"{m[0][:80]}...{m[0][-40:]}", text)
    return text if len(text) <= most else f"{text[:most]}..."


def _show(value: int | float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


HUGE = 10**9
"""Nothing that is counted in a run, and no coefficient, is larger."""
TINY = 1e-12
"""The least positive setting: far below any use, and still a number in float32."""

Count = Annotated[int, Range(1, HUGE)]
"""A whole number, at least 1."""
Natural = Annotated[int, Range(0, HUGE)]
"""A whole number, at least 0."""
Size = Annotated[int, Range(1, 2**20)]
"""Elements of a static shape."""
MOST_LAYERS = 4096
"""Layers of the deepest model."""
Layers = Annotated[int, Range(1, MOST_LAYERS)]
"""Layers of a model; a list is made of them before anything is checked."""
GroupSize = Annotated[int, Range(1, 4096)]
"""Rollouts of one prompt."""
Seed = Annotated[int, Range(0, 2**63 - 1)]
"""Root of random numbers."""
Share = Annotated[float, Range(0, 1)]
"""A share or probability."""
Decay = Annotated[float, Range(0, 1, below=True)]
"""Decay of a running mean."""
Positive = Annotated[float, Range(TINY, HUGE)]
"""A number above 0."""
NonNegative = Annotated[float, Range(0, HUGE)]
"""A number, at least 0."""
Finite = Annotated[float, Range(-HUGE, HUGE)]
"""Any number that is one."""
Rate = Annotated[float, Range(TINY, 1000)]
"""A step size."""
Temperature = Annotated[float, Range(1e-4, 1e4)]
"""A temperature of sampling."""
Flops = Annotated[float, Range(0, 1e30)]
"""Floating-point operations."""
Seconds = Annotated[float, Range(1e-3, 10**7)]
"""A time limit; a third of a year at most."""


@dataclasses.dataclass(frozen=True)
class Number:
    """Numeric constraints of a type annotation.

    Attributes:
      whole: whether they are integers.
      range: their bounds; None if unbounded.
      many: whether they are the items of a tuple.
      optional: whether the type also allows None.
      other: whether it allows anything else that is no number.
    """

    whole: bool
    range: Range | None
    many: bool = False
    optional: bool = False
    other: bool = False


@functools.cache
def number_of(kind: Any) -> Number | None:
    """Return the numeric constraints of a type; None if it has no numbers.

    >>> number_of(Share | None)
    Number(whole=False, range=Range(low=0, high=1, ...), many=False, optional=True, ...)
    >>> number_of(str) is number_of(bool) is None
    True
    """
    origin = typing.get_origin(kind)
    if origin is Annotated:
        inner, *notes = typing.get_args(kind)
        found = number_of(inner)
        ranges = [note for note in notes if isinstance(note, Range)]
        if found is None or not ranges:
            return found
        return dataclasses.replace(found, range=ranges[0])
    if kind is int or kind is float:
        return Number(kind is int, None)
    if origin is tuple:
        found = number_of(typing.get_args(kind)[0])
        return found and dataclasses.replace(found, many=True)
    if origin in (typing.Union, types.UnionType):
        parts = [number_of(part) for part in typing.get_args(kind)]
        known = [part for part in parts if part is not None]
        if not known:
            return None
        # int | float is a float; the narrowest promise is the widest kind.
        widest = min(known, key=lambda part: part.whole)
        optional = type(None) in typing.get_args(kind)
        other = len(known) + optional < len(parts)
        return dataclasses.replace(widest, optional=optional, other=other)
    return None


def check_number(name: str, value: Any, kind: Any) -> None:
    """Raise unless a value is a number of a type, within its range.

    A boolean is no number, text is none, and neither are NaN and infinity.

    Raises:
      ValueError: one line with the name, the range and the value.

    >>> check_number("samples", True, Count)
    Traceback (most recent call last):
    ValueError: samples must be a whole number from 1 to 1000000000, got True
    """
    wanted = number_of(kind)
    if wanted is None:
        raise TypeError(f"{kind} is no type of numbers")
    if wanted.many and isinstance(value, tuple | list):
        values = list(value)
    elif value is None and wanted.optional:
        return
    elif wanted.other and not isinstance(value, numbers.Real):
        return
    else:
        values = [value]
    for item in values:
        if not _fits(item, wanted):
            noun = "whole number" if wanted.whole else "number"
            noun = f"{noun}s" if wanted.many else f"a {noun}"
            where = f" {wanted.range}" if wanted.range else ""
            raise ValueError(f"{name} must be {noun}{where}, got {shown(item)}")


def _fits(value: Any, wanted: Number) -> bool:
    kind = numbers.Integral if wanted.whole else numbers.Real
    # NumPy registers its scalars there; bool is an Integral too, and no number here.
    if not isinstance(value, kind) or type(value).__name__ in ("bool", "bool_"):
        return False
    try:
        finite = math.isfinite(value)
    except OverflowError:
        return False
    return finite and (wanted.range is None or wanted.range.holds(value))


def check_fields(settings: Any) -> None:
    """Raise unless every number of a dataclass is within its declared range.

    Raises:
      ValueError: naming the field, its range and the value.
    """
    for field in dataclasses.fields(settings):
        if number_of(field.type) is not None:
            check_number(field.name, getattr(settings, field.name), field.type)


def check_arguments(**given: tuple[Any, Any]) -> None:
    """Raise unless arguments of a function, as (value, type), are within their ranges.

    Raises:
      ValueError: naming the first that is not.

    >>> check_arguments(samples=(8, Count), seed=(-1, Seed))
    Traceback (most recent call last):
    ValueError: seed must be a whole number from 0 to 9223372036854775807, got -1
    """
    for name, (value, kind) in given.items():
        check_number(name, value, kind)


def bounded(cls: type[T]) -> type[T]:
    """Class decorator that checks the numbers of a dataclass, before `__post_init__`.

    It stands below `dataclasses.dataclass`, so that what it adds is found.
    """
    own = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        check_fields(self)
        if own is not None:
            own(self)

    cls.__post_init__ = __post_init__  # pyright: ignore[reportAttributeAccessIssue] found by dataclasses
    return cls
