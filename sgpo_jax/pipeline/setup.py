"""What the stages share, built from an experiment: data, sampler, programs."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import numpy as np

from sgpo_jax import (
    data,
    methods,
    models,
    packing,
    rewards,
    sampling,
    sharding,
    training,
)
from sgpo_jax.config import Experiment, SamplerConfig
from sgpo_jax.hosts import Alone, Hosts
from sgpo_jax.models import pretrained
from sgpo_jax.pipeline.folder import UserError
from sgpo_jax.pipeline.questions import Questions, load
from sgpo_jax.profiling import RolloutSource, SharedRollouts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Lazily built parts of an experiment; nothing expensive happens before use.

    Attributes:
      config: the experiment.
      worker: scores completions.
      hosts: the processes of the run.
    """

    config: Experiment
    worker: rewards.Worker
    hosts: Hosts = Alone()

    @functools.cached_property
    def source(self) -> data.Source:
        """Where the questions come from."""
        return data.parse_source(self.config.data)

    @functools.cached_property
    def pretrained(self) -> pretrained.Pretrained | None:
        """The published policy, weights unread; None for one from nothing."""
        if not self.config.model.source:
            return None
        return pretrained.open_source(self.config.model.source)

    @functools.cached_property
    def tokenizer(self) -> models.Tokenizer:
        """The published policy's; else characters of the mixture, or bytes."""
        if self.pretrained is not None:
            return self.policy.tokenizer
        if isinstance(self.source, data.Procedural):
            return models.CharTokenizer(data.CHARACTERS)
        return models.ByteTokenizer()

    @functools.cached_property
    def questions(self) -> Questions:
        """The questions, loaded and split."""
        return load(self.source, self.config, self.tokenizer)

    @property
    def train(self) -> tuple[data.Query, ...]:
        """Training questions."""
        return self.questions.train

    @property
    def held_out(self) -> tuple[data.Query, ...]:
        """Held-out questions."""
        return self.questions.held_out

    @functools.cached_property
    def decoder(self) -> models.DecoderConfig:
        """Shape of the policy."""
        if self.pretrained is not None:
            return self.config.model.trained_as(self.pretrained.config)
        return self.config.model.decoder(vocab_size=self.tokenizer.vocab_size)

    def initial_params(self) -> models.Params:
        """Read the published policy, or draw one; the same every time."""
        return self.policy.params

    @functools.cached_property
    def policy(self) -> models.Policy:
        """The policy before the warm-up, its parameters unread."""
        seed = self.config.seed
        if self.pretrained is None:
            return models.fresh(self.decoder, self.tokenizer, seed=seed, mesh=self.mesh)
        prompt = self.config.model.prompt
        return models.of_pretrained(
            self.pretrained,
            self.decoder,
            mesh=self.mesh,
            seed=seed,
            chat=prompt.chat,
            system=prompt.system,
        )

    @functools.cached_property
    def longest_prompt(self) -> int:
        """Longest prompt in tokens."""
        queries = (*self.train, *self.held_out)
        return max(len(self.tokenizer.encode_prompt(query.turns)) for query in queries)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh over all devices."""
        try:
            return sharding.make_mesh(self.config.mesh, jax.devices())
        except ValueError as error:
            raise UserError(str(error)) from error

    @functools.cached_property
    def sampling_mesh(self) -> jax.sharding.Mesh:
        """The mesh that sampling runs on: all devices, or this process's own of many.

        Of a process's devices, as many hold a split copy of the policy as `tensor` and
        their number allow; sampling needs no other process.
        """
        if self.hosts.count == 1:
            return self.mesh
        devices = jax.local_devices()
        shape = self.config.mesh.of_one_host(len(devices))
        return sharding.make_mesh(shape, devices)

    def here(self, params: models.Params) -> models.Params:
        """Bring parameters of the global mesh to `sampling_mesh`; a meeting."""
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
        mesh, c = self.sampling_mesh, self.config.sampler
        engine = make_engine(
            self.config,
            self.decoder,
            longest_prompt=self.longest_prompt,
            stop_tokens=self.tokenizer.stop_ids,
            shards=sharding.rows_shards(mesh, sharding.Rules()),
            hosts=self.hosts.count,
            mesh=mesh if mesh.size > 1 else None,
        )
        return dataclasses.replace(
            engine,
            stop_strings=stop_strings(c.stop, self.tokenizer),
            end_of_thinking=ending_tokens(c, self.tokenizer),
            order=ORDERS[c.order],
        )

    @functools.cached_property
    def rollouts(self) -> RolloutSource | SharedRollouts:
        """Sampler, tokenizer and verifiers in one."""
        local = RolloutSource(
            engine=self.engine,
            config=self.decoder,
            tokenizer=self.tokenizer,
            worker=self.worker,
            seed=self.config.seed,
            temperature=self.config.sampler.temperature,
            thinking=self.config.sampler.thinking or None,
            poll=self.hosts.poll,
        )
        if self.hosts.count == 1:
            return local
        return SharedRollouts(local=local, hosts=self.hosts, place=self.here)

    @functools.cached_property
    def ladder(self) -> packing.Ladder:
        """Shapes of the training step."""
        shards = sharding.rows_shards(self.mesh, sharding.Rules())
        longest = self.longest_prompt
        return make_ladder(self.config, longest_prompt=longest, shards=shards)

    @functools.cached_property
    def _programs_made(self) -> dict[object, training.Programs]:
        return {}

    def programs(self, label: str) -> training.Programs:
        """Return a method's programs; methods of equal loss and optimizer share."""
        method = self.config.methods[label]
        key = method.loss, method.optimizer
        if key not in self._programs_made:
            self._programs_made[key] = self._programs(method.loss, method.optimizer)
        return self._programs_made[key]

    def fine_tuning_programs(self) -> training.Programs:
        """Return the programs of supervised fine-tuning."""
        steps, rate = self.config.warmup.steps, self.config.warmup.learning_rate
        optimizer = methods.AdamW(
            learning_rate=rate,
            warmup_steps=min(20, steps // 2),
            decay_steps=steps,
        )
        loss = methods.TokenLoss(objective=methods.SupervisedLoss())
        return self._programs(loss, optimizer)

    def _programs(
        self, loss: methods.TokenLoss, optimizer: methods.Optimizer
    ) -> training.Programs:
        return training.Programs(
            config=self.decoder,
            loss=loss,
            optimizer=optimizer.make(),
            temperature=self.config.sampler.temperature,
            mesh=self.mesh,
        )

    def check(self) -> None:
        """Build everything that can fail on bad settings, before any work is done."""
        models.check_offload(self.config.model.remat, self.mesh.devices.flat)
        _ = self.ladder, self.engine
        training.check_trackers(self.config.log.trackers)
        _ = self.traced_steps

    @functools.cached_property
    def traced_steps(self) -> range:
        """Which steps of training are profiled."""
        text = self.config.log.profile_steps
        return training.parse_steps(text, most=self.config.train.steps)

    def encode_pairs(
        self, pairs: Sequence[tuple[models.Prompt, str]]
    ) -> list[tuple[list[int], list[int]]]:
        """Encode demonstrations; responses end in EOS and fit the longest allowed."""
        tokenizer, eos = self.tokenizer, self.tokenizer.eos_id
        longest = self.config.sampler.max_response
        return [
            (
                tokenizer.encode_prompt(prompt),
                [*tokenizer.encode(answer), eos][:longest],
            )
            for prompt, answer in pairs
        ]


def make_ladder(
    config: Experiment, *, longest_prompt: int, shards: int
) -> packing.Ladder:
    """Return the shapes of the training step, rows a multiple of the shards."""
    pack, response = config.pack, config.sampler.max_response
    longest = math.ceil((longest_prompt + response) / 128) * 128
    return packing.make_ladder(
        row_lengths=[max(pack.row_length, longest)],
        rows=sorted({-(-rows // shards) * shards for rows in pack.rows}),
        response_length=response,
        shortest_response=pack.shortest_response,
    )


def make_engine(
    config: Experiment,
    decoder: models.DecoderConfig,
    *,
    longest_prompt: int,
    stop_tokens: tuple[int, ...],
    shards: int,
    hosts: int,
    mesh: jax.sharding.Mesh | None,
) -> sampling.Engine:
    """Return the sampler of one host: its share of the lanes, over its shards."""
    c = config.sampler
    return sampling.Engine(
        decoder,
        lanes=-(-c.lanes // (hosts * shards)) * shards,
        slots=c.slots,
        max_prompt=prompt_rungs(longest_prompt),
        max_response=c.max_response,
        stop_tokens=stop_tokens,
        mesh=mesh,
    )


ORDERS = {
    "given": sampling.AsGiven(),
    "longest": sampling.LongestFirst(sampling.Learned()),
    "shortest": sampling.ShortestFirst(sampling.Learned()),
}


def stop_strings(
    strings: Sequence[str], tokenizer: models.Tokenizer
) -> sampling.StopStrings | None:
    """Return what ends completions at strings; None if there are none."""
    if not strings:
        return None
    return sampling.StopStrings(tuple(strings), models.token_pieces(tokenizer))


def ending_tokens(
    config: SamplerConfig, tokenizer: models.Tokenizer
) -> tuple[int, ...]:
    """Return the tokens that end thinking; none if there is no limit to it."""
    if not config.thinking:
        return ()
    return tuple(tokenizer.encode(config.end_of_thinking))


def prompt_rungs(longest: int) -> tuple[int, ...]:
    """Prompt lengths to compile for: powers of two up to the longest prompt.

    >>> prompt_rungs(17), prompt_rungs(150)
    ((17,), (32, 64, 128, 150))
    """
    rungs = [2**k for k in range(5, 20) if 2**k < longest]
    return (*rungs, longest)
