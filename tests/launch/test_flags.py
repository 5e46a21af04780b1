"""The compiler that a run would use knows every flag, and compiles with all of them."""

import os
import pathlib
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
COMPILE = """
import jax, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

for name, slices in (("v5e:2x2", 1), ("v5p:2x2x1", 1), ("v6e:2x2", 2)):
    more = {"num_slices": slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(name, platform="tpu", **more).devices
    mesh = Mesh(np.asarray(devices).reshape(slices, 4), ("data", "fsdp"))
    x = jax.ShapeDtypeStruct((256, 512), "bfloat16",
                             sharding=NamedSharding(mesh, P(("data", "fsdp"))))
    w = jax.ShapeDtypeStruct((512, 512), "bfloat16",
                             sharding=NamedSharding(mesh, P("fsdp")))
    loss = lambda w, x: ((x @ w).astype("float32") ** 2).mean()
    grad = jax.jit(jax.grad(loss), out_shardings=w.sharding)
    text = grad.lower(w, x).compile().as_text()
    assert "all-gather" in text or "AllGather" in text, name
print("compiled")
"""


@pytest.fixture(scope="module")
def flags():
    sys.path.insert(0, str(LAUNCH))
    import flags

    yield flags
    sys.path.remove(str(LAUNCH))


def compile_with(arguments):
    env = os.environ | {
        "LIBTPU_INIT_ARGS": arguments,
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.run(
        [sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True
    )


def test_a_sharded_gradient_compiles_with_every_set(flags):
    pytest.importorskip("libtpu")
    result = compile_with(flags.arguments(",".join(flags.SETS)))
    assert result.stdout == "compiled\n", result.stderr[-2000:]


def test_a_misspelt_flag_would_be_noticed(flags):
    pytest.importorskip("libtpu")
    result = compile_with(flags.arguments("gather").replace("all_gather", "all_gathr"))
    assert result.returncode != 0


def test_sets_are_joined_once_and_unknown_ones_refused(flags):
    both = flags.arguments("gather,slices,gather").split()
    assert len(both) == len(set(both)) == len(flags.GATHER) + len(flags.SLICES)
    assert flags.arguments("") == ""
    with pytest.raises(ValueError, match="known: gather, slices"):
        flags.arguments("gather,fast")
