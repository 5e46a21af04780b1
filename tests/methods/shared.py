"""Training programs that hold the losses of all methods; which is meant is an argument.

A program is mostly the policy, forward and backward. Compiled once with a branch for
each loss, it stands for as many as there are losses; only one branch runs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sgpo_jax import methods, models, training
from sgpo_jax.training import heads

Losses = tuple[methods.TokenLoss, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Selected(methods.TokenLoss):
    """One of several losses, chosen while the program runs."""

    losses: Losses
    which: Any = 0

    @property
    def needs(self):
        return frozenset().union(*(loss.needs for loss in self.losses))

    def __call__(self, responses):
        def branch(loss):
            def run(responses):
                value, metrics = loss(responses)
                return value, {n: metrics.get(n, nothing) for n in names}

            return run

        nothing = jnp.zeros_like(responses.log_prob)
        shapes = [jax.eval_shape(loss, responses)[1] for loss in self.losses]
        names = dict.fromkeys(name for found in shapes for name in found)
        branches = [branch(loss) for loss in self.losses]
        return jax.lax.switch(self.which, branches, responses)


@dataclasses.dataclass(frozen=True)
class Counted:
    """A function that stands for a jitted one, of which compilations are counted."""

    call: Callable[..., Any]
    program: Any

    def __call__(self, *arguments):
        return self.call(*arguments)

    def _cache_size(self):
        return self.program._cache_size()


class Family:
    """What losses with the same learnt head share."""

    def __init__(self, losses: Losses, config: models.DecoderConfig, mesh: Mesh | None):
        optimizer = methods.Method().optimizer.make()
        loss = Selected(objective=losses[0].objective, losses=losses)
        make = functools.partial(
            training.TrainPrograms, config=config, optimizer=optimizer, mesh=mesh
        )
        self.losses, self.base = losses, make(loss=loss)

        def accumulate(which, weights, total, batch):
            chosen = dataclasses.replace(loss, which=which)
            return make(loss=chosen).accumulate(weights, total, batch)

        self.accumulate = jax.jit(accumulate, donate_argnums=2)

    def whole(self, batch: training.MicroBatch) -> training.MicroBatch:
        """The batch with zeros for what its method does not need."""
        optional = ("sampler_log_prob", "reference_log_prob", "residual_mean")
        none = {
            name: self.base.put(
                np.zeros(
                    np.shape(
                        batch.reward if name == "residual_mean" else batch.old_log_prob
                    ),
                    np.float32,
                )
            )
            for name in optional
            if getattr(batch, name) is None
        }
        return dataclasses.replace(batch, **none)

    @functools.cache  # noqa: B019 lives as long as the tests
    def update(self, optimizer: optax.GradientTransformation) -> Any:
        """Program of one optimizer."""
        return dataclasses.replace(self.base, optimizer=optimizer).update


@functools.cache
def family(losses: Losses, config: models.DecoderConfig, mesh: Mesh | None) -> Family:
    """The programs that some losses share."""
    return Family(losses, config, mesh)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPrograms(training.TrainPrograms):
    """Those of one loss among several.

    Sums over micro-batches hold the metrics of all losses; those of others are dropped
    at the update.

    Attributes:
      among: the losses whose programs it shares, itself included.
    """

    among: Losses

    @functools.cached_property
    def _family(self) -> Family:
        head = heads.head_of(self.loss)
        alike = tuple(loss for loss in self.among if heads.head_of(loss) == head)
        return family(alike, self.config, self.mesh)

    @functools.cached_property
    def zeros(self):
        return self._family.base.zeros

    @functools.cached_property
    def score(self):
        return self._family.base.score

    @functools.cached_property
    def accumulate(self):
        shared = self._family
        which = np.int32(shared.losses.index(self.loss))

        def accumulate(weights, total, batch):
            return shared.accumulate(which, weights, total, shared.whole(batch))

        return Counted(accumulate, shared.accumulate)

    @functools.cached_property
    def update(self):
        program = self._family.update(self.optimizer)
        others = set(self._family.base._metric_names()) - set(self._metric_names())

        def update(state, total):
            state, metrics = program(state, total)
            return state, {n: x for n, x in metrics.items() if n not in others}

        return Counted(update, program)
