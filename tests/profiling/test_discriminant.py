"""The predictor against scikit-free references: scipy's densities and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from sgpo_jax import data, models
from sgpo_jax.profiling import (
    Discriminant,
    Posterior,
    Predicted,
    Predictor,
    Profile,
    auc,
    hidden_states,
)


def world(rng, count=600, width=6, slope=2.0):
    """Features of which one direction tells the log-odds, up to noise."""
    features = rng.normal(size=(count, width))
    rate = special.expit(slope * features[:, 0] + 0.5 * rng.normal(size=count) - 1)
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(count)),
        samples=np.full(count, 8),
        successes=rng.binomial(8, rate),
    )
    return features, rate, profile


def test_log_odds_are_the_ratio_of_two_gaussian_densities(rng):
    """With whole labels and many queries the shrinkage is negligible."""
    x = np.concatenate([rng.normal(0, 1, (4000, 3)), rng.normal(1, 1, (2000, 3))])
    x = x @ np.array([[1, 0.4, 0], [0, 1, 0.2], [0, 0, 0.7]])
    label = np.arange(6000) >= 4000
    found = Discriminant.fit(x, label.astype(int), np.ones(6000, int))
    means = [x[~label].mean(0), x[label].mean(0)]
    spread = sum(
        (x[label == c] - means[c]).T @ (x[label == c] - means[c]) for c in (0, 1)
    )
    density = [stats.multivariate_normal(m, spread / 6000).logpdf(x) for m in means]
    expected = density[1] - density[0] + np.log(2000 / 4000)
    np.testing.assert_allclose(found.logits(x), expected, rtol=0.01, atol=0.02)


def test_counts_weigh_as_that_many_labels(rng):
    features, _, profile = world(rng, count=50)
    k = profile.successes
    whole = np.repeat(features, 8, axis=0)
    labels = (np.arange(8)[None] < k[:, None]).astype(int).reshape(-1)
    # Shrinkage goes by queries; away from it both are one.
    few = Discriminant.fit(features, k, profile.samples)
    many = Discriminant.fit(whole, labels, np.ones(len(labels), int))
    np.testing.assert_allclose(
        few.weight / np.linalg.norm(few.weight),
        many.weight / np.linalg.norm(many.weight),
        atol=0.1,
    )


def test_predictions_rank_and_are_calibrated_on_other_queries(rng):
    features, rate, profile = world(rng)
    fit = np.arange(200)
    found = Predictor.fit(features[fit], profile.rows(fit))
    rest = np.arange(200, 600)
    mean = found.mean(features[rest])
    assert auc(mean, rate[rest] > 0.5) > 0.9
    assert abs(mean.mean() - rate[rest].mean()) < 0.05
    k, n = profile.successes[rest], profile.samples[rest]
    score = found.belief(features[rest]).log_evidence(k, n).mean()
    flat = Posterior.of(profile.rows(fit)).profile
    from sgpo_jax.theory import fit_prior

    without = fit_prior(flat.successes, flat.samples).log_evidence(k, n).mean()
    assert score > without + 0.2


def test_features_that_tell_nothing_fall_back_to_the_pool(rng):
    _, rate, profile = world(rng)
    noise = rng.normal(size=(600, 20))
    found = Predictor.fit(noise[:200], profile.rows(np.arange(200)))
    mean = found.mean(noise[200:])
    assert mean.std() < 0.1
    assert abs(mean.mean() - rate.mean()) < 0.07


def test_a_prediction_is_the_prior_of_the_posterior(rng):
    features, _, profile = world(rng, count=60)
    found = Predictor.fit(features, profile)
    known = dict(zip(profile.ids, features, strict=True))
    prior = Predicted(predictor=found, features=known)
    belief = Posterior.of(profile, prior)
    m, s = np.clip(found.mean(features), 1e-4, 1 - 1e-4), found.strength
    expected = (s * m + profile.successes) / (s + profile.samples)
    np.testing.assert_allclose(belief.mean, expected, rtol=1e-9)
    nothing = Profile(ids=profile.ids, samples=[0] * 60, successes=[0] * 60)
    np.testing.assert_allclose(Posterior.of(nothing, prior).mean, m, rtol=1e-9)
    with pytest.raises(ValueError, match="no features of 1 queries, the first 'new'"):
        prior(Profile(ids=("new",), samples=[1], successes=[1]))


def test_what_cannot_be_fitted_is_refused(rng):
    features, _, profile = world(rng, count=40)
    solved = Profile(ids=profile.ids, samples=[4] * 40, successes=[4] * 40)
    with pytest.raises(ValueError, match="successes and failures"):
        Predictor.fit(features, solved)
    with pytest.raises(ValueError, match="at least 10 profiled queries, got 4"):
        Predictor.fit(features[:4], profile.rows(np.arange(4)))
    with pytest.raises(ValueError, match="one row for each of 40"):
        Predictor.fit(features[:39], profile)


def test_states_depend_on_their_own_prompt_alone():
    tokenizer = models.CharTokenizer("0123456789+=")
    config = models.DecoderConfig(
        vocab_size=tokenizer.vocab_size, num_layers=2, embed_dim=16, num_heads=2,
        num_kv_heads=2, head_dim=8, mlp_dim=16,
    )  # fmt: skip
    params = models.init(config, key=jax.random.key(0))
    prompts = ["1+1=", "12+7=", "3=", "123+456="]
    queries = [data.Query(id=p, prompt=p, reference="") for p in prompts]
    together = hidden_states(params, config, tokenizer, queries, batch=4)
    for i, query in enumerate(queries):
        alone = hidden_states(params, config, tokenizer, [query], batch=4)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5)
    ids = np.array(tokenizer.encode_prompt("12+7="), np.int32)[None]
    positions = np.arange(ids.shape[1], dtype=np.int32)[None]
    ids, positions = jnp.asarray(ids), jnp.asarray(positions)
    hidden, _ = models.apply(params, config, ids, positions, models.causal)
    expected = np.concatenate(
        [np.asarray(hidden)[0].mean(0), np.asarray(hidden)[0, -1]]
    )
    np.testing.assert_allclose(together[1], expected, atol=1e-5)
