"""The sampler on this process's own devices."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh

from sgpo_jax import models, sharding
from sgpo_jax.sampling.call import Listeners, SampleCall, Staging
from sgpo_jax.sampling.ending import Ending, StopStrings
from sgpo_jax.sampling.grid import Grid
from sgpo_jax.sampling.methods import DecodingStrategy, Temperature
from sgpo_jax.sampling.orders import LongestFirst, Order
from sgpo_jax.sampling.programs import SamplerPrograms
from sgpo_jax.sampling.requests import OnFinished, Request, Rollouts, SampleProgress


@dataclasses.dataclass(frozen=True)
class Engine:
    """A jitted sampler: one prefill per prompt, slots that are refilled at once.

    Any number of requests with any number of samples runs through the same compiled
    programs: two per prompt bucket (prefill and decode) and strategy. The caches are
    freed after a call, so none outlasts the parameters it was computed with.

    Attributes:
      config: shape of the decoder.
      lanes: groups of slots that share prefixes; divided among the mesh's shards.
      slots: samples decoded at once in a lane; memory grows with lanes x slots, not
        with the number of samples of a prompt.
      max_prompt: most prompt tokens, or buckets of them.
      max_response: most response tokens, the stop token included; or buckets of
        them, of which a call takes the shortest that holds all its budgets.
      stop_tokens: tokens that end a response; they are kept in it.
      stop_strings: strings that end a response; None for none.
      end_of_thinking: tokens that end thinking, for requests that limit it.
      prefixes_per_lane: prompts a lane can hold at once, in its prefix cache; None for
        as many as slots, at most 4. Attention over prompts costs that many times more;
        with fewer than slots, slots idle where prompts have few samples. For long
        prompts with many samples each, 2 are enough.
      order: which of the waiting prompts start first; it changes no token.
      staged: prompts encoded ahead of the decode loop, per shard.
      prefill_prompts: prompts encoded by one run of the prefill program, per shard.
      prefill_chunk: prompt tokens encoded at once; None for the whole prompt. Long
        prompts need less memory in chunks, and no time for padding beyond the longest.
      steps: most decode steps between two returns to the host.
      cache_dtype: how keys and values are stored: "float32", "bfloat16" or "int8";
        None for the decoder's own dtype.
      mesh: devices to use; None for the default one.
      rules: how logical axes map to the mesh.
    """

    config: models.DecoderConfig
    _: dataclasses.KW_ONLY
    lanes: int
    slots: int
    max_prompt: int | tuple[int, ...]
    max_response: int | tuple[int, ...]
    stop_tokens: tuple[int, ...]
    stop_strings: StopStrings | None = None
    end_of_thinking: tuple[int, ...] = ()
    prefixes_per_lane: int | None = None
    order: Order = LongestFirst()
    staged: int = 256
    prefill_prompts: int = 32
    prefill_chunk: int | None = None
    steps: int = 256
    cache_dtype: str | None = None
    mesh: Mesh | None = None
    rules: sharding.Rules = sharding.Rules()

    def __post_init__(self):
        for name in (
            "lanes",
            "slots",
            "prefixes_per_lane",
            "staged",
            "steps",
            "prefill_chunk",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.prefill_prompts < 1 or self.staged % self.prefill_prompts:
            raise ValueError(
                f"staged={self.staged} must be a multiple of"
                f" prefill_prompts={self.prefill_prompts}"
            )
        for name in ("max_prompt", "max_response"):
            prompt_buckets = _lengths(getattr(self, name))
            if (
                list(prompt_buckets) != sorted(set(prompt_buckets))
                or prompt_buckets[0] < 1
            ):
                raise ValueError(
                    f"{name} must be positive and rise, got {prompt_buckets}"
                )
        if self.cache_dtype not in (None, "float32", "bfloat16", "int8"):
            raise ValueError(f"no cache_dtype {self.cache_dtype!r}")
        if self.lanes % self.programs.shards:
            raise ValueError(
                f"lanes={self.lanes} must divide among {self.programs.shards} shards"
            )

    @property
    def prompt_buckets(self) -> tuple[int, ...]:
        """The prompt lengths programs are compiled for."""
        return _lengths(self.max_prompt)

    @property
    def longest_response(self) -> int:
        """Most response tokens."""
        return _lengths(self.max_response)[-1]

    @functools.cached_property
    def programs(self) -> SamplerPrograms:
        """The compiled programs."""
        dtype = self.cache_dtype or self.config.dtype
        ending = Ending.make(
            self.stop_tokens,
            self.stop_strings,
            self.end_of_thinking,
            self.config.vocab_size,
        )
        return SamplerPrograms(self.config, ending, dtype, self.mesh, self.rules)

    def compiles(self) -> int:
        """Return how many prefill and decode programs were compiled so far."""
        return self.programs.compiles()

    def sample(
        self,
        params: models.Params,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        strategy: DecodingStrategy = Temperature(1.0),
        version: int | None = None,
        on_progress: Callable[[SampleProgress], None] | None = None,
        on_finished: OnFinished | None = None,
    ) -> Rollouts:
        """Sample every request.

        Args:
          params: the policy.
          requests: prompts and how many samples of each.
          seed: of the run.
          step: of the run; the same (seed, step, key, sample index) gives the same
            noise, any other gives independent noise.
          strategy: how tokens are chosen.
          version: of the policy; the rollouts carry it.
          on_progress: called after every run of the decode program.
          on_finished: called with the rollouts that ended in that run, before
            `on_progress`, so that they can be scored while others are sampled.

        Returns:
          One rollout per requested sample, ordered by (request, sample).

        Raises:
          ValueError: if a prompt is empty or too long, or a count is impossible.
        """
        for request in requests:
            self._check(request)
        call = SampleCall(
            programs=self.programs,
            params=self.programs.place(params),
            requests=requests,
            noise=(seed, step),
            strategy=strategy,
            staging=Staging(
                order=self.order,
                prompts=self.staged,
                block=self.prefill_prompts,
                chunk=self.prefill_chunk,
            ),
            longest=self.longest_response,
            listeners=Listeners(progress=on_progress, finished=on_finished),
        )
        bucket = np.searchsorted(self.prompt_buckets, [len(r.prompt) for r in requests])
        for index, longest in enumerate(self.prompt_buckets):
            members = np.flatnonzero(bucket == index).tolist()
            if members:
                budgets = [requests[i].budget for i in members]
                budget = max(b or self.longest_response for b in budgets)
                call.sample(members, self.grid(longest, budget))
        rollouts = call.rollouts()
        return dataclasses.replace(rollouts, version=version)

    def grid(self, longest: int, budget: int) -> Grid:
        """Return the static shape of the programs of a prompt bucket and a budget."""
        chunk = self.prefill_chunk or 1
        return Grid(
            lanes=self.lanes,
            slots=self.slots,
            prefixes_per_lane=min(self.slots, 4)
            if self.prefixes_per_lane is None
            else self.prefixes_per_lane,
            prefix=-(-max(longest - 1, 1) // chunk) * chunk,
            response=next(n for n in _lengths(self.max_response) if n >= budget),
            steps=self.steps,
        )

    def _check(self, request: Request) -> None:
        if not 1 <= len(request.prompt) <= self.prompt_buckets[-1]:
            raise ValueError(
                f"query {request.key}: a prompt of {len(request.prompt)} tokens does"
                f" not fit max_prompt={self.prompt_buckets[-1]}"
            )
        if not 0 <= request.key < 2**32:
            raise ValueError(f"query {request.key}: the key must be a uint32")
        if request.samples < 0 or request.first_sample < 0:
            raise ValueError(f"query {request.key}: negative number of samples")
        if request.thinking is not None:
            if request.thinking < 0:
                raise ValueError(f"query {request.key}: negative thinking budget")
            if not self.end_of_thinking:
                raise ValueError(
                    f"query {request.key} limits thinking: give the engine the tokens"
                    " that end it (end_of_thinking)"
                )
        if (
            request.budget is not None
            and not 1 <= request.budget <= self.longest_response
        ):
            raise ValueError(
                f"query {request.key}: budget={request.budget} must be in"
                f" 1..{self.longest_response}"
            )


def _lengths(lengths: int | tuple[int, ...]) -> tuple[int, ...]:
    return (lengths,) if isinstance(lengths, int) else lengths
