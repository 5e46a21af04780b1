"""Attention on TPU: forward and backward kernels driven by a work list.

The grid is (key heads, live items): its second size is data, so one program serves
every layout and no step is dead. All query heads of a key head share a step, which
reads the key tile once for them. Arrays are [rows, heads, tokens, width] around the
kernels, an order in which the compiler lets projections write and read them directly.
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
from .tiles import TilePlan
from .worklist import WorkList, work_list

LOG2_E = math.log2(math.e)


class AttentionShape(NamedTuple):
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
    plan: TilePlan,
) -> Float[Array, "N L H C"]:
    """Attention over the keys each query reads; exactly 0 where it reads none.

    Inputs must be finite at padding; the cotangent of the output need not be.
    """
    if window is not None:
        window = jnp.asarray(window, jnp.int32)
    return _attend(q, k, v, layout, window, scores, plan)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(q, k, v, layout, window, scores, plan):
    return _forward(q, k, v, layout, window, scores, plan)[0]


def _forward(q, k, v, layout, window, scores, plan):
    # With the scale in q, and logits in base 2, the kernels multiply by nothing more.
    cap = scores.soft_cap
    factor = scores.scale * LOG2_E if cap is None else scores.scale / cap
    size = q.shape
    q = (q.astype(jnp.float32) * factor).astype(q.dtype)
    q, k, v = (_heads_first(x, plan.unit) for x in (q, k, v))
    shape = _shape_of(q, k)
    keys = slice(0, shape.length // plan.key)
    step = step_of(shape, plan, scores, keys, windowed=window is not None)
    padded = _padded(layout, shape)
    work = work_list(padded, plan, keys=keys, window=window)
    arrays = q, k, v, *tokens(padded, window, plan)
    out, lse = outputs(arrays, work, step, shape, plan)
    out = _heads_last(out, size)
    return out, (q, k, v, out, lse, layout, window)


def _backward(scores, plan, residuals, dout):
    unit, plan = plan.unit, plan.backward
    q, k, v, out, lse, layout, window = residuals
    shape = _shape_of(q, k)
    real = jnp.asarray(layout.real)[..., None, None]
    dout = jnp.where(real, dout, jnp.zeros((), dout.dtype))
    delta = (dout.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
    delta = _heads_first(delta, unit).reshape(lse.shape)
    padded = _padded(layout, shape)
    arrays = q, k, v, *tokens(padded, window, plan), _heads_first(dout, unit)
    ranges = plan.ranges(shape.length)
    dq = jnp.zeros(q.shape, jnp.float32)  # of the ranges so far, if there are several
    by_key = []
    for keys in ranges:
        work = work_list(padded, plan, keys=keys, window=window)
        step = step_of(shape, plan, scores, keys, windowed=window is not None)
        before = (dq,) if len(ranges) > 1 else ()
        inputs = *arrays, lse, delta, *before
        dq, *of_keys = gradients(inputs, work, step, shape, plan)
        by_key.append(of_keys)
    if len(ranges) > 1:
        dq = (dq * scores.scale).astype(q.dtype)
    dk, dv = (jnp.concatenate(xs, axis=2) for xs in zip(*by_key, strict=True))
    dq, dk, dv = (_heads_last(x, out.shape) for x in (dq, dk, dv))
    return dq, dk, dv, None, None


_attend.defvjp(_forward, _backward)


def _shape_of(q, k) -> AttentionShape:
    rows, heads, length, width = q.shape
    return AttentionShape(rows, length, k.shape[1], heads // k.shape[1], width)


def _heads_first(x, unit: int):
    """Turn [N, L, H, ...] into [N, H, L, ...], padded to whole units and lanes."""
    x = jnp.moveaxis(x, 2, 1)
    padding = [(0, 0)] * x.ndim
    padding[2] = (0, -x.shape[2] % unit)
    if x.ndim == 4:
        padding[3] = (0, -x.shape[3] % LANES)
    return jnp.pad(x, padding)


def _heads_last(x, size: tuple[int, ...]):
    """Undo `_heads_first`: the sizes give the length and width before."""
    return jnp.moveaxis(x, 1, 2)[:, : size[1], :, : size[3]]


def _padded(layout: Layout, shape: AttentionShape) -> Layout:
    long = shape.length - layout.end.shape[1]
    return Layout(*(jnp.pad(x, ((0, 0), (0, long))) for x in layout))


def outputs(arrays, work: WorkList, step: Step, shape: AttentionShape, plan: TilePlan):
    """Run the forward kernel: the outputs and the log2-sum-exp2 of every query."""
    q = arrays[0]
    specs = specs_of(shape, step)
    tile = shape.group, step.query_tile
    numbers = shape.rows, shape.kv_heads, shape.group, shape.length
    running = pltpu.VMEM((*tile, LANES), jnp.float32)
    return _call(
        functools.partial(kernels.forward, step=step),
        (shape.kv_heads, work, plan),
        arrays,
        in_specs=specs.inputs,
        out_specs=(specs.query, specs.number),
        out_shape=(
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct(numbers, jnp.float32),
        ),
        scratch_shapes=(
            running,
            running,
            pltpu.VMEM((*tile, shape.width), jnp.float32),
        ),
    )


def gradients(
    arrays, work: WorkList, step: Step, shape: AttentionShape, plan: TilePlan
):
    """Run the backward kernel for a range of keys: part of dq, all of its dk and dv."""
    q, k, v = arrays[:3]
    specs = specs_of(shape, step)
    whole = step.range_length == shape.length
    before = () if whole else (specs.query,)
    resident = pltpu.VMEM((step.range_length, shape.width), jnp.float32)
    by_key = shape.rows, shape.kv_heads, step.range_length, shape.width
    query, number = specs.query, specs.number
    # Each tile of an input is read for the last time before the gradient of that tile
    # is written, so gradients can take the inputs' place. With several ranges, the sum
    # of query gradients so far is an input, the last, and takes its own.
    first = len(work) - 1
    in_place = {first + i: i for i in range(3)}
    if not whole:
        in_place = {first + len(arrays) - 1: 0}
    return _call(
        functools.partial(kernels.backward, step=step),
        (shape.kv_heads, work, plan),
        arrays,
        in_specs=(*specs.inputs, query, number, number, *before),
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
        input_output_aliases=in_place,
    )


class Specs(NamedTuple):
    """Block specs of a kernel call: the part of each array in one grid step."""

    inputs: tuple[pl.BlockSpec, ...]  # of q, k, v and what `tokens` returns
    query: pl.BlockSpec  # of [N, H, L, C]: the query tile, all heads of a key head
    number: pl.BlockSpec  # of [N, K, G, L]: one number per query and head
    row: pl.BlockSpec  # of [N, K, range, C]: the whole row's range of keys


def specs_of(shape: AttentionShape, step: Step) -> Specs:
    """Return the blocks of a call."""
    queries = shape.length // step.query_tile
    keys = shape.length // step.key_tile

    def by_query(h, w, *work):
        item = step.item(w, *work)
        return item.row, h, item.query, 0

    def by_key(h, w, *work):
        item = step.item(w, *work)
        return item.row, h, item.key, 0

    def number(h, w, *work):
        item = step.item(w, *work)
        return item.row, h, 0, item.query

    def bounds(h, w, *work):
        item = step.item(w, *work)
        return item.row * keys + item.key, 0, 0

    def positions(h, w, *work):
        item = step.item(w, *work)
        return item.row * queries + item.query, 0, 0

    query = pl.BlockSpec((None, shape.group, step.query_tile, shape.width), by_query)
    key = pl.BlockSpec((None, None, step.key_tile, shape.width), by_key)
    chunks = step.key_tile // step.chunk, 1 + step.windowed, step.chunk
    masks = [pl.BlockSpec(chunks, bounds)]
    if step.windowed:
        masks.append(pl.BlockSpec((1, 1, step.query_tile), positions))
    return Specs(
        inputs=(query, key, key, *masks),
        query=query,
        number=pl.BlockSpec((None, None, shape.group, step.query_tile), number),
        row=pl.BlockSpec(
            (None, None, step.range_length, shape.width),
            lambda h, w, *work: (step.item(w, *work).row, h, 0, 0),
            # Written once per row: a second buffer would hide little.
            pipeline_mode=pl.Buffered(1),
        ),
    )


def step_of(
    shape: AttentionShape,
    plan: TilePlan,
    scores: Scores,
    keys: slice,
    *,
    windowed: bool,
) -> Step:
    """Specialize a kernel's body to a call."""
    return Step(
        group=shape.group,
        width=shape.width,
        query_tile=plan.query,
        key_tile=plan.key,
        part=plan.part,
        chunk=plan.chunk,
        scale=scores.scale,
        bound=None if scores.soft_cap is None else scores.soft_cap * LOG2_E,
        windowed=windowed,
        mxu_sums=plan.mxu_sums,
        first_key=keys.start * plan.key,
        range_length=(keys.stop - keys.start) * plan.key,
    )


def _call(body, how, arrays, *, out_shape, input_output_aliases=None, **specs):
    kv_heads, (*items, number), plan = how
    return pl.pallas_call(
        body,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(items), grid=(kv_heads, number[0]), **specs
        ),
        out_shape=out_shape,
        input_output_aliases=input_output_aliases or {},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=plan.vmem_bytes,
        ),
        interpret=plan.interpret,
        name=f"shared_prefix_{body.func.__name__}",
    )(*items, *arrays)


def tokens(layout: Layout, window: Window, plan: TilePlan) -> tuple[Array, ...]:
    """Return what masks need, by chunk of keys and, for a window, by query tile."""
    end = jnp.asarray(layout.end).reshape(-1, 1, plan.chunk)
    if window is None:
        return (end,)
    position = jnp.asarray(layout.position)
    limit = (position + window).reshape(-1, 1, plan.chunk)
    position = position.reshape(-1, 1, plan.query)
    return jnp.concatenate([end, limit], axis=1), position
