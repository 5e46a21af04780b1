"""Profiles of shards, and of further samples, put together."""

from collections.abc import Collection, Iterable

import numpy as np

from sgpo_jax.ledger import Ledger
from sgpo_jax.profiling.columns import COLUMNS, PLACE, TEXTS, differences
from sgpo_jax.profiling.profile import Profile


def merge(profiles: Iterable[Profile], *, ignore: Collection[str] = ()) -> Profile:
    """Add up profiles of disjoint queries, or further samples of the same ones.

    Raises:
      ValueError: if there is none, if sources differ (but for `ignore`), if a query has
        another prompt, or if samples of one seed overlap or leave a gap.
    """
    parts = list(profiles)
    if not parts:
        raise ValueError("there is no profile to merge")
    first, ids = parts[0], dict[str, int]()
    for part in parts:
        differ = differences(first.source, part.source)
        differ = {k: v for k, v in differ.items() if k not in {*PLACE, *ignore}}
        if differ:
            told = "; ".join(f"{name}: {values}" for name, values in differ.items())
            raise ValueError(
                f"profiles of different sources do not add up: {told}; profile again,"
                " or name what may differ"
            )
        for id_ in part.ids:
            ids.setdefault(id_, len(ids))
    columns = {name: np.zeros(len(ids), col.dtype) for name, col in COLUMNS.items()}
    texts = {name: np.full(len(ids), "", object) for name in TEXTS}
    seen = np.zeros(len(ids), bool)
    for part in parts:
        rows = np.array([ids[id_] for id_ in part.ids], np.int64)
        old = seen[rows]
        own = np.flatnonzero(old)
        _check_same(part, columns, texts["prompt_hash"], rows[old], own)
        # A query that was never drawn has no first sample.
        drawn = columns["samples"][rows] + columns["unscorable"][rows] > 0
        for name, column in COLUMNS.items():
            into, values = columns[name], getattr(part, name)
            both = column.add(into[rows], values)
            if name == "first_sample":
                both = np.where(part.drawn == 0, into[rows], both)
                both = np.where(drawn, both, values)
            into[rows] = np.where(old, both, values)
        for name, known in texts.items():
            new = np.asarray(getattr(part, name), object)
            known[rows] = np.where(new == "", known[rows], new)
        seen[rows] = True
    cost = Ledger()
    for part in parts:
        cost.update(Ledger(part.cost))
    return Profile(
        ids=tuple(ids),
        prompt_hash=tuple(texts["prompt_hash"]),
        prompts=tuple(texts["prompts"]),
        source=first.source,
        cost=cost.to_json(),
        **columns,
    )


def _check_same(
    part: Profile,
    columns: dict[str, np.ndarray],
    hashes: np.ndarray,
    rows: np.ndarray,
    own: np.ndarray,
) -> None:
    """Refuse another prompt under the same id, and samples that are counted twice."""
    for row, mine in zip(rows.tolist(), own.tolist(), strict=True):
        known, new = hashes[row], part.prompt_hash[mine]
        if known and new and known != new:
            raise ValueError(f"query {part.ids[mine]!r} has another prompt in each")
    if "seed" not in part.source:
        return
    start = columns["first_sample"][rows]
    end = start + columns["samples"][rows] + columns["unscorable"][rows]
    begin = part.first_sample[own]
    finish = begin + part.drawn[own]
    empty = (start == end) | (begin == finish)
    bad = np.flatnonzero(~empty & (begin != end) & (finish != start))
    if bad.size:
        i = int(bad[0])
        raise ValueError(
            f"samples {start[i]} to {end[i] - 1} and {begin[i]} to {finish[i] - 1} of"
            f" query {part.ids[own[i]]!r} do not follow each other; samples of one seed"
            " count once and leave no gap"
        )
