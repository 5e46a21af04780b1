"""Properties every per-token loss has."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sgpo_jax import losses

R, T = 4, 5
LENGTH = np.array([5, 3, 1, 0])
MASK = np.arange(T)[None, :] < LENGTH[:, None]
ADVANTAGE = np.array([1.5, -0.75, -2.0, 0.0], np.float32)


def dppo_tv(log_ratio, advantage, mask):
    """With a fixed sampler whose tokens all had probability 0.3."""
    sampler = jnp.full_like(log_ratio, np.log(0.3))
    return losses.dppo_tv(log_ratio + sampler, sampler, advantage)


def without_mask(loss):
    return lambda log_ratio, advantage, mask: loss(log_ratio, advantage)


def divergence(estimate):
    return lambda log_ratio, advantage, mask: estimate(
        log_ratio, jnp.zeros_like(log_ratio)
    )


PER_TOKEN = {
    "policy_gradient": without_mask(losses.policy_gradient),
    "clipped_surrogate": without_mask(losses.clipped_surrogate),
    "dual_clip": without_mask(functools.partial(losses.clipped_surrogate, dual=1.05)),
    "cispo": without_mask(functools.partial(losses.cispo, high=1.2)),
    "sapo": without_mask(losses.sapo),
    "dppo_tv": dppo_tv,
}
DIVERGENCES = {
    "k1": divergence(losses.k1),
    "k2": divergence(losses.k2),
    "k3": divergence(losses.k3),
}
wide = {"low": 0.2, "high": 0.25}
SEQUENCE = {
    "sequence_clipped_surrogate": functools.partial(
        losses.sequence_clipped_surrogate, **wide
    ),
    "token_level_sequence_surrogate": functools.partial(
        losses.token_level_sequence_surrogate, **wide
    ),
    "gmpo": losses.gmpo,
}
# At log-ratio 0 the gradient of all of these is that of REINFORCE.
ON_POLICY = PER_TOKEN | SEQUENCE
ALL = ON_POLICY | DIVERGENCES | {"luspo": functools.partial(losses.luspo, **wide)}
over_all = pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
over_on_policy = pytest.mark.parametrize("loss", ON_POLICY.values(), ids=ON_POLICY)


@functools.cache
def value_and_grad(loss):
    """Of the mean over tokens, as a function of raw log-probabilities."""

    def mean(log_prob, old_log_prob, advantage, mask):
        log_ratio = losses.log_ratio(log_prob, old_log_prob, mask)
        per_token = loss(log_ratio, advantage, mask)
        return losses.aggregate(
            per_token, mask, aggregation=losses.PerSequence()
        ).mean()

    return jax.jit(jax.value_and_grad(mean))


@pytest.fixture
def log_probs(rng):
    """Old and new, far enough apart to meet clips on both sides."""
    old = -rng.exponential(1.0, (R, T)).astype(np.float32)
    return (old + rng.normal(0, 0.3, (R, T)).astype(np.float32), old)


@over_all
def test_padding_is_inert(loss, log_probs):
    """NaN in every masked cell changes neither value nor gradient."""
    clean = [np.where(MASK, x, np.float32(0)) for x in log_probs]
    poisoned = [np.where(MASK, x, np.float32(np.nan)) for x in log_probs]
    value, grad = value_and_grad(loss)(*clean, ADVANTAGE, MASK)
    poisoned_value, poisoned_grad = value_and_grad(loss)(*poisoned, ADVANTAGE, MASK)
    assert np.isfinite(value) and value != 0
    assert poisoned_value == value
    np.testing.assert_array_equal(poisoned_grad, grad)
    np.testing.assert_array_equal(np.asarray(grad)[~MASK], 0)


@over_all
def test_nothing_counted_gives_zero_loss_and_zero_gradient(loss, log_probs):
    value, grad = value_and_grad(loss)(*log_probs, ADVANTAGE, np.zeros_like(MASK))
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


@over_all
def test_extreme_ratios_stay_finite(loss):
    log_prob = np.array([[-200.0, 0, -200, 0, 0]] * R, np.float32)
    old = np.array([[0.0, -200, 0, -200, 0]] * R, np.float32)
    value, grad = value_and_grad(loss)(log_prob, old, ADVANTAGE, MASK)
    assert np.isfinite(value) and np.isfinite(grad).all()


@over_on_policy
def test_gradient_on_policy_is_reinforce(loss, log_probs):
    _, old = log_probs
    _, grad = value_and_grad(loss)(old, old, ADVANTAGE, MASK)
    tokens = np.maximum(LENGTH, 1)[:, None]
    expected = np.where(MASK, -ADVANTAGE[:, None] / tokens, 0) / (LENGTH > 0).sum()
    np.testing.assert_allclose(grad, expected, rtol=1e-5)


@over_all
def test_gradient(loss, log_probs):
    """Against finite differences in float64, for losses without stop_gradient."""
    if loss in (ALL["cispo"], ALL["token_level_sequence_surrogate"]):
        pytest.skip("the gradient is not that of the value, by design")
    with jax.enable_x64(True):
        log_ratio = jnp.asarray(np.where(MASK, log_probs[0] - log_probs[1], 0))
        log_ratio = log_ratio.astype(jnp.float64) + 0.01
        advantage = jnp.asarray(ADVANTAGE, jnp.float64)

        def function(log_ratio):
            return loss(log_ratio, advantage, jnp.asarray(MASK))

        check_grads(jax.jit(function), (log_ratio,), order=1, modes=["rev"])


@over_on_policy
def test_no_gradient_flows_into_the_advantage(loss, log_probs):
    def total(advantage):
        log_ratio = jnp.asarray(log_probs[0] - log_probs[1])
        return loss(log_ratio, advantage, jnp.asarray(MASK)).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(jnp.asarray(ADVANTAGE)), 0)


@over_on_policy
def test_zero_advantage_gives_zero_loss(loss, log_probs):
    value, grad = value_and_grad(loss)(*log_probs, np.zeros_like(ADVANTAGE), MASK)
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


@over_all
def test_vmap_equals_loop(loss, log_probs):
    log_ratio = jnp.stack(
        [jnp.asarray(log_probs[0] - log_probs[1]) * c for c in (1, 2)]
    )
    advantage, mask = jnp.asarray(ADVANTAGE), jnp.asarray(MASK)
    batched = jax.vmap(loss, in_axes=(0, None, None))(log_ratio, advantage, mask)
    looped = [loss(x, advantage, mask) for x in log_ratio]
    np.testing.assert_allclose(batched, np.stack(looped), rtol=1e-6)


@over_all
def test_permuting_responses_permutes_losses(loss, log_probs, rng):
    order = rng.permutation(R)
    log_ratio = jnp.asarray(log_probs[0] - log_probs[1])
    whole = loss(log_ratio, jnp.asarray(ADVANTAGE), jnp.asarray(MASK))
    args = (log_ratio[order], jnp.asarray(ADVANTAGE[order]), jnp.asarray(MASK[order]))
    np.testing.assert_array_equal(loss(*args), np.asarray(whole)[order])


@over_all
def test_bfloat16_is_computed_in_float32(loss, log_probs):
    log_ratio = jnp.asarray(log_probs[0] - log_probs[1], jnp.bfloat16)
    advantage = jnp.asarray(ADVANTAGE, jnp.bfloat16)
    result = loss(log_ratio, advantage, jnp.asarray(MASK))
    assert result.dtype == jnp.float32
    wide = (x.astype(jnp.float32) for x in (log_ratio, advantage))
    expected = loss(*wide, jnp.asarray(MASK))
    # The test's own sampler probabilities are rounded to bfloat16 in one case.
    np.testing.assert_allclose(result, expected, rtol=2e-2 if loss is dppo_tv else 0)
