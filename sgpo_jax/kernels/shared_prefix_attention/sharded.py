"""Rows and heads over the devices of a mesh."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from .api import Implementation, shared_prefix_attention
from .layout import Layout
from .reads import Window


def over_mesh(
    mesh: Mesh,
    *,
    rows: str | tuple[str, ...] | None = ("data", "fsdp"),
    heads: str | None = "tensor",
) -> Callable[..., Float[Array, "N L H C"]]:
    """Return `shared_prefix_attention` with each device doing its rows and heads.

    Nothing is communicated: a row's keys, and a key head's queries, stay together. A
    compiler left to itself would gather all rows instead, as loops over tiles and
    kernels cannot be partitioned.

    Args:
      mesh: the devices.
      rows: mesh axes over which rows are split.
      heads: mesh axis over which key heads, and the query heads that read them, are
        split; its size must divide their number.

    Example:
      >>> import numpy as np
      >>> attention = over_mesh(Mesh(np.array(jax.devices()[:1]), "data"), rows="data",
      ...                       heads=None)
    """

    def attention(
        q: Float[Array, "N L H C"],
        k: Float[Array, "N L K C"],
        v: Float[Array, "N L K C"],
        layout: Layout,
        *,
        scale: float | None = None,
        window: Window = None,
        soft_cap: float | None = None,
        implementation: Implementation | None = None,
    ) -> Float[Array, "N L H C"]:
        def local(q, k, v, layout, window):
            return shared_prefix_attention(
                q,
                k,
                v,
                layout,
                scale=scale,
                window=window,
                soft_cap=soft_cap,
                implementation=implementation,
            )

        split = PartitionSpec(rows, None, heads)
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(split, split, split, PartitionSpec(rows), PartitionSpec()),
            out_specs=split,
            check_vma=False,
        )(q, k, v, layout, window)

    return attention
