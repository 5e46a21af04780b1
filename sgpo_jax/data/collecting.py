"""Rows to queries: repeats and conflicts found, bad rows counted."""

import array
import collections
import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .queries import Prompt, Query, normalize
from .source import BadRow, Loaded

EXAMPLES = 3  # problems reported in full, of each kind
BLOCK = 128  # rows converted at a time

Row = tuple[int, Any]
Table = tuple[str, Iterable[Row]]
"""A file's name and its rows, each with its number; `BadRow` for an unreadable one."""

REPEAT = "same question and answer"
SPELLING = "same answer, question in another spelling"
CONFLICT = "same question, another answer"


def collect(
    tables: Iterable[Table],
    convert: Callable[[Any], Query],
    convert_block: Callable[[Sequence[Any]], Sequence[Query] | None] | None = None,
    *,
    strict: bool = False,
) -> Loaded:
    """Turn rows into queries with distinct ids, keeping what is good.

    Rows with one text and one answer are a repeat and kept once; so are those whose
    texts `normalize` makes equal, if the answers are equal too. One text with two
    answers is a conflict: the first is kept, the others are left out. Other texts with
    other answers are other questions.

    Memory is linear in the rows kept.

    Args:
      tables: names and rows of files.
      convert: makes a query of a row, or raises `BadRow`.
      convert_block: makes the queries of many rows, or None if each has to be
        converted by itself.
      strict: raise at the first problem or conflict instead of keeping the rest.

    Raises:
      ValueError: under `strict`, with the place and the problem.
    """
    found = _Found()
    left_out: collections.Counter[str] = collections.Counter()
    problems: list[str] = []

    def take(places: Iterable[int], rows: Iterable[Any], make: Any) -> None:
        for place, row in zip(places, rows, strict=True):
            try:
                if isinstance(row, BadRow):
                    raise row
                found.add(make(row), place)
            except BadRow as error:
                left_out[error.kind] += 1
                if strict:
                    raise ValueError(f"{found.name(place)}: {error}") from None
                if left_out[error.kind] <= EXAMPLES:
                    problems.append(f"{found.name(place)}: {error}")

    with _no_garbage_collection():
        for places, rows in found.blocks(tables):
            made = convert_block(rows) if convert_block is not None else None
            if made is None:
                take(places, rows, convert)
            else:
                take(places, made, lambda query: query)
    return Loaded(
        tuple(found.queries),
        problems=tuple(problems),
        repeats=dict(found.repeats),
        left_out=dict(left_out),
        places=_Places(found),
    )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Spare the collector from walking again and again over queries, which stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Found:
    """Queries so far, by id, by text, and by spelling and answer."""

    def __init__(self):
        self.queries: list[Query] = []
        self.repeats: collections.Counter[str] = collections.Counter()
        self.at = array.array("q")
        self.ids: dict[str, int] = {}
        self._texts: dict[Prompt, int] = {}
        self._answers: dict[int, int] = {}
        self._names: list[str] = []

    def blocks(self, tables: Iterable[Table]) -> Iterator[tuple[list[int], list[Any]]]:
        """Yield rows, many at a time, with numbers that `name` understands."""
        for name, numbered in tables:
            base = len(self._names) << 40
            self._names.append(name)
            places: list[int] = []
            rows: list[Any] = []
            try:
                for number, row in numbered:
                    places.append(base + number)
                    rows.append(row)
                    if len(rows) == BLOCK:
                        yield places, rows
                        places, rows = [], []
            except Exception:
                # What is wrong with the rows before is said first.
                yield places, rows
                raise
            if rows:
                yield places, rows

    def name(self, place: int) -> str:
        """Return file and row of a place."""
        return f"{self._names[place >> 40]}:{place & (1 << 40) - 1}"

    def add(self, query: Query, place: int) -> None:
        """Keep a query that is new.

        Raises:
          BadRow: if it contradicts another.
        """
        turns, number = query.messages or query.prompt, len(self.queries)
        twin = self._texts.setdefault(turns, number)
        if twin != number:
            other = self.queries[twin]
            if other.reference != query.reference:
                raise BadRow(
                    f"the question of {self.name(self.at[twin])} with another answer,"
                    f" {_short(query.reference)} and not {_short(other.reference)}:"
                    " the first is kept; correct the wrong one",
                    CONFLICT,
                )
            self.repeats[REPEAT] += 1
            return
        key = hash(spelling := _spelling(query))
        while (other := self._answers.setdefault(key, number)) != number:
            if _spelling(self.queries[other]) == spelling:
                self.repeats[SPELLING] += 1
                del self._texts[turns]
                return
            key += 1  # another question that has the same hash
        if self.ids.setdefault(query.id, number) != number:
            first = self.name(self.at[self.ids[query.id]])
            del self._texts[turns], self._answers[key]
            raise BadRow(f"id {query.id!r} is taken by {first}", "id taken")
        self.at.append(place)
        self.queries.append(query)


def _spelling(query: Query) -> tuple[str, str]:
    """Return what is equal for one question in two spellings, with one answer."""
    if not query.messages:
        return normalize(query.prompt), query.reference
    text = "\0".join(map("\0".join, query.messages))
    return normalize(text), query.reference


class _Places(Mapping[str, str]):
    """File and row of each query, by id."""

    def __init__(self, found: _Found):
        self._ids, self._at, self._name = found.ids, found.at, found.name

    def __getitem__(self, id: str) -> str:
        return self._name(self._at[self._ids[id]])

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
