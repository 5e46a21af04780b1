"""Exact success rates: against enumeration by hand and against sampling."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, packing, rewards, sampling, testing, training
from sgpo_jax.data import Query
from sgpo_jax.rollouts import RolloutGenerator

SMALL = models.CharTokenizer("01=")
CONFIG = dataclasses.replace(testing.TINY, vocab_size=SMALL.vocab_size)
ANSWERS = [
    "".join(digits) for n in (1, 2, 3) for digits in itertools.product("01=", repeat=n)
]


def make_scorer(queries, *, tokenizer=testing.ARITHMETIC, config=testing.TINY, **more):
    return training.ReferenceScorer(
        queries=queries,
        config=config,
        tokenizer=tokenizer,
        **{"max_response": 4, "buckets": testing.tiny_buckets(), **more},
    )


def forward(params, config, tokens):
    tokens = jnp.asarray([tokens])
    positions = jnp.arange(tokens.shape[1])[None]
    hidden, _ = models.apply(params, config, tokens, positions, models.causal)
    logits = hidden @ models.unembedding(params, config)
    return np.asarray(jax.nn.log_softmax(logits[0].astype(jnp.float32)), np.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_answers_of_a_question_share_its_probability(temperature):
    """All texts of at most 3 characters, cut at 3 tokens, are all there is."""
    params = models.init(CONFIG, key=jax.random.key(0))
    queries = [
        Query(id=answer, prompt="10=", reference=answer) for answer in ["", *ANSWERS]
    ]
    scorer = make_scorer(
        queries,
        tokenizer=SMALL,
        config=CONFIG,
        max_response=3,
        temperature=temperature,
    )
    rates = scorer(params)
    # Log-probabilities in float32, 40 answers.
    assert rates.sum() == pytest.approx(1.0, abs=1e-5)
    for answer in ("0", "1=", "=10"):
        tokens = [*SMALL.encode("10=" + answer), 0][: 3 + 3]
        logits = forward(params, CONFIG, tokens) / temperature
        log_prob = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        right = sum(log_prob[i - 1, tokens[i]] for i in range(3, len(tokens)))
        assert rates[1 + ANSWERS.index(answer)] == pytest.approx(
            np.exp(right), rel=1e-5
        )


def test_a_reference_that_cannot_be_sampled_is_never_right():
    query = Query(id="long", prompt="1+1=", reference="12345")
    scorer = make_scorer([query, *testing.tiny_queries(2)])
    rates = scorer(models.init(testing.TINY, key=jax.random.key(0)))
    assert rates[0] == 0 and (rates[1:] > 0).all()


def test_sampling_agrees_within_its_error():
    params = models.init(testing.TINY, key=jax.random.key(1))
    queries = testing.tiny_queries(8)
    samples = 400
    exact = training.evaluate_exact(make_scorer(queries, max_response=6), params)
    with rewards.Worker() as worker:
        source = RolloutGenerator(
            engine=testing.tiny_engine(lanes=8, slots=8),
            config=testing.TINY,
            tokenizer=testing.ARITHMETIC,
            worker=worker,
            seed=0,
        )
        sampled = training.evaluate(source, params, queries, samples=samples)
    rates = make_scorer(queries, max_response=6)(params)
    error = (rates * (1 - rates) / samples).sum() ** 0.5 / len(queries)
    assert abs(sampled.mean - exact.mean) < 4 * error
    assert exact.mean == pytest.approx(rates.mean())
    half = 1.96 * rates.std(ddof=1) / len(rates) ** 0.5
    assert exact.high == pytest.approx(rates.mean() + half)
    assert exact.cost.flops > 0 and exact.cost.rollouts == 0


def test_near_temperature_0_it_is_the_greedy_success():
    """References that are greedy completions are right, others are not."""
    params = models.init(testing.TINY, key=jax.random.key(2))
    queries = testing.tiny_queries(6)
    with rewards.Worker() as worker:
        source = RolloutGenerator(
            engine=testing.tiny_engine(lanes=8, slots=8),
            config=testing.TINY,
            tokenizer=testing.ARITHMETIC,
            worker=worker,
            seed=0,
        )
        best = source(params, queries, [1] * 6, step=1, strategy=sampling.Greedy())
    picked = [
        dataclasses.replace(query, reference=text) if i % 2 else query
        for i, (query, text) in enumerate(zip(queries, best.texts, strict=True))
    ]
    buckets = packing.make_buckets(row_lengths=[64], rows=[8], response_length=6)
    scorer = make_scorer(picked, max_response=6, temperature=1e-4, buckets=buckets)
    rates = scorer(params)
    np.testing.assert_allclose(rates, [0, 1, 0, 1, 0, 1], atol=1e-6)


def test_questions_that_cannot_be_scored_exactly_are_refused():
    other = Query(id="a", prompt="1=", reference="1", verifier="integer")
    with pytest.raises(ValueError, match="these questions use 'integer': sample"):
        make_scorer([other])
    with pytest.raises(ValueError, match="ByteTokenizer can spell"):
        training.check_exact(testing.tiny_queries(1), models.ByteTokenizer())
    with pytest.raises(ValueError, match="several ways"):
        training.check_exact((), models.CharTokenizer("01 "))
