"""An infinite reward is an unscored one, for every part that reads rewards.

Whatever clips, compares or averages before it looks for missing rewards takes the
infinite ones for successes: each part must give the same for both, to the bit.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import advantages, methods
from sgpo_jax.methods.advantage import evaluate, pad_groups
from sgpo_jax.methods.shaping import shape
from sgpo_jax.testing import ScriptedRollouts
from sgpo_jax.training.collect import collected
from sgpo_jax.training.evaluation import evaluate as evaluated
from sgpo_jax.training.learner import rollout_metrics
from tests.methods.cases import METHODS, QUERIES

GROUPS, SIZE = 3, 4
R = GROUPS * SIZE
REWARDS = st.lists(
    st.sampled_from([0.0, 1.0, 0.25, np.inf, -np.inf]), min_size=R, max_size=R
)
LIMITED = settings(max_examples=25)


def parts(name):
    """Parts of one kind that the methods have, and those of the library beside them."""
    found = {getattr(method, name): None for method in METHODS.values()}
    return [part for part in found if part is not None]


ADVANTAGES = [
    *parts("advantage"),
    methods.BatchStandardized(),
    methods.BestOfGroup(standardize=True),
    methods.Kalman(average_orders=True),
]
TRACKERS = [*parts("baseline"), advantages.KalmanTracker()]


def both(rewards):
    """Rewards with infinite ones, and with missing ones in their place."""
    rewards = np.array(rewards, np.float32)
    return rewards, np.where(np.isfinite(rewards), rewards, np.nan)


def groups_of(rewards):
    known = np.repeat([0.2, 0.5, 0.9], SIZE)
    return methods.RewardGroups(
        rewards=rewards,
        id=np.repeat(np.arange(GROUPS), SIZE),
        length=np.arange(1, R + 1, dtype=np.float32),
        size=np.full(R, SIZE, np.float32),
        count=GROUPS,
        max_length=R,
        optional=dict.fromkeys(("profile", "baseline", "baseline_weight"), known),
    )


@pytest.mark.parametrize(
    "advantage", ADVANTAGES, ids=lambda part: getattr(part, "__name__", repr(part))
)
@LIMITED
@given(rewards=REWARDS)
def test_advantages(advantage, rewards):
    with_inf, missing = (
        evaluate(advantage, pad_groups(groups_of(x)), R) for x in both(rewards)
    )
    np.testing.assert_array_equal(with_inf, missing)
    assert np.isfinite(with_inf).all()


@pytest.mark.parametrize(
    "tracker", TRACKERS, ids=lambda part: getattr(part, "__name__", repr(part))
)
@LIMITED
@given(rewards=REWARDS)
def test_trackers(tracker, rewards):
    state = tracker.init(jnp.array([2, 4, 8]), jnp.array([8, 8, 8]))
    query = jnp.repeat(jnp.arange(GROUPS), SIZE)
    with_inf, missing = (
        tracker.update(state, jnp.asarray(x), query) for x in both(rewards)
    )
    jax.tree.map(np.testing.assert_array_equal, with_inf, missing)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(with_inf))


@LIMITED
@given(rewards=REWARDS)
def test_parts_on_the_host(rewards):
    """Subsamples, continuations, shaping, and what is remembered of prompts."""
    draw = methods.Draw(np.arange(GROUPS), np.full(GROUPS, SIZE))
    group = np.repeat(np.arange(GROUPS), SIZE)
    advantage = np.linspace(-1, 1, R, dtype=np.float32)

    def results(x):
        groups = groups_of(x)
        yield from (part(advantage, groups, seed=0) for part in parts("subsample"))
        yield from (part(groups) for part in parts("continuation"))
        yield from (shape(part, groups) for part in parts("shaping"))
        yield from methods.History.empty(GROUPS).observe(draw, group, x, 1)

    for with_inf, missing in zip(*map(results, both(rewards)), strict=True):
        np.testing.assert_array_equal(with_inf, missing)


@LIMITED
@given(rewards=REWARDS)
def test_counts_of_successes(rewards):
    """Metrics of a step and of an evaluation, whatever source the rewards are from."""

    @dataclasses.dataclass
    class Given(ScriptedRollouts):
        rewards: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(R))

        def __call__(self, *arguments, **keywords):
            scored = super().__call__(*arguments, **keywords)
            return dataclasses.replace(scored, rewards=self.rewards)

    def found(x):
        source = Given(rewards=x)
        taken = source(None, QUERIES[:GROUPS], [SIZE] * GROUPS, step=1)
        draw = methods.Draw(np.arange(GROUPS), np.full(GROUPS, SIZE))
        result = evaluated(source, None, QUERIES[:GROUPS], samples=SIZE)
        metrics = rollout_metrics(collected(QUERIES[:GROUPS], draw, taken))
        return metrics, result.mean, result.reward, result.unscorable

    with_inf, missing = map(found, both(rewards))
    np.testing.assert_equal(with_inf, missing)
    assert with_inf[1] == np.mean(np.array(rewards) == 1)
