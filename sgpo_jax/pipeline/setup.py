"""What the stages share, built from an experiment: data, sampler, programs."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax

from sgpo_jax import (
    data,
    methods,
    models,
    rewards,
    sharding,
    training,
)
from sgpo_jax.config import Experiment
from sgpo_jax.hosts import Alone, Hosts
from sgpo_jax.models import pretrained
from sgpo_jax.pipeline.folder import UserError
from sgpo_jax.pipeline.questions import Questions, load
from sgpo_jax.session import Session

HERE = "{out}"
"""Stands for the run folder in the sources of a saved trainer."""


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
        return data.parse_source(self._path(self.config.data))

    @functools.cached_property
    def pretrained(self) -> pretrained.Pretrained | None:
        """The published policy, weights unread; None for one from nothing."""
        if not self.config.model.source:
            return None
        return pretrained.open_source(self._path(self.config.model.source))

    def _path(self, source: str) -> str:
        """Put the run folder in place of its name: folders may be moved."""
        return source.replace(HERE, str(pathlib.Path(self.config.out).expanduser()))

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
        return models.of_pretrained(
            self.pretrained,
            self.decoder,
            adapters=self.config.model.adapters_folder,
            mesh=self.mesh,
            seed=seed,
            **self.config.model.prompt.options,
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
    def session(self) -> Session:
        """Sampler, buckets and programs, compiled once for all stages."""
        _ = self.mesh  # refused in the user's words
        return Session(
            decoder=self.decoder,
            tokenizer=self.tokenizer,
            worker=self.worker,
            sampler=self.config.sampler,
            pack=self.config.pack,
            longest_prompt=self.longest_prompt,
            seed=self.config.seed,
            mesh_shape=self.config.mesh,
            hosts=self.hosts,
        )

    def programs(self, label: str) -> training.Programs:
        """Return a method's programs; methods of equal loss and optimizer share."""
        method = self.config.methods[label]
        return self.session.programs(method.loss, method.optimizer)

    def fine_tuning_programs(self) -> training.Programs:
        """Return the programs of supervised fine-tuning."""
        steps, rate = self.config.warmup.steps, self.config.warmup.learning_rate
        optimizer = methods.AdamW(
            learning_rate=rate,
            warmup_steps=min(20, steps // 2),
            decay_steps=steps,
        )
        loss = methods.TokenLoss(objective=methods.SupervisedLoss())
        return self.session.programs(loss, optimizer)

    def check(self) -> None:
        """Build everything that can fail on bad settings, before any work is done."""
        models.check_offload(self.config.model.remat, self.mesh.devices.flat)
        _ = self.session.buckets, self.session.engine
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
