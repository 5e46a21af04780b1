"""Allocators against brute force, closed forms and each other."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sgpo_jax import planning, theory
from sgpo_jax.planning.concave import split_budget, tie_order
from sgpo_jax.profiling import Given, Posterior, Profile


def belief(successes, samples=8, prior=Given()):
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(len(successes))),
        samples=np.full(len(successes), samples),
        successes=successes,
    )
    return Posterior.of(profile, prior)


@given(
    gains=st.lists(
        st.lists(st.integers(0, 6), min_size=4, max_size=4), min_size=1, max_size=3
    ),
    data=st.data(),
)
@settings(max_examples=60)
def test_the_split_is_the_best_of_all_splits(gains, data):
    gains = -np.sort(-np.array(gains, float), axis=1)
    index = np.array(
        data.draw(st.lists(st.integers(0, len(gains) - 1), min_size=1, max_size=4))
    )
    budget = data.draw(st.integers(len(index), 5 * len(index) + 3))
    sizes = split_budget(gains, index, np.arange(len(index)), budget=budget, minimum=1)
    worth = np.concatenate([np.zeros((len(gains), 1)), gains.cumsum(1)], axis=1)

    def value(choice):
        return sum(worth[d, n - 1] for d, n in zip(index, choice, strict=True))

    best = max(
        value(choice)
        for choice in itertools.product(range(1, 6), repeat=len(index))
        if sum(choice) <= budget
    )
    assert sizes.sum() == min(budget, 5 * len(index))
    assert value(sizes.tolist()) == pytest.approx(best)


@pytest.mark.parametrize(
    ("allocate", "value"),
    [
        (planning.Knapsack, lambda p, n: (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2),
        (planning.HitMaximizing, lambda p, n: 1 - (1 - p) ** n),
        (planning.VarianceMinimizing, lambda p, n: -p * (1 - p) / n),
    ],
)
def test_budgets_go_where_draws_of_the_posterior_say(allocate, value):
    """The objective is estimated from draws and maximized over all splits."""
    some = belief([0, 2, 6])
    sizes = allocate(mean=5.0, maximum=12)(some)
    rng = np.random.default_rng(0)
    draws = [rng.beta(k + 0.5, 8.5 - k, 200_000) for k in (0, 2, 6)]
    table = np.array([[value(p, n).mean() for n in range(2, 13)] for p in draws])
    best = max(
        (c for c in itertools.product(range(2, 13), repeat=3) if sum(c) == 15),
        key=lambda c: sum(table[i, n - 2] for i, n in enumerate(c)),
    )
    reached = sum(table[i, n - 2] for i, n in enumerate(sizes))
    optimum = sum(table[i, n - 2] for i, n in enumerate(best))
    # Draws move the values by less than this.
    assert reached >= optimum - 1e-3
    assert sizes.sum() == 15


def test_neyman_is_proportional_to_the_standard_deviation():
    some = belief(np.arange(9))
    mean = some.mean
    sizes = planning.Neyman(mean=200.0, maximum=1000, minimum=1)(some)
    deviation = np.sqrt(mean * (1 - mean))
    np.testing.assert_allclose(sizes / sizes.sum(), deviation / deviation.sum(), 0.01)
    vip = planning.VarianceMinimizing(mean=200.0, maximum=1000, minimum=1)(some)
    a, b = np.arange(9) + 0.5, 8.5 - np.arange(9)
    inside = np.sqrt(a * b / ((a + b) * (a + b + 1)))
    np.testing.assert_allclose(vip / vip.sum(), inside / inside.sum(), 0.01)


def test_hora_is_the_product_formula_under_a_beta():
    some = belief([1])
    (a, b), n = (1.5, 7.5), np.arange(5)
    product = 1 - np.prod((b + n) / (a + b + n))
    got = some.expect_sizes(theory.probability_any_success, np.array([5]))
    np.testing.assert_allclose(got, product, rtol=1e-10)


def test_known_rates_get_one_over_p():
    """With 80,000 samples the posterior is a point; J's optimum is 1/p."""
    samples = 80_000
    some = belief(np.array([10_000, 20_000, 26_700, 40_000]), samples)
    np.testing.assert_array_equal(planning.BestSuccessAdvantage()(some), [8, 4, 3, 3])
    np.testing.assert_array_equal(planning.ExactInverse()(some), [8, 4, 3, 2])
    np.testing.assert_array_equal(planning.InverseSuccess()(some), [8, 4, 2, 2])


def test_a_budget_that_does_not_suffice_is_refused():
    with pytest.raises(ValueError, match="do not give 3 queries at least 2"):
        split_budget(
            np.zeros((1, 2)), np.zeros(3, int), np.arange(3), budget=5, minimum=2
        )
    with pytest.raises(ValueError, match="mean must be between"):
        planning.Knapsack(mean=1.0)
    with pytest.raises(ValueError, match="minimum <= maximum"):
        planning.ExactInverse(minimum=4, maximum=2)
    with pytest.raises(ValueError, match="must rise"):
        planning.BestSuccessAdvantage(sizes=(4, 2))


def test_ties_depend_on_ids_alone():
    ids = [f"q{i}" for i in range(50)]
    order = np.random.default_rng(0).permutation(50)
    rank = tie_order(ids)
    assert sorted(rank.tolist()) == list(range(50))
    np.testing.assert_array_equal(tie_order([ids[i] for i in order]).argsort(),
                                  np.argsort(rank[order]))  # fmt: skip
