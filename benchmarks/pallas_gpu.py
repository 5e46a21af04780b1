"""Whether Pallas' GPU backends lower attention over a shared prefix, with no GPU.

    python benchmarks/pallas_gpu.py

A small forward kernel in Triton's subset: a block of queries keeps a running softmax
over the key blocks it reads, the prefix and its own response, by the rule of `Layout`.
Compares it with the reference in interpret mode, then lowers it for CUDA. Lowering
stops before Triton's compiler, which comes with jax's GPU plugin; nothing is run on a
GPU. Writes benchmarks/results/pallas_gpu.md.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import functools
import importlib.metadata
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from sgpo_jax.kernels.shared_prefix_attention import (
    from_lengths,
    shared_prefix_attention,
)

RESULTS = pathlib.Path(__file__).parent / "results"
BLOCK, LENGTH, HEADS, WIDTH = 64, 512, 4, 64
LAYOUT = from_lengths([[(150, [90, 1, 0, 120]), (70, [33])]], length=LENGTH)


def kernel(q, k, v, end, out, *, scale):
    """One block of queries of one head over all key blocks up to its own."""
    start = pl.program_id(1) * BLOCK
    queries = q[...]
    row = start + lax.broadcasted_iota(jnp.int32, (BLOCK, 1), 0)

    def over_keys(j, carry):
        top, total, sums = carry
        block = pl.ds(j * BLOCK, BLOCK)
        column = j * BLOCK + lax.broadcasted_iota(jnp.int32, (1, BLOCK), 1)
        read = (column <= row) & (row < end[block][None])
        s = scale * triton.dot(queries, k[block], trans_b=True)
        s = jnp.where(read, s, -1e30)
        new = jnp.maximum(top, s.max(1))
        fade, p = jnp.exp2(top - new), jnp.exp2(s - new[:, None])
        weighted = triton.dot(p.astype(v.dtype), v[block])
        return new, total * fade + p.sum(1), sums * fade[:, None] + weighted

    number = jnp.zeros((BLOCK,), jnp.float32)
    begin = number - 1e29, number + 1e-30, jnp.zeros(q.shape, jnp.float32)
    _, total, sums = lax.fori_loop(0, pl.program_id(1) + 1, over_keys, begin)
    out[...] = (sums / total[:, None]).astype(out.dtype)


def attend(q, k, v, end, *, interpret=False):
    """Attention of [heads, tokens, width] arrays of one row."""
    tile = pl.BlockSpec((None, BLOCK, WIDTH), lambda h, i: (h, i, 0))
    row = pl.BlockSpec((None, LENGTH, WIDTH), lambda h, i: (h, 0, 0))
    scale = WIDTH**-0.5 * math.log2(math.e)
    return pl.pallas_call(
        functools.partial(kernel, scale=scale),
        grid=(HEADS, LENGTH // BLOCK),
        in_specs=[tile, row, row, pl.BlockSpec((LENGTH,), lambda h, i: (0,))],
        out_specs=tile,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=None if interpret else triton.CompilerParams(num_warps=4),
        interpret=interpret,
    )(q, k, v, end)


def error():
    """Relative error of outputs in interpret mode, float32."""
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(x, (HEADS, LENGTH, WIDTH)) for x in keys)
    actual = attend(q, k, v, jnp.asarray(LAYOUT.end[0]), interpret=True)
    q, k, v = (x.swapaxes(0, 1)[None] for x in (q, k, v))
    expected = shared_prefix_attention(q, k, v, LAYOUT, implementation="reference")
    real = LAYOUT.real[0]
    actual, expected = np.asarray(actual).swapaxes(0, 1)[real], expected[0][real]
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def lowered():
    """Return the program for CUDA in bfloat16."""
    array = jax.ShapeDtypeStruct((HEADS, LENGTH, WIDTH), jnp.bfloat16)
    end = jax.ShapeDtypeStruct((LENGTH,), jnp.int32)
    traced = jax.jit(attend).trace(array, array, array, end)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def main():
    found = error()
    text = lowered()
    if "__gpu$xla.gpu.triton" not in text:
        raise ValueError("the kernel was not lowered to Triton")
    report = f"""# Pallas on GPU

`python benchmarks/pallas_gpu.py`, jax {importlib.metadata.version("jax")}; nothing was
run on a GPU. A small forward kernel over shared prefixes, in bfloat16:

* lowers for CUDA to one call of Triton, {len(text):,} characters of StableHLO;
* relative error against the reference, float32, in interpret mode: {found:.1e}.

Lowering ends before Triton's compiler, which is no part of a jax without GPU: whether
the kernel compiles, and how fast it is, is not known. So the package has no such
implementation: on GPU it takes the `xla` one. A backward pass was not written.
"""
    print(report)
    (RESULTS / "pallas_gpu.md").write_text(report)


if __name__ == "__main__":
    main()
