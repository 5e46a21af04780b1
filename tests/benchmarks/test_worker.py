"""Evaluation of the headline benchmark: exact and sampled success agree."""

import types

import jax
import numpy as np

from benchmarks.headline import worker
from sgpo_jax import config, models, rewards, sharding, testing
from sgpo_jax.profiling import RolloutSource


def test_sampling_agrees_with_teacher_forcing():
    """Means and pass@k within four standard errors, greedy success to the bit."""
    params = models.init(testing.TINY, key=jax.random.key(1))
    queries = testing.tiny_queries(6)
    samples = 200
    with rewards.Worker() as verifiers:
        setup = types.SimpleNamespace(
            held_out=queries,
            decoder=testing.TINY,
            tokenizer=testing.ARITHMETIC,
            ladder=testing.tiny_buckets(),
            mesh=sharding.make_mesh(sharding.MeshShape(), jax.devices()[:1]),
            config=config.Experiment(
                sampler=config.SamplerConfig(max_response=6),
                eval=config.EvalConfig(samples=samples),
            ),
            rollouts=RolloutSource(
                engine=testing.tiny_engine(lanes=8, slots=8),
                config=testing.TINY,
                tokenizer=testing.ARITHMETIC,
                worker=verifiers,
                seed=0,
            ),
        )
        exact, cost = worker.evaluator(setup)(params)
        sampled, more = worker.sampled(setup)(params)
    assert (
        exact.keys()
        == sampled.keys()
        == {"mean", "greedy", "pass@2", "pass@4", "pass@8"}
    )
    np.testing.assert_array_equal(exact["greedy"], sampled["greedy"])
    error = np.sqrt((exact["mean"] * (1 - exact["mean"]) / samples).sum()) / 6
    for k in (1, 2, 4, 8):
        name = f"pass@{k}" if k > 1 else "mean"
        # The slope of 1 - (1 - p)^k is at most k.
        assert abs((exact[name] - sampled[name]).mean()) < 4 * k * error
    assert cost.rollouts == 0 and more.rollouts == 6 * (samples + 1)
