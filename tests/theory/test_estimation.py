"""What a profile can tell."""

import math

import numpy as np
import pytest

from sgpo_jax import theory
from sgpo_jax.theory import TRIVIAL, UNSOLVED


def test_bucket_edges():
    """(1/4, 3/4] -> 2, (1/8, 1/4] -> 4, (0, 1/8] -> 8; edges belong to the left."""
    below = np.nextafter([0.125, 0.25, 0.75], 0) - 1e-6
    above = np.nextafter([0.125, 0.25, 0.75], 1) + 1e-6
    np.testing.assert_array_equal(theory.power_of_two_size(below), [8, 4, 2])
    np.testing.assert_array_equal(
        theory.power_of_two_size(np.array([0.125, 0.25, 0.75])), [8, 4, 2]
    )
    np.testing.assert_array_equal(theory.power_of_two_size(above), [4, 2, TRIVIAL])
    ends = theory.power_of_two_size(np.array([0.0, 1e-9, 1.0]))
    np.testing.assert_array_equal(ends, [UNSOLVED, 8, TRIVIAL])


@pytest.mark.parametrize("count", [8, 16, 24, 100, 1000])
def test_every_power_of_two_reached_by_counting_is_in_its_bucket(count):
    """k / N in floating point never falls out of its bucket by rounding."""
    k = np.arange(1, count + 1)
    sizes = theory.power_of_two_size(k / count, largest=1024, trivial_above=1.0)
    exact = [max(2, 2 ** ((count // int(i)).bit_length() - 1)) for i in k]
    np.testing.assert_array_equal(sizes, exact)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.05, {UNSOLVED: 0.66, 8: 0.28}),
        (0.1, {UNSOLVED: 0.43, 8: 0.38, 4: 0.15}),
        (0.25, {UNSOLVED: 0.10, 8: 0.27, 4: 0.31, 2: 0.32}),
        (0.5, {2: 0.82, 4: 0.11, TRIVIAL: 0.04}),
        (0.75, {2: 0.63, TRIVIAL: 0.37}),
        (0.9, {TRIVIAL: 0.81, 2: 0.19}),
    ],
)
def test_profiling_noise_at_eight_samples(p, expected):
    result = theory.bucket_probabilities(p, 8, np.array(list(expected)))
    np.testing.assert_allclose(result, list(expected.values()), atol=6e-3)


def test_buckets_exhaust_the_outcomes():
    labels = np.array([UNSOLVED, 2, 4, 8, TRIVIAL])
    p = np.linspace(0, 1, 7).reshape(7, 1)
    result = theory.bucket_probabilities(p, 8, labels)
    assert result.shape == (7, 1, 5)
    np.testing.assert_allclose(result.sum(axis=-1), 1, rtol=1e-12)


def test_misbucketing_is_one_minus_the_right_bucket():
    for p in (0.05, 0.2, 0.3, 0.9):
        right = theory.bucket_probabilities(
            p, 8, theory.power_of_two_size(np.array([p]))
        )[0]
        np.testing.assert_allclose(theory.misbucketing(p, 8), 1 - right, rtol=1e-12)


def test_misbucketing_against_simulation(rng):
    p = np.array([0.05, 0.2, 0.6])
    estimates = rng.binomial(16, p, (200_000, 3)) / 16
    wrong = theory.power_of_two_size(estimates) != theory.power_of_two_size(p)
    # Three standard errors of 200,000 draws are 0.0034.
    np.testing.assert_allclose(theory.misbucketing(p, 16), wrong.mean(0), atol=3.4e-3)


def test_custom_buckets():
    """Two halves: at p = 0.4 with one sample the wrong one comes up with p."""
    halves = lambda rate: np.asarray(np.where(rate > 0.5, 1, 0))  # noqa: E731
    np.testing.assert_allclose(theory.misbucketing(0.4, 1, bucket=halves), 0.4)


def test_posterior_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    k = np.arange(9)
    for prior in (0.5, 1.0):
        exact = stats.beta(k + prior, 8 - k + prior)
        mean = theory.posterior_mean(k, 8, prior=prior)
        np.testing.assert_allclose(mean, exact.mean(), rtol=1e-12)
        std = theory.posterior_std(k, 8, prior=prior)
        np.testing.assert_allclose(std, exact.std(), rtol=1e-12)
    np.testing.assert_allclose(theory.posterior_mean(0, 8), 0.056, atol=5e-4)
    np.testing.assert_allclose(theory.posterior_mean(0, 8, prior=1.0), 0.10)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_pass_at_k_is_unbiased(k):
    """Its mean over all outcomes of 8 samples is 1 - (1 - p)^k, to rounding."""
    p, n = 0.3, 8
    c = np.arange(n + 1)
    chance = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in c]
    mean = np.dot(chance, theory.pass_at_k(c, np.full(n + 1, n), k))
    assert mean == pytest.approx(1 - (1 - p) ** k, rel=1e-12)
    with pytest.raises(ValueError, match="pass@9 needs"):
        theory.pass_at_k(c, np.full(n + 1, n), 9)
