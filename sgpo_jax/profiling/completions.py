"""Completions with their rewards as tables: of profiles, training and evaluations."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax.artefacts import DamagedError
from sgpo_jax.data import Query
from sgpo_jax.sampling import Rollouts

Part = Literal["profile", "train", "evaluation"]
"""Stage that sampled the completions."""

SCHEMA = pa.schema(
    {
        "method": pa.string(),
        "part": pa.string(),
        "step": pa.int64(),
        "id": pa.string(),
        "sample": pa.int64(),
        "prompt": pa.string(),
        "reference": pa.string(),
        "completion": pa.string(),
        "reward": pa.float64(),
        "tokens": pa.int64(),
        "truncated": pa.bool_(),
    }
)
"""Columns of completions: method and `Part` they belong to, step of training, id of the
query, index of the sample, question, right answer, response, reward (null where it
could not be scored), tokens of the response, whether the token budget cut it."""

ORDER = [("step", "ascending"), ("part", "descending")]
"""Order of rows: those of a step before its evaluation, else as they were sampled."""


@runtime_checkable
class Rewarded(Protocol):
    """Rollouts with one text and one reward each."""

    @property
    def rollouts(self) -> Rollouts:
        """Tokens and lengths; `request` is the place of the query."""
        ...

    @property
    def texts(self) -> list[str]:
        """Decoded completions."""
        ...

    @property
    def rewards(self) -> np.ndarray:
        """One of each rollout; NaN where unscorable."""
        ...


def completion_table(
    queries: Sequence[Query],
    scored: Rewarded,
    *,
    part: Part = "profile",
    method: str = "",
    step: int = 0,
    most: int | None = None,
) -> pa.Table:
    """Completions as rows of `SCHEMA`, a row each.

    Args:
      queries: what was asked.
      scored: the completions.
      part: what they were sampled for.
      method: label of the method; empty for none.
      step: of training.
      most: rows, evenly spread over all; None for all of them.
    """
    rollouts, total = scored.rollouts, len(scored.rewards)
    count = total if most is None else min(most, total)
    rows = np.arange(count) * total // max(count, 1)
    asked = [queries[i] for i in rollouts.request[rows].tolist()]
    rewards = [float(r) if np.isfinite(r) else None for r in scored.rewards[rows]]
    columns = {
        "method": [method] * count,
        "part": [part] * count,
        "step": [step] * count,
        "id": [query.id for query in asked],
        "sample": rollouts.sample[rows].tolist(),
        "prompt": [query.prompt for query in asked],
        "reference": [query.reference for query in asked],
        "completion": [scored.texts[row] for row in rows.tolist()],
        "reward": rewards,
        "tokens": rollouts.length[rows].tolist(),
        "truncated": (~rollouts.finished[rows]).tolist(),
    }
    return pa.table(columns, schema=SCHEMA)


def write_completions(tables: Iterable[pa.Table], path: pathlib.Path) -> None:
    """Write tables as one Parquet file with a checksum per page; whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "completions.parquet"
    ...     write_completions([SCHEMA.empty_table()], path)
    ...     read_completions(path).num_rows
    0
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pq.ParquetWriter(temporary, SCHEMA, write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)
    os.replace(temporary, path)


def read_completions(path: str | pathlib.Path) -> pa.Table:
    """Completions that a profile, a run or a trainer has kept, as one table.

    Args:
      path: `completions.parquet` of a profile, `methods/NAME/completions` of a run, or
        a file of that folder.

    Returns:
      Rows of `SCHEMA`, by step; pandas by `Table.to_pandas`.

    Raises:
      FileNotFoundError: if there is none.
      DamagedError: naming a file that is not what was written.
    """
    path = pathlib.Path(path).expanduser()
    files = sorted(path.glob("[!.]*.parquet")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path} holds no completions (*.parquet)")
    tables = [_read(file) for file in files]
    return pa.concat_tables(tables).sort_by(ORDER)


def _read(path: pathlib.Path) -> pa.Table:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if table.schema.remove_metadata() != SCHEMA:
            raise ValueError(f"its columns are {', '.join(table.column_names)[:200]}")
        table.validate(full=True)
    except FileNotFoundError:
        raise
    # pyarrow reports some damages as OSError.
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(
            f"{path} is damaged: {reason}; delete it, or put it back"
        ) from None
    return table
