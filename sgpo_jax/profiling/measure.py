"""Profiling in chunks: an interrupted measurement resumes bit for bit."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from sgpo_jax import streams
from sgpo_jax.data import Query, content_id
from sgpo_jax.hosts import ProcessGroup, SingleProcess
from sgpo_jax.ledger import Entry, Ledger
from sgpo_jax.models import Params
from sgpo_jax.profiling.columns import GRAIN
from sgpo_jax.profiling.completions import (
    completion_table,
    read_completions,
    write_completions,
)
from sgpo_jax.profiling.merging import merge
from sgpo_jax.profiling.profile import Profile
from sgpo_jax.rewards import SOLVED
from sgpo_jax.rollouts.generator import RewardedRollouts, SampleAndScore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunks:
    """Storage of finished chunks of a profile.

    Attributes:
      folder: one file per chunk.
      size: queries per chunk.
      hosts: the processes of the run; process 0 writes.
      completions: file of all responses with their rewards, written when the profile
        is whole; None keeps counts only.
    """

    folder: pathlib.Path
    size: int = 128
    hosts: ProcessGroup = SingleProcess()
    completions: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Some queries, the sample indices of each, and the files of their results."""

    queries: tuple[Query, ...]
    indices: tuple[range, ...]
    path: pathlib.Path

    @property
    def texts(self) -> pathlib.Path:
        return self.path.with_suffix(".completions.parquet")

    def read(self) -> Profile:
        return Profile.load(self.path)

    def is_sound(self, completions: bool) -> bool:
        """Return whether the chunk is there and undamaged; else it is made again."""
        try:
            self.read()
            if completions:
                read_completions(self.texts)
        except (OSError, ValueError):
            return False
        return True

    def write(self, profile: Profile, texts: pa.Table | None) -> None:
        # The profile comes last: a chunk counts only when all of it is there.
        if texts is not None:
            write_completions([texts], self.texts)
        profile.save(self.path)


def measure(
    rollouts: SampleAndScore,
    params: Params | None,
    queries: Sequence[Query],
    *,
    samples: int | Sequence[range],
    chunks: Chunks,
    source: dict[str, object],
    on_chunk: Callable[[int, int, Profile], None] | None = None,
    solved_at: float = SOLVED,
) -> Profile:
    """Sample queries and count their successes.

    Each chunk of queries is written to its folder before the next begins; calling again
    with the same arguments takes finished chunks from there, so that a killed run goes
    on where it was and ends with the same bits. Chunks of another `source` or of other
    queries are not reused. The noise of a sample depends on its index, so asking for
    indices 0..3 and then 4..7 and merging gives the profile of 0..7.

    Args:
      rollouts: sampler and verifiers.
      params: the policy to profile; None where the sampler has it.
      queries: what to profile; ids must be distinct.
      samples: samples per query N, or the range of sample indices of each query; those
        with an empty range are left out.
      chunks: where chunks are kept.
      source: identifies policy, sampling settings and verifier; stored with the
        profile, together with `solved_at`.
      on_chunk: called with queries done, queries in all, and the chunk's profile.
      solved_at: a sample is a success if its reward is at least this.

    Returns:
      The profile; its `cost` has that of chunks found on disk, too.

    Raises:
      ValueError: if there is nothing to sample, or nothing of the first chunk could be
        scored.
    """
    source = source | {"solved_at": solved_at}
    parts = _divide(queries, _indices(samples, len(queries)), chunks, source)
    hosts, keep_texts = chunks.hosts, chunks.completions is not None
    chunks.folder.mkdir(parents=True, exist_ok=True)
    found: list[Profile] = []
    done, total = 0, sum(len(part.queries) for part in parts)
    for part in parts:
        if hosts.broadcast(part.is_sound(keep_texts)):
            profile = part.read()
        else:
            scored = _sample(rollouts, params, part)
            profile = summarize(
                part.queries,
                scored,
                source,
                solved_at=solved_at,
                first=[indices.start for indices in part.indices],
            )
            prompts = [rollouts.tokenizer.encode_prompt(q.turns) for q in part.queries]
            lengths = [len(prompt) for prompt in prompts]
            profile = dataclasses.replace(profile, prompt_tokens=lengths)
            spent = Ledger()
            spent.add("profiling", scored.cost)
            spent.add("rewards", Entry(seconds=scored.scoring_seconds))
            profile = dataclasses.replace(profile, cost=spent.to_json())
            texts = completion_table(part.queries, scored) if keep_texts else None
            hosts.on_main_process(functools.partial(part.write, profile, texts))
        if not found and not profile.samples.any():
            raise ValueError(
                f"none of the first {int(profile.drawn.sum())} samples could be scored:"
                " the verifier failed on each; try it on one completion first"
            )
        found.append(profile)
        done += len(part.queries)
        if on_chunk:
            on_chunk(done, total, profile)
    if chunks.completions is not None:
        hosts.on_main_process(functools.partial(_join, parts, chunks.completions))
    return merge(found)


def summarize(
    queries: Sequence[Query],
    scored: RewardedRollouts,
    source: dict[str, object],
    *,
    solved_at: float = SOLVED,
    first: Sequence[int] = (),
) -> Profile:
    """Count samples, successes, rewards and tokens per query.

    Args:
      queries: what was sampled.
      scored: the samples with their rewards.
      source: identifies policy, sampling settings and verifier.
      solved_at: lowest reward of a success.
      first: index of the first sample of each query; 0 if not given.
    """
    rollouts, rewards = scored.rollouts, scored.rewards
    known = ~np.isnan(rewards)
    reward = np.round(np.where(known, rewards, 0) / GRAIN) * GRAIN
    squares = np.round(reward**2 / GRAIN) * GRAIN

    def per_query(values: np.ndarray) -> np.ndarray:
        return np.bincount(rollouts.request, values, minlength=len(queries))

    longest = np.zeros(len(queries), np.int64)
    np.maximum.at(longest, rollouts.request, rollouts.length)
    tokens = per_query(rollouts.length)
    seconds = scored.cost.seconds + scored.scoring_seconds
    return Profile(
        ids=tuple(query.id for query in queries),
        samples=per_query(known),
        # An unscorable sample compares False.
        successes=per_query(rewards >= solved_at),
        unscorable=per_query(~known),
        tokens=tokens,
        truncated=per_query(~rollouts.finished),
        longest=longest,
        first_sample=list(first) or np.zeros(len(queries)),
        reward_sum=per_query(reward),
        reward_squares=per_query(squares),
        seconds=seconds * tokens / max(tokens.sum(), 1),
        prompt_hash=tuple(prompt_hash(query) for query in queries),
        prompts=tuple(query.prompt for query in queries),
        source=source,
    )


def prompt_hash(query: Query) -> str:
    """Return a hash of what the policy reads: the prompt, or all turns."""
    turns = query.turns
    if isinstance(turns, str):
        return content_id(turns)
    return content_id(*(part for turn in turns for part in turn))


def _indices(samples: int | Sequence[range], count: int) -> list[range]:
    if isinstance(samples, int):
        if samples < 1:
            raise ValueError(f"samples per query must be at least 1, got {samples}")
        return [range(samples)] * count
    if len(samples) != count or any(indices.step != 1 for indices in samples):
        raise ValueError(f"samples must hold one range of step 1 for {count} queries")
    return list(samples)


def _divide(
    queries: Sequence[Query],
    indices: Sequence[range],
    chunks: Chunks,
    source: dict[str, object],
) -> list[_Chunk]:
    some = [pair for pair in zip(queries, indices, strict=True) if len(pair[1])]
    if not some:
        raise ValueError("there is no query to profile")
    parts = []
    for start in range(0, len(some), chunks.size):
        mine, ranges = zip(*some[start : start + chunks.size], strict=True)
        what = [
            [q.id, prompt_hash(q), r.start, r.stop]
            for q, r in zip(mine, ranges, strict=True)
        ]
        content = json.dumps([what, source], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:16]
        parts.append(_Chunk(mine, ranges, chunks.folder / f"{name}.parquet"))
    return parts


def _sample(
    rollouts: SampleAndScore, params: Params | None, part: _Chunk
) -> RewardedRollouts:
    counts = [len(indices) for indices in part.indices]
    first = [indices.start for indices in part.indices]
    if not any(first):
        return rollouts(params, part.queries, counts, step=streams.PROFILE)
    return rollouts(
        params, part.queries, counts, step=streams.PROFILE, first_sample=first
    )


def _join(parts: Sequence[_Chunk], path: pathlib.Path) -> None:
    """Write the completions of all chunks as one file, holding one in memory."""
    write_completions((read_completions(part.texts) for part in parts), path)
