"""Host loop of one call of the sampler."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Int

from sgpo_jax import models
from sgpo_jax.sampling import cache
from sgpo_jax.sampling.grid import Grid, NoiseSeed, Queue, State, TokenBuffer
from sgpo_jax.sampling.methods import DecodingStrategy
from sgpo_jax.sampling.orders import LengthStats, Order
from sgpo_jax.sampling.programs import SamplerPrograms
from sgpo_jax.sampling.requests import (
    OnFinished,
    Request,
    Rollouts,
    SampleProgress,
    Stats,
)
from sgpo_jax.sampling.schedule import Backlog, Portion, Written, shares
from sgpo_jax.sampling.slots import FREE, Items


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listeners:
    """Callbacks after every run of the decode program.

    Attributes:
      progress: with how far the call is.
      finished: with the rollouts that ended.
    """

    progress: Callable[[SampleProgress], None] | None = None
    finished: OnFinished | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staging:
    """Staging of prompts: order, prefill batch and chunk sizes.

    Attributes:
      order: which go first.
      prompts: prompts encoded ahead of the decode loop, per shard.
      block: prompts encoded by one run of the prefill program, per shard.
      chunk: prompt tokens encoded at once; None for all.
    """

    order: Order
    prompts: int
    block: int
    chunk: int | None


class SampleCall:
    """One call of `Engine.sample`: the work, and what came of it so far.

    A rollout's id is its place in the result.
    """

    def __init__(
        self,
        *,
        programs: SamplerPrograms,
        params: models.Params,
        requests: Sequence[Request],
        noise: tuple[int, int],
        strategy: DecodingStrategy,
        staging: Staging,
        longest: int,
        listeners: Listeners,
    ):
        self.programs, self.params, self.requests = programs, params, requests
        self.noise = NoiseSeed(*jax.device_put([np.uint32(number) for number in noise]))
        self.strategy, self.staging, self.listeners = strategy, staging, listeners
        samples = [r.samples for r in requests]
        self.first_id = np.cumsum([0, *samples]).astype(np.int32)
        self.request_of = np.repeat(np.arange(len(samples), dtype=np.int32), samples)
        self.seen = _nothing_seen(requests)
        self.begun = np.zeros(len(self.request_of), bool)
        self.written = Written(len(self.request_of), longest)
        self.work = dict.fromkeys(
            (
                "prefill_tokens",
                "prefill_padded",
                "decode_tokens",
                "decode_padded",
                "decode_steps",
                "queued_steps",
            ),
            0,
        )
        self.started = time.perf_counter()

    def sample(self, members: Sequence[int], grid: Grid) -> None:
        """Sample the requests `members`, whose prompts fit the grid."""
        shards = self.programs.shards
        rank = self.staging.order(self.seen)
        first = sorted(members, key=lambda member: rank[member])
        backlogs = [
            Backlog(
                self.requests,
                np.array(share, np.int64),
                lanes=grid.lanes // shards,
                least=-(-grid.slots // grid.prefixes_per_lane),
                capacity=self.staging.prompts,
            )
            for share in shares(self.requests, first, shards)
        ]
        state, table = self.programs.start(grid, self.staging.prompts)
        while any(len(backlog.waiting) for backlog in backlogs):
            rank = self.staging.order(self.seen)
            now = [backlog.take(rank) for backlog in backlogs]
            table = self._prefill(table, now)
            queue = Queue(
                self._items(now, grid.response),
                table,
                *self.programs.put(
                    (
                        np.zeros(shards, np.int32),
                        np.array([len(stage) for stage in now], np.int32),
                        np.array([len(b.waiting) > 0 for b in backlogs]),
                    )
                ),
            )
            state = self._decode(state, queue, grid)

    def _decode(self, state: State, queue: Queue, grid: Grid) -> State:
        """Run until every shard is done or needs its next stage."""
        while True:
            state, buffer = self.programs.decode(
                self.params,
                state,
                queue,
                self.noise,
                self.programs.placed_ending,
                grid=grid,
                strategy=self.strategy,
            )
            if self._read(buffer, state.slots.id) < grid.steps:
                return state
            queue = queue._replace(cursor=buffer.cursor)

    def _prefill(
        self, table: cache.Cache, stage: Sequence[Sequence[Portion]]
    ) -> cache.Cache:
        """Encode the prompts of each shard's stage into its rows of the table."""
        shards, staged = len(stage), self.staging.prompts
        tokens = np.zeros((shards, staged, table.key.values.shape[3]), np.int32)
        rows, longest_in = 0, [0] * staged
        for shard, share in enumerate(stage):
            members = list(dict.fromkeys(portion.request for portion in share))
            rows = max(rows, len(members))
            for row, member in enumerate(members):
                prefix = self.requests[member].prompt[:-1]
                tokens[shard, row, : len(prefix)] = prefix
                longest_in[row] = max(longest_in[row], len(prefix))
                self.work["prefill_tokens"] += len(prefix)
        prompts, chunk = self.staging.block, self.staging.chunk
        width = chunk or tokens.shape[2]
        for row in range(0, rows, prompts):
            block = tokens[:, row : row + prompts].reshape(shards * prompts, -1)
            longest = max(longest_in[row : row + prompts])
            for start in range(0, max(longest, 1) if chunk else width, width):
                now = block[:, start : start + width]
                table = self.programs.prefill(
                    self.params,
                    table,
                    self.programs.put(now),
                    *jax.device_put((np.int32(row), np.int32(start))),
                    chunked=chunk is not None,
                )
                self.work["prefill_padded"] += now.size
        return table

    def _items(self, stage: Sequence[Sequence[Portion]], response: int) -> Items:
        """Return each shard's portions, in arrays of static length."""
        fields = np.zeros(
            (len(stage), self.staging.prompts, len(Items._fields)), np.int64
        )
        for shard, share in enumerate(stage):
            rows: dict[int, int] = {}
            for place, portion in enumerate(share):
                request = self.requests[portion.request]
                first = int(self.first_id[portion.request])
                fields[shard, place] = (
                    rows.setdefault(portion.request, len(rows)),
                    len(request.prompt) - 1,
                    request.prompt[-1],
                    request.key,
                    first + portion.first,
                    first + portion.first + portion.count,
                    request.first_sample - first,
                    request.budget or response,
                    response if request.thinking is None else request.thinking,
                )
        table = fields.reshape(-1, len(Items._fields)).astype(np.int32)
        columns: dict[str, np.ndarray] = dict(zip(Items._fields, table.T, strict=True))
        columns["key"] = columns["key"].view(np.uint32)
        return Items(**self.programs.put(columns))

    def _read(self, buffer: TokenBuffer, running: Array) -> int:
        """Copy the buffer to the host; return the steps of the busiest shard."""
        counts, in_slots = np.asarray(buffer.steps), np.asarray(running)
        steps = int(counts.max())
        ids, token = np.asarray(buffer.id)[:steps], np.asarray(buffer.token)[:steps]
        score = np.moveaxis(np.asarray(buffer.score)[:steps], 1, -1)
        written = ids != FREE
        self.written.append(ids[written], token[written], score[written])
        self.work["decode_padded"] += int(counts.sum()) * (in_slots.size // len(counts))
        self.work["queued_steps"] += self._queued_steps(ids)
        in_slots = in_slots[in_slots != FREE]
        count = np.zeros_like(self.seen.tokens)
        np.add.at(count, self.request_of[ids[written]], 1)
        ended = np.setdiff1d(ids[written], in_slots)
        self.seen = dataclasses.replace(
            self.seen,
            tokens=self.seen.tokens + count,
            ended=self.seen.ended
            + np.bincount(self.request_of[ended], minlength=len(count)),
        )
        self.work["decode_tokens"] += int(written.sum())
        self.work["decode_steps"] += steps
        if self.listeners.finished is not None and len(ended):
            rows = zip(ended, self.written.length[ended], strict=True)
            self.listeners.finished(
                ended, [self.written.tokens[i, :length].tolist() for i, length in rows]
            )
        if self.listeners.progress is not None:
            self.listeners.progress(
                SampleProgress(
                    ended=int(self.seen.ended.sum()),
                    total=int(self.first_id[-1]),
                    tokens=self.work["decode_tokens"],
                    occupancy=self.work["decode_tokens"]
                    / max(self.work["decode_padded"], 1),
                    seconds=time.perf_counter() - self.started,
                )
            )
        return steps

    def _queued_steps(self, ids: Int[np.ndarray, "steps lanes slots"]) -> int:
        """Add up, over samples that begin now, the steps before their first token."""
        step, *_ = np.nonzero(ids != FREE)
        found, first = np.unique(ids[ids != FREE], return_index=True)
        new = ~self.begun[found]
        self.begun[found] = True
        return int((self.work["decode_steps"] + step[first])[new].sum())

    def rollouts(self) -> Rollouts:
        """Return the result, in order."""
        total, written = len(self.request_of), self.written
        request = self.request_of
        shift = np.array([r.first_sample for r in self.requests]) - self.first_id[:-1]
        return Rollouts(
            request=request,
            sample=(np.arange(total) + shift[request]).astype(np.int32),
            tokens=written.tokens,
            length=written.length.astype(np.int32),
            log_prob=written.scores[:, :, 0],
            log_prob_at_one=written.scores[:, :, 1],
            support_mass=written.scores[:, :, 2],
            finish=self.programs.ending.finish(written.tokens, written.length),
            stats=Stats(**self.work, seconds=time.perf_counter() - self.started),
        )


def _nothing_seen(requests: Sequence[Request]) -> LengthStats:
    """Return what is known of requests before the first token."""

    def column(values: Sequence[float | int | None], unknown: float) -> np.ndarray:
        return np.array([unknown if v is None else v for v in values], np.float64)

    nothing = np.zeros(len(requests), np.int64)
    return LengthStats(
        prompt=np.array([len(r.prompt) for r in requests], np.int64),
        expected=column([r.expected_length for r in requests], np.nan),
        budget=column([r.budget for r in requests], np.inf),
        tokens=nothing,
        ended=nothing,
    )
