"""Attention on TPU: forward and backward kernels driven by a work list.

The grid is (key heads, live items): its second size is data, so one program serves
every layout and no step is dead. All query heads of a key head share a step, which
reads the key tile once for them. Rows stay as [tokens, heads * width], the order in
which projections write them, and a tile is a column block of that matrix.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from . import pallas_kernels as kernels
from .layout import Layout
from .pallas_kernels import LANES, Step
from .reads import Window
from .scores import Scores
from .tiles import Plan
from .worklist import FIRST, WorkList, work_list

LOG2_E = math.log2(math.e)


class Shape(NamedTuple):
    """Sizes of a call, after padding."""

    rows: int
    length: int
    kv_heads: int
    group: int
    width: int


def attend(
    q: Float[Array, "N L H C"],
    k: Float[Array, "N L K C"],
    v: Float[Array, "N L K C"],
    layout: Layout,
    window: Window,
    scores: Scores,
    plan: Plan,
) -> Float[Array, "N L H C"]:
    """Attention over the keys each query reads; arbitrary where a query reads none."""
    rows, length, heads, width = q.shape
    # With the scale in q, and logits in base 2, the kernels multiply by nothing more.
    cap = scores.soft_cap
    factor = scores.scale * LOG2_E if cap is None else scores.scale / cap
    q = (q.astype(jnp.float32) * factor).astype(q.dtype)
    long = -length % math.lcm(plan.query, plan.key)
    wide = -width % LANES
    q, k, v = (jnp.pad(x, ((0, 0), (0, long), (0, 0), (0, wide))) for x in (q, k, v))
    shape = Shape(rows, length + long, k.shape[2], heads // k.shape[2], width + wide)
    q, k, v = (x.reshape(shape.rows * shape.length, -1) for x in (q, k, v))
    layout = Layout(*(jnp.pad(x, ((0, 0), (0, long))) for x in layout))
    if window is not None:
        window = jnp.asarray(window, jnp.int32)
    out: Array = _attend(q, k, v, layout, window, cap, shape, plan)
    out = out.reshape(rows, shape.length, heads, shape.width)
    return out[:, :length, :, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _attend(q, k, v, layout, window, soft_cap, shape, plan):
    return _forward(q, k, v, layout, window, soft_cap, shape, plan)[0]


def _forward(q, k, v, layout, window, soft_cap, shape, plan):
    keys = slice(0, shape.length // plan.key)
    step = step_of(shape, plan, soft_cap, keys, windowed=window is not None)
    work = work_list(layout, plan, keys=keys, window=window)
    arrays = q, k, v, *tokens(layout, window, plan)
    out, lse = outputs(arrays, work, step, shape, plan)
    return out, (q, k, v, out, lse, layout, window)


def _backward(soft_cap, shape, plan, residuals, dout):
    q, k, v, out, lse, layout, window = residuals
    delta = dout.astype(jnp.float32) * out.astype(jnp.float32)
    delta = delta.reshape(-1, plan.query, shape.kv_heads, shape.group, shape.width)
    delta = delta.sum(-1).transpose(2, 0, 3, 1)
    arrays = q, k, v, *tokens(layout, window, plan), dout, lse, delta
    parts = []
    for keys in plan.ranges(shape.length):
        work = work_list(layout, plan, keys=keys, window=window)
        step = step_of(shape, plan, soft_cap, keys, windowed=window is not None)
        dq, *by_key = gradients(arrays, work, step, shape, plan)
        # A query tile that reads nothing of this range holds garbage.
        visited = _visited(work, shape, plan)
        parts.append((jnp.where(visited, dq, jnp.zeros((), dq.dtype)), *by_key))
    dq, *by_key = zip(*parts, strict=True)
    dk, dv = (
        jnp.concatenate([x.reshape(shape.rows, -1, x.shape[1]) for x in xs], axis=1)
        for xs in by_key
    )
    dq = functools.reduce(jnp.add, dq)
    return dq.astype(q.dtype), dk.reshape(k.shape), dv.reshape(v.shape), None, None


_attend.defvjp(_forward, _backward)


def outputs(arrays, work: WorkList, step: Step, shape: Shape, plan: Plan):
    """Run the forward kernel: the outputs and the log2-sum-exp2 of every query."""
    q = arrays[0]
    specs = _specs(shape, step)
    tile = shape.group, step.query_tile
    tiles = q.shape[0] // step.query_tile
    running = pltpu.VMEM((*tile, LANES), jnp.float32)
    return _call(
        functools.partial(kernels.forward, step=step),
        (shape.kv_heads, work, plan),
        arrays,
        in_specs=specs.inputs,
        out_specs=(specs.query, specs.number),
        out_shape=(
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((shape.kv_heads, tiles, *tile), jnp.float32),
        ),
        scratch_shapes=(
            running,
            running,
            pltpu.VMEM((*tile, shape.width), jnp.float32),
        ),
    )


def gradients(arrays, work: WorkList, step: Step, shape: Shape, plan: Plan):
    """Run the backward kernel for a range of keys: part of dq, all of its dk and dv."""
    q, k, v = arrays[:3]
    specs = _specs(shape, step)
    whole = step.range_length == shape.length
    resident = pltpu.VMEM((step.range_length, shape.width), jnp.float32)
    by_key = shape.rows * step.range_length, k.shape[1]
    query, number = specs.query, specs.number
    return _call(
        functools.partial(kernels.backward, step=step),
        (shape.kv_heads, work, plan),
        arrays,
        in_specs=(*specs.inputs, query, number, number),
        out_specs=(query, specs.row, specs.row),
        out_shape=(
            jax.ShapeDtypeStruct(q.shape, q.dtype if whole else jnp.float32),
            jax.ShapeDtypeStruct(by_key, k.dtype),
            jax.ShapeDtypeStruct(by_key, v.dtype),
        ),
        scratch_shapes=(
            pltpu.VMEM((shape.group, shape.width, step.query_tile), jnp.float32),
            resident,
            resident,
        ),
    )


class _Specs(NamedTuple):
    """What a step of the grid sees of each array."""

    inputs: tuple[pl.BlockSpec, ...]  # of q, k, v and what `tokens` returns
    query: pl.BlockSpec  # of [N L, H C]: the query tile, all heads of a key head
    number: pl.BlockSpec  # of [K, N nq, G, i]: one number per query and head
    row: pl.BlockSpec  # of [N range, K C]: the whole row's range of keys


def _specs(shape: Shape, step: Step) -> _Specs:
    queries = shape.length // step.query_tile
    keys = shape.length // step.key_tile

    def of_query(w, work):
        item = step.item(w, *work)
        return item.row * queries + item.query

    def of_key(w, work):
        item = step.item(w, *work)
        return item.row * keys + item.key

    tile = (step.query_tile, shape.group * shape.width)
    query = pl.BlockSpec(tile, lambda h, w, *work: (of_query(w, work), h))
    key = pl.BlockSpec(
        (step.key_tile, shape.width), lambda h, w, *work: (of_key(w, work), h)
    )
    number = (1, 1, shape.group, step.query_tile)
    bounds = (step.key_tile // step.chunk, 1 + step.windowed, step.chunk)
    masks = [pl.BlockSpec(bounds, lambda h, w, *work: (of_key(w, work), 0, 0))]
    if step.windowed:
        position = (1, 1, step.query_tile)
        masks.append(
            pl.BlockSpec(position, lambda h, w, *work: (of_query(w, work), 0, 0))
        )
    return _Specs(
        inputs=(query, key, key, *masks),
        query=query,
        number=pl.BlockSpec(number, lambda h, w, *work: (h, of_query(w, work), 0, 0)),
        row=pl.BlockSpec(
            (step.range_length, shape.width),
            lambda h, w, *work: (step.item(w, *work).row, h),
        ),
    )


def step_of(
    shape: Shape, plan: Plan, soft_cap: float | None, keys: slice, *, windowed: bool
) -> Step:
    """Specialize a kernel's body to a call."""
    return Step(
        group=shape.group,
        width=shape.width,
        query_tile=plan.query,
        key_tile=plan.key,
        part=plan.part,
        chunk=plan.chunk,
        bound=None if soft_cap is None else soft_cap * LOG2_E,
        windowed=windowed,
        mxu_sums=plan.mxu_sums,
        first_key=keys.start * plan.key,
        range_length=(keys.stop - keys.start) * plan.key,
    )


def _call(body, how, arrays, *, out_shape, **specs):
    kv_heads, (*items, number), plan = how
    return pl.pallas_call(
        body,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(items), grid=(kv_heads, number[0]), **specs
        ),
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=plan.vmem_bytes,
        ),
        interpret=plan.interpret,
        name=f"shared_prefix_{body.func.__name__}",
    )(*items, *arrays)


def tokens(layout: Layout, window: Window, plan: Plan) -> tuple[Array, ...]:
    """Return what masks need, by chunk of keys and, for a window, by query tile."""
    end = jnp.asarray(layout.end).reshape(-1, 1, plan.chunk)
    if window is None:
        return (end,)
    position = jnp.asarray(layout.position)
    limit = (position + window).reshape(-1, 1, plan.chunk)
    position = position.reshape(-1, 1, plan.query)
    return jnp.concatenate([end, limit], axis=1), position


def _visited(work: WorkList, shape: Shape, plan: Plan):
    tiles = shape.rows * shape.length // plan.query
    tile = work.row * (shape.length // plan.query) + work.query
    visited = jnp.zeros((tiles,), bool).at[tile].max(work.flags & FIRST != 0)
    return jnp.repeat(visited, plan.query)[:, None]
