"""Estimates against scipy: distributions, quadrature and an optimizer of its own."""

import re

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given, settings

from sgpo_jax import theory
from sgpo_jax.profiling import (
    Fitted,
    Given,
    Posterior,
    Profile,
    calibration,
    split_samples,
)

shape = st.floats(0.05, 50.0)


def counts(successes, samples):
    samples = np.broadcast_to(samples, np.shape(successes))
    return Profile(
        ids=tuple(f"q{i}" for i in range(len(samples))),
        samples=samples,
        successes=successes,
    )


@given(alpha=shape, beta=shape, n=st.integers(0, 40), data=st.data())
@settings(max_examples=60)
def test_a_beta_posterior_is_scipys(alpha, beta, n, data):
    k = data.draw(st.integers(0, n))
    prior = theory.BetaMixture(alpha=alpha, beta=beta)
    after = prior.posterior(k, n)
    reference = scipy.stats.beta(alpha + k, beta + n - k)
    np.testing.assert_allclose(after.mean, reference.mean(), rtol=1e-10)
    np.testing.assert_allclose(after.std, reference.std(), rtol=1e-6)
    for level in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(
            after.quantile(level), reference.ppf(level), rtol=1e-6, atol=1e-12
        )
    np.testing.assert_allclose(after.cdf(0.3), reference.cdf(0.3), rtol=1e-8)
    np.testing.assert_allclose(
        prior.log_evidence(k, n),
        scipy.stats.betabinom(n, alpha, beta).logpmf(k),
        atol=1e-8,
    )


@given(
    weights=st.tuples(*[st.floats(0.05, 1.0)] * 3),
    alpha=st.floats(0.3, 8),
    beta=st.floats(0.3, 8),
    n=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=40)
def test_a_mixture_posterior_is_bayes_rule_by_quadrature(weights, alpha, beta, n, data):
    k = data.draw(st.integers(0, n))
    zero, one, inside = np.array(weights) / sum(weights)
    prior = theory.BetaMixture(alpha=alpha, beta=beta, never=zero, always=one)
    after = prior.posterior(k, n)
    density = scipy.stats.beta(alpha, beta)

    def integral(f):
        return density.expect(
            lambda p: f(p) * scipy.stats.binom.pmf(k, n, p), epsrel=1e-10
        )

    likelihood = inside * integral(lambda p: 1.0)
    total = likelihood + zero * (k == 0) + one * (k == n)
    np.testing.assert_allclose(np.exp(prior.log_evidence(k, n)), total, rtol=1e-6)
    np.testing.assert_allclose(after.never, zero * (k == 0) / total, rtol=1e-6)
    np.testing.assert_allclose(after.always, one * (k == n) / total, rtol=1e-6)
    mean = (inside * integral(lambda p: p) + one * (k == n)) / total
    np.testing.assert_allclose(after.mean, mean, rtol=1e-6)
    second = (inside * integral(lambda p: p * p) + one * (k == n)) / total
    np.testing.assert_allclose(after.std**2, second - mean**2, atol=1e-8)
    low, high = after.quantile(0.05), after.quantile(0.95)
    # The smallest rate that reaches the level: jumps at the atoms go past it.
    assert after.cdf(low) >= 0.05 - 1e-9
    assert after.cdf(high) >= 0.95 - 1e-9
    assert low == 0 or after.cdf(low - 1e-6) <= 0.05 + 1e-9
    assert high == 0 or after.cdf(high - 1e-6) <= 0.95 + 1e-9


@given(alpha=shape, beta=shape)
@settings(max_examples=40)
def test_nodes_integrate_polynomials_exactly(alpha, beta):
    rate, weight = theory.beta_nodes(np.array([alpha]), np.array([beta]), count=8)
    for power in (0, 1, 2, 7, 15):
        log = scipy.special.betaln(alpha + power, beta) - scipy.special.betaln(
            alpha, beta
        )
        moment = (weight * rate**power).sum()
        np.testing.assert_allclose(moment, np.exp(log), rtol=1e-8)


@pytest.mark.parametrize("atoms", [True, False])
@pytest.mark.parametrize("n", [4, 8, 32])
def test_the_fitted_prior_is_the_maximum_another_optimizer_finds(atoms, n):
    rng = np.random.default_rng(n)
    rate = rng.choice([0.0, 1.0, 0.3], size=600, p=[0.3, 0.2, 0.5])
    rate = np.where(rate == 0.3, rng.beta(1.5, 2.5, 600), rate)
    k = rng.binomial(n, rate)

    def objective(x):
        a, b = np.exp(x[:2])
        mass = scipy.stats.betabinom(n, a, b).pmf(k)
        penalty = -(x[0] ** 2 + x[1] ** 2) / 8
        if atoms:
            w = np.exp([*x[2:], 0.0])
            w = w / w.sum()
            mass = w[2] * mass + w[0] * (k == 0) + w[1] * (k == n)
            penalty += np.log(w).sum() / 10
        return -(np.log(mass).sum() + penalty)

    start = [0.0, 0.0, -0.5, -0.5] if atoms else [0.0, 0.0]
    best = scipy.optimize.minimize(
        objective, start, method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000},
    )  # fmt: skip
    found = theory.fit_prior(k, np.full(600, n), atoms=atoms)
    w = np.array([found.never, found.always, 1 - found.never - found.always])
    x = np.log([found.alpha, found.beta])
    if atoms:
        x = np.append(x, np.log(w[:2] / w[2]))
    # Nelder-Mead stops within 1e-9 of the value; parameters follow to its square root.
    assert objective(x) <= best.fun + 1e-6
    np.testing.assert_allclose(x, best.x, atol=5e-3)


def test_a_prior_without_evidence_stays_proper():
    for k, n in [([], []), ([0], [0]), ([1], [1]), ([0] * 50, [8] * 50)]:
        found = theory.fit_prior(np.array(k, int), np.array(n, int))
        assert 0.01 < found.alpha < 100
        assert 0.01 < found.beta < 100
        assert 0 <= found.never + found.always < 1


@pytest.mark.parametrize(("k", "share"), [(0, "never"), (10**6, "always")])
def test_a_certain_posterior_can_be_conditioned_on_again(k, share):
    # The rest has probability 1e-60 and would vanish beside 1.
    prior = theory.BetaMixture(alpha=20.0, beta=20.0, never=0.3, always=0.3)
    sure = prior.posterior(k, 10**6)
    np.testing.assert_allclose(getattr(sure, share), 1.0, rtol=1e-14)
    np.testing.assert_allclose(sure.mean, k / 10**6, atol=1e-14)
    np.testing.assert_allclose(sure.quantile(0.5), k / 10**6, atol=1e-14)
    surprised = sure.posterior(1, 2)
    assert surprised.never == surprised.always == 0
    np.testing.assert_allclose(surprised.mean, (k + 21) / (10**6 + 42))


def test_a_pool_of_never_and_always_needs_the_atoms():
    rng = np.random.default_rng(1)
    rate = rng.choice([0.0, 1.0, 0.4], size=4000, p=[0.5, 0.1, 0.4])
    k = rng.binomial(16, rate)
    both = theory.fit_prior(k, np.full(4000, 16))
    beta = theory.fit_prior(k, np.full(4000, 16), atoms=False)
    np.testing.assert_allclose([both.never, both.always], [0.5, 0.1], atol=0.03)
    gain = both.log_evidence(k, 16).mean() - beta.log_evidence(k, 16).mean()
    assert gain > 0.1


def test_expectations_are_those_of_draws():
    belief = Posterior.of(counts([0, 3, 8], 8), Fitted())
    rng = np.random.default_rng(0)
    c = belief.classes
    for row in range(3):
        d = belief.index[row]
        kind = rng.choice(
            3, size=200_000,
            p=[c.never[d], c.always[d], 1 - c.never[d] - c.always[d]],
        )  # fmt: skip
        draws = np.where(kind == 2, rng.beta(c.alpha[d], c.beta[d], 200_000), kind)
        np.testing.assert_allclose(belief.mean[row], draws.mean(), atol=4e-3)
        sizes = [2, 8]
        dead = [1 - theory.probability_mixed(draws, g).mean() for g in sizes]
        got = [belief.dead(np.full(3, g))[row] for g in sizes]
        np.testing.assert_allclose(got, dead, atol=5e-3)
        np.testing.assert_allclose(
            belief.trivial(0.75)[row], (draws > 0.75).mean(), atol=5e-3
        )


def test_dead_groups_are_the_closed_form_of_the_beta():
    k = np.arange(9)
    belief = Posterior.of(counts(k, 8), Given())
    for size in (1, 2, 8, 40):
        expected = 1 - theory.expected_mixed(k + 0.5, 8.5 - k, size)
        np.testing.assert_allclose(
            belief.dead(np.full(9, size)), expected, rtol=1e-8, atol=1e-12
        )


def test_a_prior_for_each_query_is_conditioned_alone():
    alpha = np.array([0.5, 4.0, 4.0])
    mixture = theory.BetaMixture(alpha=alpha, beta=np.array([0.5, 1.0, 1.0]))
    belief = Posterior.of(counts([0, 0, 4], 4), Given(mixture=mixture))
    np.testing.assert_allclose(belief.mean, [0.1, 4 / 9, 8 / 9])


def test_calibration_tells_a_right_prior_from_a_wrong_one():
    rng = np.random.default_rng(2)
    rate = np.where(rng.random(3000) < 0.5, 0.0, rng.beta(1, 1, 3000))
    profile = counts(rng.binomial(8, rate), 8)
    good = calibration(profile, first=4)
    bad = calibration(
        profile, first=4, prior=Given(mixture=theory.BetaMixture(alpha=20.0, beta=20.0))
    )
    assert good.error < 0.02 < bad.error
    assert good.log_score > bad.log_score
    assert good.log_score > good.jeffreys
    assert good.coverage >= 0.9
    with pytest.raises(ValueError, match="none is left to test on"):
        calibration(counts([1], 1))
    assert "calibration error" in str(good)


def test_samples_are_split_as_a_shuffle_would():
    profile = counts(np.full(20_000, 3), 8)
    fit, rest = split_samples(profile, 4, seed=0)
    np.testing.assert_array_equal(fit.successes + rest.successes, 3)
    np.testing.assert_array_equal(fit.samples, 4)
    got = np.bincount(fit.successes, minlength=4) / 20_000
    expected = scipy.stats.hypergeom(8, 3, 4).pmf(np.arange(4))
    np.testing.assert_allclose(got, expected, atol=0.015)


def test_discounted_counts():
    profile = counts([0, 8, 1], np.array([8, 8, 2]))
    k, n = profile.pseudo_counts(4.0)
    np.testing.assert_array_equal(k, [0, 4, 1])
    np.testing.assert_array_equal(n, [4, 4, 2])
    assert profile.pseudo_counts(0.0)[1].sum() == 0
    with pytest.raises(ValueError, match="at least 0"):
        profile.pseudo_counts(float("nan"))


def test_a_profile_prints_and_plots():
    profile = counts([0, 4, 8], 8)
    text = str(profile)
    assert "learnable" in text
    shown = " ".join(str(counts([0, 0], 8)).split())
    assert "there is nothing to learn from" in re.sub(r"[│ ]+", " ", shown)
    assert "nothing could be scored" in str(counts([0], 0))
    assert profile.plot().get_ylabel() == "questions"
    table = profile.to_arrow()
    assert table["pass_rate"].to_pylist() == [0.0, 0.5, 1.0]
