"""Adam and Adagrad with a sparse group lasso, as optax transformations.

Both keep z, a sum of gradients corrected for the weights at which they were taken, and
set the weights to the minimum of a quadratic model plus the penalty:

    z_t = z_{t-1} + g_t - (D_t - D_{t-1}) x_t,    x_{t+1} = solve(z_t, D_t)

D is the optimizer's per-weight scale over the learning rate. Without penalty this is
x_{t+1} = x_t - g_t / D_t, the plain optimizer, at any learning-rate schedule. Yue et
al. 2021 (arXiv:2107.14432). As in FTRL, weights are penalized from the start: a group
whose gradients stay below the threshold becomes 0 at the first step.

The updates depend on the weights and include the learning rate, so these
transformations are the last of a chain. Use `optax.masked` to choose parameters, for
example the embedding table only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sgpo_jax.optimizers.penalty import SparseGroupLasso

NO_PARAMS = "the update depends on the weights: call update(updates, state, params)"


class GroupAdamState(NamedTuple):
    """State of `group_adam`.

    Attributes:
      count: steps taken.
      mu: moving average of gradients.
      nu: moving average of squared gradients.
      z: sum of gradients, corrected for the weights at which they were taken.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride] optax's name
    mu: optax.Updates
    nu: optax.Updates
    z: optax.Updates


def group_adam(
    learning_rate: optax.ScalarOrSchedule,
    penalty: SparseGroupLasso = SparseGroupLasso(),
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    r"""Adam with a sparse group lasso.

    .. math:: D_t = \frac{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}{\alpha_t}, \\
              z_t = z_{t-1} + \frac{m_t}{1 - \beta_1^t} - (D_t - D_{t-1}) x_t, \quad
              x_{t+1} = \mathrm{solve}(z_t, D_t)

    with the moments m, v of Adam, z_0 = 0 and D_0 = 0. Yue et al. 2021
    (arXiv:2107.14432). Their kernel scales eps by (1 - beta_2^t)^{-1/2} and leaves it
    out of D_t - D_{t-1} after the first step; with ours, no penalty means exactly
    `optax.adam`.

    Args:
      learning_rate: alpha, a number or a schedule.
      penalty: what to add to the loss.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      eps: added to the root of the second moment.

    Example:
      A weight without gradient, and one whose gradient is worth keeping:

      >>> optimizer = group_adam(0.5, SparseGroupLasso(l1=1.0))
      >>> params = jnp.array([1.0, 1.0])
      >>> grads = jnp.array([0.0, -2.0])
      >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates).round(2)
      Array([0.  , 1.25], dtype=float32)
    """

    def scale(nu, count):
        """Return D at this count of steps, 0 before the first."""
        started = count > 0
        correction = jnp.where(started, 1 - b2 ** count.astype(jnp.float32), 1)
        rate = _rate(learning_rate, jnp.maximum(count - 1, 0))
        per_weight = (jnp.sqrt(nu / correction) + eps) / rate
        return jnp.where(started, per_weight, 0)

    def init(params):
        mu, nu, z = (jax.tree.map(_zeros, params) for _ in range(3))
        return GroupAdamState(jnp.zeros([], jnp.int32), mu, nu, z)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(NO_PARAMS)
        count = jnp.asarray(optax.safe_increment(state.count))
        grads = jax.tree.map(lambda g, m: g.astype(m.dtype), updates, state.mu)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)
        correction = 1 - b1 ** count.astype(jnp.float32)
        mean = jax.tree.map(lambda m: m / correction, mu)
        before = jax.tree.map(lambda v: scale(v, state.count), state.nu)
        after = jax.tree.map(lambda v: scale(v, count), nu)
        z, updates = _advance(penalty, params, state.z, mean, (before, after))
        return updates, GroupAdamState(count, mu, nu, z)

    return optax.GradientTransformation(init, update)


class GroupAdagradState(NamedTuple):
    """State of `group_adagrad`.

    Attributes:
      count: steps taken.
      sum_of_squares: sum of squared gradients.
      z: sum of gradients, corrected for the weights at which they were taken.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride] optax's name
    sum_of_squares: optax.Updates
    z: optax.Updates


def group_adagrad(
    learning_rate: optax.ScalarOrSchedule,
    penalty: SparseGroupLasso = SparseGroupLasso(),
    *,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
) -> optax.GradientTransformation:
    r"""Adagrad with a sparse group lasso.

    .. math:: D_t = \frac{\sqrt{n_t + \epsilon}}{\alpha_t}, \quad
              z_t = z_{t-1} + g_t - (D_t - D_{t-1}) x_t, \quad
              x_{t+1} = \mathrm{solve}(z_t, D_t)

    with the sum of squares n and z_0 = -D_0 x_1. Yue et al. 2021 (arXiv:2107.14432),
    whose z_0 is 0: that would pull initial weights towards 0 even without penalty.
    With ours, no penalty means exactly `optax.adagrad`.

    Args:
      learning_rate: alpha, a number or a schedule.
      penalty: what to add to the loss.
      initial_accumulator_value: n_0.
      eps: added to n under the root.

    Example:
      >>> optimizer = group_adagrad(0.1, SparseGroupLasso(l2=5.0), eps=0.0)
      >>> params, grads = jnp.array([1.0]), jnp.array([0.0])
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(grads, state, params)
      >>> optax.apply_updates(params, updates)  # D = sqrt(0.1) / 0.1
      Array([0.24025309], dtype=float32)
    """

    def scale(n, count):
        return jnp.sqrt(n + eps) / _rate(learning_rate, count)

    def init(params):
        total = jax.tree.map(lambda x: _zeros(x) + initial_accumulator_value, params)
        count = jnp.zeros([], jnp.int32)
        z = jax.tree.map(
            lambda n, x: -scale(n, count) * x.astype(n.dtype), total, params
        )
        return GroupAdagradState(count, total, z)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(NO_PARAMS)
        n = state.sum_of_squares
        grads = jax.tree.map(lambda g, s: g.astype(s.dtype), updates, n)
        total = jax.tree.map(lambda s, g: s + g**2, n, grads)
        # The step before the first has the learning rate of the first, as in `init`.
        last = jnp.maximum(state.count - 1, 0)
        before = jax.tree.map(lambda s: scale(s, last), n)
        after = jax.tree.map(lambda s: scale(s, state.count), total)
        z, updates = _advance(penalty, params, state.z, grads, (before, after))
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, GroupAdagradState(count, total, z)

    return optax.GradientTransformation(init, update)


def _advance(
    penalty: SparseGroupLasso,
    params: optax.Params,
    z: optax.Updates,
    grads: optax.Updates,
    scales: tuple[optax.Updates, optax.Updates],
) -> tuple[optax.Updates, optax.Updates]:
    """Return z after this step, and the updates that lead to its solution."""
    before, after = scales

    def accumulate(z, g, d0, d1, x):
        return z + g - (d1 - d0) * x.astype(z.dtype)

    def step(z, d1, x):
        return (penalty.solve(z, d1) - x.astype(z.dtype)).astype(x.dtype)

    z = jax.tree.map(accumulate, z, grads, before, after, params)
    return z, jax.tree.map(step, z, after, params)


def _rate(
    learning_rate: optax.ScalarOrSchedule, count: Int[Array, ""]
) -> Float[Array, ""]:
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return jnp.asarray(rate, jnp.float32)


def _zeros(x: Array) -> Array:
    """Zeros for a state kept in at least float32."""
    return jnp.zeros_like(x, dtype=jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
