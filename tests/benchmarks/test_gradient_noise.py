"""Signal to noise of gradients whose mean and variance are known."""

import doctest

import numpy as np
import pytest

from benchmarks import gradient_noise
from benchmarks.gradient_noise import Gradients, cosine, rows, signal_to_noise


def sample(rng, mean, *, noise, count=400):
    """Gradients around a mean, of total variance `noise`."""
    mean = np.asarray(mean, np.float64)
    spread = rng.standard_normal((count, len(mean))) * (noise / len(mean)) ** 0.5
    return mean + spread


def test_the_ratio_is_that_of_the_distribution_within_its_error(rng):
    """|mu|^2 = 1 and V = 20: a step has a twentieth."""
    mean = np.zeros(30)
    mean[0] = 1.0
    found = [signal_to_noise(sample(rng, mean, noise=20.0)) for _ in range(40)]
    ratios, errors = np.transpose(found)
    assert np.mean(ratios) == pytest.approx(0.05, abs=3 * np.std(ratios) / 40**0.5)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.3)
    each = sample(rng, mean, noise=20.0, count=9)
    without = [signal_to_noise(np.delete(each, i, 0))[0] for i in range(9)]
    jackknife = np.sqrt(8 * np.var(without))
    assert signal_to_noise(each)[1] == pytest.approx(jackknife)
    nothing = [signal_to_noise(sample(rng, 0 * mean, noise=20.0))[0] for _ in range(40)]
    assert abs(np.mean(nothing)) < 3 * np.std(nothing) / 40**0.5


def test_the_cosine_is_not_that_of_a_noise_two_methods_share(rng):
    """Directions 60 degrees apart; steps of one number have the same noise."""
    ours, theirs = np.zeros(20), np.zeros(20)
    ours[0] = 1.0
    theirs[:2] = 0.5, 0.75**0.5
    found = []
    for _ in range(200):
        shared = sample(rng, np.zeros(20), noise=5.0, count=40)
        found.append(cosine(ours + shared, theirs + shared))
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_saving_is_signal_over_noise_and_cost(rng):
    mean = np.eye(20)[0]

    def made(noise, flops, live):
        each = sample(rng, mean, noise=noise, count=2000)
        share = {"no_signal": 0.0, "trained": 1.0}
        return Gradients(each=each, flops=flops, flops_live=live, **share)

    found = rows({"base": made(10.0, 8.0, 4.0), "half": made(5.0, 4.0, 4.0)}, "base")
    saved = {row["method"]: row["predicted"] for row in found}
    assert saved == {
        "base": 1.0,
        "base, dead groups left out": 2.0,
        "half": pytest.approx(4.0, rel=0.15),
    }
    silent = rows({"base": made(1e6, 8.0, 4.0)}, "base")
    assert silent[0]["predicted"] is silent[0]["cosine"] is None


def test_its_examples():
    assert doctest.testmod(gradient_noise).failed == 0
