"""`Trainer`: reinforcement learning from verifiable rewards as one object."""

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Iterator, Sequence, Sized
from typing import Any

import jax
import jax.numpy as jnp
import pyarrow as pa

from sgpo_jax import fleet, methods, models, planning, sampling, training
from sgpo_jax.bounds import Count, Natural, Seed, check_arguments
from sgpo_jax.config import PackConfig, ProfileConfig, RewardConfig, SamplerConfig
from sgpo_jax.data import Query
from sgpo_jax.ledger import Ledger
from sgpo_jax.methods import Method
from sgpo_jax.pipeline import Display
from sgpo_jax.pipeline.profiled import measured
from sgpo_jax.profiling import Chunks, Profile, nothing_solved
from sgpo_jax.rollouts import RolloutGenerator
from sgpo_jax.session import Session
from sgpo_jax.sharding import MeshShape
from sgpo_jax.trainer import front, saving
from sgpo_jax.trainer.sizes import sampler_for

REMEDY = (
    "Look at completions (Trainer(..., completions=8)), at max_response and at the"
    " reward; then take easier questions, or a policy that solves some."
)
"""Advice where no sample of a profile solved its question."""


class Trainer:
    """Trains a policy by a method on queries with verifiable rewards.

    Engine, packed rows and mesh are sized from the arguments; programs are compiled in
    the first step and never again, also in later processes (`session.cache_programs`).
    Metrics are kept in memory, and nothing else is written unless `save` is called. A
    method that reads a profile has it made first.

    Args:
      policy: from `models.load`, or trained by another trainer.
      method: the algorithm, or its name (`sgpo methods` lists them).
      queries: queries, or anything `data.load` takes.
      reward: a function in any convention of `rewards.conventions`, also a closure or
        one of a notebook; the name of a verifier; or None: each query names its own.
        It runs in killable processes under the limits of `scoring`.
      held_out: queries to evaluate on every `eval_every` steps; empty for none.
      rollouts: rollouts per step.
      max_response: longest response in tokens.
      total_steps: length of the run, which phases and schedules are shares of; None for
        what the first call of `steps` asks for.
      eval_every: steps between evaluations.
      eval_samples: samples per query in these.
      eval_exact: in these, the probability of the reference in place of samples: for
        the verifier "exact" and policies of characters.
      seed: root of all noise: the same seed gives the same bits.
      profile: success profile of the initial policy on the queries, or how many samples
        per query it is made from where the method reads one.
      plan: a plan in place of the method's own.
      sampler: lanes, slots, stop strings, temperature; None for sizes that fit.
      pack: shapes of packed rows; None for sizes that fit.
      mesh: devices along each axis.
      scoring: limits on rewards.
      completions: completions of each step and each evaluation that are kept, with
        rewards; see the property of that name.
      label: name of the method in progress, files and reports; None for "trainer" or
        the method's name.
      show: show progress.
      functions: folder of reward functions that another trainer has saved.

    Attributes:
      step: steps done.
      queries: the training queries.

    Raises:
      ValueError: naming what is wrong and the remedy, before anything is compiled.

    Example:
      >>> rows = [{"prompt": f"{n}+1=", "answer": n + 1} for n in range(4)]
      >>> trainer = Trainer(
      ...     models.load("tiny:layers=1,width=32"),
      ...     Method(),
      ...     rows,
      ...     reward=lambda completion, reference: float(completion.count("1")),
      ...     rollouts=16,
      ...     max_response=4,
      ...     show=False,
      ... )
      >>> metrics = list(trainer.steps(2))
      >>> [line["step"] for line in metrics], metrics[0]["rollouts"]
      ([1, 2], 16)
      >>> trainer.close()
    """

    def __init__(  # noqa: PLR0913 the one place where everything can be said
        self,
        policy: models.Policy,
        method: Method | str,
        queries: Any,
        *,
        reward: front.Reward = None,
        held_out: Any = (),
        rollouts: int = 128,
        max_response: int = 256,
        total_steps: int | None = None,
        eval_every: int = 10,
        eval_samples: int = 4,
        eval_exact: bool = False,
        seed: int = 0,
        profile: Profile | int = 8,
        plan: planning.Plan | None = None,
        sampler: SamplerConfig | None = None,
        pack: PackConfig | None = None,
        mesh: MeshShape = MeshShape(),
        scoring: RewardConfig = RewardConfig(),
        completions: int = 0,
        label: str | None = None,
        show: bool = True,
        functions: pathlib.Path | None = None,
    ):
        check_arguments(
            seed=(seed, Seed),
            total_steps=(total_steps, Natural | None),
            eval_samples=(eval_samples, Count),
            completions=(completions, Natural),
        )
        if not isinstance(profile, Profile):
            ProfileConfig(samples=profile)
        if isinstance(method, str):
            label = label or methods.label_of(method)
            method = methods.named(method)
        method.check()
        self.label, self.method, self.seed = label or "trainer", method, seed
        self.initial = policy
        self.config = training.TrainConfig(
            steps=total_steps or 0, rollouts=rollouts, eval_every=eval_every
        )
        self.sampler = sampler or sampler_for(rollouts, max_response)
        self._pack, self._mesh = pack, mesh
        lora = policy.config.lora is not None
        fleet.check(self.sampler, {self.label: method}, lora=lora)
        self.worker = front.make_worker(scoring)
        if functions is not None:
            self.worker.load_functions(functions)
        self._reward = reward
        self.queries = front.rewarded(
            front.as_queries(queries, reward), reward, self.worker
        )
        self.held_out: tuple[Query, ...] = ()
        if _is_given(held_out):
            held = front.as_queries(held_out, reward)
            self.held_out = front.rewarded(held, reward, self.worker)
        self._given_profile, self._given_plan = profile, plan
        try:
            if isinstance(profile, Profile):
                _ = self.profile  # refused if it is of other queries
            self.worker.check((*self.queries, *self.held_out))
            if eval_exact:
                training.check_exact(self.held_out, policy.tokenizer)
        except BaseException:
            self.worker.close()
            raise
        self.scoring, self.eval_samples = scoring, eval_samples
        self.eval_exact = eval_exact
        self.profile_samples = profile if isinstance(profile, int) else 8
        self._display = Display(quiet=not show)
        self.log = training.MemoryLog()
        self.kept = training.CompletionLog(completions, method=self.label)
        self._progress: training.TrainProgress | None = None
        self.step = 0

    @functools.cached_property
    def session(self) -> Session:
        """Sampler, buckets and programs."""
        return front.make_session(
            self.initial,
            (*self.queries, *self.held_out),
            self.worker,
            sampler=self.sampler,
            rollouts=self.config.rollouts,
            pack=self._pack,
            seed=self.seed,
            mesh_shape=self._mesh,
        )

    @functools.cached_property
    def profile(self) -> Profile | None:
        """Success profile of the initial policy; None if the method reads none."""
        if "profile" not in self.method.needs:
            return None
        found = self._given_profile
        if isinstance(found, int):
            with tempfile.TemporaryDirectory() as folder:
                found = measured(
                    self.session,
                    self.initial.on(self.session.mesh),
                    self.queries,
                    samples=found,
                    chunks=Chunks(folder=pathlib.Path(folder)),
                    display=self._display,
                )
            if said := nothing_solved(found):
                self._display.say(f"{said} {REMEDY}")
        try:
            return found.select([query.id for query in self.queries])
        except KeyError as error:
            raise ValueError(
                f"the profile has no query {error.args[0]!r}: profile the queries that"
                " are trained on"
            ) from None

    @functools.cached_property
    def plan(self) -> planning.Plan | None:
        """Plan of the method; None if it makes none."""
        sampler = self.method.prompts
        if self._given_plan is not None or not isinstance(sampler, methods.Planned):
            return self._given_plan
        assert self.profile is not None
        return sampler.plan(self.profile, seed=self.seed)

    @property
    def progress(self) -> training.TrainProgress:
        """State of training: parameters, optimizer, prompts, ledger."""
        if self._progress is None:
            learner = self.learner
            state = learner.programs.init(self.initial.on(self.session.mesh).params)
            self._progress = learner.start(state)
            if not self.held_out:
                self._progress.pending = None  # nothing to evaluate before step 1
            if self.profile is not None:
                self._progress.ledger.update(Ledger(self.profile.cost))
        return self._progress

    @property
    def ledger(self) -> Ledger:
        """Compute spent so far, profiling included."""
        return self.progress.ledger

    @property
    def policy(self) -> models.Policy:
        """The policy as trained so far, with parameters of its own."""
        params = jax.tree.map(jnp.copy, self.progress.train.params)
        identity = f"{self.initial.identity}:{self.label}:{self.step}"
        return self.initial.with_params(params, identity=identity)

    @property
    def averaged_policy(self) -> models.Policy:
        """The policy of averaged parameters.

        Raises:
          ValueError: if the method keeps none (`averaging=0`).
        """
        copies = self.progress.copies
        if "averaged" not in copies:
            raise ValueError("the method keeps no average: Method(averaging=0.99)")
        params = training.with_copy(self.progress.train, copies["averaged"])
        identity = f"{self.initial.identity}:{self.label}:{self.step}:averaged"
        params = jax.tree.map(jnp.copy, params)
        return self.initial.with_params(params, identity=identity)

    @functools.cached_property
    def _scorer(self) -> training.ReferenceScorer | None:
        if not (self.eval_exact and self.held_out):
            return None
        return self.session.reference_scorer(self.held_out)

    @property
    def learner(self) -> training.Learner:
        """The immutable parts of training."""
        method = self.method
        return training.Learner(
            programs=self.session.programs(method.loss, method.optimizer),
            rollouts=self.session.rollouts,
            queries=self.queries,
            method=method,
            buckets=self.session.buckets,
            config=self.config,
            seed=self.seed,
            profile=self.profile,
            plan=self.plan,
            completions=self.kept,
        )

    def steps(self, count: int) -> Iterator[training.Metrics]:
        """Train; yield the metrics of each step, `training.METRICS` explains them.

        Leaving the loop early is fine: the next call goes on after the last step that
        was yielded.

        Args:
          count: how many steps.

        Raises:
          FloatingPointError: if updates stay non-finite.
        """
        check_arguments(steps=(count, Count))
        if not self.config.steps:
            self.config = dataclasses.replace(self.config, steps=count)
        stop = self.step + count
        made = training.steps(
            self.learner,
            self.progress,
            start=self.step,
            stop=stop,
            store=training.NoStore(),
            log=self.log,
            evaluate=lambda progress: training.held_out_metrics(
                self.session.rollouts,
                self.held_out,
                progress,
                samples=self.eval_samples,
                keep=self.kept.evaluation,
                scorer=self._scorer,
            ),
        )
        with (
            contextlib.ExitStack() as held,
            self._display.progress(self.label, stop, start=self.step) as advance,
            contextlib.closing(made),
        ):
            held.callback(lambda: self._display.problems(self.worker.problems))
            for step, self._progress, metrics in made:
                self.step = step
                advance(step, training.headline(metrics))
                if said := training.alarm(step, metrics):
                    self._display.say(said)
                if "reward" in metrics:
                    yield {"step": step, **metrics}

    def evaluate(
        self, queries: Any = (), *, samples: int = 4, greedy: bool = True
    ) -> training.Evaluation:
        """Evaluate the policy as trained so far.

        Args:
          queries: anything the trainer takes as queries; those held out if empty.
          samples: samples per query at the sampler's temperature.
          greedy: evaluate the most likely completion, too.

        Raises:
          ValueError: if there is no query.
        """
        check_arguments(samples=(samples, Count))
        asked = self.held_out
        if _is_given(queries):
            found = front.as_queries(queries, self._reward)
            asked = front.rewarded(found, self._reward, self.worker)
        if not asked:
            raise ValueError("give queries, or held_out=... when making the trainer")
        session = self._sized(asked)
        return training.evaluate(
            session.rollouts if self.step else session.initial_rollouts,
            self.progress.train.params,
            asked,
            samples=samples,
            greedy=greedy,
        )

    def sample(
        self, prompts: Sequence[str], *, samples: int = 1, greedy: bool = False
    ) -> list[list[str]]:
        """Completions of prompts by the policy as trained so far.

        Args:
          prompts: texts of questions.
          samples: completions of each.
          greedy: the most likely completion instead of samples.
        """
        check_arguments(samples=(samples, Count))
        asked = [Query(id=text, prompt=text, reference="") for text in prompts]
        source = self._sized(asked).local_rollouts
        assert isinstance(source, RolloutGenerator)  # a trainer is one process
        requests = [
            sampling.Request(
                key=index,
                prompt=self.initial.tokenizer.encode_prompt(text),
                samples=samples,
            )
            for index, text in enumerate(prompts)
        ]
        rollouts = source.engine.sample(
            self.progress.train.params,
            requests,
            seed=self.seed,
            step=self.step,
            strategy=sampling.Greedy()
            if greedy
            else sampling.Temperature(self.sampler.temperature),
        )
        texts = source.texts(rollouts)
        found: list[list[str]] = [[] for _ in prompts]
        for request, text in zip(rollouts.request.tolist(), texts, strict=True):
            found[request].append(text)
        return found

    def table(self) -> pa.Table:
        """Metrics of all steps, one row each; pandas by `Table.to_pandas`."""
        return training.metrics_table(self.log.lines)

    @property
    def completions(self) -> pa.Table:
        """Completions that were kept, `completions` of each step and evaluation.

        With method, step, question, right answer and reward: `profiling.SCHEMA`.
        """
        return self.kept.table()

    def plot(self, axes: Any = None) -> Any:
        """Draw reward and held-out success over the steps; returns matplotlib axes."""
        return training.plot_metrics(self.log.lines, axes)

    def save(self, folder: str | pathlib.Path) -> None:
        """Write a run folder: `sgpo run --out FOLDER` and `Trainer.open` go on from it.

        The folder holds the questions, the initial policy, profile, plan, checkpoint
        and metrics; functions of a notebook as code, so open folders you trust.

        Args:
          folder: made if it is not there. Saving again into it adds a checkpoint.

        Raises:
          ValueError: if it holds another run, or the policy cannot be written.
        """
        saving.save(self, folder)

    @classmethod
    def open(
        cls, folder: str | pathlib.Path, label: str | None = None, *, show: bool = True
    ) -> "Trainer":
        """Trainer of a run folder, where its newest checkpoint is.

        Args:
          folder: of `save` or of `sgpo run`.
          label: which of its methods; None for the only one.
          show: show progress.

        Raises:
          ValueError: if there is no such run or method, several and none is named, or
            a command works on it.
        """
        path = pathlib.Path(folder).expanduser()
        with saving.exclusive(path):
            trainer = cls(**saving.read(path, label, show), functions=path / "rewards")
            try:
                saving.restore(trainer, path)
            except BaseException:
                trainer.close()
                raise
        return trainer

    def resume(
        self,
        progress: training.TrainProgress,
        lines: Sequence[tuple[int, dict[str, Any]]],
    ) -> None:
        """Go on from a state of training and its metrics."""
        self._progress, self.log = progress, training.MemoryLog(list(lines))

    def close(self) -> None:
        """End the scoring processes; they are started again when needed."""
        self.worker.close()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sized(self, queries: Sequence[Query]) -> Session:
        """Return the session, or one for longer prompts."""
        longest = front.longest_prompt(self.initial.tokenizer, queries)
        if longest <= self.session.longest_prompt:
            return self.session
        return dataclasses.replace(self.session, longest_prompt=longest)


def _is_given(questions: Any) -> bool:
    """Return whether there is anything; a path or a source has no length."""
    return questions is not None and not (
        isinstance(questions, Sized) and not len(questions)
    )
