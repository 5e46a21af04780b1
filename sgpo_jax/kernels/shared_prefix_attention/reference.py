"""The definition: dense attention in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .layout import Layout
from .reads import Window, dense
from .scores import Scores


def attend(
    q: Float[Array, "N L H C"],
    k: Float[Array, "N L K C"],
    v: Float[Array, "N L K C"],
    layout: Layout,
    window: Window,
    scores: Scores,
) -> Float[Array, "N L H C"]:
    """Softmax over the keys each query reads; exactly 0 where a query reads none."""
    rows, length, heads, width = q.shape
    query, key, value = (x.astype(jnp.float32) for x in (q, k, v))
    query = query.reshape(rows, length, k.shape[2], -1, width)
    with jax.default_matmul_precision("highest"):
        logits = scores.cap(jnp.einsum("nqkgc,njkc->nkgqj", query, key) * scores.scale)
        read = dense(layout, window=window)[:, None, None]
        # Subtracting a finite maximum keeps a query that reads nothing finite.
        top = jnp.max(logits, axis=-1, keepdims=True, where=read, initial=-1e30)
        weight = jnp.where(read, jnp.exp(jnp.where(read, logits - top, 0.0)), 0.0)
        total = weight.sum(-1, keepdims=True)
        weight = weight / jnp.where(total > 0, total, 1.0)
        out = jnp.einsum("nkgqj,njkc->nqkgc", weight, value)
    return out.reshape(rows, length, heads, width).astype(q.dtype)
