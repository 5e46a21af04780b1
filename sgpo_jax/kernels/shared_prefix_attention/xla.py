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
    length, heads = q.shape[1:3]
    blocks = _split_queries(q, k.shape[2], tile), _split(k, tile), _split(v, tile)
    layout = _padded(layout, -length % tile)
    out, lse = _tiled_forward(*blocks, layout, window, scores, tile)
    out = _join_queries(out, heads, length, tile).astype(q.dtype)
    return out, (q, k, v, out, lse, layout, window)


def _backward(scores, tile, residuals, dout):
    q, k, v, out, lse, layout, window = residuals
    length, heads = q.shape[1:3]
    q_, dout_, out = (_split_queries(x, k.shape[2], tile) for x in (q, dout, out))
    delta = jnp.sum(dout_.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    columns = q_.swapaxes(-1, -2), dout_.swapaxes(-1, -2)
    blocks = _Queries(q_, dout_, *columns, lse, delta)
    dq, dk, dv = _tiled_backward(
        blocks, _split(k, tile), _split(v, tile), layout, window, scores, tile
    )
    return (
        _join_queries(dq, heads, length, tile).astype(q.dtype),
        _join(dk.swapaxes(-1, -2), length).astype(k.dtype),
        _join(dv.swapaxes(-1, -2), length).astype(v.dtype),
        None,
        None,
    )


_attend.defvjp(_forward, _backward)


# One tile. q, dout: [K i C], in which i runs over the queries of all heads that share a
# key head; k, v: [K j C]; lse, delta: [K i]; mask: [i j].


class _Queries(NamedTuple):
    """Residuals of queries for the gradients, in tiles; q and dout in either order."""

    q: Float[Array, "... K i C"]
    dout: Float[Array, "... K i C"]
    q_columns: Float[Array, "... K C i"]
    dout_columns: Float[Array, "... K C i"]
    lse: Float[Array, "... K i"]
    delta: Float[Array, "... K i"]


_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _grads(queries: _Queries, k, v, mask, scores: Scores):
    """Gradients that one tile contributes to its queries, keys and values.

    Those of keys and values are [K C j]. So every product contracts the last axis of
    its left side, as matrix products on CPU want it, and what is transposed for that
    are queries, before all loops, and not the probabilities of every tile.
    """
    q, dout, q_columns, dout_columns, lse, delta = queries
    logits = scores.cap(_einsum("kic,kjc->kij", q, k) * scores.scale)
    p = jnp.where(mask, jnp.exp(logits - lse[..., None]), 0.0)
    dp = _einsum("kic,kjc->kij", dout, v)
    ds = p * (dp - delta[..., None]) * scores.slope(logits)
    ds, p = ds.astype(q.dtype), p.astype(dout.dtype)
    return (
        _einsum("kij,kjc->kic", ds, k),
        _einsum("kci,kij->kcj", q_columns, ds),
        _einsum("kci,kij->kcj", dout_columns, p),
    )


# All tiles: for each row and query tile, a loop over the key tiles it reads.


def _tiled_forward(q, k, v, layout, window, scores, tile):
    rows, count, kv_heads, queries, _ = q.shape
    live = _live_tiles(layout, window, tile)

    def query_tile(step):
        row, i = step // count, step % count
        query = q[row, i]

        def key_tile(t, carry):
            top, total, out = carry
            j = live.keys[row, i, t]
            mask = _tile_mask(layout, window, row, i, j, tile, queries)
            products = _einsum("kic,kjc->kij", query, k[row, j])
            logits = jnp.where(mask, scores.cap(products * scores.scale), LOWEST)
            new_top = jnp.maximum(top, logits.max(-1, keepdims=True))
            p = jnp.exp(logits - new_top)
            fade = jnp.exp(top - new_top)
            total = total * fade + p.sum(-1, keepdims=True)
            values = _einsum("kij,kjc->kic", p.astype(v.dtype), v[row, j])
            return new_top, total, out * fade + values

        zeros = jnp.zeros((kv_heads, queries, 1), jnp.float32)
        # Above what is masked, whose weights are 0 then even before anything is read.
        start = zeros + LOWEST / 2, zeros, jnp.zeros(query.shape, jnp.float32)
        top, total, out = jax.lax.fori_loop(0, live.number[row, i], key_tile, start)
        total = jnp.where(total > 0, total, 1.0)
        return out / total, (top + jnp.log(total))[..., 0]

    out, lse = jax.lax.map(query_tile, jnp.arange(rows * count, dtype=jnp.int32))
    return out.reshape(q.shape), lse.reshape(q.shape[:-1])


def _tiled_backward(queries: _Queries, k, v, layout, window, scores, tile):
    rows, count, *_ = queries.q.shape
    live = _live_tiles(layout, window, tile)

    def query_tile(carry, step):
        row, i = step // count, step % count
        mine = _Queries(*(x[row, i] for x in queries))

        def key_tile(t, carry):
            dq, dk, dv = carry
            j = live.keys[row, i, t]
            mask = _tile_mask(layout, window, row, i, j, tile, mine.q.shape[1])
            dq_, dk_, dv_ = _grads(mine, k[row, j], v[row, j], mask, scores)
            return dq + dq_, dk.at[row, j].add(dk_), dv.at[row, j].add(dv_)

        dq = jnp.zeros(mine.q.shape, jnp.float32)
        dq, *carry = jax.lax.fori_loop(0, live.number[row, i], key_tile, (dq, *carry))
        return tuple(carry), dq

    zeros = jnp.zeros(k.swapaxes(-1, -2).shape, jnp.float32)
    steps = jnp.arange(rows * count, dtype=jnp.int32)
    (dk, dv), dq = jax.lax.scan(query_tile, (zeros, zeros), steps)
    return dq.reshape(queries.q.shape), dk, dv


class _LiveTiles(NamedTuple):
    """The key tiles each query tile reads: the first `number` of `keys`, ascending."""

    keys: Int[Array, "N nq nk"]
    number: Int[Array, "N nq"]


def _live_tiles(layout: Layout, window: Window, tile: int) -> _LiveTiles:
    live = tiles(layout, query_tile=tile, key_tile=tile, window=window).live
    keys = jnp.argsort(~live, axis=-1, stable=True).astype(jnp.int32)
    return _LiveTiles(keys, live.sum(-1, dtype=jnp.int32))


def _tile_mask(layout: Layout, window: Window, row, i, j, tile: int, queries: int):
    """Return [queries tile], the same for every `tile` queries: a head each."""

    def of(x, at):
        return jax.lax.dynamic_slice(x, (row, at * tile), (1, tile))[0]

    index = jnp.arange(tile, dtype=jnp.int32)
    mask = reads(i * tile + index, j * tile + index, of(layout.end, j))
    if window is not None:
        mask &= recent(of(layout.position, i), of(layout.position, j), window)
    return jnp.tile(mask, (queries // tile, 1))


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


def _split_queries(x, kv_heads: int, tile: int) -> Float[Array, "N n K i C"]:
    blocks = _split(x, tile)
    rows, count, _, _, width = blocks.shape
    return blocks.reshape(rows, count, kv_heads, -1, width)


def _join_queries(x: Float[Array, "N n K i C"], heads: int, length: int, tile: int):
    rows, count, _, _, width = x.shape
    return _join(x.reshape(rows, count, heads, tile, width), length)
