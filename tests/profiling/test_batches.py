"""Batch choice: exact information and posteriors, and the flow's distribution."""

import itertools

import numpy as np
import pytest
from scipy import integrate, special, stats

from sgpo_jax.profiling import (
    BatchChoice,
    BatchFlow,
    GreedyInformation,
    LogitModel,
    MostUncertain,
    RandomBatch,
    Stratified,
)

SMALL = BatchFlow(steps=150, trajectories=64, temperature=0.15)


def model(rng, count=9, std=2.0):
    features = np.repeat(rng.normal(size=(3, 2)), 3, axis=0)[:count]
    features = features + 0.15 * rng.normal(size=features.shape)
    return LogitModel.of(features, mean=rng.normal(size=len(features)), std=std)


@pytest.mark.parametrize(
    "choice",
    [
        RandomBatch(),
        MostUncertain(),
        Stratified(strata=3),
        GreedyInformation(),
        BatchFlow(steps=3, trajectories=4, draws=2),
    ],
)
def test_choices_are_sets_of_distinct_rows(rng, choice):
    assert isinstance(choice, BatchChoice)
    made = model(rng)
    # A flow is compiled for each size.
    for size in (4,) if isinstance(choice, BatchFlow) else (1, 4, 9):
        rows = choice(made, size, seed=3)
        assert rows.shape == (size,) and len(set(rows.tolist())) == size
        assert rows.min() >= 0 and rows.max() < 9
        np.testing.assert_array_equal(rows, choice(made, size, seed=3))


def test_information_is_what_gaussian_entropies_say(rng):
    made = model(rng)
    rows = np.array([0, 4, 7])
    inner = made.covariance[np.ix_(rows, rows)]
    noise = np.diag(made.noise[rows])
    outcome = stats.multivariate_normal(cov=inner + noise).entropy()
    given = stats.multivariate_normal(cov=noise).entropy()
    assert made.information(rows) == pytest.approx(outcome - given)


def test_noise_is_the_inverse_expected_curvature(rng):
    made = model(rng)
    z = rng.normal(made.mean[0], np.sqrt(made.covariance[0, 0]), 400_000)
    curvature = (special.expit(z) * (1 - special.expit(z))).mean()
    assert made.noise[0] == pytest.approx(1 / (8 * curvature), rel=0.01)


def test_the_posterior_of_one_query_is_near_quadrature(rng):
    made = LogitModel.of(rng.normal(size=(2, 2)), mean=0.3, std=1.0, samples=16)
    mean, variance = made.posterior(np.array([0]), np.array([11]))
    std = np.sqrt(made.covariance[0, 0])

    def density(z):
        return stats.norm.pdf(z, 0.3, std) * stats.binom.pmf(11, 16, special.expit(z))

    total = integrate.quad(density, -8, 8)[0]
    expected = integrate.quad(lambda z: z * density(z), -8, 8)[0] / total
    # Laplace's mode and the mean differ by skewness, a few hundredths here.
    assert mean[0] == pytest.approx(expected, abs=0.05)
    second = (
        integrate.quad(lambda z: (z - expected) ** 2 * density(z), -8, 8)[0] / total
    )
    assert variance[0] == pytest.approx(second, rel=0.15)
    assert variance[1] <= made.covariance[1, 1]


def test_greedy_is_near_the_best_set(rng):
    made = model(rng)
    every = [made.information(np.array(s)) for s in itertools.combinations(range(9), 3)]
    found = made.information(GreedyInformation()(made, 3, seed=0))
    assert found >= (1 - 1 / np.e) * max(every)
    assert found > np.quantile(every, 0.95)


def test_the_flow_draws_sets_in_proportion_to_their_information(rng):
    made = model(rng)
    flow = SMALL.train(made, 3, seed=0)
    sets, information = SMALL.draw(flow, made, 3, 4000, seed=1)
    assert information[0] == pytest.approx(made.information(sets[0]), abs=1e-3)
    every = [*itertools.combinations(range(9), 3)]
    target = np.array([made.information(np.array(s)) for s in every]) / 0.15
    target = special.softmax(target)
    place = {s: i for i, s in enumerate(every)}
    drawn = np.bincount([place[tuple(sorted(s))] for s in sets.tolist()], minlength=84)
    off = np.abs(drawn / 4000 - target).sum() / 2
    uniform = np.abs(1 / 84 - target).sum() / 2
    # 4,000 draws of 84 sets miss their own distribution by about 0.05.
    assert off < 0.12 < uniform
    losses = np.asarray(flow.losses)
    assert losses[-20:].mean() < losses[:5].mean()


def test_impossible_flows_are_refused(rng):
    with pytest.raises(ValueError, match="temperature must be"):
        BatchFlow(temperature=0.0)
    with pytest.raises(ValueError, match="1 to 9 queries, got 10"):
        SMALL.train(model(rng), 10, seed=0)
