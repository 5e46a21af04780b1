"""The work list of the TPU kernels: one item per tile in which any key is read.

A query tile of padding alone has one item too, which writes its zeros.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from .layout import Layout
from .reads import Window, tiles
from .tiles import TilePlan

FIRST, LAST = 1, 2  # of the items of one query tile
ROW_FIRST, ROW_LAST = 4, 8  # of the items of one row
MASKED = 16  # some query does not read some key of the tile
PART_BITS, COUNT, TAIL = 8, 3, 7  # of a part: first chunk, number of chunks, tail
TAILED = 2, 4  # numbers of chunks for which the kernels have a body with a tail


class WorkList(NamedTuple):
    """Live tiles of all rows, sorted by row, then query tile, then key tile.

    Only the first `number` items count. `flags` holds the bits above. `parts` says for
    each part of the query tile, a byte each, which run of chunks of keys it takes, as
    `KeyRun` reads it.
    """

    row: Int[Array, " W"]
    query: Int[Array, " W"]
    key: Int[Array, " W"]
    flags: Int[Array, " W"]
    parts: Int[Array, " W"]
    number: Int[Array, " 1"]


class WorkItem(NamedTuple):
    """One entry of the work list: tiles within the row, flags and parts."""

    row: Int[Array, ""]
    query: Int[Array, ""]
    key: Int[Array, ""]
    flags: Int[Array, ""]
    parts: Int[Array, ""]


def listed(w, *work) -> WorkItem:
    """Look item w up in the arrays of a work list."""
    return WorkItem(*(x[w] for x in work))


class KeyRun(NamedTuple):
    """Run of key chunks that a part of a query tile reads.

    Its queries take `chunks` of them from `low` on, but its first half not the last one
    if `tail`, as below a diagonal.
    """

    low: Int[Array, ""]
    chunks: Int[Array, ""]
    tail: Int[Array, ""]


def read_part(parts: Int[Array, ""], index) -> KeyRun:
    """Decode a part of an item."""
    code = lax.shift_right_logical(parts, index * PART_BITS)
    return KeyRun(
        low=code & (1 << COUNT) - 1,
        chunks=lax.shift_right_logical(code, COUNT) & (1 << TAIL - COUNT) - 1,
        tail=lax.shift_right_logical(code, TAIL) & 1,
    )


def _parts(
    layout: Layout, plan: TilePlan, *, window: Window = None
) -> Int[Array, "N nq nk"]:
    """Return the `parts` of each tile: the least that covers their live chunks."""
    half = plan.part // 2
    live = tiles(layout, query_tile=half, key_tile=plan.chunk, window=window).live
    parts, chunks = plan.query // plan.part, plan.key // plan.chunk
    rows, _, keys = live.shape
    live = live.reshape(rows, -1, parts, 2, keys // chunks, chunks)
    any_live = live.any(-1)
    first = jnp.where(any_live, jnp.argmax(live, -1).astype(jnp.int32), chunks)
    last = jnp.argmax(live[..., ::-1], -1).astype(jnp.int32)
    stop = jnp.where(any_live, chunks - last, 0)
    low, high = first.min(3), stop.max(3)
    count = high - low
    tail = (stop[:, :, :, 0] < high) & jnp.isin(count, jnp.array(TAILED))
    code = low + jnp.left_shift(count, COUNT)
    code += jnp.left_shift(tail.astype(jnp.int32), TAIL)
    code = jnp.where(any_live.any(3), code, 0)
    shift = jnp.arange(parts, dtype=jnp.int32).reshape(1, 1, -1, 1) * PART_BITS
    return jnp.left_shift(code, shift).sum(2, dtype=jnp.int32)


def work_list(
    layout: Layout, plan: TilePlan, *, keys: slice, window: Window = None
) -> WorkList:
    """List the live tiles whose key tile is in `keys`.

    A query tile without any has one item with no part to compute, unless it lies before
    all of these keys.

    Example:
      >>> from .layout import from_lengths
      >>> work = work_list(from_lengths([[(4, [2, 2])]], length=8),
      ...                  TilePlan(query=4, backward_query=4, key=4, part=4, chunk=2),
      ...                  keys=slice(0, 2))
      >>> int(work.number[0]), work.query[:3].tolist(), work.key[:3].tolist()
      (3, [0, 1, 1], [0, 0, 1])
    """
    live, full = tiles(layout, query_tile=plan.query, key_tile=plan.key, window=window)
    rows, queries, count = live.shape
    index = jnp.arange(count, dtype=jnp.int32)[None, None]
    live &= (index >= keys.start) & (index < keys.stop)
    query = jnp.arange(queries, dtype=jnp.int32)[None, :, None]
    after = (query + 1) * plan.query > keys.start * plan.key
    idle = ~live.any(-1, keepdims=True) & after
    live |= idle & (index == keys.start)
    # No more tiles than lie on or below the diagonal.
    last = np.minimum(-(-np.arange(1, queries + 1) * plan.query // plan.key), count)
    number = live.sum(dtype=jnp.int32)[None]
    (item,) = jnp.nonzero(live.ravel(), size=rows * int(last.sum()), fill_value=0)
    item = item.astype(jnp.int32)
    row, query, key = item // (queries * count), item // count, item % count
    query = query - row * queries
    live = jnp.arange(item.size, dtype=jnp.int32) < number

    def changes(x):
        """Return the masks of the first and the last item of each run."""
        x = jnp.where(live, x, -1)
        differs = x[1:] != x[:-1]
        edge = jnp.ones((1,), bool)
        return jnp.concatenate([edge, differs]), jnp.concatenate([differs, edge])

    first, last = changes(row * queries + query)
    row_first, row_last = changes(row)
    flags = (
        jnp.where(first, FIRST, 0)
        + jnp.where(last, LAST, 0)
        + jnp.where(row_first, ROW_FIRST, 0)
        + jnp.where(row_last, ROW_LAST, 0)
        + jnp.where(full.ravel()[item], 0, MASKED)
    )
    parts = _parts(layout, plan, window=window).ravel()[item]
    return WorkList(row, query, key, flags, parts, number)
