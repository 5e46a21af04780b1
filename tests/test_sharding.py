"""Looking up over a mesh is looking up, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import sharding
from sgpo_jax.ahead_of_time.counts import count

WORDS, WIDTH, ROWS, LENGTH = 24, 16, 8, 5

MESHES = [(8, 1, 1), (2, 4, 1), (1, 2, 4), (2, 2, 2), (1, 1, 8), (2, 1, 4)]


def made(width=WIDTH, rows=ROWS):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(WORDS, width)), jnp.float32)
    tokens = jnp.asarray(rng.integers(WORDS, size=(rows, LENGTH)), jnp.int32)
    weight = jnp.asarray(rng.normal(size=(rows, LENGTH, width)), jnp.float32)
    return table, tokens, weight


def mesh_of(*sizes):
    devices = np.array(jax.devices()[:8]).reshape(sizes)
    return jax.sharding.Mesh(devices, sharding.MESH_AXES)


def loss(table, tokens, weight):
    found = sharding.lookup(table, tokens, jnp.dtype("float32"))
    return (found * weight).sum(), found


def over(mesh):
    def lost(table, tokens, weight):
        with sharding.activations(mesh, sharding.Rules()):
            return loss(table, tokens, weight)

    return jax.jit(jax.value_and_grad(lost, has_aux=True))


@pytest.mark.parametrize("width", [WIDTH, 15])
@pytest.mark.parametrize("rows", [ROWS, 3])
@pytest.mark.parametrize("sizes", MESHES)
def test_a_mesh_finds_the_same_and_sums_the_same_gradients(sizes, rows, width):
    mesh, (table, tokens, weight) = mesh_of(*sizes), made(width, rows)
    (_, found), grad = over(mesh)(table, tokens, weight)
    np.testing.assert_array_equal(found, np.asarray(table)[np.asarray(tokens)])
    expected = np.zeros_like(table)
    np.add.at(expected, np.asarray(tokens), np.asarray(weight))
    # Sums of float32 in another order.
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-5)


def test_of_the_gradient_only_a_part_of_the_table_is_summed():
    mesh = mesh_of(2, 4, 1)
    table, tokens, weight = made()
    split = sharding.named(mesh, None, "fsdp")
    rows = sharding.named(mesh, ("data", "fsdp"))
    args = [jax.device_put(table, split)]
    args += [jax.device_put(x, rows) for x in (tokens, weight)]
    found = count(over(mesh).lower(*args).compile().as_text())
    sums = [c for c in found.collectives if c.kind == "all-reduce"]
    part = table.size // 4 * 4
    # The gradient of the table over `data`, and the loss.
    assert part <= sum(c.bytes for c in sums) <= part + 64
