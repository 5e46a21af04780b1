"""Completions of training: a few of each step and evaluation, with their rewards."""

import pathlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sgpo_jax.data import Query
from sgpo_jax.profiling import completion_table, read_completions, write_completions
from sgpo_jax.profiling.completions import ORDER, SCHEMA, Part, Rewarded


class CompletionLog:
    """Keeps completions of training and of evaluations, in memory or as Parquet files.

    Of each step and each evaluation some completions, evenly spread, in the columns of
    `profiling.SCHEMA`. Files are named by the step up to which they reach: what a
    killed run does again takes the place of what it did before.

    Args:
      count: completions of each step and of each evaluation; 0 for none.
      method: label of the method.
      folder: of the files; None to keep rows in memory.
    """

    def __init__(
        self, count: int = 0, *, method: str = "", folder: pathlib.Path | None = None
    ):
        self.count, self._method, self._folder = count, method, folder
        self._kept: list[pa.Table] = []
        self._evaluated: list[tuple[Sequence[Query], Rewarded]] = []

    def train(self, step: int, queries: Sequence[Query], scored: Rewarded) -> None:
        """Keep some completions of a step of training."""
        if self.count and len(scored.rewards):
            self._kept.append(self._table(step, "train", queries, scored))

    def evaluation(self, queries: Sequence[Query], scored: Rewarded) -> None:
        """Keep some completions of an evaluation; `flush` says of which step."""
        if self.count:
            self._evaluated.append((queries, scored))

    def flush(self, step: int) -> None:
        """Write what was kept up to a step, before its checkpoint is written."""
        found = [self._table(step, "evaluation", *held) for held in self._evaluated]
        self._evaluated.clear()
        if self._folder is None:
            self._kept += found
            return
        _write(self._folder, step, "train", self._kept)
        _write(self._folder, step, "evaluation", found)
        self._kept.clear()

    def rewind(self, step: int) -> None:
        """Drop what belongs to later steps: they will be done again."""
        self._kept = [t for t in self._kept if t.column("step")[0].as_py() <= step]
        self._evaluated.clear()
        if self._folder is not None:
            _drop(self._folder, step)

    def table(self) -> pa.Table:
        """Return what is in memory, by step."""
        tables = self._kept or [SCHEMA.empty_table()]
        return pa.concat_tables(tables).sort_by(ORDER)

    def save(self, folder: pathlib.Path, step: int) -> None:
        """Write what is in memory as the files of a folder, up to a step."""
        _drop(folder, -1)
        parts = [(table.column("part")[0].as_py(), table) for table in self._kept]
        _write(folder, step, "train", [t for part, t in parts if part == "train"])
        for part, table in parts:
            if part == "evaluation":
                _write(folder, table.column("step")[0].as_py(), part, [table])

    def load(self, folder: pathlib.Path) -> None:
        """Take a folder's rows into memory.

        Raises:
          DamagedError: naming a file that is not what was written.
        """
        if not folder.exists():
            return
        rows = read_completions(folder)
        keys = rows.select(["step", "part"]).group_by(["step", "part"]).aggregate([])
        for key in keys.to_pylist():
            chosen = pc.field("step") == key["step"]
            chosen &= pc.field("part") == key["part"]
            self._kept.append(rows.filter(chosen))

    def _table(
        self, step: int, part: Part, queries: Sequence[Query], scored: Rewarded
    ) -> pa.Table:
        return completion_table(
            queries,
            scored,
            part=part,
            method=self._method,
            step=step,
            most=self.count,
        )


def _write(
    folder: pathlib.Path, step: int, part: Part, tables: Sequence[pa.Table]
) -> None:
    if tables:
        write_completions(tables, folder / f"{step:08d}-{part}.parquet")


def _drop(folder: pathlib.Path, step: int) -> None:
    """Delete the files that reach beyond a step."""
    for path in folder.glob("[0-9]*-*.parquet"):
        if int(path.name.partition("-")[0]) > step:
            path.unlink()
