"""Intervals of held-out success, and of its change over the same questions."""

import json

import numpy as np
import pytest
from scipy import stats

from sgpo_jax.ledger import Entry
from sgpo_jax.training import Evaluation


def of(rates):
    return Evaluation(
        rates=tuple(map(float, rates)), greedy=None, unscorable=0.0, cost=Entry()
    )


@pytest.fixture
def pair():
    """Success before and after of questions that differ by far more than it rose."""
    rng = np.random.default_rng(0)
    before = rng.beta(0.2, 0.3, size=48)
    return before, np.clip(before + rng.normal(0.05, 0.08, size=48), 0.0, 1.0)


def test_the_change_is_that_of_the_paired_test(pair):
    before, after = pair
    change = of(after).change_from(of(before))
    assert change.mean == pytest.approx(after.mean() - before.mean())
    paired = stats.ttest_rel(after, before)
    error = (change.high - change.mean) / 1.96
    assert change.mean / error == pytest.approx(paired.statistic)
    assert change.low == pytest.approx(2 * change.mean - change.high)
    # The two intervals overlap; that of the change leaves 0 out.
    assert of(after).low < of(before).high and change.low > 0


def test_the_interval_of_the_mean_is_the_normal_one(pair):
    before, _ = pair
    low, high = stats.norm.interval(0.95, before.mean(), stats.sem(before))
    assert of(before).low == pytest.approx(low, abs=1e-4)
    assert of(before).high == pytest.approx(high, abs=1e-4)


def test_the_change_does_not_see_what_both_have_in_common(pair):
    """Harder and easier questions beside them change nothing, nor does their order."""
    before, after = (x / 2 for x in pair)
    easier = np.linspace(0.0, 0.5, len(before))
    shuffled = np.random.default_rng(1).permutation(len(before))
    one = of(after).change_from(of(before))
    other = of((after + easier)[shuffled]).change_from(of((before + easier)[shuffled]))
    assert other == pytest.approx(one)
    back = of(before).change_from(of(after))
    assert back == pytest.approx((-one.mean, -one.high, -one.low))


def test_one_question_says_nothing_of_the_others():
    assert of([0.5]).success == (0.5, 0.0, 1.0)
    assert of([1.0]).change_from(of([0.0])) == (1.0, -1.0, 1.0)


def test_other_questions_cannot_be_compared():
    with pytest.raises(ValueError, match="one has 2, the other 3"):
        of([0.1, 0.2, 0.3]).change_from(of([0.1, 0.2]))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rates", [], "at least one query"),
        ("rates", [0.5, 1.5], "rates must be numbers from 0 to 1, got 1.5"),
        ("mean", 0.9, "its mean is 0.9, that of its rates 0.5"),
        ("rates", 0.5, "this is no evaluation"),
    ],
)
def test_files_are_read_back_or_refused(field, value, said):
    made = json.loads(json.dumps(of([0.25, 0.75]).to_json()))
    assert Evaluation.from_json(made) == of([0.25, 0.75])
    assert made["mean"] == 0.5 and made["low"] < 0.5 < made["high"]
    with pytest.raises(ValueError, match=said):
        Evaluation.from_json({**made, field: value})
