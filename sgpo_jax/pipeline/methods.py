"""Training one method: what it samples, what it learns from, where it is kept."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from sgpo_jax import methods, models, sampling, training
from sgpo_jax.ledger import Ledger
from sgpo_jax.pipeline.display import Advance, Display
from sgpo_jax.pipeline.folder import RunFolder, UserError, flatten
from sgpo_jax.pipeline.policy import fingerprint, warmup
from sgpo_jax.pipeline.profiled import plan, profile
from sgpo_jax.pipeline.setup import Setup
from sgpo_jax.session import Session


def make_learner(
    label: str, setup: Setup, folder: RunFolder, display: Display
) -> training.Learner:
    """Return what of a method's training does not change."""
    config, method = setup.config, setup.config.methods[label]
    known = None
    if "profile" in method.needs:
        known = profile(setup, folder, display).select([q.id for q in setup.train])
    return training.Learner(
        programs=setup.programs(label),
        rollouts=setup.session.rollouts,
        queries=setup.train,
        method=method,
        ladder=setup.session.buckets,
        config=config.train,
        seed=config.seed,
        profile=known,
        plan=plan(label, setup, folder, display),
        trace=training.Trace(folder.method(label) / "trace", setup.traced_steps),
        agree=lambda: setup.hosts.gather(bytes),
    )


def train(
    name: str,
    setup: Setup,
    folder: RunFolder,
    display: Display,
    *,
    evaluate: Callable[[training.Progress], training.Metrics] | None = None,
) -> training.Progress:
    """Train one method to the end, from its newest checkpoint if there is one.

    Args:
      name: label of the method.
      setup: the experiment.
      folder: where the run is kept.
      display: shows progress.
      evaluate: held-out metrics; None for `training.held_out_metrics`.
    """

    def usual(progress: training.Progress) -> training.Metrics:
        return training.held_out_metrics(
            setup.session.rollouts,
            setup.held_out,
            progress,
            samples=config.eval.samples,
        )

    config = setup.config
    params = warmup(setup, folder, display)
    learner = make_learner(name, setup, folder, display)
    beginning = learner.start(learner.programs.init(params))
    if learner.profile is not None:
        beginning.ledger.update(Ledger(learner.profile.cost))
    checkpoints = training.Checkpoints(
        folder.method(name) / "checkpoints", hosts=setup.hosts
    )
    with contextlib.closing(checkpoints), _log(name, setup, folder) as log:
        try:
            store = training.ProgressStore(
                checkpoints,
                beginning,
                identity(learner, params, config.seed),
                topology(setup.session),
            )
            start, progress = store.restore()
            # The line may be there and the checkpoint not, which is written meanwhile.
            finished = _finished(folder.method(name), config.train.steps)
            if setup.hosts.tell(finished) and start == config.train.steps:
                return progress
            log.rewind(progress.logged)
        except ValueError as error:
            raise UserError(str(error)) from error
        finally:
            display.lines(checkpoints.problems)
        with display.progress(name, config.train.steps, start=start) as advance:
            shown = _Shown(log, advance, start)
            rollouts = setup.session.rollouts.adapted(
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
    seen = training.training_profile(setup.train, progress.prompts.history, method=name)
    setup.hosts.lead(lambda: seen.save(folder.method(name) / "seen.parquet"))
    return progress


@contextlib.contextmanager
def _log(name: str, setup: Setup, folder: RunFolder) -> Iterator[training.Log]:
    """Open the metrics of a method; process 0 writes them."""
    if setup.hosts.index:
        yield training.Discard()
        return
    path, config = folder.method(name), setup.config
    trackers = training.Trackers(
        config.log.trackers,
        project=config.log.project,
        run=f"{folder.path.name}-{name}",
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

    def write(self, step: int, metrics: training.Metrics) -> None:
        self.log.write(step, metrics)
        self.step, self.headline = step, training.headline(metrics)
        self.advance(step, self.headline)

    def watch(self, now: sampling.Progress) -> None:
        self.advance(self.step, f"{self.headline} | {now}".strip(" |"))

    def rewind(self, lines: int) -> None:
        self.log.rewind(lines)


def _finished(path: pathlib.Path, steps: int) -> bool:
    """Return whether the line of the last step, evaluation included, is there."""
    lines = training.read_metrics(path / "metrics.jsonl", sound=True)
    return bool(lines) and lines[-1]["step"] == steps


def identity(
    learner: training.Learner, params: models.Params, seed: int
) -> dict[str, str]:
    """Return what a method's checkpoints depend on, besides the run's settings."""
    found = {
        "method": methods.fingerprint(learner.method),
        "policy": fingerprint(params),
        "seed": str(seed),
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
