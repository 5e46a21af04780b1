"""Sentences of a report say what its numbers say."""

import dataclasses
import math

import pytest

from sgpo_jax.ledger import Entry
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import SHARES, CostComparison
from sgpo_jax.report.verdict import SHARE, unsolved, verdict
from sgpo_jax.training import Evaluation


def of(mean, half=0.05):
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return Evaluation(
        mean=mean, low=low, high=high, greedy=None, unscorable=0.0, cost=Entry()
    )


def costs(other):
    return [
        CostComparison(share=s, target=0.5, baseline=1.0, repeated=2.0, other=other)
        for s in SHARES
    ]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (0.6, "rose from 0.400 to 0.600."),
        (0.2, "fell from 0.400 to 0.200."),
        (0.45, "did not change beyond noise: 0.400 before, 0.450 after"),
        (0.49, "did not change beyond noise"),
        (0.51, "rose"),
    ],
)
def test_success_changes_where_intervals_do_not_meet(after, words):
    (line,) = verdict({"initial": of(0.4), "grpo": of(after)}, {}, "grpo")
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
    found = {"initial": of(0.4), "grpo": of(0.6), "sgpo": of(0.6)}
    first, second = verdict(found, {"sgpo": points}, "grpo")
    assert words in second and "compute" not in first
    assert SHARE in SHARES


def test_dense_rewards_are_said_beside_the_success():
    """Nothing is solved, and yet training changed something."""
    before, after = (
        dataclasses.replace(of(0.0, 0.0), reward=reward) for reward in (0.25, 0.5)
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
