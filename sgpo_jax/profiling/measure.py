"""Profile a set of queries, in chunks that survive a kill."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from sgpo_jax.data import Query
from sgpo_jax.hosts import Alone, Hosts
from sgpo_jax.ledger import Entry, Ledger
from sgpo_jax.models import Params
from sgpo_jax.profiling.profile import Profile
from sgpo_jax.profiling.scored import SampleAndScore, Scored

SUCCESS = 1.0
"""A sample is a success if its reward is at least this."""


def summarize(
    queries: Sequence[Query], scored: Scored, source: dict[str, object]
) -> Profile:
    """Count samples and successes per query."""
    rollouts, rewards = scored.rollouts, scored.rewards
    known = ~np.isnan(rewards)

    def per_query(values: np.ndarray) -> np.ndarray:
        counts = np.bincount(rollouts.request, values, minlength=len(queries))
        return counts.astype(np.int64)

    return Profile(
        ids=tuple(query.id for query in queries),
        samples=per_query(known),
        # An unscorable sample compares False.
        successes=per_query(rewards >= SUCCESS),
        unscorable=per_query(~known),
        tokens=per_query(rollouts.length),
        truncated=per_query(~rollouts.finished),
        source=source,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunks:
    """Where finished parts of a profile are kept.

    Attributes:
      folder: one file per chunk.
      size: queries per chunk.
      hosts: the processes of the run; process 0 writes.
    """

    folder: pathlib.Path
    size: int = 128
    hosts: Hosts = Alone()


def measure(
    rollouts: SampleAndScore,
    params: Params,
    queries: Sequence[Query],
    *,
    samples: int,
    chunks: Chunks,
    source: dict[str, object],
    on_chunk: Callable[[int, int, Profile], None] | None = None,
) -> tuple[Profile, Ledger]:
    """Sample every query and count its successes.

    Each chunk of queries is written to its folder before the next begins; calling again
    with the same arguments takes finished chunks from there, so that a killed run goes
    on where it was and ends with the same bits. Chunks of another `source` or of other
    queries are not reused.

    Args:
      rollouts: sampler and verifiers.
      params: the policy to profile.
      queries: what to profile; ids must be distinct.
      samples: samples per query, N.
      chunks: where chunks are kept.
      source: identifies the policy and settings; stored with the profile.
      on_chunk: called with queries done, queries in all, and the chunk's profile.

    Returns:
      The profile, and what it cost in all, chunks found on disk included.
    """
    if samples < 1:
        raise ValueError(f"samples per query must be at least 1, got {samples}")
    hosts, chunk = chunks.hosts, chunks.size
    chunks.folder.mkdir(parents=True, exist_ok=True)
    total: Profile | None = None
    costs = Ledger()
    for start in range(0, len(queries), chunk):
        part = queries[start : start + chunk]
        path = chunks.folder / f"{_chunk_name(part, samples, source)}.parquet"
        note = path.with_suffix(".json")
        if hosts.tell(_sound(path, note)):
            profile, spent = _read(path, note)
        else:
            scored = rollouts(params, part, [samples] * len(part), step=0)
            profile, spent = summarize(part, scored, source), Ledger()
            spent.add("profiling", scored.cost)
            spent.add("scoring", Entry(seconds=scored.scoring_seconds))
            hosts.lead(functools.partial(_keep, profile, spent, path, note))
        total = profile if total is None else total.merge(profile)
        costs.update(spent)
        if on_chunk:
            on_chunk(min(start + chunk, len(queries)), len(queries), profile)
    if total is None:
        raise ValueError("there is no query to profile")
    return total, costs


def _read(path: pathlib.Path, note: pathlib.Path) -> tuple[Profile, Ledger]:
    return Profile.load(path), Ledger(json.loads(note.read_text()))


def _sound(path: pathlib.Path, note: pathlib.Path) -> bool:
    """Tell whether a chunk is there and undamaged; otherwise it is made again."""
    try:
        _read(path, note)
    except (OSError, ValueError):
        return False
    return True


def _keep(
    profile: Profile, spent: Ledger, path: pathlib.Path, note: pathlib.Path
) -> None:
    # The note comes first: a chunk counts only when its profile is there.
    note.write_text(json.dumps(spent.to_json()))
    profile.save(path)


def _chunk_name(part: Sequence[Query], samples: int, source: dict[str, object]) -> str:
    content = json.dumps([[q.id for q in part], samples, source], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
