"""Scores over a mesh: the same numbers, and traffic that chunks do not multiply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import losses, sharding
from sgpo_jax.ahead_of_time.counts import count
from sgpo_jax.training import scores

ROWS, TOKENS, WIDTH, WORDS = 8, 6, 16, 24
MESHES = [(8, 1, 1), (2, 4, 1), (1, 2, 4), (2, 2, 2), (1, 1, 8), (2, 1, 4)]


def mesh_of(*sizes):
    devices = np.array(jax.devices()[:8]).reshape(sizes)
    return jax.sharding.Mesh(devices, sharding.MESH_AXES)


def data(width=WIDTH):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(ROWS, TOKENS, width)), jnp.float32)
    matrix = jnp.asarray(rng.normal(size=(width, WORDS)), jnp.float32)
    targets = jnp.asarray(rng.integers(WORDS, size=(ROWS, TOKENS)), jnp.int32)
    mask = jnp.asarray(rng.random((ROWS, TOKENS)) < 0.7)
    return hidden, matrix, targets, mask


def test_a_mesh_need_not_have_an_axis_for_words():
    mesh = jax.sharding.Mesh(
        np.array(jax.devices()[:8]).reshape(2, 4), ("data", "fsdp")
    )
    hidden, matrix, targets, mask = data()
    found = jax.jit(scores.over_mesh(mesh))(hidden, matrix, targets, mask)
    want = losses.token_log_probs(hidden, matrix, targets, mask=mask)
    np.testing.assert_allclose(found.log_prob, want.log_prob, rtol=1e-5, atol=1e-5)


def summed(score, hidden, matrix, targets, mask):
    out = score(hidden, matrix, targets, mask=mask, chunk_size=4, temperature=0.7)
    return (out.log_prob + 0.3 * out.entropy).sum(), out


@pytest.mark.parametrize("width", [WIDTH, 15])
@pytest.mark.parametrize("sizes", MESHES)
def test_a_mesh_gives_the_same_scores_and_gradients(sizes, width):
    mesh, args = mesh_of(*sizes), data(width)
    rules = sharding.Rules()
    split = "fsdp" if width % mesh.shape["fsdp"] == 0 else None
    places = sharding.named(mesh, rules.rows), sharding.named(mesh, split, "tensor")
    over = jax.jit(
        jax.value_and_grad(
            lambda h, w: summed(scores.over_mesh(mesh, rules), h, w, *args[2:]),
            argnums=(0, 1),
            has_aux=True,
        )
    )
    plain = jax.value_and_grad(
        lambda h, w: summed(losses.token_log_probs, h, w, *args[2:]),
        argnums=(0, 1),
        has_aux=True,
    )
    placed = [jax.device_put(x, s) for x, s in zip(args[:2], places, strict=True)]
    # Sums of float32 in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        over(*placed),
        plain(*args[:2]),
    )


@pytest.mark.parametrize("chunk_size", [6, 1])
def test_traffic_does_not_grow_with_the_number_of_chunks(chunk_size):
    mesh = mesh_of(1, 8, 1)
    hidden, matrix, targets, mask = data()

    def loss(hidden, matrix):
        score = scores.over_mesh(mesh)
        return score(
            hidden, matrix, targets, mask=mask, chunk_size=chunk_size
        ).log_prob.sum()

    split = sharding.named(mesh, "fsdp")
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=(split, split))
    args = [jax.device_put(x, split) for x in (hidden, matrix)]
    found = count(gradient.lower(*args).compile().as_text())
    sent = {one.kind: one.wire_bytes for one in found.collectives}
    share = 7 / 8 * matrix.size * 4
    # The matrix is gathered once, its gradient scattered once; the CPU's compiler may
    # write the second as a sum of everywhere.
    assert sent.pop("all-gather") == share
    assert sum(sent.values()) <= 2 * share


def test_a_part_of_the_vocabulary_is_never_gathered():
    mesh = mesh_of(1, 2, 4)
    hidden, matrix, targets, mask = data()

    def loss(hidden, matrix):
        score = scores.over_mesh(mesh)
        return score(hidden, matrix, targets, mask=mask).log_prob.sum()

    rows, parts = sharding.named(mesh, "fsdp"), sharding.named(mesh, "fsdp", "tensor")
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=(rows, parts))
    args = jax.device_put(hidden, rows), jax.device_put(matrix, parts)
    found = count(gradient.lower(*args).compile().as_text())
    gathered = [one for one in found.collectives if one.kind == "all-gather"]
    # Of the width, for a quarter of the words.
    assert [(one.group, one.bytes) for one in gathered] == [(2, matrix.size / 4 * 4)]
