"""Pass rates that were computed elsewhere, as a profile."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax.data import Query
from sgpo_jax.profiling.columns import COLUMNS
from sgpo_jax.profiling.measure import prompt_hash
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


def from_queries(
    queries: Sequence[Query], *, rate: str, samples: int | str, source: str
) -> Profile:
    """Return the profile behind pass rates that queries carry as metadata.

    Args:
      queries: with `metadata[rate]`, as `data.load(path, metadata=[rate])` reads them.
      rate: name of the pass rates; of a dotted one the last part.
      samples: number of samples behind each rate, or the name of it.
      source: where the rates come from.

    Raises:
      ValueError: naming the query whose rate or number is wrong.
    """
    ids = [query.id for query in queries]
    rates = [query.metadata.get(rate.rpartition(".")[2]) for query in queries]
    counts: int | list[int] = samples if isinstance(samples, int) else []
    if isinstance(samples, str):
        key = samples.rpartition(".")[2]
        try:
            counts = [int(query.metadata.get(key) or 0) for query in queries]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{samples!r} must hold whole numbers: {error}") from None
    found = from_rates(ids, rates, samples=counts, source=source)
    return dataclasses.replace(
        found,
        prompts=tuple(query.prompt for query in queries),
        prompt_hash=tuple(prompt_hash(query) for query in queries),
    )


def with_questions(profile: Profile, queries: Sequence[Query]) -> tuple[Profile, int]:
    """Return a profile in the order and under the ids of a run's questions.

    They are matched by id, else by the prompt. A question without a match has no
    samples, so that filters leave it out.

    Returns:
      The profile, and how many questions had no match.

    Raises:
      ValueError: if none has a match.
    """
    by_prompt = {p: row for row, p in enumerate(profile.prompt_hash) if p}
    rows = [
        profile.place.get(query.id, by_prompt.get(prompt_hash(query)))
        for query in queries
    ]
    known = [i for i, row in enumerate(rows) if row is not None]
    if not known:
        raise ValueError(
            f"none of {len(queries)} questions is in the profile: the first is"
            f" {queries[0].id!r}, the profile's {profile.ids[0]!r}; give the id column"
            " of the file, or a file with the same questions"
        )
    take = np.array([row for row in rows if row is not None], np.int64)
    columns = {}
    for name, column in COLUMNS.items():
        values = np.zeros(len(queries), column.dtype)
        values[known] = getattr(profile, name)[take]
        columns[name] = values
    found = Profile(
        ids=tuple(query.id for query in queries),
        prompts=tuple(query.prompt for query in queries),
        prompt_hash=tuple(prompt_hash(query) for query in queries),
        source=profile.source,
        cost=profile.cost,
        **columns,
    )
    return found, len(queries) - len(known)
