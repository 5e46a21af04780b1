"""Rollouts of an inference server, scored here: no weights on this machine."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from sgpo_jax import ledger
from sgpo_jax.data import Query
from sgpo_jax.models import Params, Tokenizer
from sgpo_jax.profiling.scored import Scored, query_key, watched
from sgpo_jax.rewards import Worker
from sgpo_jax.sampling import (
    IncompleteError,
    Method,
    Progress,
    Request,
    Server,
    Temperature,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerRollouts:
    """Samples completions of queries from a server and scores them.

    A `SampleAndScore` that reads no parameters. Operations are not known and count 0.

    Attributes:
      server: the client.
      worker: scores completions in a process that can be killed.
      seed: root of the seeds that samples are asked for with.
      temperature: of sampling.
      watch: told how many samples came.
    """

    server: Server
    worker: Worker
    seed: int
    temperature: float = 1.0
    watch: Callable[[Progress], None] = lambda now: None

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return self.server.tokenizer

    def __call__(
        self,
        params: Params | None,
        queries: Sequence[Query],
        samples: Sequence[int],
        *,
        step: int,
        method: Method | None = None,
        version: int | None = None,
        first_sample: Sequence[int] | None = None,
    ) -> Scored:
        """Sample `samples[i]` completions of `queries[i]` and score them.

        Raises:
          IncompleteError: if a sample could not be had: counts must not be biased by
            what a server drops.
        """
        del params
        started = time.perf_counter()
        first = first_sample or [0] * len(queries)
        requests = [
            Request(
                key=query_key(query),
                prompt=self.tokenizer.encode_prompt(query.turns),
                samples=int(count),
                first_sample=int(start),
            )
            for query, count, start in zip(queries, samples, first, strict=True)
        ]
        method = method or Temperature(self.temperature)
        done, failures = self.server.complete(
            requests, seed=self.seed, step=step, method=method, on_progress=self.watch
        )
        seconds = time.perf_counter() - started
        rollouts = self.server.rollouts(done, method, seconds)
        if failures:
            raise IncompleteError(rollouts, dict(sorted(failures.items())))
        rollouts = dataclasses.replace(rollouts, version=version)
        texts = [done[place].text for place in sorted(done)]
        asked = [queries[i] for i in rollouts.request.tolist()]
        with self.worker.batch() as batch:
            for text, query in zip(texts, asked, strict=True):
                batch.add(text, query)
            rewards = batch.results()
        self.worker.problems.raise_if_nothing_scored()
        found = watched(self.worker, rollouts, texts, rewards, asked, batch.parts)
        stats = rollouts.stats
        return Scored(
            rollouts=rollouts,
            rewards=rewards,
            texts=texts,
            cost=ledger.Entry(
                rollouts=len(texts),
                tokens=stats.prefill_tokens + stats.decode_tokens,
                seconds=seconds,
            ),
            scoring_seconds=time.perf_counter() - started - seconds,
            scoring_queue=self.worker.queue,
            solved_at=self.worker.solved_at,
            watch=found,
        )
