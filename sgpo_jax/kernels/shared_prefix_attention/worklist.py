"""The work list of the TPU kernels: one item per tile in which any key is read."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from .layout import Layout
from .reads import Window, tiles
from .tiles import Plan

FIRST, LAST = 1, 2  # of the items of one query tile
ROW_FIRST, ROW_LAST = 4, 8  # of the items of one row
MASKED = 16  # some query does not read some key of the tile
LOW, HIGH = 8, 16  # bits at which the range of live key chunks begins and ends


class WorkList(NamedTuple):
    """Live tiles of all rows, sorted by row, then query tile, then key tile.

    Only the first `number` items count. Flags hold the bits above and, for the keys
    of the tile in chunks, the half-open range in which any is read.
    """

    row: Int[Array, " W"]
    query: Int[Array, " W"]
    key: Int[Array, " W"]
    flags: Int[Array, " W"]
    number: Int[Array, " 1"]


class Item(NamedTuple):
    """One entry of the work list: tiles within the row, and flags."""

    row: Int[Array, ""]
    query: Int[Array, ""]
    key: Int[Array, ""]
    flags: Int[Array, ""]


def listed(w, row, query, key, flags) -> Item:
    """Look item w up in the arrays of a work list."""
    return Item(row[w], query[w], key[w], flags[w])


def work_list(
    layout: Layout, plan: Plan, *, keys: slice, window: Window = None
) -> WorkList:
    """List the live tiles whose key tile lies in `keys`.

    Example:
      >>> from .layout import from_lengths
      >>> work = work_list(from_lengths([[(4, [2, 2])]], length=8),
      ...                  Plan(query=4, key=4, chunk=2), keys=slice(0, 2))
      >>> int(work.number[0]), work.query[:3].tolist(), work.key[:3].tolist()
      (3, [0, 1, 1], [0, 0, 1])
    """
    live, full = tiles(layout, query_tile=plan.query, key_tile=plan.key, window=window)
    rows, queries, count = live.shape
    chunks = tiles(layout, query_tile=plan.query, key_tile=plan.chunk, window=window)
    chunks = chunks.live.reshape(rows * queries * count, -1)
    low = jnp.argmax(chunks, 1).astype(jnp.int32)
    high = chunks.shape[1] - jnp.argmax(chunks[:, ::-1], 1).astype(jnp.int32)
    index = jnp.arange(count, dtype=jnp.int32)[None, None]
    live &= (index >= keys.start) & (index < keys.stop)
    number = live.sum(dtype=jnp.int32)
    (item,) = jnp.nonzero(live.ravel(), size=live.size, fill_value=0)
    item = item.astype(jnp.int32)
    row, query, key = item // (queries * count), item // count, item % count
    query = query - row * queries
    live = jnp.arange(item.size, dtype=jnp.int32) < number

    def changes(x):
        """Whether an item is the first of its kind, and whether the last."""
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
        + jnp.left_shift(low[item], LOW)
        + jnp.left_shift(high[item], HIGH)
    )
    # One item that does nothing keeps the grid from being empty.
    flags = jnp.where(live, flags, MASKED)
    return WorkList(row, query, key, flags, jnp.maximum(number, 1)[None])
