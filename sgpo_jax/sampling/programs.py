"""The compiled programs of a sampler, on one device or on a mesh.

Lanes are split over the mesh axes of `rows`; `jax.shard_map` gives every shard a loop
of its own, which ends when its own work ends: no collective joins the shards. Heads
stay split over `tensor`, which the compiler handles.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from sgpo_jax import models, sharding
from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling import cache
from sgpo_jax.sampling.decode import decode
from sgpo_jax.sampling.ending import Ending
from sgpo_jax.sampling.grid import (
    Grid,
    NoiseSeed,
    Queue,
    State,
    TokenBuffer,
    empty_state,
)
from sgpo_jax.sampling.methods import DecodingStrategy
from sgpo_jax.sampling.prefill import prefill

# Logical axes of the programs' arrays; one tuple may stand for a whole subtree.
_ROWS = ("rows",)
_TABLE = (None, "rows", "kv_heads")
_LAYERS = ("rows", "kv_heads")
_STATE = State._make((_ROWS, _ROWS, _LAYERS, _LAYERS, _ROWS))
_QUEUE = Queue._make((_ROWS, _TABLE, _ROWS, _ROWS, _ROWS))
_BUFFER = TokenBuffer._make(
    ((None, "rows"), (None, "rows"), (None, None, "rows"), _ROWS, _ROWS)
)


def _is_axes(node: Any) -> bool:
    """Tell axis names from the tuples that hold them."""
    return type(node) is tuple and all(x is None or type(x) is str for x in node)


def _without_mesh(x: Any) -> Any:
    """Return an array of a mesh of one device as that device's own, not copied.

    The mesh is part of its type, and would be of the results of programs.
    """
    if isinstance(x, jax.Array) and len(x.sharding.device_set) == 1:
        return x.addressable_data(0)
    return x


@dataclasses.dataclass(frozen=True)
class SamplerPrograms:
    """Start, prefill and decode for one decoder; jitted, compiled once per shape.

    Attributes:
      config: shape of the decoder.
      ending: what ends a response.
      cache_dtype: how keys and values are stored.
      mesh: devices; None for the default one.
      rules: how logical axes map to the mesh. Parameters are kept whole over the axis
        of `embed`: a step reads all of them.
    """

    config: DecoderConfig
    ending: Ending
    cache_dtype: str
    mesh: Mesh | None
    rules: sharding.Rules

    @property
    def shards(self) -> int:
        """Over how many shards lanes are split."""
        return 1 if self.mesh is None else sharding.rows_shards(self.mesh, self.rules)

    @property
    def platform(self) -> str:
        """Platform of the programs: "cpu", "gpu" or "tpu"."""
        if self.mesh is None:
            return jax.default_backend()
        return self.mesh.devices.flat[0].platform

    @functools.cached_property
    def _device(self) -> jax.sharding.Sharding:
        """The default device, given by name: what a program returns is bound to one.

        Inputs that are not would be compiled for again when they come back.
        """
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def compiles(self) -> int:
        """Return how many prefill and decode programs have been compiled so far."""
        return self.prefill._cache_size() + self.decode._cache_size()

    @functools.cached_property
    def param_sharding(self) -> PyTree[NamedSharding] | None:
        """Shardings of the parameters for sampling; None without a mesh."""
        if self.mesh is None:
            return None
        rules = dataclasses.replace(self.rules, embed=None)
        axes = models.logical_axes(self.config)
        shapes = models.shapes(self.config)
        return sharding.tree_shardings(axes, shapes, rules, self.mesh)

    def place(self, params: models.Params) -> models.Params:
        """Bring parameters to where the programs read them."""
        if self.mesh is None:
            return jax.device_put(jax.tree.map(_without_mesh, params), self._device)
        return jax.device_put(params, self.param_sharding)

    @functools.cached_property
    def placed_ending(self) -> Ending:
        """`ending`, where the decode program reads it."""
        if self.mesh is None:
            return self.ending
        return jax.device_put(self.ending, sharding.named(self.mesh))

    def put(self, values: PyTree) -> PyTree[Array]:
        """Bring arrays whose first axis is `D` or lanes to their shards."""
        if self.mesh is None:
            return jax.device_put(values, self._device)
        return jax.device_put(values, sharding.named(self.mesh, self.rules.rows))

    @functools.cached_property
    def start(self) -> jax.stages.Wrapped:
        """`(grid, staged) -> (state, table)`, both empty; `staged` rows per shard."""

        def start(grid: Grid, staged: int) -> tuple[State, cache.Cache]:
            rows = staged * self.shards
            return (
                empty_state(
                    self.config, grid, dtype=self.cache_dtype, shards=self.shards
                ),
                cache.empty_table(self.config, self.cache_dtype, rows, grid.prefix),
            )

        out = self._shardings((_STATE, _TABLE)) or self._device
        return jax.jit(start, static_argnums=(0, 1), out_shardings=out)

    @functools.cached_property
    def prefill(self) -> Any:
        """`(params, table, tokens, first_row, start, chunked=) -> table`."""

        def run(
            params: models.Params,
            table: cache.Cache,
            tokens: Int[Array, "M J"],
            first_row: Int[Array, ""],
            start: Int[Array, ""],
            chunked: bool,
        ) -> cache.Cache:
            inner = functools.partial(prefill, config=self.config, chunked=chunked)
            inner = self._per_shard(inner, ((), _TABLE, _ROWS, (), ()), _TABLE)
            return inner(params, table, tokens, first_row, start)

        return jax.jit(
            run,
            static_argnames="chunked",
            donate_argnums=1,
            out_shardings=self._shardings(_TABLE),
        )

    @functools.cached_property
    def decode(self) -> Any:
        """`(params, state, queue, noise, ending, grid, strategy) -> state, buffer`."""

        def run(
            params: models.Params,
            state: State,
            queue: Queue,
            noise: NoiseSeed,
            ending: Ending,
            grid: Grid,
            strategy: DecodingStrategy,
        ) -> tuple[State, TokenBuffer]:
            inner = functools.partial(
                decode,
                config=self.config,
                grid=grid,
                strategy=strategy,
            )
            axes = ((), _STATE, _QUEUE, (), ())
            inner = self._per_shard(inner, axes, (_STATE, _BUFFER))
            if self.platform == "cpu":
                # There, what a product reads is copied if it is part of an array: once
                # here, at every step in the loop. For TPUs the compiler moves the cuts
                # out of the loop itself, into the cast, and needs less memory so.
                params = models.unstack(params, self.config)
            return inner(params, state, queue, noise, ending)

        out = self._shardings((_STATE, _BUFFER))
        return jax.jit(
            run,
            static_argnames=("grid", "strategy"),
            donate_argnums=1,
            out_shardings=out,
        )

    def _shardings(self, axes: PyTree) -> PyTree[NamedSharding] | None:
        """Return where arrays lie; None without a mesh."""
        mesh, rules = self.mesh, self.rules
        if mesh is None:
            return None
        tensor = rules.kv_heads
        if tensor and self.config.num_kv_heads % mesh.shape[tensor]:
            # As parameters do, caches stay whole where heads cannot be divided.
            rules = dataclasses.replace(rules, kv_heads=None)
        return jax.tree.map(
            lambda names: NamedSharding(mesh, rules.spec(names)), axes, is_leaf=_is_axes
        )

    def _per_shard(self, function: Callable, inside: PyTree, outside: PyTree):
        """Run `function` once per shard of lanes."""
        rows = self.rules.rows
        if self.mesh is None or rows is None:
            return function

        def specs(axes: PyTree) -> PyTree[PartitionSpec]:
            return jax.tree.map(
                lambda names: PartitionSpec(
                    *[rows if n == "rows" else None for n in names]
                ),
                axes,
                is_leaf=_is_axes,
            )

        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=specs(inside),
            out_specs=specs(outside),
            axis_names={rows} if isinstance(rows, str) else set(rows),
            # A shard's loop has a length of its own, which the check cannot follow.
            check_vma=False,
        )
