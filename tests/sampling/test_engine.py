import dataclasses
import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from sgpo_jax import sampling
from tests.sampling.tiny import (
    CONFIG,
    RESPONSE,
    STOP,
    forward,
    make_engine,
    make_requests,
    noise,
    predictions,
)


def test_tokens_and_log_probs_follow_the_training_forward(params, engine, rng):
    temperature = 0.6
    requests = make_requests(rng, [5, 1, 0, 7, 2, 9, 3, 4, 1, 2])
    strategy = sampling.Temperature(temperature)
    rollouts = engine.sample(params, requests, seed=5, step=2, strategy=strategy)
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
    np.testing.assert_array_equal(rollouts.support_mass, inside)


def test_greedy_is_the_argmax_of_the_training_forward(params, engine, rng):
    requests = make_requests(rng, [1] * 8)
    rollouts = engine.sample(
        params, requests, seed=0, step=0, strategy=sampling.Greedy()
    )
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


@pytest.mark.slow
def test_the_queue_is_counted_step_by_step(params):
    """One slot, a token each: sample k waits k steps, over several returns."""
    engine = make_engine(lanes=1, slots=1, steps=4)
    requests = [
        sampling.Request(key=i, prompt=[5, 1], samples=samples, budget=1)
        for i, samples in enumerate([5, 1, 3])
    ]
    stats = engine.sample(params, requests, seed=0, step=0).stats
    assert (stats.decode_steps, stats.queued_steps) == (9, sum(range(9)))
    assert stats.queue == 4
    # Slots for all: nobody waits.
    engine = make_engine(lanes=3, slots=5)
    assert engine.sample(params, requests, seed=0, step=0).stats.queued_steps == 0


def test_each_rollout_is_handed_over_once_as_soon_as_it_ended(params, rng):
    """Also of requests for no sample, and over prompts of several rungs."""
    requests = make_requests(rng, [5, 1, 0, 7, 2, 9])
    engine = make_engine(steps=2, max_prompt=(4, 7))
    handed, sizes, ended = {}, [], []

    def finished(ids, tokens):
        assert not handed.keys() & set(ids.tolist())
        handed.update(zip(ids.tolist(), tokens, strict=True))
        sizes.append(len(ids))

    rollouts = engine.sample(
        params,
        requests,
        seed=0,
        step=0,
        on_finished=finished,
        on_progress=lambda now: ended.append((now.ended, len(handed))),
    )
    assert sorted(handed) == list(range(24))
    for row, tokens in handed.items():
        assert tokens == rollouts.tokens[row, : rollouts.length[row]].tolist()
    assert len(sizes) > 2 and all(now == known for now, known in ended)
