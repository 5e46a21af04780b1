"""Random layouts, and inputs for them."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from sgpo_jax.kernels import Layout
from sgpo_jax.kernels.shared_prefix_attention import from_lengths


@st.composite
def rows(draw, *, count: int, length: int):
    """Lengths of ragged groups: empty ones, empty and one-token responses, padding."""
    chosen = []
    for _ in range(count):
        left, groups = length, []
        for _ in range(draw(st.integers(0, 4))):
            prefix = draw(st.integers(0, left))
            left -= prefix
            responses = []
            for _ in range(draw(st.integers(0, 5))):
                responses.append(draw(st.integers(0, min(left, length // 3))))
                left -= responses[-1]
            groups.append((prefix, responses))
        chosen.append(groups)
    return chosen


@st.composite
def forests(draw, *, count: int, length: int):
    """Segments of random trees, depth first: chains, branches, empty segments."""
    chosen = []
    for _ in range(count):
        left, segments, path = length, [], []
        for index in range(draw(st.integers(0, 12))):
            del path[draw(st.integers(0, len(path))) :]
            size = draw(st.integers(0, min(left, length // 4)))
            segments.append((size, path[-1] if path else -1))
            left -= size
            path.append(index)
        chosen.append(segments)
    return chosen


def ragged(length: int) -> Layout:
    """Two fixed rows: several groups, unaligned lengths, an empty response, padding."""
    unit = length // 20
    first = [(3 * unit + 1, [unit, 2 * unit + 3, 1, 0, 4 * unit]), (unit, [2, 2])]
    second = [(9 * unit, [1]), (1, [1, 1, 7 * unit - 1])]
    return from_lengths([first, second], length=length)


def inputs(layout, *, heads=4, kv_heads=2, width=8, dtype=jnp.float32, seed=0):
    """Return q, k, v and a cotangent of the output."""
    rows, length = np.shape(layout.real)
    keys = jax.random.split(jax.random.key(seed), 4)
    counts = heads, kv_heads, kv_heads, heads
    return [
        jax.random.normal(key, (rows, length, count, width), dtype)
        for key, count in zip(keys, counts, strict=True)
    ]
