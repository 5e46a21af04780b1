"""Key-value caches of the sampler, and attention over them.

Two parts, merged in one softmax. The *prefix* of a prompt is stored once per bank and
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


class Vectors(NamedTuple):
    """Vectors as they are stored; int8 ones with a scale each.

    Attributes:
      values: floating point, or int8.
      scale: what int8 values are multiplied by; None for floating point.
    """

    values: Shaped[Array, "*n C"]
    scale: Float[Array, "*n"] | None


class Cache(NamedTuple):
    """Keys and values of every layer.

    The leading axes are [layers, prompts, heads, positions] in the table of encoded
    prompts, [layers, lanes, heads, banks * positions] in the lanes, and [layers, lanes,
    heads, slots, T] in the ring of own tokens, whose column is the step modulo T.
    """

    key: Vectors
    value: Vectors


def empty(config: DecoderConfig, dtype: str, rows: int, *inner: int) -> Cache:
    """Return zeroed storage [layers, rows, heads, *inner]."""
    shape = (config.num_layers, rows, config.num_kv_heads, *inner)

    def vectors() -> Vectors:
        scale = jnp.zeros(shape, jnp.float32) if dtype == "int8" else None
        return Vectors(jnp.zeros((*shape, config.head_dim), jnp.dtype(dtype)), scale)

    return Cache(vectors(), vectors())


def encode(x: Float[Array, "*n C"], like: Vectors) -> Vectors:
    """Return `x` in the format of `like`.

    int8: a vector is divided by max |x| / 127 and rounded, so that its error is at
    most max |x| / 254 per element.

    >>> x = jnp.array([[1.0, -2.0]])
    >>> encode(x, Vectors(jnp.zeros((1, 2), jnp.int8), jnp.zeros(1))).values
    Array([[  64, -127]], dtype=int8)
    """
    if like.scale is None:
        return Vectors(x.astype(like.values.dtype), None)
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / 127
    rounded = jnp.round(x / jnp.maximum(scale, 1e-30)[..., None])
    return Vectors(rounded.astype(jnp.int8), scale)


def write(into: Cache, new: Cache, start: Sequence[Int[Array, ""] | int]) -> Cache:
    """Write a block of the same rank; `start` names all axes but the last."""

    def update(old: Array, block: Array) -> Array:
        index = [jnp.asarray(i, jnp.int32) for i in (*start, 0)]
        return jax.lax.dynamic_update_slice(old, block, index[: old.ndim])

    return jax.tree.map(update, into, new)


def copy_prefix(
    lanes: Cache,
    table: Cache,
    row: Int[Array, ""],
    lane: Int[Array, ""],
    bank: Int[Array, ""],
) -> Cache:
    """Copy one row of the table into one bank of one lane."""
    prefix = jax.tree.map(
        lambda source: jax.lax.dynamic_slice_in_dim(source, row, 1, axis=1), table
    )
    length = table.key.values.shape[3]
    return write(lanes, prefix, (0, lane, 0, bank * length))


FAR = 2**30
"""A distance that no window reaches."""


def behind_in_prefix(slots: Slots, banks: int, length: int) -> Int[Array, "A S J"]:
    """Return how far each position of its lane's banks lies behind a slot's token.

    `FAR` where the position is not of the slot's own prompt.
    """
    column = jnp.arange(banks * length, dtype=jnp.int32)[None, None]
    bank, prefix, age = (x[:, :, None] for x in (slots.bank, slots.prefix, slots.age))
    own = (column // length == bank) & (column % length < prefix)
    return jnp.where(own, prefix + age - column % length, FAR)


def behind_in_ring(
    age: Int[Array, "A S"], column: Int[Array, ""], length: int
) -> Int[Array, "A S T"]:
    """Return how many steps ago each column of the ring was written.

    `FAR` where that was before the slot's sample began: it reads its last age + 1.
    """
    behind = (column - jnp.arange(length, dtype=jnp.int32)) % length
    return jnp.where(behind[None, None] <= age[:, :, None], behind[None, None], FAR)


def attend_to_caches(
    lanes: Cache,
    prefix_behind: Int[Array, "A S J"],
    own_behind: Int[Array, "A S T"],
    column: Int[Array, ""],
) -> models.Attend:
    r"""Return attention of one new token per slot; the ring is the carry.

    .. math:: o = \frac{e^{s_p} V_p + e^{s_o} V_o}{\sum e^{s_p} + \sum e^{s_o}}

    with scores s_p of the shared prefix and s_o of the own tokens, each no further
    behind than the layer's window.
    """
    shape = own_behind.shape[:2]
    width = prefix_behind.shape[2]
    behind = jnp.concatenate([prefix_behind, own_behind], axis=2)[:, None, :, None]

    def by_head(x: Array) -> Array:
        """[A*S, 1, K*G, C] -> [A, K, S, G, C]."""
        x = x.reshape(*shape, lanes.key.values.shape[2], -1, x.shape[-1])
        return jnp.swapaxes(x, 1, 2)

    def attend(layer: models.Layer, q: Array, k: Array, v: Array, carry: Cache):
        block = Cache(
            *(
                encode(by_head(x)[None], like)
                for x, like in ((k, carry.key), (v, carry.value))
            )
        )
        ring = write(carry, block, (layer.index, 0, 0, 0, column))
        prefix, own = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, layer.index, keepdims=False),
            (lanes, ring),
        )
        queries = by_head(q)
        products = jnp.concatenate(
            [_products(queries, prefix.key), _products(queries, own.key)], axis=-1
        )
        reads = behind < (FAR if layer.window is None else layer.window)
        logits = jnp.where(reads, layer.logits(products), -jnp.inf)
        weights = jax.nn.softmax(logits, axis=-1)
        out = _mix(weights[..., :width], prefix.value, q.dtype)
        out += _mix(weights[..., width:], own.value, q.dtype)
        return jnp.swapaxes(out, 1, 2).reshape(q.shape), ring

    return attend


def _per_slot(x: Array) -> Array:
    """[A, K, J] -> [A, K, 1, 1, J]; [A, K, S, T] -> [A, K, S, 1, T]."""
    return x[:, :, None, None] if x.ndim == 3 else x[:, :, :, None]


def _letters(stored: Vectors) -> str:
    """Axes of stored vectors: of the lane (j), or of each slot (s, j)."""
    return "akjc" if stored.values.ndim == 4 else "aksjc"


def _products(
    q: Float[Array, "A K S G C"], stored: Vectors
) -> Float[Array, "A K S G J"]:
    keys = stored.values.astype(q.dtype)
    products = jnp.einsum(f"aksgc,{_letters(stored)}->aksgj", q, keys)
    products = products.astype(jnp.float32)
    return products if stored.scale is None else products * _per_slot(stored.scale)


def _mix(
    weights: Float[Array, "A K S G J"], stored: Vectors, dtype: jnp.dtype
) -> Float[Array, "A K S G C"]:
    if stored.scale is not None:
        weights = weights * _per_slot(stored.scale)
    values = stored.values.astype(dtype)
    return jnp.einsum(f"aksgj,{_letters(stored)}->aksgc", weights.astype(dtype), values)
