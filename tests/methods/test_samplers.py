"""The contract of prompt samplers, and what each of them claims of its draws."""

import dataclasses
import functools
import pickle

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import advantages, methods, theory
from sgpo_jax.methods.prompts.weighted import draw_by_weight
from sgpo_jax.profiling import Profile
from sgpo_jax.training import Checkpoints, Prompts

SAMPLERS = {
    "shuffled": methods.Shuffled(group_size=4),
    "planned": methods.Planned(),
    "replanned": methods.Replanned(least=2),
    "belief": methods.ByBelief(group_size=2),
    "skip": methods.SkipZeroVariance(group_size=4),
    "drop": methods.DropSolved(group_size=4, after=50),
    "thompson": methods.ThompsonSampling(group_size=4, candidates=3),
    "knapsack": methods.KnapsackAllocation(group_size=4, maximum=16),
}
over_all = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


@functools.lru_cache
def profile_of(count):
    return Profile(
        ids=tuple(f"q{i}" for i in range(count)),
        samples=[8] * count,
        successes=np.arange(count) % 9,
        unscorable=[0] * count,
        tokens=[24] * count,
        truncated=[0] * count,
    )


def prompts_of(sampler, count=30, seed=0):
    method = methods.Method(prompts=sampler, baseline=advantages.BetaTracker())
    return Prompts(
        method=method,
        count=count,
        seed=seed,
        profile=profile_of(count),
    )


def observed(prompts, state, draw, step, rate=0.5):
    rng = np.random.default_rng(step)
    group = np.repeat(np.arange(len(draw.rows)), draw.sizes)
    rewards = (rng.random(len(group)) < rate).astype(np.float64)
    rewards[rng.random(len(group)) < 0.1] = np.nan
    return prompts.observe(state, draw, group=group, rewards=rewards, step=step)


def steps(prompts, count, state=None, start=0, budget=24):
    """States and draws of a run."""
    state = prompts.init() if state is None else state
    for step in range(start, count):
        draw, state = prompts.draw(
            state, budget=budget, progress=step / count, seed=step
        )
        state = observed(prompts, state, draw, step + 1)
        yield draw, state


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
@over_all
@settings(max_examples=10)
@given(
    count=st.sampled_from([10, 37, 60]),
    budget=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_draws_are_distinct_rows_within_budget(sampler, count, budget, seed):
    """No row twice; the budget exceeded by less than a group; the same twice."""
    prompts = prompts_of(sampler, count, seed)
    state = prompts.init()
    for step in range(4):
        keywords = {"budget": budget, "progress": step / 4, "seed": step}
        draw, after = prompts.draw(state, **keywords)
        again, same = prompts.draw(state, **keywords)
        assert_same((draw, after.sampler), (again, same.sampler))
        assert len(set(draw.rows.tolist())) == len(draw.rows)
        assert 0 <= draw.rows.min() and draw.rows.max() < count
        assert draw.sizes.min() >= 1
        assert draw.sizes.sum() - draw.sizes.max() < budget
        state = observed(prompts, after, draw, step + 1)


@over_all
def test_a_round_trip_of_the_state_changes_no_later_draw(sampler, tmp_path):
    """What a checkpoint keeps is all that a sampler remembers."""
    prompts = prompts_of(sampler)
    run = list(steps(prompts, 8))
    saved = run[3][1]
    for leaf in jax.tree.leaves(saved.sampler):
        assert isinstance(leaf, np.ndarray)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(4, saved, {})
    checkpoints.close()
    again = Checkpoints(tmp_path / "checkpoints")
    restored, _ = again.restore(4, prompts.init())
    again.close()
    assert_same(restored, saved)
    resumed = list(
        steps(prompts, 8, state=pickle.loads(pickle.dumps(restored)), start=4)
    )
    assert_same([x for x, _ in resumed], [x for x, _ in run[4:]])
    assert_same(resumed[-1][1], run[-1][1])


@over_all
def test_drawing_leaves_the_old_state_as_it_was(sampler):
    """A run that goes back begins again from what it had saved."""
    prompts = prompts_of(sampler)
    state = prompts.init()
    before = jax.tree.map(np.copy, state)
    list(steps(prompts, 3, state=state))
    assert_same(state, before)


@over_all
def test_runs_of_other_seeds_draw_other_prompts(sampler):
    def rows(seed):
        prompts = prompts_of(sampler, seed=seed)
        draw, _ = prompts.draw(prompts.init(), budget=24, progress=0.0, seed=seed)
        return tuple(sorted(draw.rows.tolist()))

    assert len({rows(seed) for seed in range(8)}) > 1


@over_all
def test_a_pool_without_prompts_is_refused(sampler):
    with pytest.raises(ValueError, match="no training prompts; give more questions"):
        prompts_of(sampler, count=0)


def pool_of(rate, streak, seed=0):
    """A pool whose prompts were all visited once, with the rates given."""
    count = len(rate)
    empty = methods.History.empty(count)
    history = empty._replace(
        visits=np.ones(count, np.int32),
        last_step=np.ones(count, np.int32),
        last_mean=np.asarray(rate, np.float32),
        streak=np.asarray(streak, np.int32),
    )
    return methods.PromptPool(
        count=count,
        history=history,
        seed=seed,
        optional={
            "baseline": np.asarray(rate, np.float32),
            "baseline_weight": np.full(count, 9.0, np.float32),
        },
    )


RATES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=9)


@given(RATES, st.randoms())
def test_weights_and_chances_follow_the_prompt_not_its_row(rates, random):
    """What a prompt is worth does not depend on where it stands in the pool."""
    order = list(range(len(rates)))
    random.shuffle(order)
    streak = [int(rate in (0.0, 1.0)) * 3 for rate in rates]
    pool = pool_of(rates, streak)
    moved = pool_of(np.array(rates)[order], np.array(streak)[order])
    belief, skip = methods.ByBelief(), methods.SkipZeroVariance()
    np.testing.assert_array_equal(
        belief.weight(moved.baseline), belief.weight(pool.baseline)[order]
    )
    base = np.array([0.4, 0.6])
    np.testing.assert_array_equal(
        skip.keep(moved.history, base), skip.keep(pool.history, base)[order]
    )
    knapsack = methods.KnapsackAllocation(group_size=4)
    budget = 4 * len(rates)
    here = knapsack.sizes(np.array(rates), budget)
    there = knapsack.sizes(np.array(rates)[order], budget)
    for rate in set(rates):  # a remainder goes to some prompts of a rate
        mine = np.sort(here[np.array(rates) == rate])
        np.testing.assert_array_equal(
            mine, np.sort(there[np.array(rates)[order] == rate])
        )


@given(RATES, st.integers(2, 9))
def test_knapsack_is_the_best_of_all_divisions(rates, mean):
    """No rollout moved from one prompt to another raises the value."""
    knapsack = methods.KnapsackAllocation(group_size=mean, minimum=2, maximum=32)
    rate = np.array(rates)
    sizes = knapsack.sizes(rate, mean * len(rates))
    assert sizes.sum() == mean * len(rates)

    def value(size):
        each = theory.probability_mixed(rate, size) * rate * (1 - rate) ** 2
        return float(each.sum())

    best = value(sizes)
    for give in range(len(rates)):
        for take in range(len(rates)):
            other = sizes.copy()
            other[give] -= 1
            other[take] += 1
            if other.min() >= 2 and other.max() <= 32:
                assert value(other) <= best + 1e-9


def test_knapsack_looks_for_a_first_success_with_what_is_left():
    sizes = methods.KnapsackAllocation().sizes(np.array([0.0, 1.0, 1.0]), 24)
    assert sizes.tolist() == [20, 2, 2]


def test_draws_by_weight_follow_the_weights():
    """Frequencies of one draw of three against w / sum(w), 5 standard errors."""
    weight = np.array([0.0, 1.0, 2.0, 5.0])
    drawn = np.array([draw_by_weight(weight, 1, seed=s)[0] for s in range(4000)])
    share = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(share, weight / 8, atol=5 * 0.5 / np.sqrt(4000))
    assert share[0] == 0


def test_draws_by_weight_are_those_of_a_full_sort():
    """The threshold leaves out only rows that would not have been drawn."""
    rng = np.random.default_rng(0)
    for seed in range(30):
        weight = rng.random(500).astype(np.float32) ** 3
        race = np.random.default_rng(seed).standard_exponential(500, np.float32)
        expected = np.sort(np.argsort(race / weight)[:40])
        np.testing.assert_array_equal(draw_by_weight(weight, 40, seed=seed), expected)


@pytest.mark.parametrize("weight", [[0.0, 0.0], [1.0, np.nan], [1.0, -1.0], [np.inf]])
def test_bad_weights_name_the_remedy(weight):
    with pytest.raises(ValueError, match="raise the floor of the prompt sampler"):
        draw_by_weight(np.array(weight), 1, seed=0)


def test_skipping_adapts_towards_the_target():
    """Too many dead groups lower the base of their kind, too few raise it."""
    sampler = methods.SkipZeroVariance(group_size=1)
    state = sampler.init(pool_of([0.5], [0]))
    pool = pool_of([1.0] * 6 + [0.5] * 6, [2] * 6 + [0] * 6)
    _, after = sampler.draw(pool, state, budget=4, progress=0.0, seed=0)
    np.testing.assert_allclose(after["base"], [0.49, 0.51])
    # A further round of the same step does not move them again.
    _, same = sampler.draw(pool, after, budget=4, progress=0.0, seed=1)
    np.testing.assert_allclose(same["base"], after["base"])


def test_skipped_prompts_come_back_at_the_rate_of_the_formula():
    sampler = methods.SkipZeroVariance(group_size=1, start=0.5)
    history = pool_of([1.0, 0.0, 0.0, 0.5], [1, 2, 30, 0]).history
    keep = sampler.keep(history, np.array([0.5, 0.3]))
    np.testing.assert_allclose(keep, [0.5, 0.09, 0.01, 1.0])
    pool = pool_of([0.0] * 2000 + [0.5] * 2000, [2] * 2000 + [0] * 2000)
    state = sampler.init(pool)
    draw, _ = sampler.draw(pool, state, budget=1000, progress=0.0, seed=3)
    dead = (draw.rows < 2000).mean()  # 0.51 ** 2 against 1: a share of 0.206
    assert abs(dead - 0.206) < 5 * np.sqrt(0.206 * 0.794 / 1000)


def test_a_pool_whose_prompts_are_all_skipped_still_draws():
    sampler = methods.SkipZeroVariance(group_size=2)
    pool = pool_of([0.0, 1.0], [40, 40])
    for seed in range(20):
        draw, _ = sampler.draw(
            pool, sampler.init(pool), budget=8, progress=0.0, seed=seed
        )
        assert len(draw.rows) >= 1


def test_a_pool_of_solved_prompts_names_the_remedy():
    sampler = methods.DropSolved(group_size=2)
    pool = pool_of([1.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match=r"all 2 prompts .* or raise prompts\.after"):
        sampler.draw(pool, sampler.init(pool), budget=4, progress=0.0, seed=0)
    once = dataclasses.replace(sampler, after=2)
    draw, _ = once.draw(pool, once.init(pool), budget=4, progress=0.0, seed=0)
    assert sorted(draw.rows.tolist()) == [0, 1]


def test_thompson_sampling_prefers_rates_near_its_target():
    sampler = methods.ThompsonSampling(group_size=1, candidates=4)
    rate = np.repeat([0.02, 0.5, 0.98], 200)
    pool = pool_of(rate, np.zeros(600))
    draw, _ = sampler.draw(pool, sampler.init(pool), budget=100, progress=0.0, seed=0)
    assert ((draw.rows >= 200) & (draw.rows < 400)).mean() > 0.9


def test_a_new_plan_follows_what_training_has_seen():
    """Every prompt is solved from now on: those seen often enough are dropped."""
    sampler = methods.Replanned(least=4)
    prompts = prompts_of(sampler, count=60)
    state, first = prompts.init(), set()
    for step in range(12):
        draw, state = prompts.draw(state, budget=40, progress=0.0, seed=step)
        group = np.repeat(np.arange(len(draw.rows)), draw.sizes)
        state = prompts.observe(
            state, draw, group=group, rewards=np.ones(len(group)), step=step + 1
        )
        first |= set(draw.rows.tolist())
    seen = np.flatnonzero(state.history.rollouts >= 4)
    assert len(seen) and set(seen.tolist()) <= first
    for progress in (0.34, 0.67):
        draw, state = prompts.draw(state, budget=400, progress=progress, seed=0)
        assert not set(draw.rows.tolist()) & set(seen.tolist())
        assert draw.phase == round(progress * 3)
