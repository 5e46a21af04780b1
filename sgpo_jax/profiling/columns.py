"""The columns of a profile: types, how two values add up, what may differ."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

GRAIN = 2.0**-24
"""Rewards are rounded to multiples of this, so that sums do not depend on order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One number per query.

    Attributes:
      dtype: int64 or float64.
      add: how the values of two profiles of a query are combined.
      signed: whether it may be below 0.
      identity: whether it belongs to the fingerprint; clocks do not.
    """

    dtype: Any = np.int64
    add: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add
    signed: bool = False
    identity: bool = True


COLUMNS: Mapping[str, Column] = {
    "samples": Column(),
    "successes": Column(),
    "unscorable": Column(),
    "truncated": Column(),
    "tokens": Column(),
    "longest": Column(add=np.maximum),
    "prompt_tokens": Column(add=np.maximum),
    "first_sample": Column(add=np.minimum),
    "reward_sum": Column(dtype=np.float64, signed=True),
    "reward_squares": Column(dtype=np.float64),
    "seconds": Column(dtype=np.float64, identity=False),
}

TEXTS = ("prompt_hash", "prompts")
"""Columns of text, "" where it is not known."""

PLACE = ("data",)
"""Entries of a profile's source that say where queries came from, not how they were
sampled: shards of one set differ in them and still add up."""


def checked(name: str, values: Any, count: int) -> np.ndarray:
    """Return a column as an array of its type.

    Raises:
      ValueError: if it is not one finite number per query, or is negative.
    """
    column = COLUMNS[name]
    try:
        found = np.asarray(values, column.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from None
    bad = found.shape != (count,) or not np.isfinite(found).all()
    if bad or (not column.signed and (found < 0).any()):
        least = "one number" if column.signed else "one count >= 0"
        raise ValueError(f"{name} must hold {least} per query")
    return found


def differences(
    ours: Mapping[str, object], theirs: Mapping[str, object], prefix: str = ""
) -> dict[str, str]:
    """Return what differs between two sources, by dotted name.

    >>> differences({"policy": "a", "sampling": {"temperature": 1.0}},
    ...             {"policy": "a", "sampling": {"temperature": 0.7}})
    {'sampling.temperature': '1.0 and 0.7'}
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys([*ours, *theirs]):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found[prefix + name] = f"{a!r} and {b!r}"
    return found
