"""Bodies of the TPU kernels: one item of the work list per step of the grid.

Logits are kept in base 2: x = q . k with the scale already in q, and

    s = x                                 without a soft cap,
    s = bound * tanh(x)                   with one, bound = soft_cap * log2(e).

Shapes inside a step, for one key head: q, o, dout [G, i, C]; k, v [j, C]; per-query
numbers [G, i]. The forward pass forms scores [i, j], whose output needs no transpose;
the backward pass [j, i], in which per-query numbers lie along lanes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .tiles import LANES
from .worklist import (
    FIRST,
    LAST,
    MASKED,
    ROW_FIRST,
    ROW_LAST,
    TAILED,
    WorkItem,
    listed,
    read_part,
)

# A masked score is far below the least maximum, so that its exponential is 0 even where
# a query reads nothing; the sum of such a query stays at what it began with, not at 0.
MASKED_SCORE, LEAST, TINY = -1e30, -1e29, 1e-30
SUBLANES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Static arguments of a kernel."""

    group: int
    width: int
    query_tile: int
    key_tile: int
    part: int
    chunk: int
    scale: float
    bound: float | None
    windowed: bool
    mxu_sums: bool
    first_key: int
    range_length: int
    item: Callable[..., WorkItem] = listed

    @property
    def slope(self) -> float:
        """Factor of dk, whose x is q . k times the scale, in natural logits."""
        return 0.6931471805599453 * (1.0 if self.bound is None else self.bound)


def forward(*refs, step: Step):  # noqa: C901 (a kernel is one function)
    """Online softmax over the items of a query tile."""
    *inputs, out, lse, top, total, sums = refs
    work, (q, k, v, *tokens) = inputs[:5], inputs[5:]
    item = step.item(pl.program_id(1), *work)
    flag = item.flags

    @pl.when(flag & FIRST != 0)
    def _():
        top[...] = jnp.full_like(top, LEAST)
        total[...] = jnp.full_like(total, TINY)
        sums[...] = jnp.zeros_like(sums)

    def attend(*pieces):
        def scores(piece, g):
            s = _nt(q[g, piece.rows], k[piece.columns])
            if step.bound is not None:
                s = step.bound * jnp.tanh(s)
            return s if piece.mask is None else s + piece.mask

        def weigh(p, piece):
            """Return the weighted sum of values, and the sum of weights."""
            values = v[piece.columns]
            if not step.mxu_sums:
                return _nn(p.astype(values.dtype), values), p.sum(1, keepdims=True)
            ones = jnp.ones((values.shape[0], LANES), values.dtype)
            values = jnp.concatenate([values, ones], axis=1)
            weighted = _nn(p.astype(values.dtype), values)
            return weighted[:, : step.width], weighted[:, step.width :]

        # Products whose results are not needed yet hide the latency of the others: one
        # ahead over all keys of a tile, all of them over fewer. A narrow matrix unit is
        # done late, so that its product comes last.
        units = [(piece, g) for piece in pieces for g in range(step.group)]
        small = pieces[-1].columns.size < step.key_tile
        queue = [scores(*unit) for unit in (units if small else units[:1])]
        for n, (piece, g) in enumerate(units):
            more = units[n + 1 : n + 2] if not small else []
            rows = piece.rows
            s = queue.pop(0)
            if step.mxu_sums:
                queue += [scores(*unit) for unit in more]
            old = top[g, rows]
            new = jnp.maximum(old, s.max(1, keepdims=True))
            fade = jnp.exp2(old - new)
            p = jnp.exp2(s - _lanes(new, s.shape[1]))
            top[g, rows] = new
            weighted, weights = weigh(p, piece)
            total[g, rows] = total[g, rows] * fade + weights
            sums[g, rows] = sums[g, rows] * _lanes(fade, step.width) + weighted
            if not step.mxu_sums:
                queue += [scores(*unit) for unit in more]

    _each_part(item, step, attend, functools.partial(_mask, item, tokens, step, 0))

    @pl.when(flag & LAST != 0)
    def _():
        for g in range(step.group):
            mean = sums[g] * _lanes(1.0 / total[g], step.width)
            out[g] = mean.astype(out.dtype)
            lse[pl.ds(g, 1)] = _row(top[g]) + jnp.log2(_row(total[g]))


def backward(*refs, step: Step):  # noqa: C901 (a kernel is one function)
    """Gradients of all inputs from one pass over the items.

    Key and value gradients of the whole row stay in VMEM, in float32: those of a
    prefix are summed over all its responses and query heads before they are written.
    """
    *inputs, dq, dk, dv, dq_sum, dk_sum, dv_sum = refs
    work, (q, k, v, end, *inputs) = inputs[:5], inputs[5:]
    tokens = (end, inputs.pop(0)) if step.windowed else (end,)
    dout, lse, delta, *before = inputs
    item = step.item(pl.program_id(1), *work)
    flag = item.flags

    @pl.when(flag & ROW_FIRST != 0)
    def _():
        dk_sum[...] = jnp.zeros_like(dk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    @pl.when(flag & FIRST != 0)
    def _():
        if not before:
            dq_sum[...] = jnp.zeros_like(dq_sum)
        for of_ranges in before:
            for g in range(step.group):
                dq_sum[g] = of_ranges[g].T

    def attend(*pieces):
        for piece in pieces:
            accumulate(*piece)

    def accumulate(rows, columns, mask):
        keys, values = k[columns], v[columns]
        at = item.key * step.key_tile - step.first_key + columns.start
        place = pl.ds(pl.multiple_of(at, step.chunk), columns.size)
        dkeys, dvalues = dk_sum[place], dv_sum[place]
        for g in range(step.group):
            queries, douts = q[g, rows], dout[g, rows]
            x = _nt(keys, queries)
            if step.bound is not None:
                x = jnp.tanh(x)
            s = x if step.bound is None else step.bound * x
            if mask is not None:
                s = s + mask
            p = jnp.exp2(s - lse[pl.ds(g, 1), rows])
            ds = p * (_nt(values, douts) - delta[pl.ds(g, 1), rows])
            if step.bound is not None:
                ds = ds * (1.0 - x * x)
            ds = ds.astype(keys.dtype)
            dvalues += _nn(p.astype(douts.dtype), douts)
            dkeys += _nn(ds, queries)
            dq_sum[g, :, rows] += _tn(keys, ds)
        dk_sum[place] = dkeys
        dv_sum[place] = dvalues

    _each_part(item, step, attend, functools.partial(_mask, item, tokens, step, 1))

    @pl.when(flag & LAST != 0)
    def _():
        for g in range(step.group):
            total = dq_sum[g] if before else dq_sum[g] * step.scale
            dq[g] = total.T.astype(dq.dtype)

    @pl.when(flag & ROW_LAST != 0)
    def _():
        dk[...] = (dk_sum[...] * step.slope).astype(dk.dtype)
        dv[...] = dv_sum[...].astype(dv.dtype)


class Piece(NamedTuple):
    """Queries and keys of a tile, and what to add to their scores, if anything."""

    rows: pl.Slice
    columns: pl.Slice
    mask: jax.Array | None


def _each_part(item: WorkItem, step: Step, attend, mask):
    """Call `attend(*pieces)` with the whole tile, or by part with what it takes."""

    @pl.when(item.flags & MASKED == 0)
    def _():
        tile = pl.Slice(0, step.query_tile), pl.Slice(0, step.key_tile)
        attend(Piece(*tile, None))

    @pl.when(item.flags & MASKED != 0)
    def _():
        @pl.loop(0, step.query_tile // step.part)
        def _(index):
            row = pl.multiple_of(index * step.part, step.part)
            run = read_part(item.parts, index)

            def piece(row, rows, chunks):
                column = pl.multiple_of(run.low * step.chunk, step.chunk)
                return Piece(
                    pl.Slice(row, rows),
                    pl.Slice(column, chunks * step.chunk),
                    mask(row, rows, run.low, chunks),
                )

            # One body for each number of chunks: latencies are paid once, not by chunk.
            every = step.key_tile // step.chunk
            for chunks in range(1, every + 1):

                @pl.when((run.chunks == chunks) & (run.tail == 0))
                def _(chunks=chunks):
                    attend(piece(row, step.part, chunks))

            for chunks in (n for n in TAILED if n <= every):

                @pl.when((run.chunks == chunks) & (run.tail != 0))
                def _(chunks=chunks, half=step.part // 2):
                    lower = pl.multiple_of(row + half, half)
                    attend(piece(row, half, chunks - 1), piece(lower, half, chunks))


def _mask(
    item: WorkItem, tokens, step: Step, query_axis: int, row, rows, chunk, number
):
    """Return what to add to the scores of `rows` queries and `number` chunks of keys.

    Of shape [i, j], or [j, i] for query axis 1: 0 where a query reads a key. A number
    that is added costs the vector unit less than a choice for every head.
    """
    shape = rows, number * step.chunk
    if query_axis == 1:
        shape = shape[::-1]
    start = item.query * step.query_tile + row
    query = lax.broadcasted_iota(jnp.int32, shape, query_axis)

    def along(x, axis):
        """Widen numbers along an axis to the tile."""
        if axis == 1:
            return jnp.broadcast_to(x, shape)
        return _lanes(_column(x), shape[1])

    def of_keys(kind):
        parts = [tokens[0][chunk + n, pl.ds(kind, 1)] for n in range(number)]
        return jnp.concatenate(parts, axis=1)

    # Numbers of tokens relative to the first query.
    first = item.key * step.key_tile + chunk * step.chunk - start
    key = lax.broadcasted_iota(jnp.int32, (1, number * step.chunk), 1) + first
    end = of_keys(0) - start
    read = (along(key, 1 - query_axis) <= query) & (query < along(end, 1 - query_axis))
    if step.windowed:
        position = tokens[1][0, :, pl.ds(row, rows)]
        read &= along(position, query_axis) < along(of_keys(1), 1 - query_axis)
    return jnp.where(read, 0.0, MASKED_SCORE)


def _column(x: jax.Array) -> jax.Array:
    """Turn [1, i] into [i, lanes] with all lanes equal."""
    return jnp.broadcast_to(x, (LANES, x.shape[1])).T


def _row(x: jax.Array) -> jax.Array:
    """Turn [i, lanes] with all lanes equal into [1, i], without a transposition."""
    size = min(x.shape)
    lane = lax.broadcasted_iota(jnp.int32, (SUBLANES, size), 1)
    row = lax.broadcasted_iota(jnp.int32, (SUBLANES, size), 0)
    parts = []
    for i in range(0, x.shape[0], size):
        diagonal = jnp.zeros((SUBLANES, size), x.dtype)
        for j in range(0, size, SUBLANES):
            rows = x[i + j : i + j + SUBLANES, :size]
            diagonal = jnp.where(lane == row + j, rows, diagonal)
        parts.append(diagonal.sum(0, keepdims=True))
    return jnp.concatenate(parts, axis=1)


def _lanes(x: jax.Array, size: int) -> jax.Array:
    """Widen [i, lanes], all lanes equal, to [i, size]."""
    if size % x.shape[1] == 0:
        return jnp.concatenate([x] * (size // x.shape[1]), axis=1)
    return jnp.broadcast_to(x[:, :1], (x.shape[0], size))


def _dot(a, b, axes):
    # The MXU multiplies float32 in bfloat16 pieces; take all of them.
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a, b, (axes, ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _nt(a, b):
    return _dot(a, b, ((1,), (1,)))


def _nn(a, b):
    return _dot(a, b, ((1,), (0,)))


def _tn(a, b):
    return _dot(a, b, ((0,), (0,)))
