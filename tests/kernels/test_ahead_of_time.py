"""The TPU compiler accepts the kernels for every supported chip."""

import functools
import os
import re

# The compiler of libtpu looks for a TPU's environment, and for other processes.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_WORKER_ID", "0")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.layout import Format
from jax.experimental.layout import Layout as MemoryLayout
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgpo_jax.kernels import Layout
from sgpo_jax.kernels.shared_prefix_attention import over_mesh

TOPOLOGIES = {
    "v4": "v4:2x2x1",
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
    "v7x": "tpu7x:2x2x1",
}
pytest.importorskip("libtpu")


@functools.cache
def mesh_of(chip):
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=TOPOLOGIES[chip]
    )
    return Mesh(np.array(topology.devices[:4]).reshape(2, 2), ("data", "tensor"))


def compiled(chip, *, length, rows=2, heads=16, kv_heads=4, width=128):
    mesh = mesh_of(chip)

    def array(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    q = array((rows, length, heads, width), jnp.bfloat16)
    k = array((rows, length, kv_heads, width), jnp.bfloat16)
    integers = array((rows, length), jnp.int32)
    layout = Layout(integers, integers, integers)
    attention = functools.partial(over_mesh(mesh, rows="data"), implementation="pallas")

    def run(q, k, v, dout, layout):
        out, vjp = jax.vjp(lambda *x: attention(*x, layout), q, k, v)
        # As in training, where there is no cotangent before there is an output.
        out, dout = jax.lax.optimization_barrier((out, dout))
        return out, vjp(dout)

    # The compiler chooses the order in memory, as it does between operations.
    split = NamedSharding(mesh, PartitionSpec("data", None, "tensor"))
    heads = Format(MemoryLayout.AUTO, split)
    integers = NamedSharding(mesh, PartitionSpec("data"))
    jitted = jax.jit(run, in_shardings=(heads,) * 4 + (integers,), out_shardings=heads)
    return jitted.lower(q, k, k, q, layout).compile()


# Tiles of full size where memory of the chip decides what fits: v4 takes keys by
# ranges, v5p has half the memory of the others. Those of v5e and v6e are compiled for
# their cycles (test_static_cycles); a short row compiles in a fifth of the time.
LENGTHS = {"v4": 8192, "v5e": 256, "v5p": 8192, "v6e": 256, "v7x": 256}


@pytest.mark.slow
@pytest.mark.parametrize("chip", TOPOLOGIES)
def test_forward_and_backward_compile(chip):
    program = compiled(chip, length=LENGTHS[chip])
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes <= 1.2 * memory.argument_size_in_bytes
    # dq, dk and dv take the place of what the kernel has read; where keys are taken by
    # ranges (v4), dq that of the ranges before.
    lines = program.as_text().splitlines()
    calls = [x for x in lines if "custom-call(" in x and "prefix_backward" in x]
    places = [len(re.findall(r"\{\d\}: \(\d+, \{\}\)", x)) for x in calls]
    assert places == ([3] if len(calls) == 1 else [1] * len(calls))


@pytest.mark.slow
def test_narrow_heads_in_odd_groups_compile():
    compiled("v5e", length=256, heads=14, kv_heads=2, width=64)
