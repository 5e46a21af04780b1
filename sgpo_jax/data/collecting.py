"""Rows to queries: repeats and conflicts found, bad rows counted."""

import array
import collections
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .queries import Query, normalize
from .source import BadRow, Loaded

EXAMPLES = 3  # problems reported in full, of each kind

Row = tuple[int, Any]
Table = tuple[str, Iterable[Row]]
"""A file's name and its rows, each with its number; `BadRow` for an unreadable one."""

REPEAT = "same question and answer"
SPELLING = "same answer, question in another spelling"
CONFLICT = "same question, another answer"


def collect(
    tables: Iterable[Table],
    convert: Callable[[Any], Query],
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
      strict: raise at the first problem or conflict instead of keeping the rest.

    Raises:
      ValueError: under `strict`, with the place and the problem.
    """
    found = _Found()
    left_out: collections.Counter[str] = collections.Counter()
    problems = []
    for place, row in found.places(tables):
        try:
            if isinstance(row, BadRow):
                raise row
            found.add(convert(row), place)
        except BadRow as error:
            left_out[error.kind] += 1
            if strict:
                raise ValueError(f"{found.name(place)}: {error}") from None
            if left_out[error.kind] <= EXAMPLES:
                problems.append(f"{found.name(place)}: {error}")
    return Loaded(
        tuple(found.queries),
        problems=tuple(problems),
        repeats=dict(found.repeats),
        left_out=dict(left_out),
        places=_Places(found),
    )


class _Found:
    """Queries so far, by id, by text, and by spelling and answer."""

    def __init__(self):
        self.queries: list[Query] = []
        self.repeats: collections.Counter[str] = collections.Counter()
        self.at = array.array("q")
        self.ids: dict[str, int] = {}
        self._texts: dict[bytes, int] = {}
        self._answers: set[bytes] = set()
        self._names: list[str] = []

    def places(self, tables: Iterable[Table]) -> Iterator[tuple[int, Any]]:
        """Yield rows with a number that `name` understands."""
        for name, rows in tables:
            base = len(self._names) << 40
            self._names.append(name)
            for number, row in rows:
                yield base + number, row

    def name(self, place: int) -> str:
        """Return file and row of a place."""
        return f"{self._names[place >> 40]}:{place & (1 << 40) - 1}"

    def add(self, query: Query, place: int) -> None:
        """Keep a query that is new.

        Raises:
          BadRow: if it contradicts another.
        """
        text = "\0".join(map("\0".join, query.messages)) or query.prompt
        key = _digest(text)
        twin = self._texts.get(key)
        if twin is not None:
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
        answer = _digest(f"{normalize(text)}\0{query.reference}")
        if answer in self._answers:
            self.repeats[SPELLING] += 1
            return
        if query.id in self.ids:
            first = self.name(self.at[self.ids[query.id]])
            raise BadRow(f"id {query.id!r} is taken by {first}", "id taken")
        self.ids[query.id] = self._texts[key] = len(self.queries)
        self._answers.add(answer)
        self.at.append(place)
        self.queries.append(query)


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


def _digest(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
