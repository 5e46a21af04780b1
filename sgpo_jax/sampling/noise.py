"""Gumbel noise, bit for bit that of `jax.random.gumbel`, and the argmax that draws.

On CPU, JAX runs the rounds of its generator as a loop over arrays in memory; written
out, they are one pass (7 times faster for 64 x 32,000 numbers).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from sgpo_jax import streams

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def gumbel(
    key: UInt32[Array, "N 2"], age: Int[Array, " N"], size: int
) -> Float[Array, "N V"]:
    """Return standard Gumbel noise; row n is that of its key folded with its age.

    >>> key = jax.random.key(3)
    >>> (row,) = gumbel(jax.random.key_data(key)[None], jnp.array([5]), 4)
    >>> bool((row == jax.random.gumbel(jax.random.fold_in(key, 5), (4,))).all())
    True
    """

    def fold(key: Array, age: Array) -> Array:
        own = streams.token(jax.random.wrap_key_data(key), age)
        return jax.random.key_data(own)

    bits = _threefry(jax.vmap(fold)(key, age), size)
    # As many bits as the significand has: a number in [1, 2), less 1.
    one_to_two = (bits >> jnp.uint32(9)) | jnp.uint32(0x3F800000)
    unit = jax.lax.bitcast_convert_type(one_to_two, jnp.float32) - 1
    tiny = jnp.finfo(jnp.float32).tiny
    unit = jnp.maximum(tiny, unit * (1 - tiny) + tiny)
    return -jnp.log(-jnp.log(unit))


def _threefry(key: UInt32[Array, "N 2"], size: int) -> UInt32[Array, "N V"]:
    """Return the bits of counters 0 to `size` (Threefry-2x32, Salmon et al. 2011)."""
    first, second = key[:, :1], key[:, 1:]
    keys = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    counter = jnp.arange(size, dtype=jnp.uint32)[None]
    # The counter has 64 bits, of which the upper half is zero.
    x = jnp.broadcast_to(first, (len(key), size))
    y = counter + second
    for turn in range(5):
        for distance in _ROTATIONS[turn % 2]:
            x = x + y
            y = (y << jnp.uint32(distance)) | (y >> jnp.uint32(32 - distance))
            y = x ^ y
        x = x + keys[(turn + 1) % 3]
        y = y + keys[(turn + 2) % 3] + jnp.uint32(turn + 1)
    return x ^ y


def first_largest(values: Float[Array, "N V"]) -> Int[Array, " N"]:
    """Return the argmax of each row as two reductions, which vectorize on CPU.

    >>> first_largest(jnp.array([[1.0, 3.0, 3.0]]))
    Array([1], dtype=int32)
    """
    index = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    largest = jnp.max(values, axis=-1, keepdims=True)
    return jnp.min(jnp.where(values == largest, index, values.shape[1] - 1), axis=-1)
