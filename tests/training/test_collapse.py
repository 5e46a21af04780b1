"""A collapsed policy is noticed, and chance is not taken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpo_jax.training import collapse

shares = st.floats(0, 1)


def step(rng, rates, factor=1.0, size=8):
    """Metrics of a step on prompts of given success rates, times a factor."""
    groups = np.repeat(np.arange(len(rates)), size)
    rewards = (rng.random(len(groups)) < factor * rates[groups]).astype(float)
    rewards[rng.random(len(groups)) < 0.05] = np.nan
    return collapse.training_metrics(rewards, 1.0, rates, groups)


def test_a_policy_that_stays_as_it_was_raises_no_alarm(rng):
    """The profile's rates are the truth here; groups share their prompt's luck."""
    alarms = 0
    for _ in range(4000):
        rates = rng.beta(0.5, 1.5, size=16)
        alarms += "collapse" in step(rng, rates)
    assert alarms == 0


def test_a_policy_that_lost_everything_raises_one(rng):
    found = [step(rng, rng.beta(1, 1, size=32), factor=0.02) for _ in range(200)]
    assert sum("collapse" in metrics for metrics in found) == 200
    said = collapse.alarm(9, {"success": 0.01, **found[0]})
    assert said.startswith("step 9: COLLAPSE") and "\n" not in said


@given(now=shares, before=shares, a=st.floats(1e-6, 0.5), b=st.floats(1e-6, 0.5))
def test_only_a_fall_by_half_counts(now, before, a, b):
    errors = collapse.errors_below(now, before, now_error=a, before_error=b)
    assert 0 <= errors <= collapse.MOST
    if collapse.is_collapse(now, before, errors):
        assert now < before / 2
        assert before - now >= 3.99 * max(a, b)
    worse = collapse.errors_below(now / 2, before, now_error=a, before_error=b)
    assert worse >= errors


def test_evaluations_are_compared_with_the_first():
    before = {"eval/success": 0.5, "eval/low": 0.4, "eval/high": 0.6}
    initial = [0.5, collapse.standard_error(before)]
    gone = {"eval/success": 0.05, "eval/low": 0.0, "eval/high": 0.1}
    found = collapse.held_out_collapse(initial, gone)
    assert found["eval/collapse"] == pytest.approx(0.45 / np.hypot(0.1, 0.05) * 1.96)
    assert "COLLAPSE" in collapse.alarm(3, gone | found)
    better = {"eval/success": 0.45, "eval/low": 0.35, "eval/high": 0.55}
    assert collapse.held_out_collapse(initial, better) == {}
    assert collapse.held_out_collapse(None, gone) == {}
    assert collapse.alarm(3, before) == ""
