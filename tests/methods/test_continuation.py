"""Groups that are sampled in stages: which go on, and how the stages are joined."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpo_jax import methods
from sgpo_jax.methods.continuation import Outcomes
from sgpo_jax.testing import ScriptedRollouts, tiny_queries
from sgpo_jax.training.collect import collect, collected

QUERIES = tiny_queries()
GROUPS = st.lists(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, np.nan]), min_size=1, max_size=6),
    min_size=1,
    max_size=5,
)


def groups_of(groups):
    sizes = [len(group) for group in groups]
    ids = np.repeat(np.arange(len(groups)), sizes)
    return methods.RewardGroups(
        rewards=np.array([r for group in groups for r in group]),
        id=ids,
        length=np.ones(len(ids), np.float32),
        size=np.array(sizes, np.float32)[ids],
        count=len(groups),
    )


@given(GROUPS)
def test_outcomes_by_hand(groups):
    found = Outcomes.of(groups_of(groups))
    for place, group in enumerate(groups):
        scored = [r for r in group if np.isfinite(r)]
        assert found.successes[place] == scored.count(1.0)
        assert found.failures[place] == len(scored) - scored.count(1.0)
        assert found.equal[place] == (len(set(scored)) < 2)
        mean = np.mean(scored) if scored else np.nan
        np.testing.assert_allclose(found.mean[place], mean)


@given(GROUPS)
def test_who_goes_on(groups):
    mixed = methods.ContinueMixed(more=3, low=0.25, high=0.75)(groups_of(groups))
    until = methods.UntilBalanced(more=2, successes=1, failures=2)(groups_of(groups))
    for place, group in enumerate(groups):
        scored = [r for r in group if np.isfinite(r)]
        between = bool(scored) and 0.25 <= np.mean(scored) <= 0.75
        assert mixed[place] == (3 if between and len(set(scored)) > 1 else 0)
        right = scored.count(1.0)
        lacks = bool(scored) and (right < 1 or len(scored) - right < 2)
        assert until[place] == (2 if lacks else 0)


def run_collect(method, *, budget=24, rewards=None):
    """Collect with scripted rollouts; returns what was asked for as well."""
    calls = []
    queries = itertools.cycle(range(len(QUERIES)))

    def draw(number, wanted):
        rows = np.array([next(queries) for _ in range(-(-wanted // 4))])
        calls.append(("draw", number, wanted))
        return methods.Draw(rows, np.full(len(rows), 4))

    def sample(number, chosen):
        chosen_queries = [QUERIES[row] for row in chosen.rows]
        scored = ScriptedRollouts(unscorable=0.0)(
            None, chosen_queries, chosen.sizes.tolist(), step=number
        )
        if rewards is not None:
            request = scored.rollouts.request
            value = np.array([rewards(chosen.rows[i]) for i in request], np.float64)
            scored = dataclasses.replace(scored, rewards=value)
        calls.append(("sample", number, int(chosen.sizes.sum())))
        return collected(chosen_queries, chosen, scored)

    taken = collect(method, draw, sample, budget=budget, numbers=itertools.count())
    return taken, calls


@pytest.mark.parametrize("rounds", [1, 3])
def test_groups_hold_the_rollouts_of_all_stages(rounds):
    method = methods.Method(
        continuation=methods.UntilBalanced(
            more=2, successes=3, failures=3, max_rounds=rounds, growth=1.0
        )
    )
    taken, calls = run_collect(method)
    sizes = np.bincount(taken.group, minlength=len(taken.queries))
    np.testing.assert_array_equal(sizes, taken.draw.sizes)
    assert sizes.max() > 4 and len(taken.queries) == 6
    assert len(taken.rewards) == sum(x for kind, _, x in calls if kind == "sample")
    assert taken.cost.rollouts == len(taken.rewards)
    stages = [number for kind, number, _ in calls if kind == "sample"]
    assert stages == list(range(len(stages)))  # each with noise of its own
    done = Outcomes.of(groups_of_taken(taken))
    unfinished = (done.successes < 3) | (done.failures < 3)
    assert (sizes[unfinished] == 4 + 2 * rounds).all()


def groups_of_taken(taken):
    return methods.RewardGroups(
        rewards=taken.rewards,
        id=taken.group,
        length=np.ones(len(taken.group), np.float32),
        size=np.ones(len(taken.group), np.float32),
        count=len(taken.queries),
    )


def test_every_rollout_stays_with_its_prompt():
    """Rewards that depend on the prompt alone: every group's are equal."""
    method = methods.Method(
        continuation=methods.UntilBalanced(more=3, successes=5, failures=0, growth=1.0)
    )
    taken, _ = run_collect(method, rewards=lambda row: float(row % 2))
    for place, row in enumerate(taken.draw.rows):
        assert set(taken.rewards[taken.group == place]) == {float(row % 2)}
        expected = 7 if row % 2 else 13  # one round to five right; three in vain
        assert taken.draw.sizes[place] == expected


def test_a_dead_pilot_costs_no_more_than_the_pilot():
    method = methods.Method(continuation=methods.ContinueMixed(more=12, growth=4.0))
    taken, calls = run_collect(method, budget=64, rewards=lambda row: 1.0)
    assert calls == [("draw", 0, 16), ("sample", 0, 16)]
    assert (taken.draw.sizes == 4).all() and taken.rounds == 1


def test_refill_counts_what_continued_groups_hold():
    method = methods.Method(
        continuation=methods.ContinueMixed(more=4, growth=2.0),
        refill=methods.Refill(max_rounds=3),
    )
    taken, calls = run_collect(method, budget=32)
    live = int(taken.live[taken.group].sum())
    draws = [wanted for kind, _, wanted in calls if kind == "draw"]
    assert draws[0] == 16  # half, for a pilot of half of the rollouts
    assert live >= 32 or len(draws) == 4
    assert len({number for kind, number, _ in calls if kind == "sample"}) == sum(
        kind == "sample" for kind, _, _ in calls
    )


def test_refill_samples_little_more_than_is_missing():
    """Eight pilots, of which a quarter is mixed, say little: no round may rush ahead.

    Scaling by the share seen so far alone, a step ends with twice its budget.
    """
    method = methods.Method(
        continuation=methods.ContinueMixed(more=12, growth=4.0),
        refill=methods.Refill(max_rounds=3),
    )
    rng, found = np.random.default_rng(0), []
    for _ in range(50):
        taken, _ = run_collect(
            method, budget=128, rewards=lambda row: float(rng.random() < 0.08)
        )
        found.append(taken.live[taken.group].sum())
    assert 0.9 * 128 < np.mean(found) < 1.3 * 128


@pytest.mark.parametrize("wrong", [lambda groups: np.array([1, 2]), lambda groups: -1])
def test_a_continuation_that_returns_no_number_per_group_is_named(wrong):
    @dataclasses.dataclass(frozen=True)
    class Mine:
        max_rounds = 1
        growth = 1.0

        def __call__(self, groups):
            return np.asarray(wrong(groups))

    with pytest.raises(ValueError, match="for each of 6 groups"):
        run_collect(methods.Method(continuation=Mine()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.ContinueMixed(more=0), "more must be a whole number from 1"),
        (lambda: methods.ContinueMixed(low=0.9, high=0.1), "low <= high"),
        (lambda: methods.UntilBalanced(growth=0.5), "growth must be a number from 1"),
        (
            lambda: methods.Method(
                continuation=methods.UntilBalanced(max_rounds=7),
                refill=methods.Refill(max_rounds=4),
            ),
            "may take 40 rounds .* at most 16",
        ),
    ],
)
def test_bad_continuations_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
