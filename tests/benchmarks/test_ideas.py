"""Prompt samplers of trials: sizes, weights, and when the next stage begins."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.headline import ideas
from benchmarks.headline.ideas import ByPosterior, Growing, Staged, UntilConverged
from sgpo_jax import methods, profiling
from sgpo_jax.methods import History, PromptPool
from sgpo_jax.methods.prompts import Shuffled

COUNT = 64


def pool(**optional):
    return PromptPool(count=COUNT, history=History.empty(COUNT), optional=optional)


@pytest.mark.parametrize(
    ("progress", "rollouts"), [(0.0, 32), (0.25, 80), (0.5, 128), (0.9, 128)]
)
def test_a_growing_step_reaches_its_size_when_it_says(progress, rollouts):
    sampler = Growing(sampler=Shuffled(group_size=8))
    state = sampler.init(pool())
    drawn, _ = sampler.draw(pool(), state, budget=128, progress=progress, seed=0)
    assert drawn.sizes.sum() == rollouts


def test_expected_signal_is_that_of_beta_samples(rng):
    mean, counts = np.array([0.1, 0.5, 0.9]), np.array([1.0, 4.0, 9.0])
    rates = stats.beta(mean * counts, (1 - mean) * counts).rvs((200_000, 3), rng)
    found = ByPosterior(weight="signal").signal(mean, counts)
    expected = (1 - rates**8 - (1 - rates) ** 8).mean(0)
    np.testing.assert_allclose(found, expected, atol=4e-3)


def test_optimism_is_for_what_is_little_known():
    weigh = ByPosterior(weight="optimism").optimism
    mean = np.array([0.05, 0.05, 0.5, 0.45])
    known = weigh(mean, np.array([1.0, 100.0, 2.0, 1e9]))
    assert known[0] > known[1] > np.sqrt(0.05 * 0.95)
    assert known[2] == 0.5
    assert known[3] == pytest.approx(np.sqrt(0.45 * 0.55), rel=1e-3)


@pytest.mark.parametrize("weight", ["signal", "optimism"])
def test_prompts_are_drawn_by_weight(weight):
    mean = np.r_[np.full(COUNT // 2, 0.5), np.full(COUNT // 2, 1e-4)]
    beliefs = {"baseline": mean, "baseline_weight": np.full(COUNT, 50.0)}
    drawn, _ = ByPosterior(weight=weight).draw(
        pool(**beliefs), {}, budget=64, progress=0.0, seed=1
    )
    assert len(drawn.rows) == 8
    assert (drawn.rows < COUNT // 2).mean() > 0.7


@pytest.fixture
def known():
    """A quarter each: never, once, half of the time, always solved."""
    return profiling.Profile(
        ids=tuple(map(str, range(COUNT))),
        samples=[8] * COUNT,
        successes=np.repeat([0, 1, 4, 8], COUNT // 4),
    )


def test_the_plan_comes_first_and_all_prompts_then(known):
    sampler = Staged(at=0.4)
    seen = pool(profile=known)
    state = sampler.init(seen)
    solvable = known.successes % 8 > 0
    first, state = sampler.draw(seen, state, budget=64, progress=0.39, seed=0)
    assert solvable[first.rows].mean() > 0.8
    rows = []
    for _ in range(8):
        drawn, state = sampler.draw(seen, state, budget=64, progress=0.4, seed=0)
        rows += drawn.rows.tolist()
    assert sorted(rows) == list(range(COUNT))


def test_a_phase_ends_when_its_success_no_longer_rises(known):
    """Success rises for ten steps, then stands still for `patience` of them."""
    sampler = UntilConverged(patience=4, window=1)
    seen, phases = pool(profile=known), []
    state = sampler.init(seen)
    for step in range(1, 25):
        drawn, state = sampler.draw(seen, state, budget=16, progress=0.0, seed=0)
        phases.append(drawn.phase)
        visits = seen.history.visits.copy()
        visits[drawn.rows] += 1
        last = seen.history.last_step.copy()
        last[drawn.rows] = step
        means = np.full(COUNT, min(step, 10) / 10, np.float32)
        history = seen.history._replace(visits=visits, last_step=last, last_mean=means)
        seen = PromptPool(count=COUNT, history=history, optional=seen.optional)
    change = phases.index(1)
    assert phases == [0] * change + [1] * (24 - change)
    assert 10 + 4 <= change <= 10 + 6


def test_every_trial_is_a_method():
    made = [x for x in vars(ideas).values() if callable(x)]
    functions = [x for x in made if getattr(x, "__module__", "") == ideas.__name__]
    built = [x() for x in functions if x.__name__[0].islower()]
    assert len(built) > 15
    assert all(isinstance(x, methods.Method) for x in built)
