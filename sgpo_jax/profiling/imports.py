"""Pass rates that were computed elsewhere, as a profile."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax.profiling.profile import Profile


def from_rates(
    ids: Sequence[str],
    rates: Sequence[Any],
    *,
    samples: int | Sequence[int],
    source: str,
) -> Profile:
    """Return the profile behind published pass rates.

    A rate is turned back into successes, k = round(rate x n). A rate that is null or
    NaN leaves its query without samples.

    Args:
      ids: query ids.
      rates: pass rates in [0, 1].
      samples: samples n behind each rate. Where n is not known, say what the rate is
        worth: a guess of 8 is modest, and posteriors stay as wide as it says.
      source: where the rates come from; stored with the profile.

    Raises:
      ValueError: naming the query whose rate is no share of whole samples.

    Example:
      >>> from_rates(["a", "b"], [0.25, None], samples=8, source="set").successes
      array([2, 0])
    """
    count = np.broadcast_to(np.asarray(samples, np.int64), (len(ids),)).copy()
    if (count < 0).any():
        raise ValueError(f"samples must be at least 0, got {int(count.min())}")
    try:
        rate = np.array([np.nan if r is None else float(r) for r in rates])
    except (TypeError, ValueError) as error:
        raise ValueError(f"pass rates must be numbers: {error}") from None
    if rate.shape != count.shape:
        raise ValueError(f"{len(ids)} ids and {len(rate)} rates do not go together")
    known = ~np.isnan(rate)
    bad = np.flatnonzero(known & ~((rate >= 0) & (rate <= 1)))
    if bad.size:
        raise ValueError(
            f"the pass rate of {ids[bad[0]]!r} is {rate[bad[0]]}, not a share in [0,"
            " 1]; divide percentages by 100"
        )
    count[~known] = 0
    successes = np.round(np.where(known, rate, 0) * count).astype(np.int64)
    return Profile(
        ids=tuple(ids),
        samples=count,
        successes=successes,
        source={"policy": "unknown", "imported": source},
    )


def read_rates(
    path: pathlib.Path,
    *,
    id: str = "id",
    rate: str = "pass_rate",
    samples: int | str = 8,
) -> Profile:
    """Read pass rates from columns of a Parquet or JSONL file.

    Args:
      path: of the file.
      id: column of the query ids; dotted names go into structs.
      rate: column of the pass rates.
      samples: number of samples behind each rate, or the column that holds it.

    Raises:
      ValueError: if the file or a column cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            import pyarrow.json

            table = pyarrow.json.read_json(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is neither Parquet nor JSONL: {error}") from None
    ids = [str(value) for value in _column(table, id, path)]
    counts = _column(table, samples, path) if isinstance(samples, str) else samples
    return from_rates(ids, _column(table, rate, path), samples=counts, source=path.name)


def _column(table: pa.Table, name: str, path: pathlib.Path) -> list:
    flat = table
    while name not in flat.column_names and any(
        pa.types.is_struct(field.type) for field in flat.schema
    ):
        flat = flat.flatten()
    if name not in flat.column_names:
        there = ", ".join(map(repr, flat.column_names))
        raise ValueError(f"{path} has no column {name!r}; there are {there}")
    return flat[name].to_pylist()
