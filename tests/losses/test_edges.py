"""Edges with an answer of their own: no room for a ratio, the largest, small betas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import losses


@pytest.mark.parametrize("advantage", [1.0, -2.0])
@pytest.mark.parametrize(
    "loss",
    [
        losses.sequence_clipped_surrogate,
        losses.token_level_sequence_surrogate,
        losses.gmpo,
    ],
)
def test_sequence_losses_without_room_have_the_gradient_of_reinforce(loss, advantage):
    """Bounds of 0, on policy: the ratio lies on both bounds."""
    mask = jnp.array([[True, True, False]])

    def total(x):
        found = loss(x, jnp.array([advantage]), mask, low=0.0, high=0.0)
        return found.sum() / 2

    grad = jax.grad(total)(jnp.zeros((1, 3)))
    np.testing.assert_allclose(grad, [[-advantage / 2, -advantage / 2, 0]], rtol=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_log_ratio_still_has_its_gradient(sign):
    """20 is inside, what is beyond is constant; halves are neither."""
    x = sign * jnp.array([[19.0, 20.0, 21.0]])
    mask = jnp.ones((1, 3), bool)
    grad = jax.grad(lambda x: losses.log_ratio(x, jnp.zeros((1, 3)), mask).sum())(x)
    np.testing.assert_array_equal(grad, [[1, 1, 0]])


@settings(max_examples=100)
@given(
    # Subnormal rates are 0 to XLA on a CPU.
    rate=st.one_of(
        st.sampled_from([0.0, 1.0, 1e-7, 1e-30]),
        st.floats(0, 1, width=32, allow_subnormal=False),
    ),
    beta=st.floats(1e-4, 1e4),
)
def test_optimal_value_at_every_strength(rate, beta):
    """The soft maximum by float64 logaddexp; below 1/88 the exponential overflows."""
    with np.errstate(divide="ignore"):
        p = np.float64(np.float32(rate))
        expected = beta * np.logaddexp(np.log1p(-p), np.log(p) + 1 / beta)
    if beta > 1:  # cancellation of the reference itself
        expected = beta * np.log1p(p * np.expm1(1 / beta))
    found = float(losses.optimal_value(jnp.float32(rate), beta=beta))
    assert 0 <= found <= 1 + 1e-5
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_optimal_value_needs_a_strength(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        losses.optimal_value(jnp.float32(0.5), beta=beta)
