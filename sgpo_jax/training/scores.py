"""Log-probabilities over a mesh: each device scores its own rows."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from sgpo_jax import losses, sharding


def over_mesh(
    mesh: Mesh, rules: sharding.Rules = sharding.Rules()
) -> Callable[..., losses.TokenLogProbs]:
    """Return `losses.token_log_probs` for hidden states whose first axis is `rows`.

    The unembedding is gathered over the axes of `rows` once for all chunks, and what
    the chunks give it as gradient is added up on the device before the devices' parts
    are summed and scattered, once. A compiler left to itself does both for every chunk.
    Words that are split stay so: the gathering is over one part of them, the compiler
    sees to the rest.

    Args:
      mesh: the devices.
      rules: over which of its axes rows and the width of the model are split.

    Example:
      >>> import numpy as np
      >>> mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
      >>> hidden, matrix = jax.numpy.zeros((2, 3, 4)), jax.numpy.ones((4, 8))
      >>> targets = jax.numpy.zeros((2, 3), int)
      >>> over_mesh(mesh)(hidden, matrix, targets).entropy.shape
      (2, 3)
    """
    rows = (rules.rows,) if isinstance(rules.rows, str) else rules.rows
    if rows is None or all(mesh.shape[axis] == 1 for axis in rows):
        return losses.token_log_probs

    others = set(mesh.axis_names) - set(rows)

    def score(
        hidden: Any, unembedding: Any, targets: Any, mask: Any = None, **options: Any
    ) -> losses.TokenLogProbs:
        width = sharding.dividing(mesh, rules.embed, unembedding.shape[0])
        words = sharding.dividing(mesh, rules.vocab, unembedding.shape[1])
        width = width if width in rows else None

        def whole(part: Any) -> Any:
            return jax.lax.all_gather(part, width, tiled=True)

        if words in others:  # left to itself, the compiler gathers the words first
            whole = jax.shard_map(
                whole,
                in_specs=PartitionSpec(None, words),
                out_specs=PartitionSpec(None, words),
                axis_names=others,
                check_vma=False,
            )

        def local(hidden, unembedding, targets, mask):
            if width is not None:
                unembedding = whole(unembedding)
            return losses.token_log_probs(
                hidden, unembedding, targets, mask=mask, **options
            )

        split = PartitionSpec(rows)
        scored = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(split, PartitionSpec(width), split, split),
            out_specs=split,
            axis_names=set(rows),
            check_vma=False,
        )
        return scored(hidden, unembedding, targets, mask)

    return score
