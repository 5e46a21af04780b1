"""Search space of a sweep: options of the command line and the values they may take."""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sgpo_jax.bounds import shown

if TYPE_CHECKING:
    import optuna

SYNTAX = "NAME=LOW:HIGH, NAME=log:LOW:HIGH or NAME=A,B,C"
Value = float | int
"""Of a hyper-parameter in a trial."""
SIGNIFICANT = 4
"""Digits of a number that is searched: a command line is copied by people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """Hyper-parameter: every number from `low` to `high`.

    Attributes:
      name: the option.
      low: least value.
      high: largest value.
      log: whether equal ratios count as equal distances.
      whole: whether values are integers.

    >>> rate = Interval(name="learning-rate", low=1e-5, high=1e-3, log=True)
    >>> round(rate.position(1e-4), 6), rate.text(rate.value_at(0.75))
    (0.5, '0.0003162')
    """

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: "optuna.Trial") -> Value:
        """Return the trial's value, drawn once."""
        if self.whole:
            low, high = int(self.low), int(self.high)
            return trial.suggest_int(self.name, low, high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def text(self, value: Value) -> str:
        """Return the option's text of a value."""
        return str(round(value)) if self.whole else f"{value:.{SIGNIFICANT}g}"

    def value(self, text: str) -> Value:
        """Return the value of an option's text.

        Raises:
          ValueError: if it is none of this interval.
        """
        found = float(text)
        if not self.low <= found <= self.high:
            raise ValueError(
                f"the default of {self.name}, {text}, is outside of {self.low:g} to"
                f" {self.high:g}: widen the interval, or set the option after --"
            )
        return int(found) if self.whole else found

    def position(self, value: Value) -> float:
        """Return where a value lies, from 0 to 1."""
        low, high, value = map(self._scale, (self.low, self.high, value))
        return (value - low) / (high - low)

    def value_at(self, position: float) -> Value:
        """Return the value at a position."""
        low, high = self._scale(self.low), self._scale(self.high)
        found = low + min(max(position, 0.0), 1.0) * (high - low)
        found = min(max(math.exp(found) if self.log else found, self.low), self.high)
        return round(found) if self.whole else found

    def checked(self) -> tuple[str, ...]:
        """Return both ends: texts that are valid options if all are."""
        return self.text(self.low), self.text(self.high)

    def _scale(self, value: Value) -> float:
        return math.log(value) if self.log else float(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """Hyper-parameter: given values; a trial's is a place in the list.

    Attributes:
      name: the option.
      values: texts; numbers are in order, and neighbours are near.
      ordered: whether they are numbers.
    """

    name: str
    values: tuple[str, ...]
    ordered: bool

    def suggest(self, trial: "optuna.Trial") -> Value:
        """Return the trial's value, drawn once."""
        last = len(self.values) - 1
        if self.ordered:
            return trial.suggest_int(self.name, 0, last)
        return trial.suggest_categorical(self.name, list(range(last + 1)))

    def text(self, value: Value) -> str:
        """Return the option's text of a value."""
        return self.values[int(value)]

    def value(self, text: str) -> Value:
        """Return the value of an option's text.

        Raises:
          ValueError: if it is none of these.
        """
        same = [i for i, one in enumerate(self.values) if _same(one, text)]
        if not same:
            raise ValueError(
                f"the default of {self.name}, {text}, is none of"
                f" {','.join(self.values)}: add it, or set the option after --"
            )
        return same[0]

    def position(self, value: Value) -> float:
        """Return where a value lies, from 0 to 1."""
        return value / (len(self.values) - 1)

    def value_at(self, position: float) -> Value:
        """Return the value at a position."""
        last = len(self.values) - 1
        return min(max(round(position * last), 0), last)

    def checked(self) -> tuple[str, ...]:
        """Return all values: texts to be valid options."""
        return self.values


Parameter = Interval | Choices
"""A hyper-parameter: an option and the values it may take; a trial's is a number."""
Space = tuple[Parameter, ...]
"""The hyper-parameters of a sweep."""


def parse(texts: Sequence[str], settings: Mapping[str, str]) -> Space:
    """Parse what is searched, each as `SYNTAX` says.

    Args:
      texts: one per hyper-parameter.
      settings: present value of every option; whole numbers stay whole.

    Raises:
      ValueError: naming the text and the remedy.

    >>> parse(["train.rollouts=64,256,128"], {"train.rollouts": "128"})[0].values
    ('64', '128', '256')
    """
    space = tuple(_parameter(text, settings) for text in texts)
    names = [one.name for one in space]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--search names {', '.join(sorted(twice))} twice")
    return space


def _parameter(text: str, settings: Mapping[str, str]) -> Parameter:
    name, equals, values = text.partition("=")
    name = name.removeprefix("--").replace("_", "-")
    if not equals or not values:
        raise ValueError(f"--search {shown(text)}: write {SYNTAX}")
    if name not in settings:
        near = difflib.get_close_matches(name, settings, n=3, cutoff=0.3)
        # The last word is what people remember.
        word = name.rpartition(".")[2]
        near += [one for one in settings if one.rpartition(".")[2] == word]
        listed = ", ".join(dict.fromkeys(near[:6])) or "see sgpo run --help"
        raise ValueError(f"--search {shown(name)}: no option is called so: {listed}")
    if ":" in values:
        return _interval(name, values, whole=_whole(settings[name]))
    found = tuple(dict.fromkeys(values.split(",")))
    if len(found) < 2 or not all(found):
        raise ValueError(f"--search {shown(text)}: two values or more, as in {SYNTAX}")
    ordered = all(map(_is_number, found))
    if ordered:
        found = tuple(sorted(found, key=float))
    return Choices(name=name, values=found, ordered=ordered)


def _interval(name: str, text: str, *, whole: bool) -> Interval:
    scale, *ends = text.split(":") if text.count(":") == 2 else ("", *text.split(":"))
    if scale not in ("", "log") or len(ends) != 2 or not all(map(_is_number, ends)):
        raise ValueError(f"--search {name}={text}: write {SYNTAX}")
    if whole and not all(map(_whole, ends)):
        raise ValueError(f"--search {name}={text}: whole numbers, as the option takes")
    low, high = map(float, ends)
    if low >= high:
        raise ValueError(f"--search {name}={text}: the first must be the smaller one")
    if scale and low <= 0:
        raise ValueError(f"--search {name}={text}: log needs numbers above 0")
    return Interval(name=name, low=low, high=high, log=bool(scale), whole=whole)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _whole(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None


def _same(one: str, other: str) -> bool:
    both = _is_number(one) and _is_number(other)
    return float(one) == float(other) if both else one == other
