import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sgpo_jax import models, sampling, sharding

CONFIG = models.DecoderConfig(
    vocab_size=12,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=24,
    tie_embeddings=False,
)
STOP = 3
RESPONSE = 6


def make_engine(**changes) -> sampling.Engine:
    settings = {
        "lanes": 3,
        "slots": 2,
        "max_prompt": 7,
        "max_response": RESPONSE,
        "stop_tokens": (STOP,),
        "staged": 4,
        "prefill_prompts": 2,
    }
    return sampling.Engine(CONFIG, **{**settings, **changes})


@pytest.fixture(scope="module")
def params():
    return models.init(CONFIG, key=jax.random.key(0))


@pytest.fixture(scope="module")
def engine():
    return make_engine()


def make_requests(rng, counts, longest=7) -> list[sampling.Request]:
    return [
        sampling.Request(
            key=1000 + i,
            prompt=rng.integers(
                0, CONFIG.vocab_size, rng.integers(1, longest + 1)
            ).tolist(),
            samples=int(n),
        )
        for i, n in enumerate(counts)
    ]


@jax.jit
def forward(params, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = models.apply(params, CONFIG, tokens, positions, models.causal)
    return hidden @ models.unembedding(params, CONFIG)


def predictions(params, requests, rollouts, capacity=64) -> np.ndarray:
    """Return the training forward's logits of every response token, [R, T, V]."""
    whole = np.zeros((capacity, 7 + RESPONSE), np.int32)
    first = []
    for row, (i, response) in enumerate(
        zip(rollouts.request, rollouts.tokens, strict=True)
    ):
        prompt = np.asarray(requests[i].prompt)
        whole[row, : len(prompt)] = prompt
        whole[row, len(prompt) : len(prompt) + RESPONSE] = response
        first.append(len(prompt) - 1)
    logits = np.asarray(forward(params, whole))
    return np.stack([logits[r, n : n + RESPONSE] for r, n in enumerate(first)])


def noise(seed, step, rollouts, requests) -> np.ndarray:
    """Return the Gumbel noise of every response token, from the definition."""

    def one(query, sample, age):
        key = jax.random.fold_in(jax.random.key(seed), step)
        for number in (query, sample, age):
            key = jax.random.fold_in(key, number)
        return jax.random.gumbel(key, (CONFIG.vocab_size,))

    keys = np.array([requests[i].key for i in rollouts.request], np.uint32)
    ages = jnp.arange(RESPONSE)
    over_ages = jax.vmap(one, (None, None, 0))
    return np.asarray(jax.vmap(over_ages, (0, 0, None))(keys, rollouts.sample, ages))


def by_sample(rollouts, requests):
    keys = [int(requests[i].key) for i in rollouts.request]
    return dict(
        zip(
            zip(keys, rollouts.sample.tolist(), strict=True),
            rollouts.tokens,
            strict=True,
        )
    )


def test_tokens_and_log_probs_follow_the_training_forward(params, engine, rng):
    temperature = 0.6
    requests = make_requests(rng, [5, 1, 0, 7, 2, 9, 3, 4, 1, 2])
    method = sampling.Temperature(temperature)
    rollouts = engine.sample(params, requests, seed=5, step=2, method=method)
    logits = predictions(params, requests, rollouts) / temperature
    inside = np.arange(RESPONSE) < rollouts.length[:, None]

    expected = np.argmax(logits + noise(5, 2, rollouts, requests), axis=-1)
    np.testing.assert_array_equal(rollouts.tokens, expected * inside)

    log_prob = np.asarray(jax.nn.log_softmax(logits))
    log_prob = np.take_along_axis(log_prob, expected[..., None], axis=-1)[..., 0]
    # float32; the two forwards sum in different orders.
    np.testing.assert_allclose(rollouts.log_prob, log_prob * inside, atol=1e-5)
    at_one = np.asarray(jax.nn.log_softmax(logits * temperature))
    at_one = np.take_along_axis(at_one, expected[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(rollouts.log_prob_at_one, at_one * inside, atol=1e-5)
    np.testing.assert_array_equal(rollouts.kept, inside)


def test_greedy_is_the_argmax_of_the_training_forward(params, engine, rng):
    requests = make_requests(rng, [1] * 8)
    rollouts = engine.sample(params, requests, seed=0, step=0, method=sampling.Greedy())
    inside = np.arange(RESPONSE) < rollouts.length[:, None]
    expected = np.argmax(predictions(params, requests, rollouts), axis=-1)
    np.testing.assert_array_equal(rollouts.tokens, expected * inside)


def test_draws_follow_the_softmax(params, engine):
    """Chi-square of 6000 first tokens against the forward's probabilities."""
    requests = [sampling.Request(key=4, prompt=[5, 1, 7], samples=6000, budget=1)]
    rollouts = engine.sample(params, requests, seed=1, step=0)
    logits = forward(params, np.array([[5, 1, 7] + [0] * 10] * 64, np.int32))[0, 2]
    expected = 6000 * np.asarray(jax.nn.softmax(logits), np.float64)
    counts = np.bincount(rollouts.tokens[:, 0], minlength=CONFIG.vocab_size)
    common = expected > 5
    statistic = np.sum((counts - expected)[common] ** 2 / expected[common])
    assert common.sum() > 3
    assert scipy.stats.chi2.sf(statistic, common.sum() - 1) > 1e-3


@pytest.mark.parametrize(
    "grid",
    [
        {"lanes": 1, "slots": 1, "banks": 1, "steps": 5},
        {"lanes": 2, "slots": 4, "banks": 3, "steps": 7, "max_prompt": (3, 9)},
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


def test_samples_do_not_depend_on_the_devices(params, engine, rng):
    requests = make_requests(rng, [3, 6, 1, 4, 2, 2])
    alone = engine.sample(params, requests, seed=1, step=1)
    shape = sharding.MeshShape(data=2, tensor=2)
    mesh = sharding.make_mesh(shape, jax.devices()[:4])
    sharded = make_engine(lanes=4, mesh=mesh)
    shared = sharded.sample(params, requests, seed=1, step=1)
    np.testing.assert_array_equal(shared.tokens, alone.tokens)
    # float32; heads are summed over two devices.
    np.testing.assert_allclose(shared.log_prob, alone.log_prob, atol=1e-5)
    with pytest.raises(ValueError, match="lanes=3 must divide"):
        make_engine(mesh=mesh)


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


def test_int8_caches_stay_close(params, rng):
    requests = make_requests(rng, [8] * 4)
    small = make_engine(cache_dtype="int8")
    rollouts = small.sample(params, requests, seed=0, step=0)
    log_prob = np.asarray(jax.nn.log_softmax(predictions(params, requests, rollouts)))
    log_prob = np.take_along_axis(log_prob, rollouts.tokens[..., None], axis=-1)[..., 0]
    inside = np.arange(RESPONSE) < rollouts.length[:, None]
    error = np.abs(rollouts.log_prob - log_prob)[inside]
    # 1/254 of the largest element of each vector, through two layers.
    assert 0 < error.max() < 0.05


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


def test_every_sample_appears_once_and_in_order(params, engine, rng):
    counts = [0, 64, 1, 13, 0, 5]
    requests = make_requests(rng, counts)
    progress = []
    rollouts = engine.sample(
        params, requests, seed=0, step=0, on_progress=progress.append
    )
    expected = [(i, j) for i, n in enumerate(counts) for j in range(n)]
    found = list(zip(rollouts.request.tolist(), rollouts.sample.tolist(), strict=True))
    assert found == expected
    assert (rollouts.length >= 1).all()
    assert progress[-1].ended == progress[-1].total == sum(counts)
    assert all(a.ended <= b.ended for a, b in itertools.pairwise(progress))
    assert rollouts.stats.decode_tokens == rollouts.length.sum()
    assert rollouts.stats.prefill_tokens == sum(
        len(r.prompt) - 1 for r in requests if r.samples
    )


def test_stop_token_is_kept_and_budget_cuts(params, engine, rng):
    requests = [
        dataclasses.replace(request, budget=budget)
        for request, budget in zip(
            make_requests(rng, [20] * 3), [None, 2, 1], strict=True
        )
    ]
    rollouts = engine.sample(params, requests, seed=0, step=0)
    budget = np.array([RESPONSE, 2, 1])[rollouts.request]
    last = rollouts.tokens[np.arange(len(rollouts)), rollouts.length - 1]
    np.testing.assert_array_equal(rollouts.finished, last == STOP)
    assert rollouts.finished.any()
    assert not rollouts.finished.all()
    assert (rollouts.length[~rollouts.finished] == budget[~rollouts.finished]).all()
    before_last = np.arange(RESPONSE) < rollouts.length[:, None] - 1
    assert not np.any((rollouts.tokens == STOP) & before_last)
    after = np.arange(RESPONSE) >= rollouts.length[:, None]
    assert not rollouts.tokens[after].any()
    assert not rollouts.log_prob[after].any()


def test_two_programs_per_prompt_rung(params, rng):
    engine = make_engine(max_prompt=(2, 5))
    for counts in ([3], [1, 40, 2], rng.integers(1, 65, 9), [64] * 3):
        engine.sample(params, make_requests(rng, counts, longest=5), seed=0, step=0)
    assert engine.compiles() == 4


@pytest.mark.parametrize("grid", [{}, {"max_prompt": (4, 7), "slots": 1}])
def test_prompts_in_chunks_are_as_prompts_at_once(params, engine, rng, grid):
    requests = make_requests(rng, [3, 6, 1, 4, 2, 2])
    whole = engine.sample(params, requests, seed=1, step=1)
    chunked = make_engine(prefill_chunk=2, **grid)
    parts = chunked.sample(params, requests, seed=1, step=1)
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    # float32, sums reordered
    np.testing.assert_allclose(parts.log_prob, whole.log_prob, atol=1e-5)
    # Chunks beyond the longest prompt of a block are not computed.
    short = [dataclasses.replace(r, prompt=[1, 2, 3], samples=1) for r in requests[:2]]
    stats = chunked.sample(params, short, seed=1, step=1).stats
    assert stats.prefill_padded == 2 * 2


def test_prefill_in_chunks_needs_little_more_memory_for_longer_prompts(params):
    """Temporaries of the compiled program."""

    def temporary(length, chunk):
        engine = make_engine(max_prompt=length + 1, prefill_chunk=chunk)
        programs = engine.programs
        _, table = programs.start(engine.grid(length + 1, RESPONSE), 4)
        tokens = jnp.zeros((2, chunk or length), jnp.int32)
        zero = jnp.int32(0)
        lowered = programs.prefill.lower(
            params, table, tokens, zero, zero, chunked=chunk is not None
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(1024, None) > 3 * temporary(512, None)
    # A few of one layer: 2 prompts, 2 heads of width 4, keys and values, float32.
    stored = 2 * 2 * 2 * 4 * 4 * 512
    assert temporary(1024, 64) < temporary(512, 64) + 4 * stored
    assert temporary(1024, 64) < temporary(1024, None) / 20


def test_memory_does_not_grow_with_the_group(params, rng):
    """Bytes on the device during a call, beyond what was there before it."""
    prompts = make_requests(rng, [1] * 32)

    def most(engine, group):
        requests = [dataclasses.replace(r, samples=group) for r in prompts]
        requests = requests[: 256 // group]
        before, seen = {id(x) for x in jax.live_arrays()}, []

        def look(_):
            new = [x for x in jax.live_arrays() if id(x) not in before]
            seen.append(sum(x.nbytes for x in new))

        engine.sample(params, requests, seed=0, step=0, on_progress=look)
        return max(seen)

    engine = make_engine(steps=16)
    groups_of_8 = most(engine, 8)
    programs = engine.compiles()
    assert 0 < most(engine, 64) <= groups_of_8
    # The same programs, so the same temporaries.
    assert engine.compiles() == programs == 2
    ring = 2 * CONFIG.num_layers * CONFIG.num_kv_heads * CONFIG.head_dim * RESPONSE * 4
    assert most(make_engine(slots=64, banks=4, steps=16), 8) > 3 * 62 * ring


def test_short_budgets_take_a_short_ring(params, engine, rng):
    requests = [
        dataclasses.replace(r, budget=3) for r in make_requests(rng, [3, 6, 1, 4])
    ]
    laddered = make_engine(max_response=(3, RESPONSE))
    rings = []
    sample = laddered.programs.start
    object.__setattr__(
        laddered.programs,
        "start",
        lambda grid, staged: (rings.append(grid.response), sample(grid, staged))[1],
    )
    short = laddered.sample(params, requests, seed=1, step=1)
    whole = engine.sample(params, requests, seed=1, step=1)
    np.testing.assert_array_equal(short.tokens, whole.tokens)
    mixed = [*requests[:2], dataclasses.replace(requests[2], budget=4)]
    laddered.sample(params, mixed, seed=1, step=1)
    assert rings == [3, RESPONSE]
    with pytest.raises(ValueError, match="max_response must be positive and rise"):
        make_engine(max_response=(6, 3))


def test_no_requests_give_no_rollouts(params, engine):
    rollouts = engine.sample(params, [], seed=0, step=0)
    assert len(rollouts) == 0
    assert rollouts.tokens.shape == (0, RESPONSE)


def test_impossible_requests_are_refused(params, engine):
    def sample(**changes):
        request = dataclasses.replace(
            sampling.Request(key=9, prompt=[1], samples=1), **changes
        )
        engine.sample(params, [request], seed=0, step=0)

    with pytest.raises(ValueError, match="query 9: a prompt of 8 tokens"):
        sample(prompt=[1] * 8)
    with pytest.raises(ValueError, match="budget=7"):
        sample(budget=7)
    with pytest.raises(ValueError, match="negative"):
        sample(samples=-1)
    with pytest.raises(ValueError, match="multiple of"):
        make_engine(staged=3)
    with pytest.raises(ValueError, match="uint32"):
        sample(key=-1)
