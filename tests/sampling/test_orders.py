"""Orders change when samples are drawn, and never what is drawn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, sampling
from sgpo_jax.sampling.orders import LengthStats

STOP, LONGEST = 0, 64
# A decoder without layers to speak of: what follows depends on the last token alone.
CHAIN = models.DecoderConfig(
    vocab_size=3, num_layers=1, embed_dim=3, mlp_dim=2, num_heads=1, num_kv_heads=1,
    head_dim=2, tie_embeddings=False,
)  # fmt: skip
SLOTS = 8


def chain(hazards):
    """Return parameters under which token i + 1 repeats until it stops by chance."""
    params = jax.tree.map(jnp.zeros_like, models.init(CHAIN, key=jax.random.key(0)))
    # A norm of ones turns the embedding's rows into sqrt(3) times unit vectors.
    unembedding = np.full((3, 3), -30.0)
    for token, hazard in enumerate(hazards, start=1):
        unembedding[token, STOP] = np.log(hazard) / 3**0.5
        unembedding[token, token] = np.log(1 - hazard) / 3**0.5
    return {
        **params,
        "embedding": jnp.eye(3),
        "final_norm": jnp.ones(3),
        "unembedding": jnp.asarray(unembedding, jnp.float32),
    }


def make_engine(order, **changes):
    settings = {
        "lanes": SLOTS // 2,
        "slots": 2,
        "max_prompt": 9,
        "max_response": LONGEST,
        "stop_tokens": (STOP,),
        "staged": 4,
        "prefill_prompts": 4,
        "steps": 8,
    }
    return sampling.Engine(CHAIN, order=order, **{**settings, **changes})


@pytest.fixture(scope="module")
def work():
    """Long prompts that lead to short samples, short ones to long; shuffled."""
    kinds = np.random.default_rng(0).permutation(np.arange(40) % 4 == 0)
    return chain([0.5, 0.03]), [
        sampling.Request(
            key=i,
            prompt=[2] if long else [1] * 8,
            samples=3,
            expected_length=33.0 if long else 2.0,
        )
        for i, long in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def as_given(work):
    params, requests = work
    return make_engine(sampling.AsGiven()).sample(params, requests, seed=0, step=0)


def test_the_chain_gives_lengths_of_its_hazards(as_given, work):
    length = as_given.length.reshape(-1, 3)
    long = np.array([len(r.prompt) == 1 for r in work[1]])
    # Means of 30 geometric lengths, cut at 64, and of 90.
    assert 18 < length[long].mean() < 40
    assert 1.5 < length[~long].mean() < 2.6


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (sampling.LongestFirst(), True),
        (sampling.ShortestFirst(), True),
        (sampling.LongestFirst(sampling.EstimatedLengths()), False),
        (sampling.ShortestFirst(sampling.EstimatedLengths(weight=2.0)), True),
    ],
    ids=repr,
)
def test_results_are_the_same_bits_under_any_order(order, told, work, as_given):
    params, requests = work
    if not told:
        requests = [dataclasses.replace(r, expected_length=None) for r in requests]
    ended = []
    rollouts = make_engine(order).sample(
        params, requests, seed=0, step=0, on_progress=lambda now: ended.append(now)
    )
    for name in ("request", "sample", "tokens", "length", "log_prob", "finish"):
        np.testing.assert_array_equal(
            getattr(rollouts, name), getattr(as_given, name), err_msg=name
        )
    assert rollouts.stats.decode_tokens == as_given.length.sum() == ended[-1].tokens
    assert ended[-1].ended == len(rollouts)


@pytest.fixture(scope="module")
def finishing(work):
    """Steps of a call, and the mean step at which its samples ended; by order."""
    params, told = work
    untold = [dataclasses.replace(r, expected_length=None) for r in told]

    @functools.cache
    def finishing(order, *, tell=True):
        ended = [0]
        rollouts = make_engine(order, steps=1).sample(
            params,
            told if tell else untold,
            seed=0,
            step=0,
            on_progress=lambda now: ended.append(now.ended),
        )
        new = np.diff(ended)
        mean = np.sum(new * np.arange(1, len(new) + 1)) / len(rollouts)
        return rollouts.stats.decode_steps, mean

    return finishing


@pytest.mark.slow
def test_longest_first_needs_the_fewest_steps_and_shortest_first_ends_most_early(
    finishing,
):
    given, given_mean = finishing(sampling.AsGiven())
    longest, longest_mean = finishing(sampling.LongestFirst())
    shortest, shortest_mean = finishing(sampling.ShortestFirst())
    assert longest < min(given, shortest)
    assert shortest_mean < given_mean < longest_mean


@pytest.mark.slow
def test_what_is_learned_orders_what_nobody_told(finishing):
    """Prompts tell lengths here, and the call finds out."""
    _, given = finishing(sampling.AsGiven())
    _, mean = finishing(sampling.ShortestFirst(sampling.EstimatedLengths()), tell=False)
    _, best = finishing(sampling.ShortestFirst())
    _, unknown = finishing(sampling.ShortestFirst(), tell=False)
    assert unknown == given
    # The first stages start before anything has ended.
    assert best <= mean < given - 0.25 * (given - best)


def seen(**columns):
    n = len(columns["prompt"])
    defaults = {
        "expected": np.full(n, np.nan),
        "budget": np.full(n, np.inf),
        "tokens": np.zeros(n, int),
        "ended": np.zeros(n, int),
    }
    return LengthStats(**{k: np.asarray(v) for k, v in {**defaults, **columns}.items()})


def test_learned_lengths_by_hand():
    learned = sampling.EstimatedLengths(weight=2.0, ridge=1e-9)
    # Nobody told, nothing ended: unknown, however many tokens there are.
    assert np.isinf(learned(seen(prompt=[3, 5], tokens=[4, 0]))).all()
    # (2 * 10 + 30) / (2 + 3), and a running sample counts with its early tokens.
    told = seen(
        prompt=[3, 3, 3],
        expected=[10.0, 10.0, 10.0],
        tokens=[30, 30, 0],
        ended=[3, 0, 0],
    )
    np.testing.assert_allclose(learned(told), [10, 25, 10])
    # Lengths that are the square of the prompt's: the line through the logarithms.
    square = seen(prompt=[2, 4, 8], tokens=[4, 16, 0], ended=[1, 1, 0])
    np.testing.assert_allclose(learned(square), [4, 16, 64], rtol=1e-6)
    # A penalty draws the slope to zero: everybody's mean, sqrt(4 * 16) = 8.
    flat = sampling.EstimatedLengths(weight=2.0, ridge=1e9)(square)
    np.testing.assert_allclose(flat, [(16 + 4) / 3, (16 + 16) / 3, 8], rtol=1e-6)
    with pytest.raises(ValueError, match="weight and ridge"):
        sampling.EstimatedLengths(weight=0.0)
