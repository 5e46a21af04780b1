"""An experiment, opened: its questions, its policy, its programs and its folder."""

import dataclasses
import functools
import pathlib

import jax

from sgpo_jax import data, fleet, models, rewards, sharding, training
from sgpo_jax.config import Experiment
from sgpo_jax.hosts import ProcessGroup, SingleProcess
from sgpo_jax.models import pretrained
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, UserError
from sgpo_jax.pipeline.questions import Queries, Questions, load
from sgpo_jax.session import Session

HERE = "{out}"
"""Stands for the run folder in the sources of a saved trainer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Immutable inputs of all stages of an experiment.

    Attributes:
      config: the experiment.
      source: where the questions come from.
      questions: the questions, loaded and split.
      policy: the policy before fine-tuning, its parameters unread.
      session: sampler, buckets and programs, compiled when they are first used.
      display: shows progress.
    """

    config: Experiment
    source: data.Source
    questions: Questions
    policy: models.Policy
    session: Session
    display: Display

    @property
    def folder(self) -> RunFolder:
        """Folder of the results."""
        return RunFolder.of(self.config)

    @property
    def hosts(self) -> ProcessGroup:
        """The processes of the run."""
        return self.session.hosts

    @property
    def train(self) -> Queries:
        """Training questions."""
        return self.questions.train

    @property
    def held_out(self) -> Queries:
        """Held-out questions."""
        return self.questions.held_out

    @property
    def tokenizer(self) -> models.Tokenizer:
        """The policy's."""
        return self.policy.tokenizer

    @property
    def decoder(self) -> models.DecoderConfig:
        """Shape of the policy."""
        return self.policy.config

    @property
    def needs_profile(self) -> bool:
        """True if a method reads the profile."""
        return any("profile" in m.needs for m in self.config.methods.values())

    @functools.cached_property
    def scorer(self) -> training.ReferenceScorer | None:
        """Exact success rates of the held-out questions, if they are asked for."""
        if not (self.config.eval.exact and self.held_out):
            return None
        return self.session.reference_scorer(self.held_out)

    @property
    def traced_steps(self) -> range:
        """Training steps whose trace is recorded."""
        text = self.config.log.profile_steps
        return training.parse_steps(text, most=self.config.train.steps)

    def check(self) -> None:
        """Build everything that can fail on bad settings, before any work is done.

        Raises:
          ValueError: naming the setting.
        """
        devices = self.session.mesh.devices.flat
        models.check_offload(self.config.model.remat, devices)
        _ = self.session.buckets, self.session.engine, self.traced_steps
        training.check_trackers(self.config.log.trackers)
        for label, method in self.config.methods.items():
            try:
                method.check()
            except ValueError as error:
                raise UserError(f"method {label}: {error}") from error
        if self.config.eval.exact:
            training.check_exact(self.held_out, self.tokenizer)
        fleet.check(
            self.config.sampler,
            self.config.methods,
            lora=self.decoder.lora is not None,
            processes=self.hosts.count,
        )


def open_run(
    config: Experiment,
    worker: rewards.Worker,
    *,
    hosts: ProcessGroup = SingleProcess(),
    display: Display | None = None,
) -> Run:
    """Return an experiment with its questions loaded; no weight is read.

    Args:
      config: the experiment.
      worker: scores completions.
      hosts: the processes of the run.
      display: shows progress; None for nothing.

    Raises:
      UserError: if questions, policy or mesh cannot be had, naming the setting.
    """
    source = data.parse_source(_path(config, config.data))
    mesh = _mesh(config)
    policy = _policy(config, source, mesh)
    questions = load(source, config, policy.tokenizer)
    asked = (*questions.train, *questions.held_out)
    encode = policy.tokenizer.encode_prompt
    sampler = config.sampler
    if sampler.refreshed and not sampler.weights:
        sampler = dataclasses.replace(sampler, weights=_path(config, f"{HERE}/served"))
    session = Session(
        decoder=policy.config,
        tokenizer=policy.tokenizer,
        worker=worker,
        sampler=sampler,
        pack=config.pack,
        longest_prompt=max(len(encode(query.turns)) for query in asked),
        seed=config.seed,
        mesh_shape=config.mesh,
        hosts=hosts,
        published=policy.published,
    )
    return Run(
        config=config,
        source=source,
        questions=questions,
        policy=policy,
        session=session,
        display=display or Display(quiet=True),
    )


def open_policy(config: Experiment) -> models.Policy:
    """Return the policy of an experiment before fine-tuning, no weight read.

    Its parameters would be placed on one device.

    Raises:
      ValueError: if there is no such policy.
    """
    source = data.parse_source(_path(config, config.data))
    return _policy(config, source, None)


def _path(config: Experiment, source: str) -> str:
    """Put the run folder in place of its name: folders may be moved."""
    return source.replace(HERE, str(pathlib.Path(config.out).expanduser()))


def _mesh(config: Experiment) -> jax.sharding.Mesh:
    try:
        return sharding.make_mesh(config.mesh, jax.devices())
    except ValueError as error:
        raise UserError(str(error)) from error


def _policy(
    config: Experiment, source: data.Source, mesh: jax.sharding.Mesh | None
) -> models.Policy:
    """Return the published policy, or a fresh one over characters or bytes."""
    model = config.model
    if model.source:
        found = pretrained.open_source(_path(config, model.source))
        return models.of_pretrained(
            found,
            model.trained_as(found.config),
            adapters=model.adapters_folder,
            mesh=mesh,
            seed=config.seed,
            **model.prompt.options,
        )
    tokenizer = models.ByteTokenizer()
    if isinstance(source, data.Procedural):
        tokenizer = models.CharTokenizer(data.CHARACTERS)
    decoder = model.decoder(vocab_size=tokenizer.vocab_size)
    return models.initialize(decoder, tokenizer, seed=config.seed, mesh=mesh)
