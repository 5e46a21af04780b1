"""Rollouts of inference servers, scored here."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sgpo_jax import ledger
from sgpo_jax.data import Query
from sgpo_jax.models import DecoderConfig, Params, Tokenizer
from sgpo_jax.rewards import Problem, Worker
from sgpo_jax.rollouts.generator import (
    RewardedRollouts,
    query_key,
    sampling_cost,
    watched,
)
from sgpo_jax.sampling import (
    DecodingStrategy,
    Finish,
    IncompleteError,
    Request,
    Rollouts,
    SampleProgress,
    ServedWeights,
    Server,
    Temperature,
)
from sgpo_jax.sampling.completions import Completion
from sgpo_jax.sampling.server import Place


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerRollouts:
    """Completions of queries, sampled by inference servers and scored here.

    A `SampleAndScore`. Without `weights` it reads no parameters: the servers have those
    that they were started with.

    Attributes:
      server: the client.
      worker: scores completions in a process that can be killed.
      seed: root of the seeds that samples are asked for with.
      temperature: of sampling.
      config: shape of the policy, for the ledger; None where it is not known, and
        operations count 0.
      weights: gives the servers the parameters of each call; None for none.
      complete: a sample that cannot be had ends the call: counts of a profile must not
        be biased by what servers drop. Else it has no reward, is counted among the
        worker's problems and not trained on.
      watch: told how many samples came.
      poll: called before and after sampling; what it raises ends the call.
    """

    server: Server
    worker: Worker
    seed: int
    temperature: float = 1.0
    config: DecoderConfig | None = None
    weights: ServedWeights | None = None
    complete: bool = True
    watch: Callable[[SampleProgress], None] = lambda now: None
    poll: Callable[[], None] = lambda: None

    def replace(self, *, expected: object = None, **changes: Any) -> "ServerRollouts":
        """Return a source with other attributes; servers order prompts themselves."""
        del expected
        return dataclasses.replace(self, **changes)

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
        strategy: DecodingStrategy | None = None,
        version: int | None = None,
        first_sample: Sequence[int] | None = None,
    ) -> RewardedRollouts:
        """Sample `samples[i]` completions of `queries[i]` and score them.

        Rollouts with a version are there to be trained on: those whose
        log-probabilities the server does not report are as good as missing.

        Raises:
          IncompleteError: if a sample could not be had and all must be, or none could.
          RefreshError: if a server could not be given the parameters.
        """
        self.poll()
        started = time.perf_counter()
        server = self.server
        if self.weights is not None:
            assert params is not None
            server = self.weights.hold(params)
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
        strategy = strategy or Temperature(self.temperature)
        done, failures = server.complete(
            requests,
            seed=self.seed,
            step=step,
            strategy=strategy,
            on_progress=self.watch,
        )
        if version is not None:
            failures |= _without_log_probs(done)
        whole = done | {place: _missing(self.tokenizer) for place in failures}
        seconds = time.perf_counter() - started
        rollouts = dataclasses.replace(
            server.rollouts(whole, strategy, seconds), version=version
        )
        self._report(failures, server.rollouts(done, strategy, seconds), queries)
        places = sorted(whole)
        texts = [whole[place].text for place in places]
        asked = [queries[i] for i, _ in places]
        had = np.array([place not in failures for place in places], bool)
        with self.worker.batch() as batch:
            for row in np.flatnonzero(had).tolist():
                batch.add(texts[row], asked[row])
            rewards = np.full(len(places), np.nan)
            rewards[had] = batch.results()
        parts = {name: _placed(values, had) for name, values in batch.parts.items()}
        self.worker.problems.raise_if_nothing_scored()
        self.poll()
        return RewardedRollouts(
            rollouts=rollouts,
            rewards=rewards,
            texts=texts,
            cost=self._cost([request.prompt for request in requests], rollouts),
            scoring_seconds=time.perf_counter() - started - seconds,
            scoring_queue=self.worker.queue,
            solved_at=self.worker.solved_at,
            watch=watched(self.worker, rollouts, texts, rewards, asked, parts),
        )

    def _report(
        self,
        failures: Mapping[Place, str],
        rollouts: Rollouts,
        queries: Sequence[Query],
    ) -> None:
        """Count samples that could not be had, or raise."""
        if not failures:
            return
        lost = ("other weights", "HTTP 404")
        if self.weights and any(text.startswith(lost) for text in failures.values()):
            self.weights.forget()  # a server was started again
        if self.complete or not len(rollouts):
            raise IncompleteError(rollouts, dict(sorted(failures.items())))
        for (i, _), text in sorted(failures.items()):
            kind, _, detail = text.partition(": ")
            self.worker.problems.add(
                Problem(f"server, {kind}", queries[i].id, "", detail)
            )

    def _cost(
        self, prompts: Sequence[Sequence[int]], rollouts: Rollouts
    ) -> ledger.Entry:
        stats = rollouts.stats
        if self.config is not None:
            return sampling_cost(self.config, prompts, rollouts, stats.seconds)
        return ledger.Entry(
            rollouts=len(rollouts),
            tokens=stats.prefill_tokens + stats.decode_tokens,
            seconds=stats.seconds,
        )


def _without_log_probs(done: dict[Place, Completion]) -> dict[Place, str]:
    """Take out the completions that have no log-probability of a token."""
    unknown = [place for place, one in done.items() if np.isnan(one.log_prob).any()]
    for place in unknown:
        del done[place]
    return dict.fromkeys(unknown, "no log-probabilities: the server reports none")


def _missing(tokenizer: Tokenizer) -> Completion:
    """Return what stands for a sample that could not be had."""
    return Completion([tokenizer.eos_id], [np.nan], Finish.LENGTH, "", 0)


def _placed(values: np.ndarray, had: np.ndarray) -> np.ndarray:
    placed = np.full(len(had), np.nan)
    placed[had] = values
    return placed
