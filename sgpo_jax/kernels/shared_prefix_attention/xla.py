"""Attention in plain XLA, with work proportional to the tiles that are read.

Forward and backward follow FlashAttention-2 (Dao 2023, arXiv:2307.08691, algorithms 1
and 2): only the log-sum-exp of each query is kept, and probabilities are recomputed.
The loops run over the live tiles of each row, which are data: one program serves every
layout. Rows are taken one after the other, so on several devices call this under
`shard_map`, as `over_mesh` does.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .layout import Layout
from .reads import Window, reads, recent, tiles
from .scores import Scores

LOWEST = -1e30  # finite, so that a query that reads nothing has no infinities


def attend(
    q: Float[Array, "N L H C"],
    k: Float[Array, "N L K C"],
    v: Float[Array, "N L K C"],
    layout: Layout,
    window: Window,
    scores: Scores,
    tile: int,
) -> Float[Array, "N L H C"]:
    """Attention over the keys each query reads; exactly 0 where a query reads none."""
    if window is not None:
        window = jnp.asarray(window, jnp.int32)
    return _attend(q, k, v, layout, window, scores, tile)


def tile_for(length: int) -> int:
    """Queries, and keys, per tile for rows of this length."""
    # Short rows hold short groups, of which larger tiles would waste more. Measured on
    # CPU: below these sizes the overhead of a loop step shows, above them the waste.
    return min(length, 64) if length <= 1024 else 128


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(q, k, v, layout, window, scores, tile):
    return _forward(q, k, v, layout, window, scores, tile)[0]


def _forward(q, k, v, layout, window, scores, tile):
    length = q.shape[1]
    blocks = _split_heads(q, k.shape[2], tile), _split(k, tile), _split(v, tile)
    layout = _padded(layout, -length % tile)
    out, lse = _tiled_forward(*blocks, layout, window, scores)
    out = _join_heads(out, length).astype(q.dtype)
    return out, (q, k, v, out, lse, layout, window)


def _backward(scores, tile, residuals, dout):
    q, k, v, out, lse, layout, window = residuals
    length = q.shape[1]
    heads = functools.partial(_split_heads, kv_heads=k.shape[2], tile=tile)
    delta = jnp.sum(
        heads(dout).astype(jnp.float32) * heads(out).astype(jnp.float32), axis=-1
    )
    blocks = heads(q), _split(k, tile), _split(v, tile), heads(dout), lse, delta
    dq, dk, dv = _tiled_backward(blocks, layout, window, scores)
    return (
        _join_heads(dq, length).astype(q.dtype),
        _join(dk, length).astype(k.dtype),
        _join(dv, length).astype(v.dtype),
        None,
        None,
    )


_attend.defvjp(_forward, _backward)


# One tile. q, dout: [K G i C]; k, v: [K j C]; lse, delta: [K G i]; mask: [i j].

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _grads(q, k, v, dout, lse, delta, mask, scores):
    """Gradients that one tile contributes to its queries, keys and values.

    Scores are [j i] here: then only one of the five products has a transposed operand,
    which matrix products on CPU are slower at, instead of two.
    """
    logits = scores.cap(_einsum("kjc,kgic->kgji", k, q) * scores.scale)
    p = jnp.where(mask.T, jnp.exp(logits - lse[..., None, :]), 0.0)
    dp = _einsum("kjc,kgic->kgji", v, dout)
    ds = p * (dp - delta[..., None, :]) * scores.slope(logits)
    ds, p = ds.astype(q.dtype), p.astype(dout.dtype)
    return (
        _einsum("kgji,kjc->kgic", ds, k),
        _einsum("kgji,kgic->kjc", ds, q),
        _einsum("kgji,kgic->kjc", p, dout),
    )


# All tiles: for each row and query tile, a loop over the key tiles it reads.


def _tiled_forward(q, k, v, layout, window, scores):
    rows, count, kv_heads, group, tile, _ = q.shape
    live = _live_tiles(layout, window, tile)

    def query_tile(step):
        row, i = step // count, step % count
        query = q[row, i]

        def key_tile(t, carry):
            top, total, out = carry
            j = live.keys[row, i, t]
            mask = _tile_mask(layout, window, row, i, j, tile)
            products = _einsum("kgic,kjc->kgij", query, k[row, j])
            logits = jnp.where(mask, scores.cap(products * scores.scale), LOWEST)
            new_top = jnp.maximum(top, logits.max(-1, keepdims=True))
            p = jnp.exp(logits - new_top)
            fade = jnp.exp(top - new_top)
            total = total * fade + p.sum(-1, keepdims=True)
            values = _einsum("kgij,kjc->kgic", p.astype(v.dtype), v[row, j])
            return new_top, total, out * fade + values

        zeros = jnp.zeros((kv_heads, group, tile, 1), jnp.float32)
        # Above what is masked, whose weights are 0 then even before anything is read.
        start = zeros + LOWEST / 2, zeros, jnp.zeros(query.shape, jnp.float32)
        top, total, out = jax.lax.fori_loop(0, live.number[row, i], key_tile, start)
        total = jnp.where(total > 0, total, 1.0)
        return out / total, (top + jnp.log(total))[..., 0]

    out, lse = jax.lax.map(query_tile, jnp.arange(rows * count, dtype=jnp.int32))
    return out.reshape(q.shape), lse.reshape(q.shape[:-1])


def _tiled_backward(blocks, layout, window, scores):
    q, k, v, dout, lse, delta = blocks
    rows, count, *_, tile, _ = q.shape
    live = _live_tiles(layout, window, tile)

    def query_tile(carry, step):
        row, i = step // count, step % count
        blocks = dout[row, i], lse[row, i], delta[row, i]

        def key_tile(t, carry):
            dq, dk, dv = carry
            j = live.keys[row, i, t]
            mask = _tile_mask(layout, window, row, i, j, tile)
            dq_, dk_, dv_ = _grads(
                q[row, i], k[row, j], v[row, j], *blocks, mask, scores
            )
            return dq + dq_, dk.at[row, j].add(dk_), dv.at[row, j].add(dv_)

        dq = jnp.zeros(q.shape[2:], jnp.float32)
        dq, *carry = jax.lax.fori_loop(0, live.number[row, i], key_tile, (dq, *carry))
        return tuple(carry), dq

    zeros = jnp.zeros(k.shape, jnp.float32)
    steps = jnp.arange(rows * count, dtype=jnp.int32)
    (dk, dv), dq = jax.lax.scan(query_tile, (zeros, zeros), steps)
    return dq.reshape(q.shape), dk, dv


class _LiveTiles(NamedTuple):
    """The key tiles each query tile reads: the first `number` of `keys`, ascending."""

    keys: Int[Array, "N nq nk"]
    number: Int[Array, "N nq"]


def _live_tiles(layout: Layout, window: Window, tile: int) -> _LiveTiles:
    live = tiles(layout, query_tile=tile, key_tile=tile, window=window).live
    keys = jnp.argsort(~live, axis=-1, stable=True).astype(jnp.int32)
    return _LiveTiles(keys, live.sum(-1, dtype=jnp.int32))


def _tile_mask(layout: Layout, window: Window, row, i, j, tile: int):
    def of(x, at):
        return jax.lax.dynamic_slice(x, (row, at * tile), (1, tile))[0]

    index = jnp.arange(tile, dtype=jnp.int32)
    mask = reads(i * tile + index, j * tile + index, of(layout.end, j))
    if window is None:
        return mask
    return mask & recent(of(layout.position, i), of(layout.position, j), window)


def _padded(layout: Layout, extra: int) -> Layout:
    return Layout(*(jnp.pad(x, ((0, 0), (0, extra))) for x in layout))


# Between [N L heads C] and tiles.


def _split(x: Float[Array, "N L K C"], tile: int) -> Float[Array, "N n K tile C"]:
    rows, length, heads, width = x.shape
    x = jnp.pad(x, ((0, 0), (0, -length % tile), (0, 0), (0, 0)))
    return x.reshape(rows, -1, tile, heads, width).swapaxes(2, 3)


def _join(x: Float[Array, "N n K tile C"], length: int) -> Float[Array, "N L K C"]:
    rows, count, heads, tile, width = x.shape
    return x.swapaxes(2, 3).reshape(rows, count * tile, heads, width)[:, :length]


def _split_heads(x, kv_heads: int, tile: int) -> Float[Array, "N n K G tile C"]:
    blocks = _split(x, tile)
    rows, count, _, _, width = blocks.shape
    return blocks.reshape(rows, count, kv_heads, -1, tile, width)


def _join_heads(x: Float[Array, "N n K G tile C"], length: int):
    rows, count, _, _, tile, width = x.shape
    return _join(x.reshape(rows, count, -1, tile, width), length)
