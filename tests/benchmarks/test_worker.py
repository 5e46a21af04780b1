"""Evaluation of the headline benchmark: exact and sampled success agree."""

import jax
import numpy as np
import pytest
from scipy import stats

from benchmarks.headline import worker
from sgpo_jax import config, models, rewards, testing
from sgpo_jax.session import Session
from sgpo_jax.training import collapse

pytestmark = pytest.mark.slow


def test_sampling_agrees_with_teacher_forcing():
    """Means and pass@k within four standard errors, greedy success to the bit."""
    params = models.init(testing.TINY, key=jax.random.key(1))
    queries = testing.tiny_queries(6)
    samples = 200
    with rewards.Worker() as verifiers:
        session = Session(
            decoder=testing.TINY,
            tokenizer=testing.ARITHMETIC,
            worker=verifiers,
            sampler=config.SamplerConfig(lanes=8, slots=8, max_response=6),
            pack=config.PackConfig(row_length=64, rows=(2,)),
            longest_prompt=8,
        )
        exact, cost = worker.evaluator(session, queries, samples)(params)
        sampled, more = worker.sampled(session, queries, samples)(params)
    names = {"mean", "greedy", "pass@2", "pass@4", "pass@8"}
    assert exact.keys() == sampled.keys() == names
    np.testing.assert_array_equal(exact["greedy"], sampled["greedy"])
    error = np.sqrt((exact["mean"] * (1 - exact["mean"]) / samples).sum()) / 6
    for k in (1, 2, 4, 8):
        name = f"pass@{k}" if k > 1 else "mean"
        # The slope of 1 - (1 - p)^k is at most k.
        assert abs((exact[name] - sampled[name]).mean()) < 4 * k * error
    assert cost.rollouts == 0 and more.rollouts == 6 * (samples + 1)


def test_the_mean_over_questions_has_an_interval():
    mean = np.array([0.0, 0.25, 0.5, 1.0, 0.75])
    metrics = worker.summary({"mean": mean, "pass@2": 1 - (1 - mean) ** 2})
    assert metrics["eval/success"] == 0.5
    assert collapse.has_interval(metrics)
    half = 1.96 * stats.sem(mean, ddof=0)
    bounds = [metrics["eval/low"], metrics["eval/high"]]
    np.testing.assert_allclose(bounds, [0.5 - half, 0.5 + half])
    np.testing.assert_allclose(metrics["eval/pass@2"], 0.625)
