"""Copies of the trained parameters: reference, averaged, and the sampler's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from sgpo_jax import models
from sgpo_jax.methods import Method
from sgpo_jax.training.state import TrainState


def copy_names(method: Method) -> list[str]:
    """Names of the copies a method keeps."""
    names = {
        "reference": "reference" in method.needs,
        "averaged": method.averaging > 0,
        "behavior": method.max_staleness > 0,
    }
    return [name for name, wanted in names.items() if wanted]


def first_copies(method: Method, state: TrainState) -> dict[str, PyTree]:
    """Copies a method keeps, at the start: the initial policy's trained parameters.

    With adapters only these are copied; the frozen matrices are shared.
    """
    return {name: trained_copy(state) for name in copy_names(method)}


def trained_copy(state: TrainState) -> PyTree:
    """Copy of the trained parameters, in their sharding."""
    return jax.tree.map(jnp.copy, models.trainable(state.params)[0])


def with_copy(state: TrainState, copy: PyTree) -> PyTree:
    """Parameters of a copy: its own trained ones, and the frozen ones of the state."""
    return {**copy, **models.trainable(state.params)[1]}


def averaged(copy: PyTree, state: TrainState, *, decay: float) -> PyTree:
    r"""Exponential moving average of the trained parameters after an update.

    .. math:: \bar\theta \leftarrow d \bar\theta + (1 - d) \theta
    """
    return _average(copy, models.trainable(state.params)[0], decay)


@functools.partial(jax.jit, donate_argnums=0)
def _average(copy: PyTree, params: PyTree, decay: Any) -> PyTree:
    def mean(old: jax.Array, new: jax.Array) -> jax.Array:
        wide = decay * old.astype(jnp.float32) + (1 - decay) * new.astype(jnp.float32)
        return wide.astype(old.dtype)

    return jax.tree.map(mean, copy, params)
