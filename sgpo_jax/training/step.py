"""The jitted programs of training: accumulate a micro-batch, update the parameters."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from sgpo_jax import losses, methods, models, packing, sharding
from sgpo_jax.kernels.shared_prefix_attention import Implementation
from sgpo_jax.training import heads, scores
from sgpo_jax.training.state import Accumulated, MicroBatch, TrainState
from sgpo_jax.types import Weighted


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPrograms:
    """Compiled on first use: once per shape for `accumulate`, once for `update`.

    Attributes:
      config: shape of the policy.
      loss: loss per token: objective, correction, KL penalty, entropy bonus.
      optimizer: from gradients to updates.
      temperature: of sampling; log-probabilities are taken at the same.
      mesh: devices to run on; None for one.
      rules: logical axes to mesh axes.
      attention: implementation of attention; None for the platform's own.
    """

    config: models.DecoderConfig
    loss: methods.TokenLoss
    optimizer: optax.GradientTransformation
    temperature: float = 1.0
    mesh: Mesh | None = None
    rules: sharding.Rules = sharding.Rules()
    attention: Implementation | None = None

    @functools.cached_property
    def _devices(self) -> Mesh:
        """The mesh given, or one of a single device."""
        if self.mesh is not None:
            return self.mesh
        return sharding.make_mesh(sharding.MeshShape(), jax.devices()[:1])

    @functools.cached_property
    def _whole(self) -> NamedSharding:
        return NamedSharding(self._devices, PartitionSpec())

    @functools.cached_property
    def _param_sharding(self) -> PyTree:
        axes, shapes = models.logical_axes(self.config), models.shapes(self.config)
        return sharding.tree_shardings(axes, shapes, self.rules, self._devices)

    @functools.cached_property
    def _trained_sharding(self) -> PyTree:
        return models.trainable(self._param_sharding)[0]

    @functools.cached_property
    def _head(self) -> methods.LogZ | None:
        return heads.head_of(self.loss)

    @functools.cached_property
    def _head_sharding(self) -> PyTree:
        if self._head is None:
            return {}
        width = self.config.embed_dim
        return heads.shardings(self._head, width, self.rules, self._devices)

    def _start_head(self) -> PyTree:
        if self._head is None:
            return {}
        return heads.start(self._head, self.config.embed_dim)

    @functools.cached_property
    def _state_sharding(self) -> TrainState:
        """Optimizer moments are split as their parameters."""
        trained, _ = models.trainable(models.shapes(self.config))
        opt_state = optax.tree.map_params(
            self.optimizer,
            lambda _, s: s,
            jax.eval_shape(self.optimizer.init, trained),
            self._trained_sharding,
            transform_non_params=lambda _: self._whole,
        )
        return TrainState(
            params=self._param_sharding,
            opt_state=opt_state,
            step=self._whole,
            skipped=self._whole,
            log_z=self._head_sharding,
        )

    @functools.cached_property
    def _accumulated_sharding(self) -> Accumulated:
        none = Weighted(self._whole, self._whole)
        own = self._head_sharding
        head = {heads.NAME: own["params"]} if own else {}
        return Accumulated(
            grads={**self._trained_sharding, **head},
            loss=none,
            metrics=dict.fromkeys(self._metric_names(), none),
        )

    @functools.cached_property
    def _rows(self) -> NamedSharding:
        return NamedSharding(self._devices, self.rules.spec(("rows",)))

    def init(self, params: models.Params) -> TrainState:
        """Return the state before the first update."""
        target = self._state_sharding
        params = jax.tree.map(jnp.copy, params)  # updates donate it
        params = jax.tree.map(sharding.put, params, target.params)
        init = jax.jit(self.optimizer.init, out_shardings=target.opt_state)
        return TrainState(
            params=params,
            opt_state=init(models.trainable(params)[0]),
            step=sharding.put(np.zeros((), np.int32), self._whole),
            skipped=sharding.put(np.zeros((), np.int32), self._whole),
            log_z=jax.jit(self._start_head, out_shardings=target.log_z)(),
        )

    def put(self, batch: Any) -> Any:
        """Send a micro-batch, or its rows alone, to the devices, split by the rules."""
        return jax.tree.map(
            lambda x: sharding.put(x, self._rows if np.ndim(x) else self._whole),
            batch,
        )

    def abstract(self, batch: MicroBatch) -> tuple[TrainState, Accumulated, MicroBatch]:
        """Return shapes and shardings of what the programs take; allocates nothing."""
        params = models.shapes(self.config)
        trained, _ = models.trainable(params)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        state = TrainState(
            params=params,
            opt_state=jax.eval_shape(self.optimizer.init, trained),
            step=count,
            skipped=count,
            log_z=jax.eval_shape(self._start_head),
        )

        def place(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)

        total = jax.eval_shape(self.zeros, params)
        return (
            jax.tree.map(place, state, self._state_sharding),
            jax.tree.map(place, total, self._accumulated_sharding),
            jax.tree.map(
                lambda x: place(x, self._rows if np.ndim(x) else self._whole), batch
            ),
        )

    @functools.cached_property
    def zeros(self) -> Any:
        """Program: params -> empty accumulator, gradients split as the params."""

        def zeros(params: models.Params) -> Accumulated:
            none = Weighted(jnp.zeros(()), jnp.zeros(()))
            trained, _ = models.trainable(params)
            if self._head is not None:
                shapes = jax.eval_shape(self._start_head)
                trained = {**trained, heads.NAME: shapes["params"]}
            return Accumulated(
                # Sums over micro-batches would lose what is below a bfloat16's steps.
                grads=jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), trained),
                loss=none,
                metrics={name: none for name in self._metric_names()},
            )

        return jax.jit(zeros, out_shardings=self._accumulated_sharding)

    @functools.cached_property
    def accumulate(self) -> Any:
        """Program: (weights, accumulated, micro-batch) -> (accumulated, [R, T])."""
        # Outputs come back exactly as they went in, or they would be a new kind of
        # input at the next call, and compiled for again.
        target = (self._accumulated_sharding, self._rows)
        return jax.jit(self._accumulate, donate_argnums=1, out_shardings=target)

    @functools.cached_property
    def score(self) -> Any:
        """Program: (params, packed) -> log-probability of each response token, [R, T].

        The forward pass alone: reference log-probabilities, and those of rollouts
        before a later update.
        """

        def score(params: models.Params, packed: packing.Packed) -> Array:
            return self._scored(params, packed)[0].log_prob

        return jax.jit(score, out_shardings=self._rows)

    @functools.cached_property
    def residual(self) -> Any:
        """Program: (weights, micro-batch) -> residual of the objective, [R]."""

        def residual(params: models.Params, batch: MicroBatch) -> Array:
            responses = self._responses(params, batch)
            own = responses.restricted(methods.needs_of(self.loss.objective))
            return self.loss.objective.residual(own)  # pyright: ignore[reportAttributeAccessIssue] asked for by those that have it

        return jax.jit(residual, out_shardings=self._rows)

    @functools.cached_property
    def update(self) -> Any:
        """Program: (state, accumulated) -> (state, metrics)."""
        target = (self._state_sharding, self._whole)
        return jax.jit(self._update, donate_argnums=0, out_shardings=target)

    def compiles(self) -> int:
        """Return how many programs have been compiled so far."""
        programs = (self.accumulate, self.update, self.score, self.residual)
        return sum(program._cache_size() for program in programs)

    def _scored(
        self, params: models.Params, packed: packing.Packed
    ) -> tuple[losses.TokenLogProbs, Float[Array, "N M D"]]:
        return scores.scored(
            params,
            self.config,
            packed,
            temperature=self.temperature,
            mesh=self.mesh,
            rules=self.rules,
            implementation=self.attention,
        )

    def _responses(self, params: models.Params, batch: MicroBatch) -> methods.Responses:
        batch = jax.tree.map(jnp.asarray, batch)
        policy = {name: x for name, x in params.items() if name != heads.NAME}
        scored, predictors = self._scored(policy, batch.packed)
        # On the first update pi_old is pi: the ratio is exactly 1 at any temperature,
        # whatever the sampler's rounding, and costs no forward pass.
        now = jax.lax.stop_gradient(scored.log_prob)
        old = jnp.where(batch.on_policy, now, batch.old_log_prob)
        optional = {
            "sampler_log_prob": batch.sampler_log_prob,
            "reference_log_prob": batch.reference_log_prob,
            "residual_mean": batch.residual_mean,
        }
        if self._head is not None:
            hidden = heads.prompt_hidden(predictors, batch.packed)
            optional["log_z"] = self._head(params[heads.NAME], hidden)
        return methods.Responses(
            log_prob=scored.log_prob,
            log_ratio=losses.log_ratio(scored.log_prob, old, batch.packed.mask),
            advantage=batch.advantage,
            reward=batch.reward,
            mask=batch.packed.mask,
            entropy=scored.entropy,
            optional={name: x for name, x in optional.items() if x is not None},
        )

    def _metric_names(self) -> list[str]:
        return methods.metric_names(self.loss)

    def _accumulate(
        self, params: models.Params, total: Accumulated, batch: MicroBatch
    ) -> tuple[Accumulated, Float[Array, "R T"]]:
        mask = jnp.asarray(batch.packed.mask)
        policy = {name: x for name, x in params.items() if name != heads.NAME}
        trained, frozen = models.trainable(policy)
        if self._head is not None:
            trained = {**trained, heads.NAME: params[heads.NAME]}

        def loss(trained: models.Params):
            responses = self._responses({**trained, **frozen}, batch)
            weights = losses.ResponseWeights(
                jnp.asarray(batch.token_weight), jnp.asarray(batch.response_weight)
            )
            per_token, logged = self.loss(responses)
            value = losses.weighted_sum(per_token, mask, weights)
            metrics = {name: losses.aggregate(x, mask) for name, x in logged.items()}
            return value.total, (value, metrics, responses.log_prob)

        grads, (value, metrics, log_prob) = jax.grad(loss, has_aux=True)(trained)
        grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        total = Accumulated(
            grads=jax.tree.map(jnp.add, total.grads, grads),
            loss=total.loss + value,
            metrics={name: total.metrics[name] + metrics[name] for name in metrics},
        )
        return total, log_prob

    def _update(
        self, state: TrainState, total: Accumulated
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        weight = jnp.maximum(total.loss.weight, jnp.finfo(jnp.float32).tiny)
        grads = jax.tree.map(lambda g: g / weight, total.grads)
        finite = jnp.isfinite(optax.tree.norm(grads)) & jnp.isfinite(total.loss.total)
        own = grads.pop(heads.NAME, None)
        norm = optax.tree.norm(grads)
        # Nothing counted, nothing learned: moments must not decay on empty batches.
        apply = finite & (total.loss.weight > 0)
        trained, frozen = models.trainable(state.params)
        # optax mixes Python, integer and float scalars.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = self.optimizer.update(grads, state.opt_state, trained)
            params = optax.apply_updates(trained, updates)

        def keep(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda n, o: jnp.where(apply, n, o), new, old)

        log_z = state.log_z
        if self._head is not None:
            log_z = keep(heads.updated(self._head, log_z, own), log_z)
        state = TrainState(
            params={**keep(params, trained), **frozen},
            opt_state=keep(opt_state, state.opt_state),
            step=state.step + 1,
            skipped=jnp.where(finite, 0, state.skipped + 1),
            log_z=log_z,
        )
        metrics = {name: value.mean() for name, value in total.metrics.items()}
        metrics |= {"loss": total.loss.mean(), "grad_norm": norm}
        metrics |= {"skipped": state.skipped.astype(jnp.float32)}
        return state, metrics


def apply_batch(
    programs: TrainPrograms,
    state: TrainState,
    batches: Sequence[MicroBatch],
    *,
    on_compile: Callable[[], object] = lambda: None,
) -> tuple[TrainState, dict[str, Array], list[Array]]:
    """Accumulate over micro-batches, then update once.

    Equals one update on the whole batch. Nothing is read back to the host here.
    `on_compile` is called after a micro-batch whose program had to be compiled; what it
    raises leaves the state as it was.

    Returns:
      The new state, metrics as device scalars, and log-probabilities [R, T] of each
      micro-batch under the parameters before the update.
    """
    total = programs.zeros(state.params)
    scored = []
    for batch in batches:
        compiled = programs.compiles()
        total, log_prob = programs.accumulate(state.weights, total, programs.put(batch))
        scored.append(log_prob)
        if programs.compiles() > compiled:
            on_compile()
    state, metrics = programs.update(state, total)
    return state, metrics, scored
