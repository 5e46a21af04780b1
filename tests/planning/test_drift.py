"""Drift: silent when nothing changed, loud when the order did."""

import numpy as np
import pytest

from sgpo_jax.planning import drift
from sgpo_jax.profiling import Profile

COUNT = 300


def profile(rng, rate, samples=8):
    return Profile(
        ids=tuple(f"q{i}" for i in range(len(rate))),
        samples=np.full(len(rate), samples),
        successes=rng.binomial(samples, rate),
    )


def test_noise_alone_is_no_change(rng):
    rate = rng.beta(0.6, 0.8, COUNT)
    found = [drift(profile(rng, rate), profile(rng, rate), seed=i) for i in range(4)]
    # The interval is of 95 %, and the bootstrap and the null must both miss.
    assert sum(x.changed for x in found) <= 1
    assert all(x.low < x.correlation < x.high for x in found)
    assert all(abs(x.correlation - x.unchanged) < 0.1 for x in found)


def test_learning_that_keeps_the_order_is_no_change_of_order(rng):
    rate = rng.beta(0.6, 0.8, COUNT)
    found = drift(profile(rng, rate), profile(rng, rate**0.6))
    assert found.later > found.first
    assert not found.changed


def test_another_order_is_seen_and_pays(rng):
    rate = rng.beta(0.6, 0.8, COUNT)
    found = drift(profile(rng, rate), profile(rng, rng.permutation(rate)))
    assert found.changed
    assert abs(found.correlation) < 0.2 and found.moved > 0.3
    assert 0 < found.pays_after < 20
    assert "has changed" in str(found) and "pays after" in str(found)


def test_the_correlation_is_scipys(rng):
    from scipy import stats

    from sgpo_jax.profiling import Posterior

    first = profile(rng, rng.beta(0.6, 0.8, 50))
    later = profile(rng, rng.beta(0.6, 0.8, 50), samples=5)
    expected = stats.spearmanr(Posterior.of(first).mean, later.success_rate).statistic
    assert drift(first, later).correlation == pytest.approx(expected)


def test_only_common_queries_count(rng):
    first = profile(rng, rng.beta(0.6, 0.8, 50))
    later = Profile(
        ids=("x", *first.ids[:40][::-1]),
        samples=[8] * 40 + [0],
        successes=[4] * 40 + [0],
    )
    assert drift(first, later).queries == 39
    with pytest.raises(ValueError, match="0 queries have samples in both"):
        drift(first, Profile(ids=("x",), samples=[8], successes=[1]))
