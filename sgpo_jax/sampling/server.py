"""The sampler as a client of an inference server somewhere else.

Speaks the completions part of OpenAI's HTTP interface, which vLLM, SGLang, JetStream
and llama.cpp serve too. One HTTP request asks for one sample, so that every sample has
a seed of its own, and the server batches and caches prompts as it sees fit.
"""

import dataclasses
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from sgpo_jax.models import Tokenizer
from sgpo_jax.sampling.completions import Completion, parse, payload
from sgpo_jax.sampling.methods import Method, Temperature
from sgpo_jax.sampling.requests import Progress, Request, Rollouts, Stats

# What may go away by itself: timeout, conflict, too early, too many, server errors.
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}

Place = tuple[int, int]


class IncompleteError(RuntimeError):
    """Some samples could not be had.

    Attributes:
      rollouts: the samples that could.
      failures: what went wrong, by (request index, sample index).
    """

    def __init__(self, rollouts: Rollouts, failures: Mapping[Place, str]):
        (request, sample), reason = next(iter(failures.items()))
        super().__init__(
            f"{len(failures)} of {len(failures) + len(rollouts)} samples failed; the"
            f" first: request {request}, sample {sample}: {reason}"
        )
        self.rollouts, self.failures = rollouts, failures


class _BusyError(OSError):
    """The server asks to be tried again later."""

    def __init__(self, reason: str, retry_after: str | None):
        super().__init__(reason)
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retry:
    """When to try a failed HTTP request again.

    After attempt k = 0, 1, ... wait `wait` x 2^k seconds, times a random factor between
    0.5 and 1; longer if the server's `Retry-After` says so.

    Attributes:
      attempts: how often to try in all.
      wait: seconds after the first attempt.
      longest: most seconds to wait between two attempts.
      timeout: seconds to wait for an answer.
    """

    attempts: int = 6
    wait: float = 0.5
    longest: float = 60.0
    timeout: float = 600.0

    def pause(self, attempt: int, asked: str | None) -> float:
        """Return the seconds to wait after `attempt`; `asked` is `Retry-After`."""
        own = self.wait * 2**attempt * random.uniform(0.5, 1)
        server = float(asked) if asked and asked.isdigit() else 0.0
        return min(max(own, server), self.longest)


@dataclasses.dataclass(frozen=True)
class Server:
    """Samples from an OpenAI-compatible completions server.

    Log-probabilities are the server's, taken to be at temperature 1 as vLLM and
    llama.cpp report them; what it does not report is NaN. To train on such rollouts,
    score them with the policy first.

    Attributes:
      url: address up to and including the version, as in "http://localhost:8000/v1".
      model: the server's name of the model.
      tokenizer: the model's tokenizer.
      max_response: most response tokens.
      prompt_as_text: send the prompt's text instead of its token ids, for servers that
        take no ids; special tokens of a prompt are lost, as in `tokenizer.decode`.
      concurrency: HTTP requests in flight at once.
      retry: when to try again.
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
    retry: Retry = Retry()
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
        method: Method = Temperature(1.0),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Rollouts:
        """Sample every request; see `Sampler.sample`.

        Raises:
          IncompleteError: if a sample failed for good; it holds all the others.
        """
        started = time.perf_counter()
        done, failures = self.complete(
            requests, seed=seed, step=step, method=method, on_progress=on_progress
        )
        rollouts = self._rollouts(done, method, time.perf_counter() - started)
        if failures:
            raise IncompleteError(rollouts, dict(sorted(failures.items())))
        return rollouts

    def complete(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        method: Method = Temperature(1.0),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[dict[Place, Completion], dict[Place, str]]:
        """Return each sample as the server gave it, and what failed for good.

        Both are keyed by (request index, sample index); `sample` gives arrays.
        """
        started = time.perf_counter()
        done: dict[Place, Completion] = {}
        failures: dict[Place, str] = {}
        pool = futures.ThreadPoolExecutor(self.concurrency)
        places = {
            pool.submit(self._one, request, index, (seed, step), method): (i, index)
            for i, request in enumerate(requests)
            for index in range(
                request.first_sample, request.first_sample + request.samples
            )
        }
        tokens = 0
        try:
            for future in futures.as_completed(places):
                place = places[future]
                try:
                    done[place] = future.result()
                    tokens += len(done[place].tokens)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    failures[place] = f"{type(error).__name__}: {error}"
                if on_progress is not None:
                    ended = len(done) + len(failures)
                    seconds = time.perf_counter() - started
                    on_progress(Progress(ended, len(places), tokens, 1.0, seconds))
        finally:
            # An interrupt must not wait for requests that have not been sent.
            pool.shutdown(wait=False, cancel_futures=True)
        return done, failures

    def _one(
        self, request: Request, sample: int, clock: tuple[int, int], method: Method
    ) -> Completion:
        """Ask for one sample."""
        words = np.random.SeedSequence([*clock, request.key, sample])
        prompt = request.prompt
        body = payload(
            method,
            self.tokenizer.decode(prompt) if self.prompt_as_text else prompt,
            model=self.model,
            max_tokens=request.budget or self.max_response,
            seed=int(words.generate_state(1)[0]) >> 1,  # servers want a signed int32
            **self.extra,
        )
        return parse(self._post(body), self.tokenizer)

    def _post(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Post `body`, again if need be; return the answer."""
        message = urllib.request.Request(
            f"{self.url.rstrip('/')}/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **self.headers},
        )
        for attempt in range(self.retry.attempts - 1):
            asked = None
            try:
                return self._send(message)
            except _BusyError as error:
                asked = error.retry_after
            except (OSError, http.client.HTTPException):
                pass  # refused, reset, timed out, or cut off in the middle
            time.sleep(self.retry.pause(attempt, asked))
        return self._send(message)

    def _send(self, message: urllib.request.Request) -> Mapping[str, Any]:
        """Send once; raise ValueError if sending again would not help."""
        try:
            with urllib.request.urlopen(message, timeout=self.retry.timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(300).decode(errors="replace")
            reason = f"HTTP {error.code}: {detail}"
            if error.code in _TRANSIENT:
                raise _BusyError(reason, error.headers.get("Retry-After")) from error
            raise ValueError(reason) from error

    def _rollouts(
        self, done: Mapping[Place, Completion], method: Method, seconds: float
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
            log_prob=at_one if method.temperature == 1 else unknown,
            log_prob_at_one=at_one,
            kept=unknown if method.truncates else inside.astype(np.float32),
            finish=np.array([r.finish for r in results], np.int64),
            stats=Stats(prefill, prefill, decoded, decoded, 0, 0, seconds),
        )
