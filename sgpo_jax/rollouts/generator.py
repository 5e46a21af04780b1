"""Rollouts with their rewards: what profiling, training and evaluation all need."""

import dataclasses
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sgpo_jax import ledger
from sgpo_jax.data import Query
from sgpo_jax.models import DecoderConfig, Params, Tokenizer
from sgpo_jax.rewards import SOLVED, HackingSigns, Worker, watch
from sgpo_jax.sampling import (
    DecodingStrategy,
    Engine,
    Request,
    Rollouts,
    SampleProgress,
    Temperature,
)


def _placed(values: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Return values that came in another order, in that of the rollouts."""
    placed = np.empty_like(values)
    placed[list(order)] = values
    return placed


def query_key(query: Query) -> int:
    """Return the stable 32-bit key that seeds a query's sampling noise."""
    return zlib.crc32(query.id.encode())


def watched(
    worker: Worker,
    rollouts: Rollouts,
    texts: Sequence[str],
    rewards: np.ndarray,
    asked: Sequence[Query],
    parts: Mapping[str, np.ndarray],
) -> HackingSigns:
    """Look for signs of hacking, with the worker's second verifier if it has one.

    Args:
      worker: that gave the rewards.
      rollouts: what was scored.
      texts: completions, as all that follows one of each rollout.
      rewards: NaN where there is none.
      asked: the query of each.
      parts: rewards of a weighted sum's parts.
    """
    return watch(
        texts,
        rewards,
        prompts=[query.prompt for query in asked],
        finished=rollouts.finished,
        solved=worker.solved_at,
        second=worker.second_opinion(texts, asked, rewards),
        parts=parts,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardedRollouts:
    """Rollouts of some queries, with a reward each.

    Attributes:
      rollouts: tokens, lengths and log-probabilities; `rollouts.request` indexes the
        queries given.
      rewards: reward of each rollout; NaN where it could not be scored, to which an
        infinite one is turned.
      texts: decoded completions.
      cost: what sampling them cost.
      scoring_seconds: time spent waiting for verifiers after the last sample.
      scoring_queue: completions that waited for a verifier, the mean over that time.
      solved_at: reward from which a completion solves its query.
      watch: signs of hacking among rewarded completions, and means of weighted sums'
        parts.
    """

    rollouts: Rollouts
    rewards: np.ndarray
    texts: list[str]
    cost: ledger.Entry
    scoring_seconds: float
    scoring_queue: float
    solved_at: float = SOLVED
    watch: HackingSigns = HackingSigns()

    def __post_init__(self):
        # Later an infinite reward would compare as a success or be clipped to one.
        finite = np.isfinite(self.rewards)
        object.__setattr__(self, "rewards", np.where(finite, self.rewards, np.nan))

    @property
    def solved(self) -> np.ndarray:
        """True for rollouts that solve their query, [R]; an unscorable one does not."""
        return self.rewards >= self.solved_at


@runtime_checkable
class SampleAndScore(Protocol):
    """Anything that gives scored rollouts of queries; see `RolloutGenerator`."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        ...

    def __call__(
        self,
        params: Any,
        queries: Sequence[Query],
        samples: Sequence[int],
        *,
        step: int,
        strategy: DecodingStrategy | None = None,
        version: int | None = None,
        first_sample: Sequence[int] | None = None,
    ) -> RewardedRollouts:
        """Sample `samples[i]` completions of `queries[i]` and score them."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutGenerator:
    """Rollout generator: samples completions of queries and scores them.

    Attributes:
      engine: the sampler.
      config: shape of the policy, for the ledger.
      tokenizer: text to tokens and back.
      worker: scores completions in a process that can be killed.
      seed: root of all sampling noise.
      temperature: of sampling.
      thinking: tokens after which thinking is ended by force; None for no limit.
      expected: response tokens to expect by query id, for the engine's order.
      watch: told how far the sampler is, after every run of its program.
      poll: called between runs of the sampler's program and after scoring; what it
        raises ends the call.
    """

    engine: Engine
    config: DecoderConfig
    tokenizer: Tokenizer
    worker: Worker
    seed: int
    temperature: float = 1.0
    thinking: int | None = None
    expected: Mapping[str, float] = dataclasses.field(default_factory=dict)
    watch: Callable[[SampleProgress], None] = lambda now: None
    poll: Callable[[], None] = lambda: None

    def replace(self, **changes: Any) -> "RolloutGenerator":
        """Return a generator with other attributes."""
        return dataclasses.replace(self, **changes)

    def __call__(
        self,
        params: Params,
        queries: Sequence[Query],
        samples: Sequence[int],
        *,
        step: int,
        strategy: DecodingStrategy | None = None,
        version: int | None = None,
        first_sample: Sequence[int] | None = None,
    ) -> RewardedRollouts:
        """Sample `samples[i]` completions of `queries[i]` and score them.

        The noise depends on (seed, step, query id, sample index) and on nothing else.
        The default strategy is sampling at the temperature of this object. The rollouts
        carry `version`, that of the parameters. `first_sample` holds the index of each
        query's first sample, 0 if not given.
        """
        prompts = [self.tokenizer.encode_prompt(query.turns) for query in queries]
        requests = [
            Request(
                key=query_key(query),
                prompt=prompt,
                samples=int(count),
                first_sample=int(first),
                thinking=self.thinking,
                expected_length=self.expected.get(query.id),
            )
            for query, prompt, count, first in zip(
                queries,
                prompts,
                samples,
                first_sample or [0] * len(queries),
                strict=True,
            )
        ]

        def on_progress(now: SampleProgress) -> None:
            self.poll()
            self.watch(now)

        owners = [
            i for i, request in enumerate(requests) for _ in range(request.samples)
        ]
        texts = [""] * len(owners)
        order: list[int] = []
        self.poll()
        start = time.perf_counter()
        with self.worker.batch() as batch:

            def on_finished(rows: np.ndarray, tokens: Sequence[Sequence[int]]) -> None:
                """Have finished rollouts scored while others are sampled."""
                for row, ids in zip(rows.tolist(), tokens, strict=True):
                    texts[row] = self._text(ids)
                    batch.add(texts[row], queries[owners[row]], list(ids))
                    order.append(row)
                batch.send()

            rollouts = self.engine.sample(
                params,
                requests,
                seed=self.seed,
                step=step,
                strategy=strategy or Temperature(self.temperature),
                version=version,
                on_progress=on_progress,
                on_finished=on_finished,
            )
            sampled = time.perf_counter()
            rewards = np.empty(len(order))
            rewards[order] = batch.results()
        parts = {name: _placed(values, order) for name, values in batch.parts.items()}
        self.worker.problems.raise_if_nothing_scored()
        self.poll()
        asked = [queries[i] for i in owners]
        found = watched(self.worker, rollouts, texts, rewards, asked, parts)
        return RewardedRollouts(
            rollouts=rollouts,
            rewards=rewards,
            texts=texts,
            cost=sampling_cost(self.config, prompts, rollouts, sampled - start),
            scoring_seconds=time.perf_counter() - sampled,
            scoring_queue=self.worker.queue,
            solved_at=self.worker.solved_at,
            watch=found,
        )

    def texts(self, rollouts: Rollouts) -> list[str]:
        """Decode completions, without what follows a stop string."""
        return [
            self._text(row[:length])
            for row, length in zip(
                rollouts.tokens.tolist(), rollouts.length.tolist(), strict=True
            )
        ]

    def _text(self, tokens: Sequence[int]) -> str:
        stop, text = self.engine.stop_strings, self.tokenizer.decode(tokens)
        return text if stop is None else stop.cut(text)


def sampling_cost(
    config: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    rollouts: Rollouts,
    seconds: float,
) -> ledger.Entry:
    """Compute of rollouts, each prompt encoded once.

    Args:
      config: shape of the policy.
      prompts: token ids of each request.
      rollouts: its samples.
      seconds: they took.
    """
    lengths = [[] for _ in prompts]
    for request, length in zip(
        rollouts.request.tolist(), rollouts.length.tolist(), strict=True
    ):
        lengths[request].append(length)
    used = [(len(p), k) for p, k in zip(prompts, lengths, strict=True) if k]
    tokens = sum(p + sum(k) - len(k) for p, k in used)
    stats = rollouts.stats
    idle = stats.decode_padded - stats.decode_tokens
    padding = stats.prefill_padded - stats.prefill_tokens + idle
    return ledger.Entry(
        flops=ledger.forward_flops(
            config,
            tokens=tokens,
            pairs=sum(ledger.sample_pairs(p, k) for p, k in used),
            logits=sum(sum(k) for _, k in used),
        ),
        padded_flops=ledger.forward_flops(config, tokens=padding, pairs=0, logits=idle),
        rollouts=len(rollouts.length),
        tokens=tokens,
        padded_tokens=padding,
        seconds=seconds,
    )
