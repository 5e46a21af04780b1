import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sgpo_jax import sampling
from sgpo_jax.sampling.methods import choose
from sgpo_jax.sampling.noise import first_largest, gumbel

LOGITS = np.log(np.array([0.4, 0.02, 0.25, 0.05, 0.15, 0.13], np.float32))
METHODS = {
    # The tokens that may be drawn at temperature 1.
    sampling.Greedy(): [0],
    sampling.Temperature(): [0, 1, 2, 3, 4, 5],
    sampling.TopK(2): [0, 2],
    sampling.TopK(99): [0, 1, 2, 3, 4, 5],
    sampling.TopP(0.64): [0, 2],
    sampling.TopP(0.66): [0, 2, 4],
    sampling.TopP(1e-6): [0],
    sampling.TopP(1.0): [0, 1, 2, 3, 4, 5],
    sampling.MinP(0.3): [0, 2, 4, 5],
    sampling.MinP(1.0): [0],
}


def draw(strategy, n=4000, logits=LOGITS):
    keys = jax.random.key_data(jax.random.split(jax.random.key(3), n))
    rows = jnp.broadcast_to(logits, (n, len(logits)))
    token, score = choose(rows, keys, jnp.zeros(n, jnp.int32), strategy)
    return np.asarray(token), np.asarray(score)


@pytest.mark.parametrize("strategy", METHODS, ids=str)
def test_draws_follow_the_kept_part(strategy):
    kept = METHODS[strategy]
    token, (log_prob, at_one, mass) = draw(strategy)
    np.testing.assert_allclose(log_prob, LOGITS[token], rtol=1e-5)
    np.testing.assert_array_equal(log_prob, at_one)
    np.testing.assert_allclose(mass, np.exp(LOGITS[kept]).sum(), rtol=1e-5)
    counts = np.bincount(token, minlength=len(LOGITS))
    assert counts.sum() == counts[kept].sum()
    if len(kept) > 1:
        expected = np.exp(LOGITS[kept].astype(np.float64))
        expected *= len(token) / expected.sum()
        assert scipy.stats.chisquare(counts[kept], expected).pvalue > 1e-3


@pytest.mark.parametrize("kind", [sampling.TopK, sampling.TopP, sampling.MinP])
def test_temperature_comes_before_truncation(kind):
    strategy = kind(3 if kind is sampling.TopK else 0.5, temperature=2.0)
    hot = jax.nn.log_softmax(LOGITS / 2)
    token, (log_prob, at_one, mass) = draw(strategy)
    np.testing.assert_allclose(log_prob, hot[token], rtol=1e-5)
    np.testing.assert_allclose(at_one, LOGITS[token], rtol=1e-5)
    kept = np.isfinite(strategy.keep(hot[None])[0])
    assert set(token) == set(np.flatnonzero(kept))
    np.testing.assert_allclose(mass, np.exp(hot)[kept].sum(), rtol=1e-5)


def test_noise_is_that_of_jax_bit_for_bit():
    keys = jax.random.split(jax.random.key(7), 50)
    ages = jnp.arange(50, dtype=jnp.int32)

    def definition(key, age):
        return jax.random.gumbel(jax.random.fold_in(key, age), (997,))

    expected = jax.vmap(definition)(keys, ages)
    found = gumbel(jax.random.key_data(keys), ages, 997)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(first_largest(found), np.argmax(expected, axis=1))


def test_impossible_methods_are_refused():
    for bad in (
        lambda: sampling.Temperature(0.0),
        lambda: sampling.TopK(0),
        lambda: sampling.TopP(0.0),
        lambda: sampling.MinP(1.5),
        lambda: sampling.TopK(2, temperature=-1.0),
    ):
        with pytest.raises(ValueError, match=r"must be a (whole )?number"):
            bad()
