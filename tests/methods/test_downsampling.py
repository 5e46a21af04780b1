"""Which responses of a group are trained on, and what its other rewards say."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import advantages, methods
from sgpo_jax.methods.advantage import evaluate, pad_groups

# All of one length, so that they compile once: what is not there is not scored.
REWARDS = st.lists(
    st.sampled_from([0.0, 0.25, 0.5, 1.0, np.nan]), min_size=1, max_size=7
).map(lambda found: [*found, *[np.nan] * (7 - len(found))])


def groups_of(rewards, ids, **optional):
    ids = np.asarray(ids, np.int32)
    return methods.RewardGroups(
        rewards=np.asarray(rewards, np.float32),
        id=ids,
        length=np.ones(len(ids), np.float32),
        size=np.bincount(ids).astype(np.float32)[ids],
        count=int(ids.max()) + 1,
        optional=optional,
    )


@pytest.mark.slow
@settings(max_examples=25)
@given(REWARDS, REWARDS, st.integers(2, 5), st.randoms())
def test_max_variance_is_that_of_the_best_subset(one, two, keep, random):
    """Against every subset of that size, with the slots of two groups mixed."""
    slots = [(0, r) for r in one] + [(1, r) for r in two]
    random.shuffle(slots)
    ids, rewards = (np.array(x) for x in zip(*slots, strict=True))
    found = np.asarray(
        advantages.max_variance(
            jnp.asarray(rewards, jnp.float32), jnp.asarray(ids), num_groups=2, keep=keep
        )
    )
    assert not found[~np.isfinite(rewards)].any()
    for group in (0, 1):
        scored = rewards[(ids == group) & np.isfinite(rewards)]
        kept = rewards[(ids == group) & found]
        assert len(kept) == min(keep, len(scored))
        if len(scored) > keep:
            best = max(np.var(x) for x in itertools.combinations(scored, keep))
            np.testing.assert_allclose(np.var(kept), best, atol=1e-6)


def test_downsampled_by_hand():
    rewards = [1, 0, 0, 0, 1, 0, np.nan, 0]
    groups = groups_of(rewards, [0] * 8)
    found = evaluate(methods.Downsampled(keep=4), pad_groups(groups), 8)
    assert np.sort(found[found != 0]).round(4).tolist() == [-1, -1, 1, 1]
    assert found[0] > 0 and found[4] > 0 and found[6] == 0
    ada = methods.Downsampled(keep=4, over="group", standardize=False)
    found = evaluate(ada, pad_groups(groups), 8)
    mean = 2 / 7  # of all seven that were scored
    expected = np.sort([1 - mean, 1 - mean, -mean, -mean])
    np.testing.assert_allclose(np.sort(found[found != 0]), expected, rtol=1e-5)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, np.nan])),
        min_size=2,
        max_size=9,
    ),
    st.floats(0.1, 0.9),
    st.floats(0.5, 20),
)
def test_posterior_relative_by_hand(slots, mean, weight):
    """Every response against the posterior mean without it, in plain Python."""
    _, ids = np.unique([i for i, _ in slots], return_inverse=True)
    rewards = np.array([r for _, r in slots])
    count = len(rewards)
    groups = groups_of(
        rewards,
        ids,
        baseline=np.full(count, mean, np.float32),
        baseline_weight=np.full(count, weight, np.float32),
    )
    found = evaluate(methods.PosteriorRelative(), pad_groups(groups), count)
    expected = np.zeros(count)
    for i in np.flatnonzero(np.isfinite(rewards)):
        others = [
            rewards[j]
            for j in range(count)
            if j != i and ids[j] == ids[i] and np.isfinite(rewards[j])
        ]
        left = (weight * mean + sum(others)) / (weight + len(others))
        expected[i] = rewards[i] - left
    scored = np.isfinite(rewards)
    if scored.sum() > 1 and np.std(expected[scored]) > 1e-3:
        # Scaled by one factor for the whole batch, which is another test's matter.
        ratio = np.linalg.norm(expected) / np.linalg.norm(found)
        np.testing.assert_allclose(found * ratio, expected, atol=1e-4)
    assert not found[~scored].any()


def test_posterior_relative_lies_between_its_two_ends():
    rewards, ids = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0], [0, 0, 0, 1, 1, 1]

    def found(weight):
        groups = groups_of(
            rewards,
            ids,
            baseline=np.full(6, 0.3, np.float32),
            baseline_weight=np.full(6, weight, np.float32),
        )
        return evaluate(methods.PosteriorRelative(), pad_groups(groups), 6)

    def same_direction(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    alone = advantages.leave_one_out(jnp.array(rewards), jnp.array(ids), num_groups=2)
    assert same_direction(found(1e-5), np.asarray(alone)) > 0.9999
    assert same_direction(found(1e6), np.array(rewards) - 0.3) > 0.9999


def test_the_largest_advantages_are_kept_and_stand_for_the_group():
    advantage = np.array([0.1, -2.0, 0.5, -0.5, 3.0, 0.0], np.float32)
    groups = groups_of([0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1])
    factor = methods.LargestAdvantage(rate=0.5)(advantage, groups, seed=0)
    assert factor.tolist() == [0, 2, 2, 0, 2, 0]
    unscored = dataclasses.replace(
        groups, rewards=np.array([0, np.nan, 0, 1, 1, 0], np.float32)
    )
    factor = methods.LargestAdvantage(rate=0.5)(advantage, unscored, seed=0)
    assert factor.tolist() == [0, 0, 3, 0, 2, 0]


def test_a_floor_keeps_responses_without_advantage_unbiased():
    """Every expected factor is 1, also where the advantage is 0."""
    roulette = methods.RussianRoulette(keep_above=2.0, floor=0.1)
    advantage = np.array([0.0, 0.1, -0.5, 3.0], np.float32)
    groups = groups_of(np.zeros(4), np.zeros(4))
    draws = [roulette(advantage, groups, seed=s) for s in range(20_000)]
    # Standard error of a factor of 10 at p = 0.1 is 0.021.
    np.testing.assert_allclose(np.mean(draws, axis=0), 1.0, atol=0.11)


@pytest.mark.parametrize("name", ["grpo", "dapo", "cppo", "pods", "spo", "speed"])
def test_every_method_of_single_responses_can_be_thinned(name):
    method = methods.named(name)
    floor = 0.1 if method.kl else 0.0
    thinned = method.replace(subsample=methods.RussianRoulette(floor=floor))
    assert thinned.subsample.drops_zero_advantage == (floor == 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: methods.RussianRoulette(floor=-1.0),
            "floor must be a number",
        ),
        (
            lambda: methods.LargestAdvantage(rate=1.0),
            "rate must be a number",
        ),
        (lambda: methods.Downsampled(keep=1), "keep must be a whole number from 2"),
        (
            lambda: methods.named("grpo").replace(subsample=methods.RussianRoulette()),
            r"RussianRoulette\(floor=0.1\)",
        ),
        (
            lambda: methods.named("vargrad").replace(
                subsample=methods.RussianRoulette(floor=0.5)
            ),
            "reads means over whole groups",
        ),
    ],
)
def test_bad_subsamples_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
