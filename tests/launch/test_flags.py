"""The compiler that a run would use knows every flag, and compiles with all of them."""

import os
import pathlib
import subprocess
import sys

import pytest

from sgpo_jax import chips

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
COMPILE = """
import sys
import jax, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

for slices in (1, 2):
    more = {"num_slices": slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(sys.argv[1], platform="tpu", **more).devices
    mesh = Mesh(np.asarray(devices).reshape(slices, -1), ("data", "fsdp"))
    x = jax.ShapeDtypeStruct((256, 512), "bfloat16",
                             sharding=NamedSharding(mesh, P(("data", "fsdp"))))
    w = jax.ShapeDtypeStruct((512, 512), "bfloat16",
                             sharding=NamedSharding(mesh, P("fsdp")))
    loss = lambda w, x: ((x @ w).astype("float32") ** 2).mean()
    grad = jax.jit(jax.grad(loss), out_shardings=w.sharding)
    text = grad.lower(w, x).compile().as_text()
    assert "all-gather" in text or "AllGather" in text or "async-start" in text
print("compiled")
"""


@pytest.fixture(scope="module")
def flags():
    sys.path.insert(0, str(LAUNCH))
    import flags

    yield flags
    sys.path.remove(str(LAUNCH))


def compile_with(arguments, topology):
    env = os.environ | {
        "LIBTPU_INIT_ARGS": arguments,
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.run(
        [sys.executable, "-c", COMPILE, topology],
        env=env,
        capture_output=True,
        text=True,
    )


TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
TOPOLOGIES |= {"tpu7x": "tpu7x:2x2x1"}


@pytest.mark.parametrize("chip", TOPOLOGIES)
def test_a_sharded_gradient_compiles_with_every_set_of_its_generation(flags, chip):
    pytest.importorskip("libtpu")
    every = flags.arguments(",".join(flags.GENERATIONS[chip]), chip)
    result = compile_with(every, TOPOLOGIES[chip])
    assert result.stdout == "compiled\n", result.stderr[-2000:]


def test_a_misspelt_flag_would_be_noticed(flags):
    pytest.importorskip("libtpu")
    wrong = flags.arguments("gather", "v5e").replace("all_gather", "all_gathr")
    assert compile_with(wrong, TOPOLOGIES["v5e"]).returncode != 0


def test_every_generation_with_slices_has_its_sets(flags):
    assert set(flags.GENERATIONS) == {chip.name for chip in chips.CHIPS if chip.torus}
    named = {name for sets in flags.GENERATIONS.values() for name in sets}
    assert named == set(flags.SETS)


def test_sets_are_joined_once_and_unknown_ones_refused(flags):
    both = flags.arguments("gather,slices,gather", "v5p").split()
    assert len(both) == len(set(both)) == len(flags.GATHER) + len(flags.SLICES)
    assert flags.arguments("", "v5e") == ""
    with pytest.raises(
        ValueError, match="'fast' for v5e; known: gather, fusion, slices, vmem"
    ):
        flags.arguments("gather,fast", "v5e")
    with pytest.raises(ValueError, match="'sparse-core' for v5e"):
        flags.arguments("sparse-core", "v5e")
    # Its results may be wrong there, says libtpu.
    with pytest.raises(ValueError, match="'fusion' for v5p"):
        flags.arguments("fusion", "v5p")
