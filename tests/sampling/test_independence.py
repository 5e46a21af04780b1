"""What a sample must not depend on, and what it must."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, sampling, sharding
from tests.sampling.tiny import (
    CONFIG,
    RESPONSE,
    by_sample,
    make_engine,
    make_requests,
    noise,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid",
    [
        {"lanes": 1, "slots": 1, "prefixes_per_lane": 1, "steps": 5},
        {
            "lanes": 2,
            "slots": 4,
            "prefixes_per_lane": 3,
            "steps": 7,
            "max_prompt": (3, 9),
        },
    ],
)
def test_samples_do_not_depend_on_the_grid_or_the_batch(params, engine, rng, grid):
    requests = make_requests(rng, [3, 6, 1, 4])
    alone = by_sample(engine.sample(params, requests, seed=1, step=1), requests)
    others = [dataclasses.replace(r, key=r.key + 77, samples=2) for r in requests]
    mixed = [*others[:2], *requests[::-1], *others[2:]]
    again = by_sample(make_engine(**grid).sample(params, mixed, seed=1, step=1), mixed)
    for place, tokens in alone.items():
        np.testing.assert_array_equal(again[place], tokens)


@pytest.mark.slow
def test_samples_do_not_depend_on_the_devices(params, engine, rng):
    shape = sharding.MeshShape(data=2, tensor=2)
    requests = make_requests(rng, [3, 6, 1, 4, 2, 2])
    alone = engine.sample(params, requests, seed=1, step=1)
    mesh = sharding.make_mesh(shape, jax.devices()[: shape.data * shape.tensor])
    sharded = make_engine(lanes=8, mesh=mesh)
    shared = sharded.sample(params, requests, seed=1, step=1)
    np.testing.assert_array_equal(shared.tokens, alone.tokens)
    # float32; heads are summed over two devices.
    np.testing.assert_allclose(shared.log_prob, alone.log_prob, atol=1e-5)
    with pytest.raises(ValueError, match="lanes=3 must divide"):
        make_engine(mesh=mesh)


def on_eight():
    shape = sharding.MeshShape(data=4, tensor=2)
    return {"lanes": 8, "mesh": sharding.make_mesh(shape, jax.devices()[:8])}


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid",
    [
        lambda: {
            "lanes": 1,
            "slots": 1,
            "prefixes_per_lane": 1,
            "steps": 5,
            "cache_dtype": "int8",
        },
        lambda: {"slots": 4, "prefixes_per_lane": 2, "order": sampling.ShortestFirst()},
        on_eight,
    ],
    ids=["one slot", "shortest first", "4 x 2 devices"],
)
def test_noise_is_bit_for_bit_the_definition_on_any_grid(params, rng, grid):
    """Of a decoder whose logits are all zero, a token is the argmax of its noise."""
    silent = jax.tree.map(jnp.zeros_like, params)
    requests = [
        dataclasses.replace(r, budget=n, expected_length=1.0 * n)
        for r, n in zip(make_requests(rng, [3, 5, 2]), (6, 4, 5), strict=True)
    ]
    rollouts = make_engine(stop_tokens=(), **grid()).sample(
        silent, requests, seed=7, step=3
    )
    expected = np.argmax(noise(7, 3, rollouts, requests), axis=-1)
    inside = np.arange(RESPONSE) < rollouts.length[:, None]
    np.testing.assert_array_equal(rollouts.length, np.repeat([6, 4, 5], [3, 5, 2]))
    np.testing.assert_array_equal(rollouts.tokens, expected * inside)


@pytest.mark.slow
def test_parameters_sharded_for_training_hand_over_to_other_rules(params, engine, rng):
    """The trainer splits the width four ways, the engine only heads, two ways."""
    axes, shapes = models.logical_axes(CONFIG), models.shapes(CONFIG)
    mesh = sharding.make_mesh(sharding.MeshShape(fsdp=4, tensor=2), jax.devices()[:8])
    there = sharding.tree_shardings(axes, shapes, sharding.Rules(), mesh)
    trained = jax.device_put(params, there)
    assert any("fsdp" in x.sharding.spec for x in jax.tree.leaves(trained))
    shape = sharding.MeshShape(data=4, tensor=2)
    sampler = make_engine(
        lanes=4,
        mesh=sharding.make_mesh(shape, jax.devices()[:8][::-1]),
        rules=sharding.Rules(rows="data", embed=None, mlp=None, vocab=None),
    )
    requests = make_requests(rng, [3, 6, 1, 4, 2, 2])
    alone = engine.sample(params, requests, seed=1, step=1)
    handed = sampler.sample(trained, requests, seed=1, step=1, version=7)
    np.testing.assert_array_equal(handed.tokens, alone.tokens)
    np.testing.assert_allclose(handed.log_prob, alone.log_prob, atol=1e-5)
    assert (handed.version, alone.version) == (7, None)
    local = sampling.Local(sampler, trained, version=8)
    assert local.sample(requests[:1], seed=1, step=1).version == 8


def test_later_samples_continue_earlier_ones(params, engine, rng):
    (request,) = make_requests(rng, [7])
    whole = engine.sample(params, [request], seed=1, step=1)
    parts = [
        dataclasses.replace(request, samples=4),
        dataclasses.replace(request, samples=3, first_sample=4),
    ]
    split = engine.sample(params, parts, seed=1, step=1)
    np.testing.assert_array_equal(split.sample, whole.sample)
    np.testing.assert_array_equal(split.tokens, whole.tokens)


def test_noise_is_new_at_every_step_seed_query_and_sample(params, engine):
    def draw(key, seed, step):
        request = sampling.Request(key=key, prompt=[1, 2], samples=40)
        return engine.sample(params, [request], seed=seed, step=step).tokens

    first = draw(1, 0, 0)
    for other in (draw(1, 0, 1), draw(1, 1, 0), draw(2, 0, 0)):
        # Two independent draws of the first token often agree, of all tokens seldom.
        assert np.mean(np.all(first == other, axis=1)) < 0.5
    assert len(np.unique(first, axis=0)) > 10
