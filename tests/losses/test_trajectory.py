"""Objectives on whole responses: values, identities and a common contract."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sgpo_jax import losses

R, P = 7, 3
GROUP_ID = np.array([0, 1, 0, 1, 0, 2, 1])  # group 2 has a single response


def plain(loss, **options):
    return lambda d, r, g, extra: loss(d, r, *extra, **options)


def grouped(loss, **options):
    return lambda d, r, g, extra: loss(d, r, g, num_groups=P, **options)


# Each as a function of log-ratios, rewards, group ids and per-response extras.
ALL = {
    "rebel": grouped(losses.rebel, eta=2.0),
    "vargrad": grouped(losses.vargrad, beta=0.5),
    "trajectory_balance": lambda d, r, g, extra: losses.trajectory_balance(
        d, r, extra[0], beta=0.5
    ),
    "flow_balance": plain(losses.flow_balance, beta=2.0, max_weight=1.1),
    "dro": lambda d, r, g, extra: losses.dro(
        d, jnp.where(jnp.isfinite(r), r, 0), beta=0.5
    ),
    "a_star_po": lambda d, r, g, extra: losses.a_star_po(d, r, extra[0], beta=0.5),
}
over_all = pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
SCORED = {name: loss for name, loss in ALL.items() if name != "dro"}
over_scored = pytest.mark.parametrize("loss", SCORED.values(), ids=SCORED)


@pytest.fixture
def batch(rng):
    log_ratio = jnp.asarray(rng.normal(size=R), jnp.float32)
    rewards = jnp.asarray(rng.random(R), jnp.float32)
    extra = tuple(jnp.asarray(rng.normal(size=(2, R)), jnp.float32))
    return log_ratio, rewards, jnp.asarray(GROUP_ID), extra


@functools.cache
def grad_of_sum(loss):
    def total(log_ratio, rewards, group_id, extra, weight):
        return jnp.vdot(loss(log_ratio, rewards, group_id, extra), weight)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 3)))


@over_scored
def test_nan_reward_equals_removing_the_response(loss, batch):
    """With NaN in every array of that response: same values, same gradients."""
    gone, kept = 2, jnp.array([0, 1, 3, 4, 5, 6])
    take = functools.partial(jax.tree.map, lambda x: x[kept])
    log_ratio, rewards, group_id, extra = batch
    poison = functools.partial(jax.tree.map, lambda x: x.at[gone].set(jnp.nan))
    weight = jnp.arange(1.0, R + 1)
    value, grads = grad_of_sum(loss)(
        *poison((log_ratio, rewards)), group_id, poison(extra), weight
    )
    expected, expected_grads = grad_of_sum(loss)(*take(batch), weight[kept])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[kept], y, rtol=1e-4, atol=1e-6),
        grads,
        expected_grads,
    )
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[gone], 0), grads)


@over_all
def test_permuting_responses_permutes_losses(loss, batch, rng):
    order = jnp.asarray(rng.permutation(R))
    permuted = loss(*jax.tree.map(lambda x: x[order], batch))
    np.testing.assert_allclose(permuted, loss(*batch)[order], rtol=1e-5)


@over_all
def test_relabelling_groups_changes_nothing(loss, batch):
    log_ratio, rewards, group_id, extra = batch
    relabelled = jnp.array([1, 2, 0])[group_id]
    np.testing.assert_allclose(
        loss(log_ratio, rewards, relabelled, extra), loss(*batch), rtol=1e-6
    )


@over_all
def test_vmap_equals_loop(loss, batch):
    log_ratio, *rest = batch
    stacked = jnp.stack([log_ratio, 2 * log_ratio])
    batched = jax.jit(jax.vmap(loss, in_axes=(0, None, None, None)))(stacked, *rest)
    looped = jnp.stack([loss(x, *rest) for x in stacked])
    np.testing.assert_allclose(batched, looped, rtol=1e-5, atol=1e-6)


@over_all
def test_gradient(loss, batch):
    """By finite differences; `vargrad` holds its normalizer constant by design."""
    if loss is ALL["vargrad"]:
        pytest.skip("covered by test_vargrad_is_half_of_rebel")
    with jax.enable_x64(True):
        log_ratio, rewards, group_id, extra = batch
        wide = jnp.asarray(log_ratio, jnp.float64)
        rewards = jnp.asarray(rewards, jnp.float64)
        extra = tuple(jnp.asarray(x, jnp.float64) for x in extra)

        @jax.jit
        def function(log_ratio):
            return loss(log_ratio, rewards, group_id, extra)

        check_grads(function, (wide,), order=1, modes=["rev"])


@over_all
def test_bfloat16_is_computed_in_float32(loss, batch):
    narrow = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, batch
    )
    wide = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, narrow
    )
    result = loss(*narrow)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, loss(*wide))


@over_all
def test_no_gradient_flows_into_rewards(loss, batch):
    log_ratio, rewards, group_id, extra = batch
    grad = jax.grad(lambda r: loss(log_ratio, r, group_id, extra).sum())(rewards)
    np.testing.assert_array_equal(grad, 0)


def group_mean(loss, group_id):
    """Mean over groups of the mean over their responses."""
    mask = jnp.ones((loss.shape[0], 1), bool)
    return losses.aggregate(
        loss[:, None],
        mask,
        aggregation=losses.PerGroup(),
        group_id=group_id,
        num_groups=P,
    ).mean()


def test_rebel_is_the_mean_over_all_ordered_pairs(batch):
    log_ratio, rewards, _, _ = batch
    group_id = jnp.zeros(R, jnp.int32)
    first, second = jnp.array(list(itertools.product(range(R), repeat=2))).T
    pairs = losses.rebel_pairs(
        (log_ratio[first], log_ratio[second]),
        (rewards[first], rewards[second]),
        eta=3.0,
    )
    shares = losses.rebel(log_ratio, rewards, group_id, num_groups=1, eta=3.0)
    np.testing.assert_allclose(shares.mean(), pairs.mean(), rtol=1e-5)
    variance = np.var(np.asarray(log_ratio - 3.0 * rewards))
    np.testing.assert_allclose(pairs.mean(), 2 * variance, rtol=1e-5)


def test_vargrad_is_half_of_rebel(batch):
    """R / beta = eta R: value and gradient."""
    log_ratio, rewards, group_id, _ = batch

    def half_rebel(d):
        loss = losses.rebel(d, rewards, group_id, num_groups=P, eta=4.0)
        return group_mean(loss, group_id) / 2

    def vargrad(d):
        loss = losses.vargrad(d, rewards, group_id, num_groups=P, beta=0.25)
        return group_mean(loss, group_id)

    expected, expected_grad = jax.jit(jax.value_and_grad(half_rebel))(log_ratio)
    value, grad = jax.jit(jax.value_and_grad(vargrad))(log_ratio)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-7)
    assert np.abs(np.asarray(grad)).max() > 0.1


def test_vargrad_gradient_is_that_of_the_group_variance(batch):
    log_ratio, rewards, _, _ = batch
    group_id = jnp.zeros(R, jnp.int32)

    def loss(d):
        return losses.vargrad(d, rewards, group_id, num_groups=1, beta=0.5).mean()

    grad = jax.grad(loss)(log_ratio)
    expected = jax.grad(lambda d: jnp.var(d - rewards / 0.5))(log_ratio)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["rebel", "vargrad"])
def test_a_single_response_has_no_loss(loss, batch):
    np.testing.assert_array_equal(ALL[loss](*batch)[5], 0)


def test_unscored_pairs():
    nan, one = jnp.array([jnp.nan]), jnp.ones(1)
    for rewards in ((nan, one), (one, nan)):
        assert losses.rebel_pairs((nan, one), rewards) == 0


def test_flow_balance_caps_the_weight():
    """Weights e^0 and e^5 capped at 10, on squared residuals of 4."""
    zero, two = jnp.zeros(2), jnp.full(2, 2.0)
    loss = losses.flow_balance(zero, zero, two, jnp.array([0.0, 5.0]))
    np.testing.assert_allclose(loss, [4, 40], rtol=1e-6)


def test_literals():
    log_ratio, rewards = jnp.array([0.5, -1.0]), jnp.array([1.0, 0.0])
    group_id = jnp.zeros(2, jnp.int32)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    # u = 0.5 - 2 and -1: mean -1.25, deviations 0.25.
    close(
        losses.rebel(log_ratio, rewards, group_id, num_groups=1, eta=2.0), [0.125] * 2
    )
    close(
        losses.vargrad(log_ratio, rewards, group_id, num_groups=1, beta=0.5),
        [0.0625] * 2,
    )
    log_z = jnp.array([1.0, 2.0])
    close(losses.trajectory_balance(log_ratio, rewards, log_z, beta=0.5), [0.25, 1.0])
    close(losses.dro(log_ratio, jnp.array([1.0, -1.0]), beta=2.0), [-0.25, 0.0])
    close(losses.a_star_po(log_ratio, rewards, log_z, beta=2.0), [1.0, 0.0])


def test_trajectory_balance_is_zero_at_its_target():
    """Policy proportional to reference times exp(R / beta), over four answers."""
    reference = jax.nn.log_softmax(jnp.array([0.3, -1.0, 0.5, 0.0]))
    rewards, beta = jnp.array([1.0, 0.0, 0.5, 1.0]), 0.7
    tilted = reference + rewards / beta
    log_z = jnp.full(4, jax.nn.logsumexp(tilted))
    log_ratio = tilted - log_z - reference
    loss = losses.trajectory_balance(log_ratio, rewards, log_z, beta=beta)
    np.testing.assert_allclose(loss, 0, atol=1e-12)
    group_id = jnp.zeros(4, jnp.int32)
    loss = losses.vargrad(log_ratio, rewards, group_id, num_groups=1, beta=beta)
    np.testing.assert_allclose(loss, 0, atol=1e-12)


def test_optimal_value_is_the_soft_maximum_over_answers():
    rate, beta = np.array([0.0, 0.25, 1.0], np.float32), 0.5
    expected = beta * np.log(rate * np.exp(1 / beta) + 1 - rate)
    result = losses.optimal_value(jnp.asarray(rate), beta=beta)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)
