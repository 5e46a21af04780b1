"""Sentences of a report say what its numbers say."""

import dataclasses
import math

import pytest

from sgpo_jax.ledger import Entry
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import SHARES, CostComparison
from sgpo_jax.report.verdict import SHARE, unsolved, verdict
from sgpo_jax.training import Evaluation


def of(*rates):
    return Evaluation(rates=rates, greedy=None, unscorable=0.0, cost=Entry())


def costs(other):
    return [
        CostComparison(share=s, target=0.5, baseline=1.0, repeated=2.0, other=other)
        for s in SHARES
    ]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        # Each question changed alike: certain, though the questions differ by far more.
        ((0.11, 0.51, 1.0), "rose from 0.530 to 0.540."),
        ((0.05, 0.44, 0.93), "fell from 0.530 to 0.473."),
        # One rose by as much as another fell.
        ((0.3, 0.3, 0.99), "did not change beyond noise: 0.530 before, 0.530 after"),
        # One alone rose: 0.1 +- 1.96 * 0.1.
        ((0.4, 0.5, 0.99), "95 % interval of the change -0.096 to +0.296."),
    ],
)
def test_success_has_changed_if_the_interval_over_pairs_leaves_0_out(after, words):
    before = of(0.1, 0.5, 0.99)
    (line,) = verdict({"initial": before, "grpo": of(*after)}, {}, "grpo")
    assert line.startswith("grpo: held-out success ") and words in line


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (costs(0.5), "90% of grpo's gain took 2.00 times less total compute"),
        (costs(2.0), "90% of grpo's gain took 2.00 times more total compute"),
        ([], "grpo gained nothing, so costs cannot be compared."),
        (costs(math.inf), "It never reached 90% of grpo's gain."),
    ],
)
def test_costs_are_those_of_the_table(points, words):
    found = {"initial": of(0.4, 0.2), "grpo": of(0.6, 0.4), "sgpo": of(0.6, 0.4)}
    first, second = verdict(found, {"sgpo": points}, "grpo")
    assert words in second and "compute" not in first
    assert SHARE in SHARES


@pytest.mark.parametrize("other", [0.5, math.inf])
def test_a_share_of_noise_has_no_cost(other):
    """One question gained as much as another lost, whatever the curves show."""
    found = {"initial": of(0.4, 0.2), "grpo": of(0.7, 0.0), "sgpo": of(0.6, 0.4)}
    _, second = verdict(found, {"sgpo": costs(other)}, "grpo")
    assert "The gain of grpo is within noise" in second
    assert "took" not in second and "never reached" not in second


def test_a_baseline_that_fell_has_no_gain_to_share():
    """Its curve may have risen in between."""
    found = {"initial": of(0.4, 0.2), "grpo": of(0.3, 0.1), "sgpo": of(0.6, 0.4)}
    _, second = verdict(found, {"sgpo": costs(0.5)}, "grpo")
    assert second.endswith("grpo gained nothing, so costs cannot be compared.")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ((0.65, 0.85), "That is above grpo: +0.250, 95 % interval +0.152 to +0.348."),
        ((0.5, 0.3), "That is not told apart from grpo: -0.100, 95 % interval"),
        ((0.4, 0.5), "That is below grpo: -0.050, 95 % interval -0.050 to -0.050."),
    ],
)
def test_other_methods_are_compared_with_the_baseline_on_the_same_questions(
    after, words
):
    found = {"initial": of(0.1, 0.1), "grpo": of(0.45, 0.55), "sgpo": of(*after)}
    first, second = verdict(found, {"sgpo": costs(0.5)}, "grpo")
    assert words in second and "That is" not in first


def test_dense_rewards_are_said_beside_the_success():
    """Nothing is solved, and yet training changed something."""
    before, after = (
        dataclasses.replace(of(0.0), reward=reward) for reward in (0.25, 0.5)
    )
    (line,) = verdict({"initial": before, "grpo": after}, {}, "grpo")
    assert line.endswith("Mean reward 0.250 before, 0.500 after.")
    (line,) = verdict(
        {
            "initial": dataclasses.replace(of(0.4), reward=0.4),
            "grpo": dataclasses.replace(of(0.6), reward=0.6),
        },
        {},
        "grpo",
    )
    assert "reward" not in line


def test_a_profile_without_a_success_says_what_to_look_at():
    assert not unsolved(Profile(ids=("a", "b"), samples=[8, 8], successes=[0, 1]))
    assert "--sampler.max-response" in unsolved(
        Profile(ids=("a",), samples=[8], successes=[0])
    )
