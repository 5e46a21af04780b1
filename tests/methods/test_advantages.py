"""Advantages as parts: values by hand, padding, order, unscored and dead groups."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import methods
from sgpo_jax.methods.advantage import evaluate, pad_groups
from tests.methods.cases import METHODS

# A mixed group with an unscored response, then a dead group.
REWARDS = np.array([1.0, 0.0, 0.0, np.nan, 1.0, 1.0, 1.0, 1.0])
LENGTHS = np.array([3.0, 1.0, 2.0, 5.0, 1.0, 2.0, 3.0, 4.0])
SPREAD = np.std([2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0])
OPTIMAL = 0.5 * np.log(0.5 * np.exp(2) + 0.5)


def filtered(rewards, process=1e-5, noise=1e-2):
    """The scalar Kalman filter, reward after reward."""
    x, p, found = 0.0, 1.0, []
    for reward in rewards:
        p += process
        gain = p / (p + noise)
        x, p = x + gain * (reward - x), (1 - gain) * p
        found.append((reward - x) / (np.sqrt(p) + 1e-8))
    return found


BY_HAND = {
    "centered": (methods.Centered(), [2 / 3, -1 / 3, -1 / 3]),
    "standardized": (methods.Standardized(), [np.sqrt(2), -np.sqrt(0.5)]),
    "standardized_sample": (methods.Standardized(ddof=1), [2 / np.sqrt(3)]),
    "leave_one_out": (methods.LeaveOneOut(), [1, -0.5, -0.5]),
    "mean_relative": (methods.MeanRelative(), [2, -1, -1]),
    "length_weighted": (methods.LengthWeighted(), [0.5, -0.5, -0.5]),
    "batch": (methods.BatchStandardized(), [2 / 3 / np.sqrt(10 / 49)]),
    "whitened": (methods.Whitened(), np.array([2, -1, -1]) / 3 / SPREAD),
    "best": (methods.BestOfGroup(), [1, 0, 0]),
    "best_standardized": (methods.BestOfGroup(standardize=True), [np.sqrt(3), 0, 0]),
    "kalman": (methods.Kalman(), filtered([1, 0, 0])),
    "optimal": (methods.OptimalAdvantage(), [1 - OPTIMAL, -OPTIMAL, -OPTIMAL]),
}


def groups_of(order):
    ids = np.repeat([0, 1], 4)
    return methods.RewardGroups(
        rewards=REWARDS[order],
        id=ids[order],
        length=LENGTHS[order],
        size=np.full(8, 4.0),
        count=2,
        max_length=5,
        optional={"profile": np.full(8, 0.5)},
    )


@pytest.mark.parametrize("name", BY_HAND)
def test_advantages_by_hand(name):
    part, expected = BY_HAND[name]
    found = evaluate(part, pad_groups(groups_of(np.arange(8))), 8)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=2e-5)
    assert found[3] == 0
    if name != "optimal":  # the only one that needs no second reward
        np.testing.assert_array_equal(found[4:], 0)
    swapped = np.array([4, 0, 5, 1, 3, 2, 6, 7])  # each group in its own order
    again = evaluate(part, pad_groups(groups_of(swapped)), 8)
    np.testing.assert_allclose(again, found[swapped], rtol=1e-5, atol=1e-6)


def test_filter_averaged_over_orders_does_not_depend_on_the_order():
    part = methods.Kalman(average_orders=True)
    found = evaluate(part, pad_groups(groups_of(np.arange(8))), 8)
    mixed = np.array([2, 1, 3, 0, 4, 5, 6, 7])
    again = evaluate(part, pad_groups(groups_of(mixed)), 8)
    np.testing.assert_allclose(again, found[mixed], rtol=1e-5)
    orders = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    of_one = np.mean([filtered(o)[o.index(1)] for o in orders])
    np.testing.assert_allclose(found[0], of_one, rtol=1e-4)


OBJECTIVES = {
    type(method.objective).__name__: method.objective
    for method in METHODS.values()
    if not inspect.isfunction(method.objective)
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_know_whether_responses_without_advantage_count(name):
    """They decide whether a subsample may leave such responses out."""
    objective = OBJECTIVES[name]
    shape = (3, 4)
    rng = np.random.default_rng(0)
    one, cell = jnp.full(3, 0.7), jnp.asarray(rng.normal(size=shape), jnp.float32)
    inputs = methods.INPUT_OF.values()
    responses = methods.Responses(
        log_prob=cell - 2,
        log_ratio=0.1 * cell,
        advantage=jnp.zeros(3),
        reward=jnp.ones(3),
        mask=jnp.ones(shape, bool),
        entropy=jnp.ones(shape),
        optional={
            key: one if key in ("residual_mean", "log_z") else 0.9 * cell - 2
            for key in inputs
        },
    )
    loss = jax.jit(objective)(responses)
    silent = getattr(objective, "zero_without_advantage", True)
    assert (np.abs(loss).max() == 0) == silent


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: methods.Kalman(observation_noise=0.0),
            "observation_noise must",
        ),
        (lambda: methods.OptimalAdvantage(beta=0.0), "beta must be a number"),
        (lambda: methods.OverlongPenalty(cache=0.0), "cache must be a number"),
        (lambda: methods.OverlongPenalty(coef=-1.0), "coef must be a number"),
        (lambda: methods.Cispo(high=0.0), "high must be a number"),
        (
            lambda: methods.Sapo(positive_temperature=0.0),
            "positive_temperature must",
        ),
        (lambda: methods.Dppo(bound=0.0), "bound must be a number"),
        (lambda: methods.Dppo(penalty=float("nan")), "penalty must be .* got nan"),
        (
            lambda: methods.SequenceClipped(low=1.0),
            "low must be a number",
        ),
        (lambda: methods.Gmpo(high=-1.0), "high must be a number from 0"),
        (lambda: methods.Dro(beta=float("inf")), "beta must be a number"),
        (lambda: methods.FlowBalance(max_weight=0.0), "max_weight must be a number"),
        (
            lambda: methods.Method(
                objective=methods.Dro(), subsample=methods.DropZeroAdvantage()
            ),
            "which count in Dro",
        ),
        (lambda: methods.LogZ(width=0), "width must be a whole number"),
        (lambda: methods.LogZ(learning_rate=0.0), "learning_rate must be a number"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_passes_the_check_before_sampling(name):
    METHODS[name].check()
