"""The step and the sampler on meshes of 8 devices are those of one device."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from sgpo_jax import methods, models, sampling, sharding, training
from tests.training.test_step import make_batches, make_groups

CONFIG = models.DecoderConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    mlp_dim=32,
)
LORA = dataclasses.replace(CONFIG, lora=models.Lora(rank=8))
# data, fsdp, tensor; the key heads do not divide among a tensor axis of 8.
STEPS = [((2, 2, 2), CONFIG), ((1, 1, 8), CONFIG), ((1, 8, 1), LORA)]


def make_mesh(shape):
    data, fsdp, tensor = shape
    sizes = sharding.MeshShape(data=data, fsdp=fsdp, tensor=tensor)
    return sharding.make_mesh(sizes, jax.devices())


@functools.cache
def programs(shape=None, config=CONFIG):
    return training.TrainPrograms(
        config=config,
        loss=methods.TokenLoss(),
        # Adam divides by |g| + eps: this eps keeps it from magnifying the rounding of
        # gradients that are nearly zero by more than 1e3.
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(1e-2, eps=1e-3)
        ),
        mesh=None if shape is None else make_mesh(shape),
    )


def batches():
    return make_batches(make_groups(4, 8))


@functools.cache
def stepped(shape=None, config=CONFIG):
    """Return state, metrics and log-probabilities after two steps."""
    run = programs(shape, config)
    state = run.init(models.init(config, key=jax.random.key(0)))
    for _ in range(2):
        state, metrics, scores = training.apply_batch(run, state, batches())
    return state, metrics, scores


@pytest.mark.parametrize("config", [CONFIG, LORA], ids=["all", "lora"])
def test_shapes_without_arrays_are_those_of_the_arrays(config):
    run, batch = programs((2, 2, 2), config), batches()[0]
    state = run.init(models.init(config, key=jax.random.key(0)))
    arrays = state, run.zeros(state.params), run.put(batch)

    def kinds(tree):
        found = jax.tree.leaves_with_path(tree)
        return {path: (x.shape, x.dtype, x.sharding) for path, x in found}

    assert kinds(run.abstract(batch)) == kinds(arrays)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "config"), STEPS, ids=lambda x: str(x)[:9])
def test_the_step_is_the_same(shape, config):
    state, metrics, scores = stepped(shape, config)
    want, want_metrics, want_scores = stepped(None, config)
    for name, value in want_metrics.items():
        # float32; sums over devices come in another order.
        np.testing.assert_allclose(
            metrics[name], value, rtol=2e-5, atol=2e-6, err_msg=name
        )
    for a, b in zip(scores, want_scores, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(want.params), strict=True
    ):
        # A rounding of 1e-7 in a gradient, times 1e3 (see eps), times the step size.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 2, 2)], ids=str)
def test_nothing_large_is_kept_whole(shape):
    """Parameters and both moments of Adam are split over fsdp and tensor."""
    state, _, _ = stepped(shape)
    _, fsdp, tensor = shape
    norm = CONFIG.num_layers * CONFIG.embed_dim
    whole, split = [], 0
    for path, leaf in jax.tree.leaves_with_path((state.params, state.opt_state)):
        name = jax.tree_util.keystr(path)
        part = leaf.addressable_shards[0].data.size
        if leaf.size > norm and part * fsdp * tensor != leaf.size:
            whole.append((name, leaf.shape, leaf.sharding.spec))
        split += leaf.size > norm
    assert not whole
    assert split == 3 * 8, "embedding, 4 of attention, 3 of the MLP; three times"


def test_adapters_moments_are_split_and_frozen_matrices_have_none():
    state, _, _ = stepped((1, 8, 1), LORA)
    moments = jax.tree.leaves(state.opt_state)
    adapters = jax.tree.leaves(state.params["adapters"])
    counted = sum(x.size for x in moments if x.ndim)
    assert counted == 2 * sum(x.size for x in adapters)
    frozen = jax.tree.leaves(state.params["layers"])
    assert any(not x.sharding.is_fully_replicated for x in frozen)
    assert any(not x.sharding.is_fully_replicated for x in moments if x.ndim)


@pytest.mark.parametrize("shape", [None, (2, 2, 2)], ids=str)
def test_nothing_goes_through_the_host_within_a_step(shape):
    run = programs(shape, CONFIG)
    state, _, _ = stepped(shape)
    state = jax.tree.map(lambda x: x.copy(), state)  # `stepped` is shared
    placed = [run.put(batch) for batch in batches()]
    with jax.transfer_guard("disallow_explicit"):
        state, metrics, scores = training.apply_batch(run, state, placed)
        jax.block_until_ready((state, metrics, scores))
    # The guard would have seen it: a batch that was not placed.
    total = run.zeros(state.params)
    with (
        jax.transfer_guard("disallow_explicit"),
        pytest.raises(Exception, match="Disallowed host-to-device"),
    ):
        run.accumulate(state.params, total, batches()[0])


@functools.cache
def sampled(shape=None):
    rng = np.random.default_rng(0)
    requests = [
        sampling.Request(
            key=i,
            prompt=rng.integers(0, CONFIG.vocab_size, 1 + i % 7).tolist(),
            samples=1 + i % 5,
        )
        for i in range(20)
    ]
    engine = sampling.Engine(
        CONFIG,
        lanes=8,
        slots=2,
        max_prompt=7,
        max_response=6,
        stop_tokens=(3,),
        staged=4,
        prefill_prompts=2,
        mesh=None if shape is None else make_mesh(shape),
    )
    return engine.sample(
        models.init(CONFIG, key=jax.random.key(0)), requests, seed=1, step=2
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 8)], ids=str)
def test_the_sampler_is_the_same(shape):
    got, want = sampled(shape), sampled()
    for name in ("request", "sample", "length", "tokens", "finish"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    # float32; a tensor axis splits sums over heads and hidden width.
    np.testing.assert_allclose(got.log_prob, want.log_prob, rtol=1e-5, atol=1e-5)
