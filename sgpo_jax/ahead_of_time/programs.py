"""Every program of a run, lowered for a mesh of devices that need not exist."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from sgpo_jax import methods, models, packing, sampling, sharding, training
from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling import grid as grids
from sgpo_jax.sampling.slots import Items
from sgpo_jax.training.batch import micro_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One program, not yet traced.

    Attributes:
      name: what it does, and its bucket.
      lower: traces it.
      mesh: the devices it is for.
      resident_bytes: bytes per device that stay allocated besides its arguments.
    """

    name: str
    lower: Callable[[], jax.stages.Lowered]
    mesh: Mesh
    resident_bytes: int = 0


def device_bytes(tree: PyTree) -> int:
    """Return the bytes one device holds of arrays or of their shapes and shardings."""

    def one(leaf: Any) -> int:
        shape = leaf.sharding.shard_shape(leaf.shape)
        return int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize

    return sum(one(leaf) for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def compiling_for(mesh: Mesh) -> Iterator[None]:
    """Let kernels find out which chip they are compiled for."""
    with jax.set_mesh(mesh):
        yield


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A run's programs on one mesh.

    Attributes:
      decoder: shape of the policy.
      mesh: the devices.
      buckets: shapes of the training step.
      engine: the sampler, on the mesh of one host if there are several.
      method: the algorithm: loss and optimizer.
      rules: logical axes to mesh axes.
    """

    decoder: DecoderConfig
    mesh: Mesh
    buckets: packing.Buckets
    engine: sampling.Engine
    method: methods.Method = methods.Method()
    rules: sharding.Rules = sharding.Rules()

    @property
    def sampling_mesh(self) -> Mesh:
        """The devices of the sampler."""
        assert self.engine.mesh is not None
        return self.engine.mesh

    @functools.cached_property
    def step(self) -> training.TrainPrograms:
        """The programs of the step, with the kernel for TPUs."""
        return training.TrainPrograms(
            config=self.decoder,
            loss=self.method.loss,
            optimizer=self.method.optimizer.make(),
            mesh=self.mesh,
            rules=self.rules,
            attention="pallas",
        )

    def batch(self, shape: packing.Shape) -> training.MicroBatch:
        """Return a micro-batch of a bucket, of one short response."""
        group = packing.Group(prompt=[0], responses=[[0]], ids=[0])
        (packed,) = packing.pack([group], packing.Buckets((shape,)))
        one = np.ones(1, np.float32)
        batch = micro_batch(packed, advantage=one, weights=(one, one))
        per_token = np.zeros(packed.mask.shape, np.float32)
        per_response = np.zeros(len(batch.advantage), np.float32)
        optional = {
            name: per_response if axes == 1 else per_token
            for name, axes in methods.IN_BATCH.items()
            if name in {methods.INPUT_OF[need] for need in self.method.loss.needs}
        }
        return dataclasses.replace(batch, **optional)

    def state(self) -> training.TrainState:
        """Return the training state's shapes and shardings."""
        return self.step.abstract(self.batch(self.buckets.shapes[0]))[0]

    def step_jobs(self) -> list[Job]:
        """Return the programs of a step: gradients, scores, residuals; the update."""
        programs = self.step

        def accumulate(shape: packing.Shape) -> jax.stages.Lowered:
            state, total, batch = programs.abstract(self.batch(shape))
            return programs.accumulate.lower(state.weights, total, batch)

        def update() -> jax.stages.Lowered:
            state, total, _ = programs.abstract(self.batch(self.buckets.shapes[0]))
            return programs.update.lower(state, total)

        def score(shape: packing.Shape) -> jax.stages.Lowered:
            state, _, batch = programs.abstract(self.batch(shape))
            return programs.score.lower(state.params, batch.packed)

        def residual(shape: packing.Shape) -> jax.stages.Lowered:
            state, _, batch = programs.abstract(self.batch(shape))
            return programs.residual.lower(state.weights, batch)

        state = self.state()
        trained = device_bytes(models.trainable(state.params)[0])
        copies = trained * len(training.copy_names(self.method))
        beside = device_bytes(state) - device_bytes(state.params) + copies

        def of_shapes(
            name: str, lower: Callable[[packing.Shape], jax.stages.Lowered]
        ) -> list[Job]:
            return [
                Job(
                    name=f"{name} {shape.rows} x {shape.row_length}",
                    lower=functools.partial(lower, shape),
                    mesh=self.mesh,
                    resident_bytes=beside,
                )
                for shape in self.buckets.shapes
            ]

        jobs = of_shapes("gradients", accumulate)
        if {"reference", "drift"} & self.method.needs or self.method.minibatches > 1:
            jobs += of_shapes("log-probabilities", score)
        if "residual_mean" in self.method.needs:
            jobs += of_shapes("residuals", residual)
        return [
            *jobs,
            Job(name="update", lower=update, mesh=self.mesh, resident_bytes=copies),
        ]

    def sampler_jobs(self) -> list[Job]:
        """Return prefill and decode of every prompt bucket; training's state stays."""
        engine, programs = self.engine, self.engine.programs
        kept = device_bytes(self.state())
        jobs = []
        for bucket in engine.prompt_buckets:
            grid = engine.grid(bucket, engine.longest_response)

            def prefill(grid: grids.Grid = grid) -> jax.stages.Lowered:
                _, table = self._empty(grid)
                rows = engine.prefill_prompts * programs.shards
                width = engine.prefill_chunk or grid.prefix
                tokens = self._rows((rows, width), jnp.int32)
                number = jax.ShapeDtypeStruct((), jnp.int32)
                return programs.prefill.lower(
                    self.sampler_params(),
                    table,
                    tokens,
                    number,
                    number,
                    chunked=engine.prefill_chunk is not None,
                )

            def decode(grid: grids.Grid = grid) -> jax.stages.Lowered:
                state, table = self._empty(grid)
                word = jax.ShapeDtypeStruct((), jnp.uint32)
                return programs.decode.lower(
                    self.sampler_params(),
                    state,
                    self._queue(table),
                    grids.NoiseSeed._make((word, word)),
                    jax.tree.map(self._whole, programs.ending),
                    grid=grid,
                    strategy=sampling.Temperature(1.0),
                )

            for name, lower in (("prefill", prefill), ("decode", decode)):
                jobs.append(
                    Job(
                        name=f"{name} {bucket}",
                        lower=lower,
                        mesh=self.sampling_mesh,
                        resident_bytes=kept,
                    )
                )
        return jobs

    def sampler_params(self) -> PyTree:
        """Return the parameters as the sampler reads them: shapes and shardings."""
        placed = self.engine.programs.param_sharding
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            models.shapes(self.decoder),
            placed,
        )

    def _rows(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        spread = sharding.named(self.sampling_mesh, self.rules.rows)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

    def _whole(self, x: jax.Array) -> jax.ShapeDtypeStruct:
        """Return the shape of an array that every device holds."""
        whole = sharding.named(self.sampling_mesh)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)

    def caches(self) -> dict[str, PyTree]:
        """Return the sampler's key-value caches at its longest prompt."""
        engine = self.engine
        grid = engine.grid(engine.prompt_buckets[-1], engine.longest_response)
        state, table = self._empty(grid)
        return {
            "prefixes in lanes": state.prefixes,
            "own tokens of slots": state.ring,
            "prefixes encoded ahead": table,
        }

    def _empty(self, grid: grids.Grid) -> PyTree:
        """Return shapes and shardings of the sampler's state and prefix table."""
        start = self.engine.programs.start
        shapes = jax.eval_shape(lambda: start(grid, self.engine.staged))
        places = start.lower(grid, self.engine.staged).compile().output_shardings
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            places,
        )

    def _queue(self, table: PyTree) -> grids.Queue:
        shards = self.engine.programs.shards
        items = self._rows((shards * self.engine.staged,), jnp.int32)
        fields = dict.fromkeys(Items._fields, items)
        fields["key"] = self._rows(items.shape, jnp.uint32)
        each = self._rows((shards,), jnp.int32)
        more = self._rows((shards,), jnp.bool)
        return grids.Queue._make(
            (Items._make(fields.values()), table, each, each, more)
        )
