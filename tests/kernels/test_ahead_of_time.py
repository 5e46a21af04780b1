"""The TPU compiler accepts the kernels for every supported chip."""

import functools
import os

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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgpo_jax.kernels import Layout
from sgpo_jax.kernels.shared_prefix_attention import over_mesh

from .comparisons import value_and_grads

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


def compiled(chip, *, rows=2, length=2048, heads=4, kv_heads=2, width=128):
    mesh = mesh_of(chip)

    def array(shape, dtype, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    split = "data", None, "tensor"
    q = array((rows, length, heads, width), jnp.bfloat16, *split)
    k = array((rows, length, kv_heads, width), jnp.bfloat16, *split)
    integers = array((rows, length), jnp.int32, "data")
    layout = Layout(integers, integers, integers)
    attention = over_mesh(mesh, rows="data")
    run = value_and_grads(functools.partial(attention, implementation="pallas"))
    return run.lower(q, k, k, q, layout).compile()


@pytest.mark.slow
@pytest.mark.parametrize("chip", TOPOLOGIES)
def test_forward_and_backward_compile(chip):
    memory = compiled(chip).memory_analysis()
    # v7x tiles [heads, width] by 16, so merging heads into columns copies every array.
    factor = 2.2 if chip == "v7x" else 1.2
    assert memory.temp_size_in_bytes <= factor * memory.argument_size_in_bytes


@pytest.mark.slow
def test_narrow_heads_in_odd_groups_compile():
    compiled("v5e", heads=14, kv_heads=2, width=64)
