"""The sampler as a client of an inference server somewhere else.

Speaks the completions part of OpenAI's HTTP interface, which vLLM, SGLang, JetStream
and llama.cpp serve too. One HTTP request asks for one sample, so that every sample has
a seed of its own, and the server batches and caches prompts as it sees fit.
"""

import collections
import dataclasses
import http.client
import itertools
import json
import random
import re
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, Literal

import numpy as np

from sgpo_jax import streams
from sgpo_jax.models import Tokenizer
from sgpo_jax.sampling import sglang
from sgpo_jax.sampling.completions import Completion, parse, payload
from sgpo_jax.sampling.exchange import BusyError, RefusedError, post, post_bytes
from sgpo_jax.sampling.methods import DecodingStrategy, Temperature
from sgpo_jax.sampling.requests import Request, Rollouts, SampleProgress, Stats

Place = tuple[int, int]


class IncompleteError(RuntimeError):
    """Some samples could not be had.

    Attributes:
      rollouts: the samples that could.
      failures: what went wrong, by (request index, sample index).
      counts: how often each kind of failure happened, the most frequent first.
    """

    def __init__(self, rollouts: Rollouts, failures: Mapping[Place, str]):
        (request, sample), reason = next(iter(failures.items()))
        kinds = collections.Counter(
            text.partition(":")[0] for text in failures.values()
        )
        counts = dict(kinds.most_common())
        shown = ", ".join(f"{count} {kind}" for kind, count in [*counts.items()][:8])
        super().__init__(
            f"{len(failures)} of {len(failures) + len(rollouts)} samples failed"
            f" ({shown}); the first: request {request}, sample {sample}: {reason}"
        )
        self.rollouts, self.failures, self.counts = rollouts, failures, counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retry:
    """Retry policy of failed HTTP requests: exponential backoff.

    After attempt k = 0, 1, ... wait `wait` x 2^k seconds, times a random factor between
    0.5 and 1; longer if the server's `Retry-After` says so.

    Attributes:
      attempts: how often to try in all.
      wait: seconds after the first attempt.
      longest: most seconds to wait between two attempts.
      timeout: most seconds of an attempt, from connecting to the last byte.
      deadline: most seconds of all attempts and waits together.
    """

    attempts: int = 6
    wait: float = 0.5
    longest: float = 60.0
    timeout: float = 600.0
    deadline: float = 1800.0

    def pause(self, attempt: int, asked: str | None) -> float:
        """Return the seconds to wait after `attempt`; `asked` is `Retry-After`."""
        own = self.wait * 2**attempt * random.uniform(0.5, 1)
        plain = asked is not None and re.fullmatch("[0-9]{1,9}", asked)
        server = float(asked) if plain and asked else 0.0
        return min(max(own, server), self.longest)


@dataclasses.dataclass(frozen=True)
class Server:
    """Samples from an OpenAI-compatible completions server.

    Log-probabilities are the server's, taken to be at temperature 1 as vLLM and
    llama.cpp report them; what it does not report is NaN. To train on such rollouts,
    score them with the policy first.

    Attributes:
      url: address up to and including the version, as in "http://localhost:8000/v1";
        of several servers, separated by commas. Samples are dealt to them in turn, and
        what one fails at is asked of the next.
      model: the server's name of the model.
      tokenizer: the model's tokenizer.
      max_response: most response tokens.
      prompt_as_text: send the prompt's text instead of its token ids, for servers that
        take no ids; special tokens of a prompt are lost, as in `tokenizer.decode`.
      concurrency: HTTP requests in flight at once.
      retry: when to try again.
      most_bytes: longest answer to read.
      any_token: take token ids that the tokenizer lacks, where only text is wanted.
      interface: "openai" for its completions; "sglang" for SGLang's own `/generate`,
        whose token ids and log-probabilities are those that were sampled.
      version: weights that answers must name, where the interface has names for them.
      headers: further HTTP headers, for example an authorization.
      extra: further fields of every request, for example `{"logprobs": 1,
        "return_token_ids": True, "stop": ["###"]}`.
    """

    url: str
    _: dataclasses.KW_ONLY
    model: str
    tokenizer: Tokenizer
    max_response: int
    prompt_as_text: bool = False
    concurrency: int = 32
    most_bytes: int = 1 << 24
    any_token: bool = False
    retry: Retry = Retry()
    interface: Literal["openai", "sglang"] = "openai"
    version: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"logprobs": 1}
    )

    def sample(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        strategy: DecodingStrategy = Temperature(1.0),
        on_progress: Callable[[SampleProgress], None] | None = None,
    ) -> Rollouts:
        """Sample every request; see `Sampler.sample`.

        Raises:
          IncompleteError: if a sample failed for good; it holds all the others.
        """
        started = time.perf_counter()
        done, failures = self.complete(
            requests, seed=seed, step=step, strategy=strategy, on_progress=on_progress
        )
        rollouts = self.rollouts(done, strategy, time.perf_counter() - started)
        if failures:
            raise IncompleteError(rollouts, dict(sorted(failures.items())))
        return rollouts

    def complete(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        strategy: DecodingStrategy = Temperature(1.0),
        on_progress: Callable[[SampleProgress], None] | None = None,
    ) -> tuple[dict[Place, Completion], dict[Place, str]]:
        """Return each sample as the server gave it, and what failed for good.

        Both are keyed by (request index, sample index); `sample` gives arrays.
        """
        started = time.perf_counter()
        done: dict[Place, Completion] = {}
        failures: dict[Place, str] = {}
        pool = futures.ThreadPoolExecutor(self.concurrency)
        asked = [
            (i, index)
            for i, request in enumerate(requests)
            for index in range(
                request.first_sample, request.first_sample + request.samples
            )
        ]
        places = {
            pool.submit(self._one, requests[i], index, (seed, step), strategy, turn): (
                i,
                index,
            )
            for turn, (i, index) in enumerate(asked)
        }
        tokens = 0
        try:
            for future in futures.as_completed(places):
                place = places[future]
                try:
                    done[place] = future.result()
                    tokens += len(done[place].tokens)
                except RefusedError as error:
                    failures[place] = str(error)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    failures[place] = f"{type(error).__name__}: {error}"
                if on_progress is not None:
                    ended = len(done) + len(failures)
                    seconds = time.perf_counter() - started
                    on_progress(
                        SampleProgress(ended, len(places), tokens, 1.0, seconds)
                    )
        finally:
            # An interrupt must not wait for requests that have not been sent.
            pool.shutdown(wait=False, cancel_futures=True)
        return done, failures

    def seed_of(self, request: Request, sample: int, clock: tuple[int, int]) -> int:
        """Return the seed that a sample is asked for with: below 2^31, as servers want.

        Args:
          request: its request.
          sample: its index.
          clock: seed and step of the call.
        """
        return streams.request_seed(*clock, request.key, sample)

    @property
    def urls(self) -> list[str]:
        """Addresses of the servers."""
        return [url.strip().rstrip("/") for url in self.url.split(",")]

    def _one(
        self,
        request: Request,
        sample: int,
        clock: tuple[int, int],
        strategy: DecodingStrategy,
        turn: int,
    ) -> Completion:
        """Ask for one sample, of the server whose turn it is."""
        prompt = request.prompt
        # A column per token of `max_response`, and one for a dropped end token.
        budget = min(request.budget or self.max_response, self.max_response)
        body = payload(
            strategy,
            self.tokenizer.decode(prompt) if self.prompt_as_text else prompt,
            model=self.model,
            max_tokens=budget,
            seed=self.seed_of(request, sample, clock),
            **self.extra,
        )
        urls = [f"{url}/completions" for url in self.urls]
        if self.interface == "sglang":
            urls = [f"{url.removesuffix('/v1')}{sglang.PATH}" for url in self.urls]
            body = sglang.request(body)
        first = turn % len(urls)
        answer = self.post([*urls[first:], *urls[:first]], body)
        if self.interface == "sglang":
            answer = sglang.completion(answer, version=self.version)
        return parse(
            answer,
            self.tokenizer,
            most_tokens=budget,
            stop_strings=bool(self.extra.get("stop")),
            any_token=self.any_token,
        )

    def post(
        self, urls: Sequence[str], body: Mapping[str, Any], *, text: bool = False
    ) -> dict[str, Any]:
        """Post to the first address, again to the next if need be; return the answer.

        Args:
          urls: where to.
          body: a JSON object.
          text: the answer is plain text, which is not returned.

        Raises:
          OSError, http.client.HTTPException: if there was no answer in time.
          RefusedError: if there was one that is no JSON object, or says no.
        """
        data = json.dumps(body).encode()
        retry, end = self.retry, time.monotonic() + self.retry.deadline
        for attempt in itertools.count(1):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer within {retry.deadline:g} s")
            asked = None
            try:
                message = self._message(urls[(attempt - 1) % len(urls)], data)
                limits = {"seconds": min(retry.timeout, left)}
                if not text:
                    return post(message, **limits, most_bytes=self.most_bytes)
                post_bytes(message, **limits, most_bytes=self.most_bytes)
                return {}
            except BusyError as error:
                if attempt >= retry.attempts:
                    raise
                asked = error.retry_after
            except (OSError, http.client.HTTPException):
                # Refused, reset, timed out, or cut off in the middle.
                if attempt >= retry.attempts:
                    raise
            pause = retry.pause(attempt - 1, asked)
            time.sleep(max(0.0, min(pause, end - time.monotonic())))
        raise AssertionError("attempts end above")

    def _message(self, url: str, data: bytes) -> urllib.request.Request:
        return urllib.request.Request(
            url,
            data=data,
            headers={"Content-Type": "application/json", **self.headers},
        )

    def rollouts(
        self,
        done: Mapping[Place, Completion],
        strategy: DecodingStrategy,
        seconds: float,
    ) -> Rollouts:
        """Return the samples in order, as arrays."""
        places = sorted(done)
        results = [done[place] for place in places]
        # One more column for the EOS token that servers leave out.
        shape = (len(places), self.max_response + 1)
        tokens = np.zeros(shape, np.int32)
        at_one = np.zeros(shape, np.float32)
        for row, result in enumerate(results):
            tokens[row, : len(result.tokens)] = result.tokens
            at_one[row, : len(result.tokens)] = result.log_prob
        length = np.array([len(r.tokens) for r in results], np.int32)
        inside = np.arange(shape[1]) < length[:, None]
        unknown = np.where(inside, np.float32(np.nan), np.float32(0))
        prefill, decoded = sum(r.prompt_tokens for r in results), int(length.sum())
        return Rollouts(
            request=np.array([i for i, _ in places], np.int32),
            sample=np.array([index for _, index in places], np.int32),
            tokens=tokens,
            length=length,
            log_prob=at_one if strategy.temperature == 1 else unknown,
            log_prob_at_one=at_one,
            support_mass=unknown if strategy.truncates else inside.astype(np.float32),
            finish=np.array([r.finish for r in results], np.int64),
            stats=Stats(prefill, prefill, decoded, decoded, 0, 0, seconds),
        )
