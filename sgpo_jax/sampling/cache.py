"""Key-value caches of the sampler, and attention over them.

Two parts, merged in one softmax. The *prefix* of a prompt is stored once per lane and
read by all slots of the lane with one batched product. A slot's *own* tokens are stored
in a ring: at every step all slots write to the same column, whatever the ages of their
samples, so that the write is one contiguous update in place instead of a scatter; a
sample of age t sees the columns written in the last t + 1 steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from sgpo_jax import models
from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling.slots import Slots


class Quantized(NamedTuple):
    """Vectors in storage format; int8 ones with a scale each.

    Attributes:
      values: floating point, or int8.
      scale: what int8 values are multiplied by; None for floating point.
    """

    values: Shaped[Array, "*n C"]
    scale: Float[Array, "*n"] | None


class Cache(NamedTuple):
    """Keys and values.

    The leading axes are [layers, prompts, heads, positions] in the table of encoded
    prompts. What the decode loop reads is a cache for each layer, for of a larger array
    XLA copies the part that a product reads on CPU: [lanes, heads, entries * positions]
    in the lanes, and [lanes, heads, slots, T] in the ring of own tokens, whose column
    is the step modulo T.
    """

    key: Quantized
    value: Quantized


Layers = tuple[Cache, ...]
"""A cache for each layer."""


def empty(config: DecoderConfig, dtype: str, *shape: int) -> Cache:
    """Return zeroed storage of vectors."""

    def vectors() -> Quantized:
        scale = jnp.zeros(shape, jnp.float32) if dtype == "int8" else None
        return Quantized(jnp.zeros((*shape, config.head_dim), jnp.dtype(dtype)), scale)

    return Cache(vectors(), vectors())


def empty_table(config: DecoderConfig, dtype: str, rows: int, length: int) -> Cache:
    """Return a table without prompts."""
    shape = (config.num_layers, rows, config.num_kv_heads, length)
    return empty(config, dtype, *shape)


def empty_layers(config: DecoderConfig, dtype: str, lanes: int, *inner: int) -> Layers:
    """Return lanes or a ring without anything in them."""
    shape = (lanes, config.num_kv_heads, *inner)
    return tuple(empty(config, dtype, *shape) for _ in range(config.num_layers))


def quantize(x: Float[Array, "*n C"], like: Quantized) -> Quantized:
    """Return `x` in the format of `like`.

    int8: a vector is divided by max |x| / 127 and rounded, so that its error is at
    most max |x| / 254 per element.

    >>> x = jnp.array([[1.0, -2.0]])
    >>> quantize(x, Quantized(jnp.zeros((1, 2), jnp.int8), jnp.zeros(1))).values
    Array([[  64, -127]], dtype=int8)
    """
    if like.scale is None:
        return Quantized(x.astype(like.values.dtype), None)
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / 127
    rounded = jnp.round(x / jnp.maximum(scale, 1e-30)[..., None])
    return Quantized(rounded.astype(jnp.int8), scale)


def write(into: Cache, new: Cache, start: Sequence[Int[Array, ""] | int]) -> Cache:
    """Write a block of the same rank; `start` names all axes but the last."""

    def update(old: Array, block: Array) -> Array:
        index = [jnp.asarray(i, jnp.int32) for i in (*start, 0)]
        return jax.lax.dynamic_update_slice(old, block, index[: old.ndim])

    return jax.tree.map(update, into, new)


def copy_prefix(
    lanes: Layers,
    table: Cache,
    row: Int[Array, ""],
    lane: Int[Array, ""],
    entry: Int[Array, ""],
) -> Layers:
    """Copy one row of the table into one entry of one lane."""
    start = (lane, 0, entry * table.key.values.shape[3])

    def prefix(index: int) -> Cache:
        def cut(source: Array) -> Array:
            at = (index, row, *[0] * (source.ndim - 2))
            at = [jnp.asarray(i, jnp.int32) for i in at]
            return jax.lax.dynamic_slice(source, at, (1, 1, *source.shape[2:]))[0]

        return jax.tree.map(cut, table)

    return tuple(write(layer, prefix(i), start) for i, layer in enumerate(lanes))


UNREACHABLE = 2**30
"""A distance that no window reaches."""


def prefix_distance(slots: Slots, entries: int, length: int) -> Int[Array, "A S J"]:
    """Return the distance of each position of its lane's prompts to a slot's token.

    `UNREACHABLE` where the position is not of the slot's own prompt.
    """
    column = jnp.arange(entries * length, dtype=jnp.int32)[None, None]
    entry, prefix, age = (x[:, :, None] for x in (slots.entry, slots.prefix, slots.age))
    own = (column // length == entry) & (column % length < prefix)
    return jnp.where(own, prefix + age - column % length, UNREACHABLE)


def ring_distance(
    age: Int[Array, "A S"], column: Int[Array, ""], length: int
) -> Int[Array, "A S T"]:
    """Return how many steps ago each column of the ring was written.

    `UNREACHABLE` where that was before the slot's sample began: it reads its last
    `age`. The column that this step will write was written `length` steps ago: unread.
    """
    distance = (column - 1 - jnp.arange(length, dtype=jnp.int32)) % length + 1
    return jnp.where(
        distance[None, None] <= age[:, :, None], distance[None, None], UNREACHABLE
    )


def attend_to_caches(
    lanes: Layers,
    ring: Layers,
    prefix_behind: Int[Array, "A S J"],
    own_behind: Int[Array, "A S T"],
) -> models.Attend:
    r"""Return attention of one new token per slot; what it carries out is the token's.

    .. math:: o = \frac{e^{s_p} V_p + e^{s_o} V_o + e^s v}
                       {\sum e^{s_p} + \sum e^{s_o} + e^s}

    with scores s_p of the shared prefix, s_o of the own tokens in the ring and s of the
    new token, each no further behind than the layer's window. The ring is not written:
    `write_column` does, after all reads, so that no copy of it is made.
    """
    shape = own_behind.shape[:2]
    now = jnp.zeros((*shape, 1), jnp.int32)
    distance = jnp.concatenate([prefix_behind, own_behind, now], axis=2)
    distance = distance[:, None, :, None]
    parts = (prefix_behind.shape[2], distance.shape[-1] - 1)

    def by_head(x: Array) -> Array:
        """[A*S, 1, K*G, C] -> [A, K, S, G, C]."""
        x = x.reshape(*shape, lanes[0].key.values.shape[1], -1, x.shape[-1])
        return jnp.swapaxes(x, 1, 2)

    def attend(layer: models.Layer, q: Array, k: Array, v: Array, carry: None):
        del carry
        prefix, own = lanes[layer.index], ring[layer.index]
        queries, key, value = by_head(q), by_head(k), by_head(v)
        products = [
            _products(queries, prefix.key),
            _products(queries, own.key),
            jnp.sum(queries * key, axis=-1, keepdims=True, dtype=jnp.float32),
        ]
        reads = distance < (UNREACHABLE if layer.window is None else layer.window)
        logits = layer.logits(jnp.concatenate(products, axis=-1))
        weights = jax.nn.softmax(jnp.where(reads, logits, -jnp.inf), axis=-1)
        of_prefix, of_own, of_new = jnp.split(weights, parts, axis=-1)
        out = _mix(of_prefix, prefix.value, q.dtype) + _mix(of_own, own.value, q.dtype)
        out += of_new.astype(q.dtype) * value
        token = Cache(quantize(key, own.key), quantize(value, own.value))
        return jnp.swapaxes(out, 1, 2).reshape(q.shape), token

    return attend


def write_column(ring: Layers, new: Layers, column: Int[Array, ""]) -> Layers:
    """Write the new token of every slot."""
    return tuple(
        write(into, token, (0, 0, 0, column))
        for into, token in zip(ring, new, strict=True)
    )


def _per_slot(x: Array) -> Array:
    """[A, K, J] -> [A, K, 1, 1, J]; [A, K, S, T] -> [A, K, S, 1, T]."""
    return x[:, :, None, None] if x.ndim == 3 else x[:, :, :, None]


def _letters(stored: Quantized) -> str:
    """Axes of stored vectors: of the lane (j), or of each slot (s, j)."""
    return "akjc" if stored.values.ndim == 4 else "aksjc"


def _products(
    q: Float[Array, "A K S G C"], stored: Quantized
) -> Float[Array, "A K S G J"]:
    keys = stored.values.astype(q.dtype)
    products = jnp.einsum(f"aksgc,{_letters(stored)}->aksgj", q, keys)
    products = products.astype(jnp.float32)
    return products if stored.scale is None else products * _per_slot(stored.scale)


def _mix(
    weights: Float[Array, "A K S G J"], stored: Quantized, dtype: jnp.dtype
) -> Float[Array, "A K S G C"]:
    if stored.scale is not None:
        weights = weights * _per_slot(stored.scale)
    values = stored.values.astype(dtype)
    return jnp.einsum(f"aksgj,{_letters(stored)}->aksgc", weights.astype(dtype), values)
