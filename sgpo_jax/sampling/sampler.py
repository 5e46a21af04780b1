"""Sampler interface of profiling and training, local or remote."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from sgpo_jax import models
from sgpo_jax.sampling.engine import Engine
from sgpo_jax.sampling.methods import DecodingStrategy, Temperature
from sgpo_jax.sampling.requests import Request, Rollouts, SampleProgress


@runtime_checkable
class Sampler(Protocol):
    """Samples of one policy: an engine with its parameters, or a server."""

    def sample(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        strategy: DecodingStrategy = Temperature(1.0),
        on_progress: Callable[[SampleProgress], None] | None = None,
    ) -> Rollouts:
        """Return one rollout per requested sample, ordered by (request, sample)."""
        ...


@dataclasses.dataclass(frozen=True)
class Local:
    """An engine together with the parameters it samples from.

    Attributes:
      engine: the sampler.
      params: the policy.
      version: of the policy; the rollouts carry it.
    """

    engine: Engine
    params: models.Params
    version: int | None = None

    def sample(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        strategy: DecodingStrategy = Temperature(1.0),
        on_progress: Callable[[SampleProgress], None] | None = None,
    ) -> Rollouts:
        """Sample every request; see `Engine.sample`."""
        return self.engine.sample(
            self.params,
            requests,
            seed=seed,
            step=step,
            strategy=strategy,
            version=self.version,
            on_progress=on_progress,
        )
