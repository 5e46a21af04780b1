"""Inputs and outputs of the training programs: state, micro-batches, sums."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Bool, Float, PyTree

from sgpo_jax import packing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything an update changes.

    Also the shape of a tree of shardings, hence the wide types.

    Attributes:
      params: parameters; only `models.trainable(params)` of them ever change.
      opt_state: state of the optimizer.
      step: updates done, skipped ones included.
      skipped: updates skipped in a row because something was not finite.
      log_z: the learnt log-normalizer of an objective that needs one, "params" and
        "opt_state"; {} for all others.
    """

    params: PyTree
    opt_state: PyTree
    step: Any
    skipped: Any
    log_z: PyTree = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> PyTree:
        """Parameters to differentiate: the policy, and "log_z" if there is one."""
        if not self.log_z:
            return self.params
        return {**self.params, "log_z": self.log_z["params"]}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Packed rows, and what the loss reads of each of their responses.

    What a method does not need is None: no array, no transfer, no program of its own.

    Attributes:
      packed: rows and gather indices.
      advantage: one per response slot, [R].
      reward: one per response slot, [R]; NaN in empty slots.
      token_weight: weight of each token of a response in the loss, [R].
      response_weight: share of a response in the loss's denominator, [R].
      old_log_prob: log pi_old of each token, [R, T]; ignored if `on_policy`.
      on_policy: True on the first update of a batch.
      sampler_log_prob: log-probability with which each token was drawn, [R, T].
      reference_log_prob: log-probability under the reference policy, [R, T].
      residual_mean: mean of the objective's residual over the group, [R].
    """

    packed: packing.Packed
    advantage: Float[Any, " R"]
    reward: Float[Any, " R"]
    token_weight: Float[Any, " R"]
    response_weight: Float[Any, " R"]
    old_log_prob: Float[Any, "R T"]
    on_policy: Bool[Any, ""]
    sampler_log_prob: Float[Any, "R T"] | None = None
    reference_log_prob: Float[Any, "R T"] | None = None
    residual_mean: Float[Any, " R"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Accumulated:
    """Sums over micro-batches; dividing by the weight gives the whole batch's mean.

    Attributes:
      grads: gradients of the total loss, as the trained parameters, in float32; with
        those of "log_z" if there is one.
      loss: a `Weighted`.
      metrics: a `Weighted` by name.
    """

    grads: PyTree
    loss: Any
    metrics: Any
