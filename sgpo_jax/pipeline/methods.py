"""Training one method: what it samples, what it learns from, where it is kept."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from sgpo_jax import data, methods, models, sampling, training
from sgpo_jax.ledger import Ledger
from sgpo_jax.pipeline.display import Advance
from sgpo_jax.pipeline.folder import UserError, flatten
from sgpo_jax.pipeline.manifest import Manifest
from sgpo_jax.pipeline.run import Run
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile
from sgpo_jax.session import Session


def make_learner(
    run: Run, label: str, known: Profile | None, plan: Plan | None
) -> training.Learner:
    """Return what of a method's training does not change.

    Args:
      run: the experiment.
      label: of the method.
      known: profile of the training questions; used if the method reads one.
      plan: the method's, if it makes one.
    """
    config, method = run.config, run.config.methods[label]
    if known is not None:
        reads = "profile" in method.needs
        known = known.select([q.id for q in run.train]) if reads else None
    return training.Learner(
        programs=run.session.programs(method.loss, method.optimizer),
        rollouts=run.session.rollouts,
        queries=run.train,
        method=method,
        buckets=run.session.buckets,
        config=config.train,
        seed=config.seed,
        profile=known,
        plan=plan,
        trace=training.Trace(run.folder.method(label) / "trace", run.traced_steps),
        on_compile=lambda: run.hosts.gather(bytes),
        completions=training.CompletionLog(
            0 if run.hosts.index else config.log.completions,
            method=label,
            folder=run.folder.completions(label),
        ),
    )


def finished(run: Run, label: str) -> bool:
    """Return whether a method is trained to the end, its last evaluation included."""
    lines = training.read_metrics(
        run.folder.method(label) / "metrics.jsonl", sound=True
    )
    return run.hosts.broadcast(
        bool(lines) and lines[-1]["step"] == run.config.train.steps
    )


def train(
    run: Run,
    label: str,
    initial: models.Policy,
    known: Profile | None,
    plan: Plan | None,
    *,
    evaluate: Callable[[training.TrainProgress], training.Metrics] | None = None,
) -> training.TrainProgress:
    """Train one method to the end, from its newest checkpoint if there is one.

    Args:
      run: the experiment.
      label: of the method.
      initial: the initial policy.
      known: profile of the training questions, if the method reads one.
      plan: the method's, if it makes one.
      evaluate: held-out metrics; None for `training.held_out_metrics`.
    """

    def usual(progress: training.TrainProgress) -> training.Metrics:
        return training.held_out_metrics(
            run.session.rollouts,
            run.held_out,
            progress,
            samples=config.eval.samples,
            keep=learner.completions.evaluation,
            scorer=run.scorer,
        )

    config, folder = run.config, run.folder.method(label)
    learner = make_learner(run, label, known, plan)
    progress, start = learner.start(learner.programs.init(initial.params)), 0
    if learner.profile is not None:
        progress.ledger.update(Ledger(learner.profile.cost))
    checkpoints = training.Checkpoints(folder / "checkpoints", hosts=run.hosts)
    begun = checkpoints.latest() is not None
    with contextlib.closing(checkpoints), _log(run, label) as log:
        try:
            store = training.ProgressStore(
                checkpoints,
                progress,
                identity(learner, initial.identity),
                topology(run.session),
            )
            if begun:
                del progress  # room for what is read
                start, progress = store.restore()
            # The line may be there and the checkpoint not, which is written meanwhile.
            if start == config.train.steps and finished(run, label):
                return progress
        except ValueError as error:
            raise UserError(str(error)) from error
        finally:
            run.display.lines(checkpoints.problems)
        if start:
            run.display.say(
                f"{label}: resumed from step {start} of {config.train.steps}"
            )
        with run.display.progress(label, config.train.steps, start=start) as advance:
            shown = _Shown(log, advance, start, say=run.display.say)
            rollouts = run.session.rollouts.replace(
                watch=shown.watch,
                # Only methods that pay for the profile know how long responses are.
                expected=learner.profile.mean_length if learner.profile else {},
            )
            progress = training.train(
                dataclasses.replace(learner, rollouts=rollouts),
                progress,
                start=start,
                store=store,
                log=shown,
                evaluate=evaluate or usual,
            )
    seen = training.training_profile(run.train, progress.prompts.history, method=label)

    def save() -> None:
        seen.save(folder / "seen.parquet")
        made: dict[str, object] = {"policy": initial.identity}
        made["steps"] = config.train.steps
        if learner.profile:
            made["profile"] = learner.profile.fingerprint()
        if plan:
            made["plan"] = plan.hash
        Manifest(run.folder.manifest).record(f"method {label}", made)

    run.hosts.on_main_process(save)
    return progress


@contextlib.contextmanager
def _log(run: Run, label: str) -> Iterator[training.Log]:
    """Open the metrics of a method; process 0 writes them."""
    if run.hosts.index:
        yield training.Discard()
        return
    path, config = run.folder.method(label), run.config
    trackers = training.Trackers(
        config.log.trackers,
        project=config.log.project,
        run=f"{run.folder.path.name}-{label}",
        folder=path,
        config=flatten(config),
    )
    with (
        contextlib.closing(training.MetricsWriter(path)) as writer,
        contextlib.closing(trackers),
    ):
        yield _Tracked(writer, trackers, training.Goodput())


@dataclasses.dataclass(frozen=True)
class _Tracked:
    """Metrics to files and to trackers, with the share of time that was useful."""

    writer: training.MetricsWriter
    trackers: training.Trackers
    goodput: training.Goodput

    def write(self, step: int, metrics: training.Metrics) -> None:
        if "step_time_sec" in metrics:
            metrics["goodput"] = self.goodput.add(step, metrics["step_time_sec"])
        self.writer.write(step, metrics)
        self.trackers.write(step, metrics)

    def rewind(self, lines: int) -> None:
        self.writer.rewind(lines)


@dataclasses.dataclass
class _Shown:
    """A log whose lines also move the progress bar, as sampling between them does."""

    log: training.Log
    advance: Advance
    step: int
    headline: str = ""
    say: Callable[[str], None] = print

    def write(self, step: int, metrics: training.Metrics) -> None:
        self.log.write(step, metrics)
        if said := training.alarm(step, metrics):
            self.say(said)
        self.step, self.headline = step, training.headline(metrics)
        self.advance(step, self.headline)

    def watch(self, now: sampling.SampleProgress) -> None:
        self.advance(self.step, f"{self.headline} | {now}".strip(" |"))

    def rewind(self, lines: int) -> None:
        self.log.rewind(lines)


def identity(learner: training.Learner, policy: str) -> dict[str, str]:
    """Return what a method's checkpoints depend on, besides the run's settings."""
    found = {
        "method": methods.fingerprint(learner.method),
        "policy": policy,
        "questions": data.fingerprint(learner.queries).short,
        "seed": str(learner.seed),
    }
    if learner.profile is not None:
        found["profile"] = learner.profile.fingerprint()
    if learner.plan is not None:
        found["plan"] = learner.plan.hash
    return found


def topology(session: Session) -> dict[str, Any]:
    """Return what a run's sums are ordered by."""
    mesh = session.mesh
    return {
        "processes": session.hosts.count,
        "platform": mesh.devices.flat[0].platform,
        **{axis: int(size) for axis, size in mesh.shape.items()},
    }
