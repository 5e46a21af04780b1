"""The learnt log-normalizer in the training state: start, sharding, input, update."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, PyTree

from sgpo_jax import methods, packing, sharding, streams

NAME = "log_z"
"""Its place among the weights that are trained."""


def head_of(loss: methods.TokenLoss) -> methods.LogZ | None:
    """Head that an objective asks for; None if it asks for none.

    Raises:
      ValueError: if it asks for "log_z" and does not say for which.
    """
    if "log_z" not in loss.needs:
        return None
    head = getattr(loss.objective, "log_z", None)
    if not isinstance(head, methods.LogZ):
        raise ValueError(
            f'objective {loss.objective} needs "log_z": give it an attribute log_z,'
            " for example log_z = methods.LogZ()"
        )
    return head


def start(head: methods.LogZ, embed_dim: int) -> dict[str, PyTree]:
    """Parameters and optimizer state before the first update, always the same."""
    params = head.init(streams.parameters(0), embed_dim=embed_dim)
    return {"params": params, "opt_state": head.make_optimizer().init(params)}


def shardings(
    head: methods.LogZ, embed_dim: int, rules: sharding.Rules, mesh: Mesh
) -> dict[str, PyTree]:
    """Shardings of `start`; moments are split as their parameters."""
    shapes = jax.eval_shape(lambda: start(head, embed_dim))
    params = sharding.tree_shardings(head.axes(), shapes["params"], rules, mesh)
    whole = NamedSharding(mesh, jax.sharding.PartitionSpec())
    opt_state = optax.tree.map_params(
        head.make_optimizer(),
        lambda _, s: s,
        shapes["opt_state"],
        params,
        transform_non_params=lambda _: whole,
    )
    return {"params": params, "opt_state": opt_state}


def prompt_hidden(
    predictors: Float[Array, "N M D"], packed: packing.Packed
) -> Float[Array, "R D"]:
    """Hidden state that predicts the first token of each response slot.

    The slots of a row follow each other, so nothing leaves its row. Empty slots hold
    some state of their row.
    """
    rows, targets, width = predictors.shape
    slots = packed.gather.shape[0] // rows
    first = jnp.asarray(packed.gather)[:, 0].reshape(rows, slots)
    offset = jnp.arange(rows, dtype=first.dtype)[:, None] * targets
    inside = jnp.clip(first - offset, 0, targets - 1)
    found = jnp.take_along_axis(predictors, inside[:, :, None], axis=1)
    return found.reshape(rows * slots, width)


def updated(head: methods.LogZ, state: PyTree, grads: Any) -> dict[str, PyTree]:
    """Parameters and optimizer state after an update."""
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = head.make_optimizer().update(
            grads, state["opt_state"], state["params"]
        )
        params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt_state": opt_state}
