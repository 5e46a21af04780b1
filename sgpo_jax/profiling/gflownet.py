"""Sets of queries drawn in proportion to their information, by a flow network."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgpo_jax.bounds import Count, Decay, Rate, Size, Temperature, bounded
from sgpo_jax.profiling.batches import LogitModel, Rows

FEATURES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class BatchFlow:
    r"""Generative flow network over sets of queries (BatchGFN, arXiv:2306.15058).

    A set is built one query at a time; the policy is trained by trajectory balance so
    that sets come with probability

    .. math:: P(S) \propto e^{I(S) / T}, \qquad
              \big(\log Z + \sum_t \log P_F(q_t \mid S_{t-1}) + \log B!
                   - I(S) / T\big)^2 \to 0

    with the joint mutual information I of `LogitModel.information`. The policy scores
    each candidate by a small network on what is known of it given the set: its
    information gain, its variance left, how much it shares with the pool.

    Attributes:
      temperature: T, in nats.
      steps: updates.
      trajectories: sets per update.
      width: of the hidden layer.
      learning_rate: of Adam; log Z has ten times that.
      explore: share of actions drawn uniformly while training.
      draws: sets drawn at the end, of which the most informative is taken.
    """

    temperature: Temperature = 0.2
    steps: Count = 300
    trajectories: Size = 64
    width: Size = 32
    learning_rate: Rate = 3e-3
    explore: Decay = 0.05
    draws: Size = 16

    def __call__(self, model: LogitModel, size: int, *, seed: int) -> Rows:
        """Return the most informative of some sets drawn from the trained flow."""
        flow = self.train(model, size, seed=seed)
        sets, information = self.draw(flow, model, size, self.draws, seed=seed + 1)
        return sets[information.argmax()]

    def train(self, model: LogitModel, size: int, *, seed: int) -> "Flow":
        """Return the trained network and the loss of each update."""
        if not 1 <= size <= len(model.mean):
            raise ValueError(
                f"a set must have 1 to {len(model.mean)} queries, got {size}"
            )
        key = jax.random.key(seed)
        params = _init(jax.random.fold_in(key, 0), self.width)
        params["log_z"] = jnp.zeros((), jnp.float32)
        return _train(self, _Pool.of(model), size, params, jax.random.fold_in(key, 1))

    def draw(
        self, flow: "Flow", model: LogitModel, size: int, count: int, *, seed: int
    ) -> tuple[Int[np.ndarray, "N B"], Float[np.ndarray, " N"]]:
        """Return sets drawn from a flow, and their information."""
        pool, key = _Pool.of(model), jax.random.key(seed)
        found = _draw(flow.params, pool, size, count, self.temperature, key)
        return np.asarray(found.rows, np.int64), np.asarray(found.information)


class Flow(NamedTuple):
    """A trained network.

    Attributes:
      params: of the network.
      losses: trajectory-balance loss of each update.
    """

    params: Any
    losses: Float[Array, " S"]


class _Pool(NamedTuple):
    covariance: Float[Array, "Q Q"]
    noise: Float[Array, " Q"]
    shared: Float[Array, " Q"]

    @classmethod
    def of(cls, model: LogitModel) -> "_Pool":
        std = np.sqrt(np.diag(model.covariance))
        correlation = model.covariance / std[:, None] / std[None]
        arrays = (model.covariance, model.noise, (correlation**2).mean(1))
        return cls(*(jnp.asarray(x, jnp.float32) for x in arrays))


class _Drawn(NamedTuple):
    rows: Int[Array, "N B"]
    log_forward: Float[Array, " N"]
    information: Float[Array, " N"]


def _init(key: PRNGKeyArray, width: int) -> dict[str, Array]:
    first = jax.random.normal(key, (FEATURES, width)) / math.sqrt(FEATURES)
    return {
        "first": first,
        "bias": jnp.zeros(width),
        # At first the policy is softmax of the gain.
        "last": jnp.zeros(width),
        "gain": jnp.ones(()),
    }


def _sets(
    params: Any, pool: _Pool, size: int, temperature: float, explore: float, keys: Array
) -> _Drawn:
    """Draw one set for each key; differentiable in the log-probabilities."""
    return jax.vmap(lambda key: _set(params, pool, size, temperature, explore, key))(
        keys
    )


def _set(
    params: Any,
    pool: _Pool,
    size: int,
    temperature: float,
    explore: float,
    key: PRNGKeyArray,
) -> _Drawn:
    count = pool.noise.shape[0]

    def add(carry, inputs):
        variance, factors, free, key = carry
        (place,) = inputs
        gain = jnp.log1p(variance / pool.noise) / 2
        features = jnp.stack(
            [
                gain,
                jnp.log(variance + 1e-6),
                jnp.log(pool.noise),
                pool.shared,
                jnp.full(count, place / size, jnp.float32),
            ],
            axis=-1,
        )
        hidden = jax.nn.gelu(features @ params["first"] + params["bias"][None])
        score = params["gain"] * gain / temperature + hidden @ params["last"]
        score = jnp.where(free, score, -jnp.inf)
        log_p = jax.nn.log_softmax(score)
        key, own, mix = jax.random.split(key, 3)
        uniform = jnp.where(free, 0.0, -jnp.inf)
        chosen = jax.random.bernoulli(mix, explore)
        row = jax.random.categorical(own, jnp.where(chosen, uniform, log_p))
        column = pool.covariance[row] - factors[:, row] @ factors
        factor = column / jnp.sqrt(variance[row] + pool.noise[row])
        factors = factors.at[place.astype(jnp.int32)].set(factor)
        left = jnp.maximum(variance - factor**2, 0.0)
        state = (left, factors, free.at[row].set(False), key)
        return state, (row, log_p[row], gain[row])

    start = (
        jnp.diag(pool.covariance),
        jnp.zeros((size, count), jnp.float32),
        jnp.ones(count, bool),
        key,
    )
    places = jnp.arange(size, dtype=jnp.float32)
    _, (rows, log_p, gains) = jax.lax.scan(add, start, (places,))
    return _Drawn(rows, log_p.sum(), gains.sum())


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _draw(
    params: Any,
    pool: _Pool,
    size: int,
    count: int,
    temperature: float,
    key: PRNGKeyArray,
) -> _Drawn:
    return _sets(params, pool, size, temperature, 0.0, jax.random.split(key, count))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _train(
    c: BatchFlow, pool: _Pool, size: int, params: Any, key: PRNGKeyArray
) -> Flow:
    optimizer = optax.multi_transform(
        {
            "net": optax.adam(c.learning_rate),
            "log_z": optax.adam(10 * c.learning_rate),
        },
        {name: "log_z" if name == "log_z" else "net" for name in params},
    )
    # A set of B queries is reached in B! orders, all equally likely backwards.
    orders = math.lgamma(size + 1)

    def loss(params: Any, keys: Array) -> Array:
        found = _sets(params, pool, size, c.temperature, c.explore, keys)
        reward = found.information / c.temperature
        residual = params["log_z"] + found.log_forward + orders - reward
        return (residual**2).mean()

    def update(carry, step):
        params, state = carry
        keys = jax.random.split(jax.random.fold_in(key, step), c.trajectories)
        value, gradient = jax.value_and_grad(loss)(params, keys)
        # optax multiplies integers with floats.
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), value

    # log Z begins where the residual of the first sets is 0 on average.
    first = _sets(params, pool, size, c.temperature, 0.0, jax.random.split(key, 64))
    start = (first.information / c.temperature - first.log_forward - orders).mean()
    params = {**params, "log_z": start}
    steps = jnp.arange(c.steps, dtype=jnp.int32)
    (params, _), losses = jax.lax.scan(update, (params, optimizer.init(params)), steps)
    return Flow(params, losses)
