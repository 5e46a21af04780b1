"""Parameters and moments in bfloat16: they learn, and a checkpoint keeps them so."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import methods, models, packing, training
from sgpo_jax.testing import TINY as CONFIG

LADDER = packing.make_buckets(
    row_lengths=[32], rows=[4], response_length=8, shortest_response=2
)
DEMONSTRATIONS = [([1, a], [2 + a, 0]) for a in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("param_dtype", "state_dtype"),
    [("bfloat16", "bfloat16"), ("float32", "bfloat16")],
)
def test_low_precision_learns_and_survives_a_checkpoint(
    param_dtype, state_dtype, tmp_path
):
    """One batch by heart; the state read back continues with the same bits."""
    config = dataclasses.replace(CONFIG, param_dtype=param_dtype, dtype=param_dtype)
    run = training.TrainPrograms(
        config=config,
        loss=methods.TokenLoss(objective=methods.SupervisedLoss()),
        optimizer=methods.AdamW(learning_rate=1e-2, state_dtype=state_dtype).make(),
    )

    def learn(state, steps):
        seen = []
        state, _ = training.fine_tune(
            run,
            state,
            DEMONSTRATIONS,
            steps=steps,
            batch_size=4,
            buckets=LADDER,
            seed=0,
            on_step=lambda step, loss: seen.append(float(loss)),
        )
        return state, seen

    state, seen = learn(run.init(models.init(config, key=jax.random.key(0))), 60)
    # Log-probabilities of activations in bfloat16 are off by their roundings.
    assert seen[-1] < 0.1 < 1 < seen[0]
    assert dtypes(state.params) == {param_dtype}
    assert dtypes(state.opt_state) == {state_dtype}
    with contextlib.closing(training.Checkpoints(tmp_path)) as made:
        made.save(1, state, {})
    like = run.init(models.init(config, key=jax.random.key(1)))
    with contextlib.closing(training.Checkpoints(tmp_path)) as found:
        restored, _ = found.restore(1, like)
    same(restored, state)
    same(learn(restored, 2)[0], learn(state, 2)[0])


def dtypes(tree):
    leaves = jax.tree.leaves(tree)
    return {str(x.dtype) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)}


def same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
