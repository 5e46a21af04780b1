"""Optimizers: AdamW, and Adam and Adagrad with a sparse group lasso."""

import dataclasses
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sgpo_jax import optimizers
from sgpo_jax.bounds import Decay, Natural, NonNegative, Positive, Rate, bounded


@runtime_checkable
class Optimizer(Protocol):
    """Builds an optax transformation from settings."""

    def make(self) -> optax.GradientTransformation:
        """Return the optax transformation, gradient clipping included."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class AdamW:
    """AdamW (arXiv:1711.05101) with gradient clipping and a step-size schedule.

    Attributes:
      learning_rate: step size after warm-up.
      warmup_steps: steps over which it grows from 0; 0 for none.
      decay_steps: steps, warm-up included, after which a cosine has taken the step
        size to a twentieth; 0 keeps it constant.
      clip_norm: largest global gradient norm.
      weight_decay: decoupled decay per unit of step size.
      b1: decay of the first moment.
      b2: decay of the second moment.
      state_dtype: dtype the moments are kept in; updates are computed in float32.
    """

    learning_rate: Rate = 1e-6
    warmup_steps: Natural = 0
    decay_steps: Natural = 0
    clip_norm: Positive = 1.0
    weight_decay: NonNegative = 0.0
    b1: Decay = 0.9
    b2: Decay = 0.95
    state_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.state_dtype == "bfloat16" and max(self.b1, self.b2) > 0.99:
            raise ValueError(
                f"moments that decay by b1={self.b1}, b2={self.b2} do not change in"
                " bfloat16, whose steps are 0.4 %: use at most 0.99, or float32"
            )
        if 0 < self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"decay_steps={self.decay_steps} must exceed"
                f" warmup_steps={self.warmup_steps}"
            )

    def make(self) -> optax.GradientTransformation:
        """Build the optax transformation."""
        adamw = optax.adamw(
            self._rate(), b1=self.b1, b2=self.b2, weight_decay=self.weight_decay
        )
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            _stored_in(jnp.dtype(self.state_dtype), adamw),
        )

    def _rate(self) -> optax.ScalarOrSchedule:
        peak, warmup = self.learning_rate, self.warmup_steps
        if not warmup and not self.decay_steps:
            return peak
        rise = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
        if not self.decay_steps:
            return rise
        fall = optax.cosine_decay_schedule(peak, self.decay_steps - warmup, alpha=0.05)
        return optax.join_schedules([rise, fall], [warmup])


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class GroupAdam:
    """Adam with a sparse group lasso (arXiv:2107.14432), gradients clipped.

    `optimizers.group_adam`. Rows of a matrix whose accumulated gradients stay small
    become exactly 0.

    Attributes:
      learning_rate: step size.
      clip_norm: largest global gradient norm.
      b1: decay of the first moment.
      b2: decay of the second moment.
      penalty: lasso on weights and on groups, and ridge.
    """

    learning_rate: Rate = 1e-6
    clip_norm: Positive = 1.0
    b1: Decay = 0.9
    b2: Decay = 0.999
    penalty: optimizers.SparseGroupLasso = optimizers.SparseGroupLasso()

    def make(self) -> optax.GradientTransformation:
        """Return the optax transformation."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optimizers.group_adam(
                self.learning_rate, self.penalty, b1=self.b1, b2=self.b2
            ),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class GroupAdagrad:
    """Adagrad with a sparse group lasso (arXiv:2107.14432), gradients clipped.

    Attributes:
      learning_rate: step size.
      clip_norm: largest global gradient norm.
      penalty: lasso on weights and on groups, and ridge.
    """

    learning_rate: Rate = 1e-3
    clip_norm: Positive = 1.0
    penalty: optimizers.SparseGroupLasso = optimizers.SparseGroupLasso()

    def make(self) -> optax.GradientTransformation:
        """Return the optax transformation."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optimizers.group_adagrad(self.learning_rate, self.penalty),
        )


def _stored_in(
    dtype: jnp.dtype, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Keep the state of `inner` in `dtype`; compute in float32."""

    def cast(tree: PyTree, to: jnp.dtype) -> PyTree:
        return jax.tree.map(
            lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )

    wide = jnp.dtype(jnp.float32)

    def init(params: PyTree) -> PyTree:
        return cast(inner.init(cast(params, wide)), dtype)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None):
        updates, state, params = (cast(x, wide) for x in (updates, state, params))
        updates, state = inner.update(updates, state, params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(init, update)
