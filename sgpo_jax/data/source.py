"""Contract of a source of questions."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from .queries import Query


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The questions of a source, with an account of what became of its rows.

    Attributes:
      queries: with distinct ids.
      held_out: the source's own test set; None if it has none, see `split`.
      problems: what could not be used, one line each with file, row and column; the
        first few of each kind.
      repeats: duplicate rows, by kind; one of each is in `queries`.
      left_out: rows that could not be used, by reason.
      reading: which columns, files and verifiers were chosen.
      places: file and row of the queries, by id, if read from files.
    """

    queries: tuple[Query, ...]
    held_out: tuple[Query, ...] | None = None
    problems: tuple[str, ...] = ()
    repeats: Mapping[str, int] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    reading: str = ""
    places: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    def with_held_out(self, test: "Loaded") -> "Loaded":
        """Return both, the other's questions as the held-out set."""
        return dataclasses.replace(
            self,
            held_out=test.queries,
            problems=self.problems + test.problems,
            repeats=_sum(self.repeats, test.repeats),
            left_out=_sum(self.left_out, test.left_out),
            places=collections.ChainMap({}, self.places, test.places),  # type: ignore[arg-type]
        )


def _sum(one: Mapping[str, int], two: Mapping[str, int]) -> Mapping[str, int]:
    return {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}


@runtime_checkable
class Source(Protocol):
    """Source of questions, a frozen dataclass."""

    def load(self) -> Loaded:
        """Read or make the questions."""
        ...


class BadRow(ValueError):
    """A row that makes no query; the message has the reason and the remedy.

    Attributes:
      kind: the reason in a few words, under which such rows are counted.
    """

    def __init__(self, message: str, kind: str = ""):
        super().__init__(message)
        self.kind = kind or message
