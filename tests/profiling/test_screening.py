"""Cross-validation of predictors, and the screen, against simulated truth."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from sgpo_jax.profiling import Predictor, Profile, Screen, cross_validation, screening
from sgpo_jax.theory import BetaMixture


def world(rng, count=600):
    features = rng.normal(size=(count, 6))
    rate = special.expit(4 * features[:, 0] - 2)
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(count)),
        samples=np.full(count, 16),
        successes=rng.binomial(16, rate),
    )
    return features, rate, profile


def test_the_screen_leaves_out_what_is_surely_at_an_end():
    alpha, beta = np.array([0.1, 5.0, 9.0, 0.4]), np.array([9.0, 5.0, 0.1, 0.4])
    out = Screen(unsolvable=0.05, trivial=0.95)(BetaMixture(alpha=alpha, beta=beta))
    never, always = stats.beta.cdf(0.05, alpha, beta), stats.beta.sf(0.95, alpha, beta)
    np.testing.assert_array_equal(out, (never > 0.5) | (always > 0.5))
    assert out.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    "wrong", [{"unsolvable": 0.99}, {"sure": -0.1}, {"trivial": 1.5}, {"sure": np.nan}]
)
def test_a_screen_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Screen(**wrong)


def test_features_that_tell_rank_and_those_that_do_not_are_chance(rng):
    features, rate, profile = world(rng)
    found = cross_validation(features, profile)
    # Truth itself ranks no better but for the noise of the counts.
    solved = profile.successes > 0
    best = stats.mannwhitneyu(rate[solved], rate[~solved]).statistic
    best /= solved.sum() * (~solved).sum()
    assert best - 0.02 < found.auc <= best + 0.01
    assert found.error < 0.1
    blind = cross_validation(rng.permutation(features), profile)
    assert abs(blind.auc - 0.5) < 0.08
    assert blind.error > 2 * found.error


def test_a_query_is_judged_by_the_others_only(rng, monkeypatch):
    features, _, profile = world(rng, count=60)
    row, seen, judged = {tuple(x): i for i, x in enumerate(features)}, [], []

    class Recorded(Predictor):
        @classmethod
        def fit(cls, features, profile, **options):
            seen.append({row[tuple(x)] for x in features})
            assert set(profile.ids) == {f"q{i}" for i in seen[-1]}
            return super().fit(features, profile, **options)

        def belief(self, features):
            judged.append({row[tuple(x)] for x in features})
            return super().belief(features)

    monkeypatch.setattr(screening, "Predictor", Recorded)
    cross_validation(features, profile, folds=4)
    assert [len(part) for part in judged] == [15] * 4
    assert set.union(*judged) == set(range(60))
    assert all(
        a | b == set(range(60)) and not a & b for a, b in zip(seen, judged, strict=True)
    )


def test_what_is_skipped_wrongly_is_counted(rng):
    features, _, profile = world(rng)
    everything = cross_validation(
        features, profile, screen=Screen(unsolvable=0.9, sure=1e-9)
    )
    mixed = (profile.successes > 0) & (profile.successes < 16)
    assert everything.skipped == 1.0 and everything.lost == 1.0
    np.testing.assert_allclose(everything.wrong, mixed.mean())
    nothing = cross_validation(features, profile, screen=Screen(sure=1 - 1e-12))
    assert nothing.skipped == nothing.lost == nothing.wrong == 0.0
    assert "wrongly" not in str(nothing)


def test_queries_without_samples_do_not_count(rng):
    features, _, profile = world(rng, count=80)
    samples = np.where(np.arange(80) < 60, 16, 0)
    some = dataclasses.replace(
        profile,
        samples=samples,
        successes=np.minimum(profile.successes, samples),
        reward_sum=None,
        reward_squares=None,
    )
    rows = np.arange(60)
    found = cross_validation(features, some)
    assert found == cross_validation(features[rows], profile.rows(rows))
