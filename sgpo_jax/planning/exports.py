"""Profiles and plans as columns of data sets that other frameworks read."""

import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax.data import DATA_SOURCES, Query
from sgpo_jax.planning.plan import Plan
from sgpo_jax.profiling import Profile

Layout = Literal["trl", "verl", "prime-rl", "datasets"]
COLUMNS = ("pass_rate", "profile_samples", "group_size", "phase")


def plan_table(plan: Plan) -> pa.Table:
    """Return one row per query and phase: id, group_size, phase (from 1)."""
    ids = [id_ for phase in plan.phases for id_ in phase.ids]
    sizes = [size for phase in plan.phases for size in phase.sizes]
    phases = [i + 1 for i, phase in enumerate(plan.phases) for _ in phase.ids]
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "group_size": pa.array(sizes, pa.int64()),
            "phase": pa.array(phases, pa.int64()),
        }
    )


def add_columns(
    table: pa.Table, ids: Sequence[str], profile: Profile, plan: Plan | None = None
) -> pa.Table:
    """Add `pass_rate`, `profile_samples` and, with a plan, `group_size` and `phase`.

    The columns there are stay as they are, nested ones included. Queries that the plan
    leaves out have group size and phase 0; one of several phases has its first. Queries
    without a profile have null.

    Args:
      table: one row per query.
      ids: query id of each row.
      profile: source of pass rates.
      plan: source of group sizes and phases.

    Raises:
      ValueError: if the table has such a column already, or no id is in the profile.
    """
    names = COLUMNS if plan else COLUMNS[:2]
    taken = [name for name in names if name in table.column_names]
    if taken:
        raise ValueError(f"the table has a column {taken[0]!r} already; rename it")
    rows = [profile.place.get(id_) for id_ in ids]
    if len(rows) and all(row is None for row in rows):
        raise ValueError(
            f"none of {len(rows)} rows is in the profile (the first id is {ids[0]!r},"
            f" the profile's {next(iter(profile.ids), None)!r}): other data or ids?"
        )
    rate, samples = profile.success_rate, profile.samples
    rates = [None if r is None or np.isnan(rate[r]) else float(rate[r]) for r in rows]
    counts = [None if r is None else int(samples[r]) for r in rows]
    table = table.append_column("pass_rate", pa.array(rates, pa.float64()))
    table = table.append_column("profile_samples", pa.array(counts, pa.int64()))
    if plan is None:
        return table
    first: dict[str, tuple[int, int]] = {}
    for i, phase in enumerate(plan.phases):
        for id_, size in zip(phase.ids, phase.sizes, strict=True):
            first.setdefault(id_, (size, i + 1))
    pairs = [first.get(id_, (0, 0)) for id_ in ids]
    for place, name in enumerate(("group_size", "phase")):
        values = pa.array([pair[place] for pair in pairs], pa.int64())
        table = table.append_column(name, values)
    return table


def dataset(
    queries: Sequence[Query],
    profile: Profile,
    plan: Plan | None = None,
    *,
    layout: Layout = "trl",
) -> pa.Table:
    """Return queries with pass rates and group sizes in a framework's layout.

    * "trl": `prompt` as messages, `solution`, read by TRL's GRPOTrainer.
    * "verl": `data_source`, `prompt`, `ability`, `reward_model`, `extra_info`, as
      verl's RLHFDataset reads them. It chooses its reward by `data_source`:
      `openai/gsm8k` where the verifier is `gsm8k`, else the family of the query; give
      verl a function for others.
    * "prime-rl": `question`, `answer`, `info`, as environments of verifiers read them.
    * "datasets": flat columns, for any reader: `id`, `prompt`, `answer`, `verifier`,
      `family` and `level`.
    """
    make = {"trl": _trl, "verl": _verl, "prime-rl": _prime, "datasets": _flat}[layout]
    table = pa.Table.from_pylist([make(i, query) for i, query in enumerate(queries)])
    return add_columns(table, [query.id for query in queries], profile, plan)


def annotate(
    path: pathlib.Path,
    ids: Sequence[str],
    profile: Profile,
    plan: Plan | None = None,
    *,
    out: pathlib.Path,
) -> None:
    """Write a copy of a Parquet file with the columns of `add_columns` added."""
    table = pq.read_table(path)
    if len(ids) != len(table):
        raise ValueError(f"{path} has {len(table)} rows, but {len(ids)} ids were given")
    pq.write_table(add_columns(table, ids, profile, plan), out)


def _messages(query: Query) -> list[dict[str, str]]:
    turns = query.messages or (("user", query.prompt),)
    return [{"role": role, "content": content} for role, content in turns]


def _trl(index: int, query: Query) -> dict[str, Any]:
    del index
    return {"id": query.id, "prompt": _messages(query), "solution": query.reference}


# Of several names the first: verl scores "math" by another format than ours.
_VERL_SOURCES = {verifier: name for name, verifier in [*DATA_SOURCES.items()][::-1]}


def _verl(index: int, query: Query) -> dict[str, Any]:
    return {
        "data_source": _VERL_SOURCES.get(query.verifier)
        or query.family
        or query.verifier,
        "prompt": _messages(query),
        "ability": query.family or "math",
        "reward_model": {"style": "rule", "ground_truth": query.reference},
        "extra_info": {"id": query.id, "index": index, "split": "train"},
    }


def _prime(index: int, query: Query) -> dict[str, Any]:
    del index
    info = {"id": query.id, "verifier": query.verifier}
    return {"question": query.prompt, "answer": query.reference, "info": info}


def _flat(index: int, query: Query) -> dict[str, Any]:
    del index
    return {
        "id": query.id,
        "prompt": query.prompt,
        "answer": query.reference,
        "verifier": query.verifier,
        "family": query.family,
        "level": query.level,
    }
