"""Trackers that forget towards the prior, or by the movement of the policy."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import advantages
from sgpo_jax.advantages import AdaptiveBetaTracker, BetaTracker, DiscountedBetaTracker

VISITS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, np.nan])),
    min_size=1,
    max_size=6,
)


def by_hand(old, visits, keep, prior=None):
    """Counts of three queries after one step, in plain Python."""
    successes, failures = list(old[0]), list(old[1])
    for query in range(3):
        rewards = [r for q, r in visits if q == query and np.isfinite(r)]
        if not rewards:
            continue
        back = 0.0 if prior is None else (1 - keep) * prior
        successes[query] = keep * successes[query] + back + sum(rewards)
        failures[query] = keep * failures[query] + back + len(rewards) - sum(rewards)
    return successes, failures


def arrays(visits):
    ids, rewards = zip(*visits, strict=True)
    return jnp.array(rewards, jnp.float32), jnp.array(ids)


@settings(max_examples=20)
@given(st.lists(VISITS, min_size=1, max_size=4))
def test_discounted_counts_by_hand(steps):
    tracker = DiscountedBetaTracker(forgetting=0.25, prior=1.5)
    state = tracker.init(jnp.zeros(3), jnp.zeros(3))
    expected = ([1.5] * 3, [1.5] * 3)
    for visits in steps:
        state = tracker.update(state, *arrays(visits))
        expected = by_hand(expected, visits, 0.25, prior=1.5)
    np.testing.assert_allclose(state.successes, expected[0], rtol=1e-5)
    np.testing.assert_allclose(state.failures, expected[1], rtol=1e-5)
    np.testing.assert_allclose(tracker.weight(state), np.add(*expected), rtol=1e-5)


@settings(max_examples=20)
@given(VISITS, st.floats(0, 0.1), st.floats(0, 0.1))
def test_adaptive_counts_by_hand(visits, first, second):
    """Forgetting follows what the policy moved since a query's own last visit."""
    tracker = AdaptiveBetaTracker(half_life=0.06, lowest=0.5, highest=0.9)
    state = tracker.init(jnp.array([0, 2, 4]), jnp.array([0, 4, 4]))
    expected = ([0.5, 4.5, 8.5], [0.5, 4.5, 0.5])
    np.testing.assert_allclose(state.successes, expected[0])
    np.testing.assert_allclose(state.failures, expected[1])
    one, query = jnp.ones(1), jnp.array([1])
    state = tracker.update(state, one, query, drift=jnp.array(first))
    keep = np.clip(2 ** (-first / 0.06), 0.5, 0.9)
    expected = by_hand(expected, [(1, 1.0)], keep)
    state = tracker.update(state, *arrays(visits), drift=jnp.array(first + second))
    kept = [first + second, second, first + second]
    for query in range(3):
        keep = np.clip(2 ** (-kept[query] / 0.06), 0.5, 0.9)
        of_query = by_hand(expected, [v for v in visits if v[0] == query], keep)
        np.testing.assert_allclose(
            state.successes[query], of_query[0][query], rtol=1e-4
        )
        np.testing.assert_allclose(state.failures[query], of_query[1][query], rtol=1e-4)


def test_a_still_policy_forgets_as_a_constant_rate_does():
    adaptive = AdaptiveBetaTracker(highest=0.9, lowest=0.0, strength=8.0)
    constant = BetaTracker(forgetting=0.9)
    counts = jnp.array([2, 7]), jnp.array([8, 8])
    one, other = adaptive.init(*counts), constant.init(*counts)
    for reward in (1.0, 0.0, 1.0):
        step = jnp.array([reward]), jnp.array([1])
        one = adaptive.update(one, *step, drift=jnp.array(0.0))
        other = constant.update(other, *step)
    np.testing.assert_allclose(one.successes, other.successes, rtol=1e-6)
    np.testing.assert_allclose(one.failures, other.failures, rtol=1e-6)


def test_needs():
    assert AdaptiveBetaTracker().needs == ("drift", "profile")
    assert AdaptiveBetaTracker(strength=0.0).needs == ("drift",)
    assert DiscountedBetaTracker().needs == ()
    assert isinstance(AdaptiveBetaTracker(), advantages.Tracker)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lowest": 0.97}, "lowest <= highest"),
        ({"half_life": 0.0}, "half_life must be a number"),
        ({"strength": float("nan")}, "strength must be a number"),
    ],
)
def test_bad_trackers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveBetaTracker(**change)
