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

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .tiles import LANES
from .worklist import (
    FIRST,
    LAST,
    LOW,
    MASKED,
    PART_BITS,
    ROW_FIRST,
    ROW_LAST,
    SIZE,
    Item,
    listed,
    sizes,
)

LOWEST = -1e30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What a kernel's body is specialized to."""

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
    item: Callable[..., Item] = listed

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
        top[...] = jnp.full_like(top, LOWEST)
        total[...] = jnp.zeros_like(total)
        sums[...] = jnp.zeros_like(sums)

    def attend(rows, columns, mask):
        keys, values = k[columns], v[columns]
        size = keys.shape[0]
        if step.mxu_sums:
            ones = jnp.ones((size, LANES), values.dtype)
            values = jnp.concatenate([values, ones], axis=1)

        def scores(g):
            s = _nt(q[g, rows], keys)
            if step.bound is not None:
                s = step.bound * jnp.tanh(s)
            return s if mask is None else jnp.where(mask, s, LOWEST)

        following = scores(0)
        for g in range(step.group):
            s = following
            # A wide matrix unit is done early: let the next product overlap.
            if step.mxu_sums and g + 1 < step.group:
                following = scores(g + 1)
            old = top[g, rows]
            new = jnp.maximum(old, s.max(1, keepdims=True))
            fade = jnp.exp2(old - new)
            p = jnp.exp2(s - _lanes(new, size))
            top[g, rows] = new
            weighted = _nn(p.astype(values.dtype), values)
            if step.mxu_sums:
                sum_of_p = weighted[:, step.width :]
            else:
                sum_of_p = p.sum(1, keepdims=True)
            total[g, rows] = total[g, rows] * fade + sum_of_p
            faded = sums[g, rows] * _lanes(fade, step.width)
            sums[g, rows] = faded + weighted[:, : step.width]
            if not step.mxu_sums and g + 1 < step.group:
                following = scores(g + 1)

    _each_part(item, step, attend, functools.partial(_mask, item, tokens, step, 0))

    @pl.when(flag & LAST != 0)
    def _():
        for g in range(step.group):
            # Padding reads nothing: no maximum, and a sum of 0 or of garbage.
            weight = jnp.where(top[g] > LOWEST, 1.0 / total[g], 0.0)
            mean = sums[g] * _lanes(weight, step.width)
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

    def attend(rows, columns, mask):
        keys, values = k[columns], v[columns]
        dkeys = jnp.zeros(keys.shape, jnp.float32)
        dvalues = jnp.zeros(values.shape, jnp.float32)
        for g in range(step.group):
            queries, douts = q[g, rows], dout[g, rows]
            x = _nt(keys, queries)
            if step.bound is not None:
                x = jnp.tanh(x)
            s = x if step.bound is None else step.bound * x
            if mask is not None:
                s = jnp.where(mask, s, LOWEST)
            p = jnp.exp2(s - lse[pl.ds(g, 1), rows])
            ds = p * (_nt(values, douts) - delta[pl.ds(g, 1), rows])
            if step.bound is not None:
                ds = ds * (1.0 - x * x)
            ds = ds.astype(keys.dtype)
            dvalues += _nn(p.astype(douts.dtype), douts)
            dkeys += _nn(ds, queries)
            dq_sum[g, :, rows] += _tn(keys, ds)
        at = item.key * step.key_tile - step.first_key + columns.start
        place = pl.ds(pl.multiple_of(at, step.chunk), columns.size)
        dk_sum[place] += dkeys
        dv_sum[place] += dvalues

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


def _each_part(item: Item, step: Step, attend, mask):
    """Run `attend(rows, columns, mask)` over the whole tile, or its live parts."""

    @pl.when(item.flags & MASKED == 0)
    def _():
        attend(pl.ds(0, step.query_tile), pl.ds(0, step.key_tile), None)

    @pl.when(item.flags & MASKED != 0)
    def _():
        @pl.loop(0, step.query_tile // step.part)
        def _(index):
            row = pl.multiple_of(index * step.part, step.part)
            code = lax.shift_right_logical(item.parts, index * PART_BITS)
            chunk, size = code & LOW, lax.shift_right_logical(code, SIZE) & LOW
            column = pl.multiple_of(chunk * step.chunk, step.chunk)
            for power, number in enumerate(sizes(step.key_tile // step.chunk)):

                @pl.when(size == power + 1)
                def _(number=number):
                    columns = pl.ds(column, number * step.chunk)
                    attend(pl.ds(row, step.part), columns, mask(row, chunk, number))


def _mask(item: Item, tokens, step: Step, query_axis: int, row, chunk, number):
    """Whether the queries from `row` on read the keys of `number` chunks.

    Of shape [i, j], or [j, i] for query axis 1.
    """
    shape = step.part, number * step.chunk
    if query_axis == 1:
        shape = shape[::-1]
    query = item.query * step.query_tile + row
    query += lax.broadcasted_iota(jnp.int32, shape, query_axis)
    key = item.key * step.key_tile + chunk * step.chunk
    key += lax.broadcasted_iota(jnp.int32, shape, 1 - query_axis)

    def along(x, axis):
        """Widen numbers along an axis to the tile."""
        if axis == 1:
            return jnp.broadcast_to(x, shape)
        return _lanes(_column(x), shape[1])

    def of_keys(kind):
        parts = [tokens[0][chunk + n, pl.ds(kind, 1)] for n in range(number)]
        return along(jnp.concatenate(parts, axis=1), 1 - query_axis)

    read = (key <= query) & (query < of_keys(0))
    if step.windowed:
        position = tokens[1][0, :, pl.ds(row, step.part)]
        read &= along(position, query_axis) < of_keys(1)
    return read


def _column(x: jax.Array) -> jax.Array:
    """Turn [1, i] into [i, lanes] with all lanes equal."""
    return jnp.broadcast_to(x, (LANES, x.shape[1])).T


def _row(x: jax.Array) -> jax.Array:
    """Turn [i, lanes] with all lanes equal into [1, i], without a transposition."""
    size = min(x.shape)
    shape = size, x.shape[1]
    diagonal = lax.broadcasted_iota(jnp.int32, shape, 0) == lax.broadcasted_iota(
        jnp.int32, shape, 1
    )
    parts = [
        jnp.where(diagonal, x[i : i + size], 0.0).sum(0, keepdims=True)[:, :size]
        for i in range(0, x.shape[0], size)
    ]
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
