"""Adapters change nothing at first, are all that training changes, and merge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import ledger, methods, models, packing, training
from sgpo_jax.models import pretrained
from sgpo_jax.testing import TINY as PLAIN

CONFIG = dataclasses.replace(PLAIN, lora=models.Lora(rank=3, alpha=6.0))
TOKENS = jnp.array([[1, 5, 3, 2, 7]])


def hidden(params, config):
    positions = jnp.arange(TOKENS.shape[1])[None]
    return models.apply(params, config, TOKENS, positions, models.causal)[0]


def moved(params):
    """Adapters away from their beginning, where B is zero."""
    keys = iter(jax.random.split(jax.random.key(5), 99))
    adapters = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params["adapters"]
    )
    return {**params, "adapters": adapters}


@pytest.fixture(scope="module")
def params():
    return models.init(CONFIG, key=jax.random.key(0))


def test_fresh_adapters_change_nothing(params):
    _, base = models.trainable(params)
    np.testing.assert_array_equal(hidden(params, CONFIG), hidden(base, PLAIN))


def test_merged_parameters_compute_the_same(params):
    changed = moved(params)
    merged = models.merge(changed, CONFIG.lora)
    assert jax.tree.structure(merged) == jax.tree.structure(models.shapes(PLAIN))
    apart = hidden(changed, CONFIG)
    # float32, products summed in another order.
    np.testing.assert_allclose(hidden(merged, PLAIN), apart, atol=1e-5)
    assert np.abs(apart - hidden(params, CONFIG)).max() > 0.01


def test_training_changes_adapters_only(params):
    programs = training.TrainPrograms(
        config=CONFIG,
        loss=methods.TokenLoss(objective=methods.SupervisedLoss()),
        optimizer=methods.AdamW(learning_rate=0.02).make(),
    )
    state = programs.init(params)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    adapters = jax.tree.leaves(params["adapters"])
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in adapters)
    buckets = packing.make_buckets(
        row_lengths=[16], rows=[1], response_length=4, shortest_response=2
    )
    losses = []
    state, _ = training.fine_tune(
        programs,
        state,
        [([1, 2], [3, 0]), ([4, 5, 6], [7, 0])],
        steps=12,
        batch_size=2,
        buckets=buckets,
        seed=0,
        on_step=lambda _, loss: losses.append(float(loss)),
    )
    assert losses[-1] < 0.7 * losses[0]
    trained, frozen = models.trainable(state.params)
    jax.tree.map(np.testing.assert_array_equal, frozen, models.trainable(params)[1])
    for before, after in zip(adapters, jax.tree.leaves(trained), strict=True):
        assert np.any(before != after)


def test_adapters_out_and_in_again(params, tmp_path):
    changed = moved(params)
    pretrained.save_adapters(tmp_path, changed, CONFIG)
    again = pretrained.load_adapters(tmp_path, params, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, again, changed)
    other = dataclasses.replace(CONFIG, lora=models.Lora(rank=3, targets=("query",)))
    with pytest.raises(ValueError, match="has no adapters of down"):
        pretrained.load_adapters(tmp_path, params, other)


def test_frozen_matrices_save_their_gradient():
    """By hand: 2 operations per multiply-add; forward, inputs, and adapters' own."""
    tokens, pairs, logits = 7, 11, 3
    count = {"tokens": tokens, "pairs": pairs, "logits": logits}
    base = ledger.matmul_parameters(PLAIN)
    adapters = ledger.matmul_parameters(CONFIG) - base
    sizes = sum(x.size for x in jax.tree.leaves(models.shapes(CONFIG)["adapters"]))
    assert adapters == sizes
    expected = 4 * base * tokens + 6 * adapters * tokens
    expected += 3 * 4 * PLAIN.num_layers * 16 * pairs + 4 * 16 * 13 * logits
    assert ledger.training_flops(CONFIG, **count) == expected


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match=r"some of query.*'gait'"):
        models.Lora(targets=("gait",))
