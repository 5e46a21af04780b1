"""Requests and rollouts of a sampler."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from sgpo_jax.sampling.ending import Finish

OnFinished = Callable[[Int[np.ndarray, " n"], Sequence[Sequence[int]]], None]
"""Called with rollouts that ended, as rows of the `Rollouts` to come, and with the
tokens of each; every rollout comes once, in any order."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Some samples of one prompt.

    Attributes:
      key: uint32 that identifies the query, wherever it stands in a batch. With the
        sample index it decides the noise.
      prompt: token ids, at least one.
      samples: how many responses.
      first_sample: index of the first one; asking for samples 0..3 and then 4..7 gives
        the same eight as asking once.
      budget: most response tokens; None for the sampler's own limit.
      thinking: most tokens before thinking is ended by force; None for no limit.
      expected_length: response tokens to expect, for example from a profile; an
        `Order` may start the longest first.
    """

    key: int
    prompt: Sequence[int]
    samples: int
    first_sample: int = 0
    budget: int | None = None
    thinking: int | None = None
    expected_length: float | None = None


@dataclasses.dataclass(frozen=True)
class Stats:
    """Work done by one call, for the compute ledger.

    Attributes:
      prefill_tokens: prompt tokens encoded.
      prefill_padded: prompt positions computed, padding included.
      decode_tokens: response tokens sampled.
      decode_padded: slot-steps computed, idle slots included.
      decode_steps: steps of the decode loop.
      queued_steps: steps that samples were queued, added up over samples.
      seconds: wall-clock time.
    """

    prefill_tokens: int
    prefill_padded: int
    decode_tokens: int
    decode_padded: int
    decode_steps: int
    queued_steps: int
    seconds: float

    @property
    def queue(self) -> float:
        """Samples that wait for a slot, the mean over decode steps."""
        return self.queued_steps / max(self.decode_steps, 1)

    @property
    def occupancy(self) -> float:
        """Share of slot-steps that gave a token."""
        return self.decode_tokens / max(self.decode_padded, 1)


@dataclasses.dataclass(frozen=True)
class SampleProgress:
    """Progress of a call of a sampler.

    Attributes:
      ended: rollouts that ended.
      total: rollouts asked for.
      tokens: response tokens sampled so far.
      occupancy: share of slot-steps that gave a token.
      seconds: since the call started.
    """

    ended: int
    total: int
    tokens: int
    occupancy: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.tokens_per_second:,.0f} tokens/s, {self.occupancy:.0%} of slots"
            f" busy, {self.ended}/{self.total} samples, {self.seconds_left:.0f} s left"
        )

    @property
    def tokens_per_second(self) -> float:
        """Response tokens per second so far."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Time left if the rest goes as the part behind; infinite at the start."""
        if not self.ended:
            return float("inf")
        return self.seconds * (self.total - self.ended) / self.ended


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Sampled responses, ordered by (request, sample).

    Attributes:
      request: index into the list of requests.
      sample: sample index within the query, `first_sample` included.
      tokens: response tokens, the stop token included; 0 beyond `length`.
      length: response tokens.
      log_prob: log pi(token) at the sampling temperature, over the whole vocabulary;
        0 beyond `length`.
      log_prob_at_one: the same at temperature 1.
      support_mass: probability mass, at the sampling temperature, of the tokens the
        strategy could have drawn: 1 unless it truncates, 0 beyond `length` and where
        the token was forced, not drawn. A token was drawn with log-probability
        `log_prob - log(support_mass)`.
      finish: why the response ended, as `Finish`.
      stats: what the call cost.
      version: updates the policy had seen that gave the samples; None if unknown.
    """

    request: Int[np.ndarray, " R"]
    sample: Int[np.ndarray, " R"]
    tokens: Int[np.ndarray, "R T"]
    length: Int[np.ndarray, " R"]
    log_prob: Float[np.ndarray, "R T"]
    log_prob_at_one: Float[np.ndarray, "R T"]
    support_mass: Float[np.ndarray, "R T"]
    finish: Int[np.ndarray, " R"]
    stats: Stats
    version: int | None = None

    @property
    def finished(self) -> Bool[np.ndarray, " R"]:
        """Mask of responses that ended by themselves, not by their budget."""
        return self.finish != Finish.LENGTH

    @property
    def sampled(self) -> Bool[np.ndarray, "R T"]:
        """The response tokens that were drawn, not forced: those a loss may count."""
        inside = np.arange(self.tokens.shape[1]) < self.length[:, None]
        return inside & (self.support_mass != 0)

    def check_version(self, now: int, *, max_staleness: int) -> None:
        """Refuse samples of another policy than those that may be trained on.

        Args:
          now: version of the policy that is to be trained.
          max_staleness: updates it may be ahead of the samples' policy.

        Raises:
          ValueError: if it is further ahead or behind, or the version is unknown.
        """
        if self.version is None:
            raise ValueError(
                f"rollouts of an unknown policy version cannot train version {now}:"
                " give the sampler the version of its parameters"
            )
        if not 0 <= now - self.version <= max_staleness:
            raise ValueError(
                f"rollouts of policy version {self.version} cannot train version {now}:"
                f" sample again, or allow more than max_staleness={max_staleness}"
            )

    def __len__(self) -> int:
        return len(self.request)
