"""Sequential profiling: budgets, early stops, expected gains, decisions per sample."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from sgpo_jax import theory
from sgpo_jax.profiling import (
    Decision,
    Flat,
    Given,
    Posterior,
    Profile,
    Sequential,
    profile_adaptively,
)


class Coins:
    """Queries with known rates; sample i of a query is always the same."""

    def __init__(self, rate, most=64, seed=0):
        self.rate = rate
        self.ids = tuple(f"q{i}" for i in range(len(rate)))
        rng = np.random.default_rng(seed)
        self.flips = rng.random((len(rate), most)) < rate[:, None]
        self.drawn = 0

    def __call__(self, ranges):
        some = [i for i, r in enumerate(ranges) if len(r)]
        self.drawn += sum(len(ranges[i]) for i in some)
        return Profile(
            ids=tuple(self.ids[i] for i in some),
            samples=[len(ranges[i]) for i in some],
            successes=[int(self.flips[i, ranges[i]].sum()) for i in some],
            first_sample=[ranges[i].start for i in some],
            source={"seed": 0, "policy": "coins"},
        )


def pool(count=400, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=count, p=[0.4, 0.2, 0.4])
    return np.choose(kind, [np.zeros(count), np.ones(count), rng.beta(1, 1.5, count)])


RULES = [Flat(samples=4), Sequential(), Sequential(first=2, batch=1, most=9, share=1.0)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("budget", [1, 37, 1000, 10_000])
def test_rules_keep_the_budget_and_announce_it(rule, budget):
    coins, told = Coins(pool(100)), []
    found = profile_adaptively(
        coins, coins.ids, rule=rule, budget=budget, on_round=told.append
    )
    assert coins.drawn == found.drawn.sum() <= budget
    assert [r.samples for r in told] and sum(r.samples for r in told) == coins.drawn
    assert told[-1].left == budget - coins.drawn
    assert found.drawn.max() <= getattr(rule, "most", 4)
    again = profile_adaptively(Coins(pool(100)), coins.ids, rule=rule, budget=budget)
    assert again == found


@pytest.mark.parametrize("rule", RULES)
def test_rules_do_not_depend_on_the_order_of_rows(rule):
    rng = np.random.default_rng(0)
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(60)),
        samples=np.full(60, 4),
        successes=rng.integers(0, 5, 60),
    )
    order = rng.permutation(60)
    prior = theory.BetaMixture(never=0.2)
    for budget in (7, 100):
        more, gain = rule(Posterior.of(profile, lambda _: prior), prior, budget=budget)
        shuffled, same = rule(
            Posterior.of(profile.rows(order), lambda _: prior), prior, budget=budget
        )
        np.testing.assert_array_equal(shuffled, more[order])
        np.testing.assert_allclose(gain, same)
        assert more.sum() <= budget
        assert more.min() >= 0


def test_the_expected_gain_is_what_simulation_finds():
    prior = theory.BetaMixture(alpha=0.8, beta=1.2, never=0.3, always=0.1)
    decision, k, n, more = Decision(), 2, 4, 4
    now = prior.posterior(k, n)
    gain = decision.expected_gain(prior, np.array([2.0]), np.array([4.0]), more=more)
    rng = np.random.default_rng(0)
    rate = scipy.stats.beta(now.alpha, now.beta).rvs(200_000, random_state=rng)
    further = rng.binomial(more, rate)
    later = decision.probabilities(prior.posterior(k + further, np.full(200_000, 8)))
    right = decision.label(rate)
    chosen, before = later.argmax(-1), decision.probabilities(now).argmax(-1)
    measured = (chosen == right).mean() - (before == right).mean()
    # The standard error of a share of 200,000 is 0.001.
    np.testing.assert_allclose(gain[0], measured, atol=0.004)


def test_batches_too_small_to_change_a_decision_are_counted_together():
    # 0 of 2 under this prior: two more samples leave every decision as it is, and the
    # best of larger numbers, per sample, is what the rule goes by.
    prior = theory.BetaMixture(alpha=0.8, beta=3.4, never=0.26, always=0.01)
    coins = Coins(np.full(4, 0.1))
    profile = coins([range(2)] * 4)
    profile = dataclasses.replace(profile, successes=[0] * 4)
    belief = Posterior.of(profile, Given(mixture=prior))
    rule = Sequential(first=2, batch=2, most=16, share=1.0)
    zero, two = np.array([0.0]), np.array([2.0])
    gains = [
        rule.decision.expected_gain(prior, zero, two, more=m)[0] / m for m in (2, 4, 8)
    ]
    assert gains[0] == 0 < max(gains)
    more, gain = rule(belief, prior, budget=100)
    assert more.tolist() == [2] * 4
    np.testing.assert_allclose(gain, 8 * max(gains))
    narrow = dataclasses.replace(rule, most=4)
    assert not narrow(belief, prior, budget=100)[0].any()


def test_clear_queries_get_no_more_samples():
    rate = np.array([0.0] * 50 + [1.0] * 50 + [0.72, 0.78] * 10)
    coins = Coins(rate, most=200)
    found = profile_adaptively(
        coins, coins.ids, rule=Sequential(most=64), budget=100_000
    )
    assert found.drawn[:100].mean() < found.drawn[100:].mean() / 2


def test_sequential_decides_more_rightly_than_flat_for_the_same_samples():
    decision, flat_right, right = Decision(), [], []
    for seed in range(3):
        rate = pool(600, seed)
        truth = decision.label(rate)
        for rule, into in ((Flat(samples=8), flat_right), (Sequential(), right)):
            coins = Coins(rate, seed=seed)
            found = profile_adaptively(coins, coins.ids, rule=rule, budget=600 * 8)
            belief = Posterior.of(found)
            choice = decision.probabilities(belief.classes).argmax(-1)[belief.index]
            into.append((choice == truth).mean())
    assert np.mean(right) > np.mean(flat_right)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decision(edges=(0.5, 0.2)), "rise"),
        (lambda: Sequential(first=9, most=4), "first <= most"),
        (lambda: Sequential(confidence=0.0), "confidence"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
