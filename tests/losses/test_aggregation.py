"""Properties every aggregation has, and their values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import losses
from sgpo_jax.types import Weighted

LENGTH = np.array([4, 1, 2, 3, 0, 2])
MASK = np.arange(4)[None, :] < LENGTH[:, None]
GROUP_ID = np.array([0, 1, 0, 0, 1, 2])
P = 3
ALL = [
    losses.PerToken(),
    losses.PerSequence(),
    losses.PerGroup(),
    losses.PerPrompt(),
    losses.Constant(4),
]
over_all = pytest.mark.parametrize("by", ALL, ids=lambda by: type(by).__name__)


@functools.partial(jax.jit, static_argnames=("by", "num_groups"))
def aggregate(per_token, mask, by, group_id=GROUP_ID, num_groups=P):
    per_token, mask, group_id = map(jnp.asarray, (per_token, mask, group_id))
    return losses.aggregate(
        per_token, mask, aggregation=by, group_id=group_id, num_groups=num_groups
    )


@pytest.fixture
def per_token(rng):
    return rng.normal(size=(6, 4)).astype(np.float32)


def test_values():
    """Responses of 2, 1 and 3 tokens; the first two in one group."""
    per_token = jnp.array([[1.0, 3.0, 9.0], [6.0, 9.0, 9.0], [1.0, 2.0, 6.0]])
    mask = jnp.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    expected = {
        losses.PerToken(): (19, 6),
        losses.PerSequence(): (2 + 6 + 3, 3),
        losses.PerGroup(): ((2 + 6) / 2 + 3, 2),
        losses.PerPrompt(): (10 / 3 + 3, 2),
        losses.Constant(10): (1.9, 3),
    }
    for by, (total, weight) in expected.items():
        result = aggregate(per_token, mask, by, jnp.array([0, 0, 1]), 2)
        np.testing.assert_allclose(result, (total, weight), rtol=1e-6)


@over_all
def test_is_a_strategy(by):
    assert isinstance(by, losses.Aggregation)
    assert hash(by) == hash(ALL[ALL.index(by)])


@over_all
def test_masked_cells_are_inert(by, per_token):
    """NaN changes neither value nor gradient, and no gradient reaches it."""
    poisoned = np.where(MASK, per_token, np.float32(np.nan))
    mean = jax.jit(jax.value_and_grad(lambda x: aggregate(x, MASK, by).mean()))
    value, grad = mean(per_token)
    poisoned_value, poisoned_grad = mean(poisoned)
    assert value == poisoned_value and value != 0
    np.testing.assert_array_equal(grad, poisoned_grad)
    np.testing.assert_array_equal(np.asarray(grad)[~MASK], 0)
    # Not only compiled: XLA turns a product with a mask into a selection.
    eager = losses.aggregate(
        jnp.asarray(poisoned),
        jnp.asarray(MASK),
        aggregation=by,
        group_id=jnp.asarray(GROUP_ID),
        num_groups=P,
    )
    np.testing.assert_allclose(eager.mean(), value, rtol=1e-6)


@over_all
def test_masking_equals_removing(by, per_token):
    kept = [0, 1, 2, 5]
    mask = MASK & np.isin(np.arange(6), kept)[:, None]
    masked = aggregate(per_token, mask, by)
    removed = aggregate(per_token[kept], MASK[kept], by, GROUP_ID[kept])
    np.testing.assert_allclose(masked, removed, rtol=1e-6)


@over_all
def test_split_batch_equals_whole(by, per_token):
    """Value and gradient; whole groups in each part."""

    def parts(x):
        pieces = (
            aggregate(x[rows], MASK[rows], by, GROUP_ID[rows])
            for rows in (np.array([0, 2, 3]), np.array([1, 4]), np.array([5]))
        )
        return functools.reduce(Weighted.__add__, pieces).mean()

    def whole(x):
        return aggregate(x, MASK, by).mean()

    (value, grad), (expected, expected_grad) = (
        jax.jit(jax.value_and_grad(f))(jnp.asarray(per_token)) for f in (parts, whole)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-6)


@over_all
def test_weights_of_the_whole_batch_allow_any_split(by, per_token):
    """Through the middle of a group, one response at a time."""
    per_token, mask, group_id = map(jnp.asarray, (per_token, MASK, GROUP_ID))
    weights = losses.response_weights(
        mask, aggregation=by, group_id=group_id, num_groups=P
    )
    pieces = [
        losses.weighted_sum(
            per_token[i : i + 1],
            mask[i : i + 1],
            jax.tree.map(lambda w, i=i: w[i : i + 1], weights),
        )
        for i in range(6)
    ]
    total = functools.reduce(Weighted.__add__, pieces)
    np.testing.assert_allclose(total, aggregate(per_token, MASK, by), rtol=1e-6)


@over_all
def test_constant_loss_has_that_mean(by):
    """Also says what a mean is: 1 for all ones, except for a constant denominator."""
    result = aggregate(np.ones((6, 4), np.float32), MASK, by).mean()
    expected = 12 / (4 * 5) if isinstance(by, losses.Constant) else 1
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@over_all
def test_permutation_and_relabelling(by, per_token, rng):
    order = rng.permutation(6)
    labels = np.array([2, 0, 1])[GROUP_ID]
    result = aggregate(per_token[order], MASK[order], by, labels[order])
    np.testing.assert_allclose(result, aggregate(per_token, MASK, by), rtol=1e-6)


@over_all
def test_nothing_counted(by, per_token):
    mean = jax.jit(
        jax.value_and_grad(lambda x: aggregate(x, np.zeros_like(MASK), by).mean())
    )
    value, grad = mean(np.full_like(per_token, np.nan))
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


@over_all
def test_vmap_equals_loop(by, per_token):
    stacked = np.stack([per_token, 2 * per_token])
    batched = jax.vmap(lambda x: aggregate(x, MASK, by))(stacked)
    looped = [aggregate(x, MASK, by) for x in stacked]
    np.testing.assert_allclose(batched, np.array(looped).T, rtol=1e-6)


@over_all
def test_bfloat16_accumulates_in_float32(by):
    """1,024 ones stop growing at 256 if added in bfloat16."""
    per_token = jnp.ones((2, 512), jnp.bfloat16)
    mask = np.ones((2, 512), bool)
    result = aggregate(per_token, mask, by, np.array([0, 0]), 1)
    assert result.total.dtype == jnp.float32
    expected = aggregate(per_token.astype(jnp.float32), mask, by, np.array([0, 0]), 1)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("by", [losses.PerGroup(), losses.PerPrompt()])
def test_out_of_range_groups_count_nowhere(by, per_token):
    group_id = np.array([0, 1, -1, 7, 1, 2])
    expected = aggregate(
        per_token[[0, 1, 4, 5]], MASK[[0, 1, 4, 5]], by, GROUP_ID[[0, 1, 4, 5]]
    )
    result = aggregate(per_token, MASK, by, group_id)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("by", [losses.PerGroup(), losses.PerPrompt()])
def test_missing_group_ids_raise(by, per_token):
    with pytest.raises(ValueError, match="needs group_id"):
        losses.aggregate(jnp.asarray(per_token), jnp.asarray(MASK), aggregation=by)


def test_constant_must_be_positive():
    with pytest.raises(ValueError, match="length must be a whole number from 1"):
        losses.Constant(0)
