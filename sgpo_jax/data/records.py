"""Questions from files with named columns, and from rows in memory."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sgpo_jax.bounds import concise

from . import files
from .collecting import Row, Table, collect
from .columnar import read_arrow, read_parquet
from .columns import Columns
from .jsonl import read_jsonl
from .source import BadRow, Loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    r"""JSON lines, Parquet or Arrow: a file, a pattern or a folder.

    The prompt is text or a list of messages; see `values.conversation` for those and
    `values.scalar` for answers. Dots in a column's name lead into structs. Columns
    that are not named here are not decoded from Parquet.

    Attributes:
      path: of the files; see `files.find` for folders.
      prompt: column of the question; None takes the first that there is of prompt,
        question and problem.
      answer: column of the reference; None takes answer, else
        reward_model.ground_truth, as verl and DAPO have it, or none if there is neither
        and the verifier is a function (file.py:name). "" is none: references are empty.
      id: column of the id; None makes ids from the prompts.
      level: column of the difficulty, a whole number; None if there is none.
      metadata: further columns, passed to the verifier under their last names. For
        verl's layout and a verifier of one's own, data_source and extra_info if empty.
      verifier: see `Query`; None is the one of the data source in verl's layout
        (`DATA_SOURCES`), else by the answer: "gsm8k" for a solution with ####, "math"
        for one with \boxed, else "exact".
      family: name of the source; the name of file or folder if empty.
      max_chars: leave questions with more characters out; 0 for none.
      held_out: path of a held-out set with the same columns; None takes the folder's
        own, if it has one.
      strict: raise at the first bad row instead of reporting it in `problems`.
    """

    path: str
    prompt: str | None = None
    answer: str | None = None
    id: str | None = None
    level: str | None = None
    metadata: tuple[str, ...] = ()
    verifier: str | None = None
    family: str = ""
    max_chars: int = 0
    held_out: str | None = None
    strict: bool = False

    def __post_init__(self):
        if not self.path:
            raise ValueError("the path is missing, as in jsonl:questions.jsonl")
        pattern = any(mark in self.path for mark in "*?[")
        named = (
            self.path.endswith(files.SUFFIXES) or not pathlib.PurePath(self.path).suffix
        )
        if not (named or pattern or pathlib.Path(self.path).expanduser().is_dir()):
            raise ValueError(unknown(self.path))
        self._columns()

    def load(self) -> Loaded:
        """Read the files.

        Raises:
          OSError: if a file cannot be read.
          ValueError: if no row is usable or, under `strict`, any is not.
        """
        found = files.find(self.path)
        loaded = self._read(found.train, self.path)
        test = found.test
        if self.held_out is not None:
            test = files.find(self.held_out).train
        if test:
            held_out = self._read(test, self.held_out or self.path)
            loaded = loaded.with_held_out(held_out)
        reading = loaded.reading
        if found.ignored:
            reading += f", not read: {', '.join(map(_name, found.ignored))}"
        return dataclasses.replace(loaded, reading=reading)

    def _columns(self) -> Columns:
        return Columns(
            prompt=self.prompt,
            answer=self.answer,
            id=self.id,
            level=self.level,
            metadata=self.metadata,
            verifier=self.verifier,
            family=self.family or _name(self.path).partition(".")[0],
            max_chars=self.max_chars,
        )

    def _read(self, names: Sequence[str], path: str) -> Loaded:
        return read_tables(
            ((name, open_table(name)) for name in names),
            self._columns(),
            strict=self.strict,
            what=path,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows in memory: dicts of columns, with the rules of `Records`.

    Attributes:
      rows: of the questions.
      columns: which make a query.
      held_out: rows of the held-out set; None for no such set.
      strict: raise at the first bad row.
      name: of the rows, in messages.
    """

    rows: Iterable[Mapping[str, Any]]
    columns: Columns = Columns(family="rows")
    held_out: Iterable[Mapping[str, Any]] | None = None
    strict: bool = False
    name: str = "rows"

    def load(self) -> Loaded:
        """Make the questions.

        Raises:
          ValueError: if no row is usable or, under `strict`, any is not.
        """
        loaded = self._read(self.rows, self.name)
        if self.held_out is None:
            return loaded
        return loaded.with_held_out(self._read(self.held_out, f"{self.name}/held_out"))

    def _read(self, rows: Iterable[Mapping[str, Any]], name: str) -> Loaded:
        numbered = ((i, _mapping(row)) for i, row in enumerate(rows, 1))
        return read_tables(
            [(name, lambda choose: numbered)],
            self.columns,
            strict=self.strict,
            what=name,
        )


def _mapping(row: Any) -> Mapping[str, Any] | BadRow:
    if isinstance(row, Mapping):
        return row
    return BadRow(
        f"{type(row).__name__}, not a dict with prompt and answer", "not a dict"
    )


def read_tables(
    tables: Iterable[tuple[str, Any]], columns: Columns, *, strict: bool, what: str
) -> Loaded:
    """Make queries of tables: names, and functions from `columnar.Choose` to rows.

    Raises:
      OSError: if a file cannot be read.
      ValueError: if no row is usable or, under `strict`, any is not.
    """
    converter = _Converter(columns)
    loaded = collect(
        converter.tables(tables), converter.query, converter.queries, strict=strict
    )
    if not loaded.queries:
        first = loaded.problems[0] if loaded.problems else "it has no rows"
        raise ValueError(concise(f"{what!r} has no usable row: {first}"))
    reading = "; ".join(filter(None, (str(converter.columns), converter.note)))
    return dataclasses.replace(loaded, reading=reading)


class _Converter:
    """Columns, chosen anew for each table by its first row."""

    def __init__(self, columns: Columns):
        self._given = self.columns = columns
        self.note = ""

    def tables(self, tables: Iterable[tuple[str, Any]]) -> Iterator[Table]:
        for name, opened in tables:
            yield name, self._rows(opened(self._choose))

    def _choose(self, row: Mapping[str, Any]) -> Sequence[str]:
        self.columns = self._given.chosen(row)
        return self.columns.used()

    def _rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        first = []
        for number, row in rows:
            first.append((number, row))
            if not isinstance(row, BadRow):
                self._choose(row)
                self.note = self.note or self.columns.note(row)
                break
        return itertools.chain(first, rows)

    def query(self, row: Mapping[str, Any]) -> Any:
        return self.columns.query(row)

    def queries(self, rows: Sequence[Any]) -> Any:
        return self.columns.queries(rows)


def open_table(name: str) -> Any:
    """Return a function from `columnar.Choose` to the rows of a file."""
    if name.endswith(".parquet"):
        return lambda choose: read_parquet(name, choose)
    if name.endswith(".arrow"):
        return lambda choose: read_arrow(name, choose)
    if name.endswith(files.SUFFIXES):
        return lambda choose: read_jsonl(name)
    raise ValueError(unknown(name))


def unknown(name: str) -> str:
    """Return why a file of this name is not read, with the remedy."""
    remedy = "name the file so"
    if name.endswith((".csv", ".tsv", ".xlsx", ".txt", ".pkl")):
        remedy = "write it as one, by pandas' to_json(lines=True, orient='records')"
    return f"{name!r} ends in none of {', '.join(files.SUFFIXES)}: {remedy}"


def _name(path: str) -> str:
    return pathlib.PurePath(path).name
