"""Attention masks of packed rows: by token, and by tile."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from .layout import Layout

Window = int | Int[Array | np.ndarray, ""] | None
"""Tokens of its own sequence a token reads, itself included; None is all."""


def reads(
    query: Int[Array, "*#N q"], key: Int[Array, "*#N k"], end: Int[Array, "*#N k"]
) -> Bool[Array, "*N q k"]:
    """Return the attention mask of tokens `query` over tokens `key`, no window."""
    query, key, end = query[..., :, None], key[..., None, :], end[..., None, :]
    return (key <= query) & (query < end)


def recent(
    query: Int[Array, "*#N q"],
    key: Int[Array, "*#N k"],
    window: int | Int[Array | np.ndarray, ""],
) -> Bool[Array, "*N q k"]:
    """Return the sliding-window mask, where no `query` is before its `key`."""
    return query[..., :, None] - key[..., None, :] < window


def dense(layout: Layout, *, window: Window = None) -> Bool[Array, "N L L"]:
    """Return the dense attention mask of packed rows, the diagonal included.

    Example:
      >>> from .layout import from_lengths
      >>> dense(from_lengths([[(1, [1, 1])]], length=4))[0].astype(int)
      Array([[1, 0, 0, 0],
             [1, 1, 0, 0],
             [1, 0, 1, 0],
             [0, 0, 0, 0]], dtype=int32)
    """
    index = jnp.arange(layout.end.shape[1], dtype=jnp.int32)[None]
    read = reads(index, index, jnp.asarray(layout.end))
    if window is not None:
        position = jnp.asarray(layout.position)
        read &= recent(position, position, window)
    return read


class Tiles(NamedTuple):
    """Block mask: tiles in which any query reads any key, and in which all read all.

    Without a window, and with padding at the end of rows, both are exact. A window may
    leave a tile live in which every key that is still read lies outside of it.
    """

    live: Bool[Array, "N nq nk"]
    full: Bool[Array, "N nq nk"]


def tiles(
    layout: Layout, *, query_tile: int, key_tile: int, window: Window = None
) -> Tiles:
    """Return the block mask, from the extremes of each tile; tile sizes divide rows.

    Example:
      >>> from .layout import from_lengths
      >>> layout = from_lengths([[(4, [2, 2])]], length=8)
      >>> tiles(layout, query_tile=4, key_tile=4).live[0].tolist()
      [[True, False], [True, True]]
      >>> tiles(layout, query_tile=4, key_tile=4).full[0].tolist()
      [[False, False], [True, False]]
    """

    def of_tiles(x, size):
        x = jnp.asarray(x).reshape(len(x), -1, size)
        return x.min(-1), x.max(-1)

    least, most = (x[:, None, :] for x in of_tiles(layout.end, key_tile))
    length = layout.end.shape[1]
    query = jnp.arange(0, length, query_tile, dtype=jnp.int32)[None, :, None]
    key = jnp.arange(0, length, key_tile, dtype=jnp.int32)[None, None]
    live = (key < query + query_tile) & (query < most)
    full = (key + key_tile - 1 <= query) & (query + query_tile <= least)
    if window is not None:
        oldest, newest = (x[:, None, :] for x in of_tiles(layout.position, key_tile))
        first, last = (x[..., None] for x in of_tiles(layout.position, query_tile))
        live &= first - newest < window
        full &= last - oldest < window
    return Tiles(live, full & live)
