"""Gradients by position against jax.grad, and the best cut against random ones."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from benchmarks import prefix_cuts
from benchmarks.prefix_cuts import best, decreasing, saving, squares
from sgpo_jax import models, testing


@pytest.mark.slow
def test_squares_are_those_of_the_gradient_of_each_token():
    config = testing.TINY
    params = models.init(config, key=jax.random.key(0))
    tokens = np.array([[3, 1, 4, 1, 5, 0, 0]])  # two of the prompt, two of padding
    positions = np.arange(7)[None]
    each, both = squares(params, config, tokens, positions, 2, 3)

    def log_prob(params, place):
        line = jnp.asarray(tokens[:, :5])
        hidden, _ = models.apply(
            params, config, line, jnp.asarray(positions[:, :5]), models.causal
        )
        scores = jax.nn.log_softmax(models.logits(params, config, hidden))
        return scores[0, place - 1, line[0, place]]

    gradients = [jax.grad(log_prob)(params, place) for place in (2, 3, 4)]
    flat = [jax.flatten_util.ravel_pytree(x)[0] for x in gradients]
    expected = [float(x @ x) for x in flat]
    np.testing.assert_allclose(each, [0, *expected, 0, 0], rtol=1e-4)
    total = sum(flat)
    np.testing.assert_allclose(both, float(total @ total), rtol=1e-4)


def made(rng, places=12, fixed=3.0):
    return {
        "reach": np.sort(rng.integers(1, 50, places))[::-1].tolist(),
        "variance": rng.exponential(size=places).tolist(),
        "fixed_flops": fixed,
        "token_flops": 1.0,
    }


def test_blocks_are_those_of_isotonic_regression(rng):
    found = made(rng)
    n, v = np.array(found["reach"]), np.array(found["variance"])
    expected = isotonic_regression(v, weights=n, increasing=False).x
    np.testing.assert_allclose(decreasing(n, v) ** 2, expected)


@pytest.mark.parametrize("fixed", [0.0, 100.0])
def test_no_random_cut_saves_more_than_the_best(rng, fixed):
    for _ in range(20):
        found = made(rng, fixed=fixed)
        n, v = np.array(found["reach"]), np.array(found["variance"])
        most, p = best(found)
        assert np.all(np.diff(p) <= 0)
        assert p.max() <= 1
        assert most == pytest.approx(saving(found, n @ p, n @ (v / p)))
        for _ in range(50):
            tried = np.sort(rng.uniform(0.02, 1, len(n)))[::-1]
            assert saving(found, n @ tried, n @ (v / tried)) <= most * 1.002


def test_nothing_is_saved_where_all_tokens_have_the_same_gradient(rng):
    found = made(rng, fixed=0.0) | {"variance": [2.0] * 12}
    assert best(found)[0] == pytest.approx(1.0)
    v = 2.0 ** -np.arange(12)
    falling = found | {"reach": [9] * 12, "variance": v.tolist()}
    most = 12 * v.sum() / np.sqrt(v).sum() ** 2  # at p = sqrt(v / v_1)
    assert best(falling)[0] == pytest.approx(most, rel=1e-3)


def test_its_examples():
    assert doctest.testmod(prefix_cuts).failed == 0
