"""Values and gradients of every loss at ties, on bounds and far out, by hand.

The references are numpy in float64, with the derivative written down. A ratio on a
bound is inside; where a float32 cannot say on which side it lies, either is right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import losses

T = 3
PAIRS = [(0.0, 0.0), (3e-4, 4e-4), (0.2, 0.28)]  # low and high
BOUNDS = sorted({bound for pair in PAIRS for bound in pair})
TIES = [
    0.0,
    *np.log1p(BOUNDS),
    *np.log1p(-np.array(BOUNDS)),
    *BOUNDS,
    *np.negative(BOUNDS),
]
FAR = [
    1e-8,
    -1e-6,
    1e-3,
    19.0,
    20.0,
    20.5,
    -20.0,
    -25.0,
    300.0,
    np.log(5.0),
    np.log(3.0),
]
LOG_RATIOS = st.one_of(
    st.sampled_from([float(x) for x in (*TIES, *FAR)]), st.floats(-3, 3)
)
ADVANTAGES = st.sampled_from([0.0, 1.0, -1.0, 1e-20, -1e-20, 0.7, -3.5, 1e4, -1e4])


def bounded(x):
    """Log-ratio within 20, and its derivative."""
    return np.clip(x, -20, 20), (np.abs(x) <= 20).astype(float)


def clipped(x, a, low, high, dual=None):
    """Value and derivative of the clipped surrogate, for a log-ratio within 20."""
    x, inside = bounded(x)
    r = np.exp(x)
    value, slope = -r * a, -r * a * inside
    for beyond, bound in (
        ((a > 0) & (r > 1 + high), 1 + high),
        ((a < 0) & (r < 1 - low), 1 - low),
        ((a < 0) & (dual is not None and r > dual), dual),
    ):
        value = np.where(beyond, -(bound or 0.0) * a, value)
        slope = np.where(beyond, 0.0, slope)
    return value, slope


def cispo(x, a, low, high):
    x, inside = bounded(x)
    weight = np.minimum(np.exp(x), 1 + high)
    return -weight * a * x, -weight * a * inside


def sapo(x, a, low, high):
    x, inside = bounded(x)
    tau, r = (1.0 if a > 0 else 1.05), np.exp(x)
    gate = np.exp(-np.logaddexp(0, -tau * (r - 1)))
    return -4 / tau * gate * a, -4 * gate * (1 - gate) * r * a * inside


SAMPLER = np.log(0.3)


def dppo(x, a, low, high):
    keep = np.sign(a) * (np.exp(SAMPLER + x) - np.exp(SAMPLER)) <= high
    x, inside = bounded(x)
    value = np.where(keep, -a * np.exp(x), 0)
    return value, value * inside


def our_dppo(x, a, low, high):
    # A constant's exponential is folded, and differs from the computed one by a bit.
    drawn = jax.lax.optimization_barrier(jnp.full_like(x, SAMPLER))
    return losses.dppo_tv(x + drawn, drawn, a, bound=high)


def of_token(name):
    """A loss of ours that takes log-ratios, advantages and bounds."""
    function = getattr(losses, name)
    return lambda x, a, low, high: function(x, a, low=low, high=high)


def of_divergence(name):
    return lambda x, a, low, high: (
        a[:, None] * getattr(losses, name)(x, jnp.zeros_like(x))
    )


def k3(x, a, low, high):
    x, inside = bounded(x)
    return a * (np.expm1(-x) + x), -a * np.expm1(-x) * inside


TOKEN = {
    "clipped_surrogate": (of_token("clipped_surrogate"), clipped),
    "dual": (
        lambda x, a, low, high: losses.clipped_surrogate(
            x, a, low=low, high=high, dual=3.0
        ),
        functools.partial(clipped, dual=3.0),
    ),
    "cispo": (lambda x, a, low, high: losses.cispo(x, a, high=1 + high), cispo),
    "sapo": (lambda x, a, low, high: losses.sapo(x, a), sapo),
    "dppo": (our_dppo, dppo),
    "policy_gradient": (
        lambda x, a, low, high: losses.policy_gradient(x, a),
        lambda x, a, low, high: (-a * x, -a),
    ),
    "k1": (of_divergence("k1"), lambda x, a, low, high: (a * x, a)),
    "k2": (of_divergence("k2"), lambda x, a, low, high: (a * x**2 / 2, a * x)),
    "k3": (of_divergence("k3"), k3),
}


@functools.cache
def compiled(loss, low, high):
    """Values and the gradient of their sum over the tokens of one response."""

    def total(x, a):
        found = loss(x[None], a[None], low, high)[0]
        return found.sum(), found

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def assert_near(loss, by_hand, x, a, pair, *, shift):
    """Each token's value and gradient, for log-ratios as they are or a little off."""
    x, a = (np.float64(np.float32(v)) for v in (x, a))
    low, high = pair
    (_, value), slope = compiled(loss, low, high)(jnp.float32(x), jnp.float32(a))
    found = np.stack([value, slope]).astype(np.float64)
    near = np.stack(
        [
            [np.broadcast_to(v, (T,)) for v in by_hand(x + by, a, low, high)]
            for by in (
                0.0,
                -shift * (x != 0),
                shift * (x != 0),
            )  # a ratio of 1 is exact
        ]
    )
    scale = 3e-5 * np.abs(near).max(0) + 1e-5 * abs(a)
    right = np.abs(found - near).min(0) <= scale
    assert right.all(), f"{found} instead of {near[0]}"


@pytest.mark.parametrize("name", TOKEN)
@settings(max_examples=40)
@given(
    x=st.lists(LOG_RATIOS, min_size=T, max_size=T),
    a=ADVANTAGES,
    pair=st.sampled_from(PAIRS),
)
def test_losses_of_tokens(name, x, a, pair):
    loss, by_hand = TOKEN[name]
    assert_near(loss, by_hand, x, a, pair, shift=4e-7)


def mean_of(x):
    """Mean log-ratio of a response, and the share of each token in it."""
    x, inside = bounded(x)
    return x.mean(), inside / T


def gspo(x, a, low, high):
    mean, share = mean_of(x)
    value, slope = clipped(mean, a, low, high)
    return value, T * slope * share


def luspo(x, a, low, high):
    value, slope = gspo(x, a, low, high)
    return T * value, T * slope


def gmpo(x, a, low, high):
    x, inside = bounded(x)
    z = np.where((a > 0) & (x > high), high, x)
    z = np.where((a < 0) & (x < -low), -low, z)
    value = -a * np.exp(z.mean())
    return value, value * inside * (z == x)


def of_response(name):
    """A loss of ours of one response, without padding."""
    function = getattr(losses, name)

    def loss(x, a, low, high):
        mask = jnp.ones(x.shape, bool)
        x = losses.log_ratio(x, jnp.zeros_like(x), mask)
        return function(x, a, mask, low=low, high=high)

    return loss


SEQUENCE = {
    "gspo": (of_response("sequence_clipped_surrogate"), gspo),
    "luspo": (of_response("luspo"), luspo),
    "gmpo": (of_response("gmpo"), gmpo),
}


@pytest.mark.parametrize("name", SEQUENCE)
@settings(max_examples=40)
@given(
    x=st.lists(LOG_RATIOS, min_size=T, max_size=T),
    equal=st.booleans(),
    a=ADVANTAGES,
    pair=st.sampled_from(PAIRS),
)
def test_losses_of_responses(name, x, equal, a, pair):
    """With equal tokens the mean of the log-ratios lies on a bound too."""
    loss, by_hand = SEQUENCE[name]
    x = [x[0]] * T if equal else x
    assert_near(loss, by_hand, x, a, pair, shift=1e-6)


STRENGTHS = st.sampled_from([1e-4, 1 / 89, 0.1, 1e4])
GROUP = np.array([0, 0, 0, 1])
R = len(GROUP)


def residual(x, reward, scale):
    """Log-ratio minus scaled reward, 0 where unscored; its mean over the group."""
    scored = np.isfinite(reward)
    u = np.where(scored, x - scale * np.where(scored, reward, 0), 0)
    total = np.bincount(GROUP, u) / np.maximum(np.bincount(GROUP, scored), 1)
    return u, np.where(scored, total[GROUP], 0), scored


def rebel(x, reward, other, beta):
    u, mean, _ = residual(x, reward, beta)
    return 2 * (u - mean) ** 2, 4 * (u - mean)


def vargrad(x, reward, other, beta):
    u, mean, _ = residual(x, reward, 1 / beta)
    return (u - mean) ** 2, 2 * (u - mean)


def trajectory_balance(x, reward, other, beta):
    u, _, scored = residual(x, reward, 1 / beta)
    return scored * (u + other) ** 2, 2 * scored * (u + other)


def flow_balance(x, reward, other, beta):
    u, _, scored = residual(x, reward, beta)
    weight = scored * np.minimum(np.exp(np.minimum(x, 20)), 10)
    return weight * (u + other) ** 2, 2 * weight * (u + other)


def a_star_po(x, reward, other, beta):
    _, _, scored = residual(x, reward, beta)
    gap = np.where(scored, beta * x - np.where(scored, reward, 0) + other, 0)
    return gap**2, 2 * beta * gap


def dro(x, reward, other, beta):
    return -(x * other - beta / 2 * x**2), beta * x - other


GROUPS = {"group_id": jnp.asarray(GROUP), "num_groups": 2}
REGRESSION = {
    rebel: lambda x, r, o, beta: losses.rebel(x, r, **GROUPS, eta=beta),
    vargrad: lambda x, r, o, beta: losses.vargrad(x, r, **GROUPS, beta=beta),
    trajectory_balance: lambda x, r, o, beta: losses.trajectory_balance(
        x, r, o, beta=beta
    ),
    flow_balance: lambda x, r, o, beta: losses.flow_balance(
        x, r, o, jax.lax.stop_gradient(x), beta=beta
    ),
    a_star_po: lambda x, r, o, beta: losses.a_star_po(x, r, o, beta=beta),
    dro: lambda x, r, o, beta: losses.dro(x, o, beta=beta),
}


@pytest.mark.parametrize("by_hand", REGRESSION, ids=lambda f: f.__name__)
@settings(max_examples=40)
@given(
    x=st.lists(
        st.sampled_from([0.0, 1e-3, -0.5, 5.0, -80.0, 300.0]), min_size=R, max_size=R
    ),
    reward=st.lists(
        st.sampled_from([0.0, 1.0, 0.5, -1.0, np.nan, np.inf, -np.inf]),
        min_size=R,
        max_size=R,
    ),
    other=st.sampled_from([0.0, 0.7, -4.0]),
    beta=STRENGTHS,
)
def test_losses_by_regression(by_hand, x, reward, other, beta):
    """At every strength; an infinite reward is unscored like a missing one."""
    x, reward = (np.float64(np.float32(v)) for v in (x, reward))
    other = np.full(R, np.float64(np.float32(other)))
    (_, value), slope = regression(by_hand, beta)(
        *(jnp.float32(v) for v in (x, reward, other))
    )
    expected, expected_slope = by_hand(x, reward, other, beta)
    known = np.where(np.isfinite(reward), np.abs(reward), 0)
    size = max(1 / beta, beta, 1) * (1 + known.max() + np.abs(other).max())
    size = size + np.abs(x).max() * max(beta, 1)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=4e-6 * size**2)
    np.testing.assert_allclose(
        slope, expected_slope, rtol=1e-5, atol=4e-6 * size * max(beta, 10)
    )
    if by_hand is not dro:  # its advantage says what is unscored
        unscored = ~np.isfinite(reward)
        assert (np.asarray(value)[unscored] == 0).all()
        assert (np.asarray(slope)[unscored] == 0).all()


@functools.cache
def regression(by_hand, beta):
    """Values and the gradient of their sum over responses."""

    def total(*arguments):
        found = REGRESSION[by_hand](*arguments, beta)
        return found.sum(), found

    return jax.jit(jax.value_and_grad(total, has_aux=True))
