"""Prompts into the table of encoded prefixes, whole or in chunks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from sgpo_jax import models
from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling.cache import Cache, Quantized, quantize, write


def prefill(
    params: models.Params,
    table: Cache,
    tokens: Int[Array, "M C"],
    first_row: Int[Array, ""],
    start: Int[Array, ""],
    *,
    config: DecoderConfig,
    chunked: bool,
) -> Cache:
    """Encode positions `start` to `start + C` of prompts into rows of the table.

    Only keys and values are kept: the last prompt token is every sample's first input,
    so no logits are needed here.

    Args:
      params: the policy.
      table: keys and values of prompts; earlier chunks are in it.
      tokens: prompts, or one chunk of each, right-padded.
      first_row: of the table.
      start: position of the first token; a multiple of C.
      config: shape of the decoder.
      chunked: whether there are earlier chunks to read. Without, memory grows with the
        square of the longest prompt; with, only by one layer's keys and values, and
        the result differs by the rounding of what the table stores.

    Returns:
      The table.
    """

    def attend(layer: models.Layer, q: Array, k: Array, v: Array, carry: Cache):
        block = Cache(
            *(
                quantize(jnp.swapaxes(x, 1, 2)[None], like)
                for x, like in ((k, carry.key), (v, carry.value))
            )
        )
        if chunked:
            out = _attend_to_chunks(layer, q, k, v, carry, first_row, start)
        else:
            out, _ = models.causal(layer, q, k, v, None)
        return out, write(carry, block, (layer.index, first_row, 0, start))

    places = start + jnp.arange(tokens.shape[1], dtype=jnp.int32)
    positions = jnp.broadcast_to(places, tokens.shape)
    return models.apply(params, config, tokens, positions, attend, table)[1]


class _Sum(NamedTuple):
    """A softmax average in the making: largest logit, sum of weights, weighted sum."""

    largest: Float[Array, "M K G C"]
    weight: Float[Array, "M K G C"]
    total: Float[Array, "M K G C D"]


def _attend_to_chunks(
    layer: models.Layer,
    q: Float[Array, "M C H D"],
    k: Float[Array, "M C K D"],
    v: Float[Array, "M C K D"],
    table: Cache,
    first_row: Int[Array, ""],
    start: Int[Array, ""],
) -> Float[Array, "M C H D"]:
    """Attend to the chunk itself and, one by one, to those before it in the table.

    The softmax is accumulated from chunk to chunk (Milakov and Gimelshein 2018,
    arXiv:1805.02867), so that no more than C x C logits of a head exist at once.
    """
    rows, width, kv_heads = k.shape[:3]
    queries = q.reshape(rows, width, kv_heads, -1, q.shape[3]).astype(jnp.float32)
    place = jnp.arange(width, dtype=jnp.int32)
    distance = place[:, None] - place[None]

    def add(sofar: _Sum, keys: Array, values: Array, distance: Array) -> _Sum:
        products = jnp.einsum("mikgd,mkjd->mkgij", queries, keys.astype(jnp.float32))
        reads = distance >= 0
        if layer.window is not None:
            reads &= distance < layer.window
        logits = jnp.where(reads[None, None, None], layer.logits(products), -jnp.inf)
        largest = jnp.maximum(sofar.largest, jnp.max(logits, axis=-1))
        # Where nothing can be read yet, exponents are of -inf - 0.
        shift = jnp.where(jnp.isfinite(largest), largest, 0)
        weights = jnp.exp(logits - shift[..., None])
        scale = jnp.exp(sofar.largest - shift)
        total = jnp.einsum("mkgij,mkjd->mkgid", weights, values.astype(jnp.float32))
        return _Sum(
            largest,
            sofar.weight * scale + jnp.sum(weights, axis=-1),
            sofar.total * scale[..., None] + total,
        )

    # Sliced before the loop: a loop over the table itself would have it copied.
    stored = jax.tree.map(lambda x: _of_layer(x, layer.index, first_row, rows), table)

    def earlier(chunk: Array, sofar: _Sum) -> _Sum:
        keys, values = (_read(x, chunk * width, width) for x in stored)
        return add(sofar, keys, values, distance + start - chunk * width)

    shape = (rows, kv_heads, queries.shape[3], width)
    nothing = _Sum(
        jnp.full(shape, -jnp.inf), jnp.zeros(shape), jnp.zeros((*shape, q.shape[3]))
    )
    own = add(nothing, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), distance)
    whole = jax.lax.fori_loop(0, start // width, earlier, own)
    out = whole.total / whole.weight[..., None]
    return jnp.moveaxis(out, 3, 1).reshape(q.shape).astype(q.dtype)


def _of_layer(
    stored: Shaped[Array, "layers rows K J *C"],
    layer: Int[Array, ""] | int,
    first_row: Int[Array, ""],
    rows: int,
) -> Shaped[Array, "M K J *C"]:
    """Return some rows of one layer."""
    at = (layer, first_row, *[jnp.int32(0)] * (stored.ndim - 2))
    return jax.lax.dynamic_slice(stored, at, (1, rows, *stored.shape[2:]))[0]


def _read(stored: Quantized, first: Array, width: int) -> Float[Array, "M K C D"]:
    """Return `width` stored vectors of each head as numbers."""

    def cut(x: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first, width, axis=2)

    values = cut(stored.values).astype(jnp.float32)
    return values if stored.scale is None else values * cut(stored.scale)[..., None]
