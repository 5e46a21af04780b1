"""Programs of a policy: sampler, buckets and training steps sized for its prompts."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sgpo_jax import (
    fleet,
    methods,
    models,
    packing,
    rewards,
    sampling,
    sharding,
    training,
)
from sgpo_jax.config import CACHE, PackConfig, RewardConfig, SamplerConfig
from sgpo_jax.data import Query
from sgpo_jax.hosts import ProcessGroup, SingleProcess
from sgpo_jax.rollouts import DistributedRollouts, RolloutGenerator, ServerRollouts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """Compiled programs of a policy, shared by profiling, training and evaluation.

    Everything is made when it is first used, and once.

    Attributes:
      decoder: shape of the policy.
      tokenizer: of the policy.
      worker: scores completions.
      sampler: how completions are sampled.
      pack: static shapes of packed rows.
      longest_prompt: longest prompt in tokens.
      seed: root of all noise.
      mesh_shape: devices along each axis of the mesh.
      hosts: the processes of the run.
      published: the published `config.json` of the policy, for weights that inference
        servers are given; empty for a random one.
    """

    decoder: models.DecoderConfig
    tokenizer: models.Tokenizer
    worker: rewards.Worker
    sampler: SamplerConfig
    pack: PackConfig
    longest_prompt: int
    seed: int = 0
    mesh_shape: sharding.MeshShape = sharding.MeshShape()
    hosts: ProcessGroup = SingleProcess()
    published: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh over all devices."""
        return sharding.make_mesh(self.mesh_shape, jax.devices())

    @functools.cached_property
    def abstract_params(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of the parameters; nothing is allocated."""
        return jax.tree.map(
            lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to),
            models.shapes(self.decoder),
            models.shardings(self.decoder, self.mesh),
        )

    @functools.cached_property
    def sampling_mesh(self) -> jax.sharding.Mesh:
        """The mesh that sampling runs on: all devices, or this process's own of many.

        Of a process's devices, as many hold a split copy of the policy as `tensor` and
        their number allow; sampling needs no other process.
        """
        if self.hosts.count == 1:
            return self.mesh
        devices = jax.local_devices()
        shape = self.mesh_shape.of_one_host(len(devices))
        return sharding.make_mesh(shape, devices)

    def to_sampling_mesh(self, params: models.Params) -> models.Params:
        """Copy parameters of the global mesh to `sampling_mesh`; a collective."""
        devices = np.array(jax.devices()).reshape(
            self.hosts.count, *self.sampling_mesh.devices.shape
        )
        everywhere = jax.sharding.Mesh(devices, ("host", *sharding.MESH_AXES))
        rules = dataclasses.replace(sharding.Rules(), embed=None)
        axes, shapes = models.logical_axes(self.decoder), models.shapes(self.decoder)
        far = sharding.tree_shardings(axes, shapes, rules, everywhere)
        near = sharding.tree_shardings(axes, shapes, rules, self.sampling_mesh)

        def mine(x: jax.Array, near: jax.sharding.NamedSharding) -> jax.Array:
            shards = [shard.data for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape, near, shards)

        return jax.tree.map(mine, jax.tree.map(sharding.put, params, far), near)

    @functools.cached_property
    def engine(self) -> sampling.Engine:
        """The sampler."""
        mesh, c = self.sampling_mesh, self.sampler
        engine = _engine(
            c,
            self.decoder,
            longest_prompt=self.longest_prompt,
            stop_tokens=self.tokenizer.stop_ids,
            shards=sharding.rows_shards(mesh, sharding.Rules()),
            hosts=self.hosts.count,
            mesh=mesh if mesh.size > 1 else None,
        )
        if not (c.stop or c.thinking):
            return engine
        return dataclasses.replace(
            engine,
            stop_strings=stop_strings(c.stop, self.tokenizer, keep=c.keep_stop),
            end_of_thinking=ending_tokens(c, self.tokenizer),
        )

    @property
    def rollouts(self) -> RolloutGenerator | DistributedRollouts | ServerRollouts:
        """Sampler, tokenizer and verifiers in one, for any parameters."""
        if not self.sampler.refreshed:
            return self.local_rollouts
        return self._served.replace(complete=False)

    @property
    def initial_rollouts(
        self,
    ) -> RolloutGenerator | DistributedRollouts | ServerRollouts:
        """The same, for the initial policy, which servers have without a refresh."""
        return self._served if self.sampler.server else self.local_rollouts

    @functools.cached_property
    def _served(self) -> ServerRollouts:
        """Rollouts of inference servers."""
        server = fleet.client(self.sampler, self.tokenizer)
        policy = models.Policy(
            config=self.decoder,
            tokenizer=self.tokenizer,
            identity="",
            reader=lambda mesh: {},  # parameters are given with each call
            published=self.published,
        )
        return ServerRollouts(
            server=server,
            worker=self.worker,
            seed=self.seed,
            temperature=self.sampler.temperature,
            config=self.decoder,
            weights=fleet.weights(self.sampler, server, policy),
            poll=self.hosts.poll,
        )

    @functools.cached_property
    def local_rollouts(self) -> RolloutGenerator | DistributedRollouts:
        """Rollouts of this process's own sampler, or of all processes'."""
        local = RolloutGenerator(
            engine=self.engine,
            config=self.decoder,
            tokenizer=self.tokenizer,
            worker=self.worker,
            seed=self.seed,
            temperature=self.sampler.temperature,
            thinking=self.sampler.thinking or None,
            poll=self.hosts.poll,
        )
        if self.hosts.count == 1:
            return local
        return DistributedRollouts(
            local=local, hosts=self.hosts, place=self.to_sampling_mesh
        )

    def reference_scorer(self, queries: Sequence[Query]) -> training.ReferenceScorer:
        """Exact success rates of questions, at the sampler's temperature.

        Raises:
          ValueError: if their success is not the probability of the reference.
        """
        return training.ReferenceScorer(
            queries=queries,
            config=self.decoder,
            tokenizer=self.tokenizer,
            buckets=self.buckets,
            max_response=self.sampler.max_response,
            temperature=self.sampler.temperature,
            mesh=self.mesh if self.mesh.size > 1 else None,
        )

    @functools.cached_property
    def buckets(self) -> packing.Buckets:
        """Shapes of the training step."""
        shards = sharding.rows_shards(self.mesh, sharding.Rules())
        return make_buckets(
            self.pack,
            self.sampler,
            longest_prompt=self.longest_prompt,
            shards=shards,
        )

    def programs(
        self, loss: methods.TokenLoss, optimizer: methods.Optimizer
    ) -> training.TrainPrograms:
        """Return the programs of training; sessions that are alike share them."""
        return _programs(
            self.decoder, loss, optimizer, self.sampler.temperature, self.mesh
        )


def make_worker(
    config: RewardConfig, poll: Callable[[], None] = lambda: None
) -> rewards.Worker:
    """Return the pool of scorers that a configuration describes.

    Raises:
      ValueError: if a limit is impossible.
    """
    worker = rewards.Worker(
        deadline=config.deadline,
        batch_deadline=config.batch_deadline,
        memory_gib=config.memory_gib,
        workers=config.workers,
        isolate=config.isolate,
        environment=config.environment,
        poll=poll,
    )
    worker.judge(solved_at=config.solved_at, cross_check=config.cross_check)
    return worker


def cache_programs(folder: str = CACHE) -> None:
    """Keep compiled programs between processes, unless the user has a cache already.

    A variable `JAX_COMPILATION_CACHE_DIR` and a folder that was given to jax win.

    Args:
      folder: the user's cache folder; empty for none.
    """
    # An empty variable says that there shall be none.
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    given = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue] made when jax is imported
    if folder and chosen is None and not given:
        path = pathlib.Path(folder).expanduser() / "programs"
        jax.config.update("jax_compilation_cache_dir", str(path))


def forget_programs() -> None:
    """Drop the compiled programs that sessions of this process share."""
    _engine.cache_clear()
    _programs.cache_clear()


def make_buckets(
    pack: PackConfig, sampler: SamplerConfig, *, longest_prompt: int, shards: int
) -> packing.Buckets:
    """Return the shapes of the training step, rows a multiple of the shards."""
    response = sampler.max_response
    longest = math.ceil((longest_prompt + response) / 128) * 128
    return packing.make_buckets(
        row_lengths=[max(pack.row_length, longest)],
        rows=sorted({-(-rows // shards) * shards for rows in pack.rows}),
        response_length=response,
        shortest_response=pack.shortest_response,
    )


def make_engine(
    config: SamplerConfig,
    decoder: models.DecoderConfig,
    *,
    longest_prompt: int,
    stop_tokens: tuple[int, ...],
    shards: int,
    hosts: int,
    mesh: jax.sharding.Mesh | None,
) -> sampling.Engine:
    """Return the sampler of one host: its share of the lanes, over its shards.

    Few lanes encode few prompts at a time, and stage at most 16 prompts for each: what
    is encoded or staged beyond the prompts there are is wasted.
    """
    lanes = -(-config.lanes // (hosts * shards))
    block = min(PREFILL, lanes)
    return sampling.Engine(
        decoder,
        lanes=lanes * shards,
        prefill_prompts=block,
        staged=block * min(16, STAGED // block),
        slots=config.slots,
        max_prompt=prompt_buckets(longest_prompt),
        max_response=config.max_response,
        stop_tokens=stop_tokens,
        order=ORDERS[config.order],
        mesh=mesh,
    )


PREFILL = 32
"""Most prompts that one run of the prefill program encodes, per shard."""
STAGED = 256
"""Most prompts encoded ahead of the decode loop, per shard."""

# Compiled programs outlive their session: a second trainer of these shapes has them.
_engine = functools.lru_cache(maxsize=16)(make_engine)


@functools.lru_cache(maxsize=32)
def _programs(
    decoder: models.DecoderConfig,
    loss: methods.TokenLoss,
    optimizer: methods.Optimizer,
    temperature: float,
    mesh: jax.sharding.Mesh,
) -> training.TrainPrograms:
    return training.TrainPrograms(
        config=decoder,
        loss=loss,
        optimizer=optimizer.make(),
        temperature=temperature,
        mesh=mesh,
    )


ORDERS = {
    "given": sampling.AsGiven(),
    "longest": sampling.LongestFirst(sampling.EstimatedLengths()),
    "shortest": sampling.ShortestFirst(sampling.EstimatedLengths()),
}
"""Orders of prompts by name."""


def stop_strings(
    strings: Sequence[str], tokenizer: models.Tokenizer, *, keep: bool = False
) -> sampling.StopStrings | None:
    """Return what ends completions at strings; None if there are none."""
    if not strings:
        return None
    pieces = models.token_pieces(tokenizer)
    return sampling.StopStrings(tuple(strings), pieces, keep=keep)


def ending_tokens(
    config: SamplerConfig, tokenizer: models.Tokenizer
) -> tuple[int, ...]:
    """Return the tokens that end thinking; none if there is no limit to it."""
    if not config.thinking:
        return ()
    return tuple(tokenizer.encode(config.end_of_thinking))


def prompt_buckets(longest: int) -> tuple[int, ...]:
    """Prompt lengths to compile for: powers of two up to the longest prompt.

    >>> prompt_buckets(17), prompt_buckets(150)
    ((17,), (32, 64, 128, 150))
    """
    lengths = [2**k for k in range(5, 20) if 2**k < longest]
    return (*lengths, longest)
