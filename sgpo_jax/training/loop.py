"""The loop around the step: evaluate, save, go back, stop."""

import time
from collections.abc import Callable, Generator

from sgpo_jax.hosts import Stopped
from sgpo_jax.training import collapse
from sgpo_jax.training.learner import Learner
from sgpo_jax.training.progress import Log, Metrics, Store, TrainProgress


def steps(
    learner: Learner,
    progress: TrainProgress,
    *,
    start: int,
    stop: int,
    store: Store,
    log: Log,
    evaluate: Callable[[TrainProgress], Metrics],
) -> Generator[tuple[int, TrainProgress, Metrics], None, None]:
    """Run the steps after `start`, saving and evaluating every so often.

    Args:
      learner: what to do.
      progress: where it stands after `start` steps.
      start: steps already done.
      stop: last step.
      store: keeps checkpoints.
      log: takes the metrics of a step; lines after `progress.logged` are dropped.
      evaluate: returns held-out metrics; they are merged into the step's. Collapse is
        watched for where they have `eval/success` with `eval/low` and `eval/high`.

    Yields:
      After each evaluation of a policy that no step of this call has made, and after
      each step: its number, the progress, and the metrics as they were logged. After
      going back, numbers come again.

    Raises:
      FloatingPointError: if updates stay non-finite after going back
        `max_rollbacks` times.
      CollapseError: if the policy has become much worse and the run is to stop then.
      Stopped: if the run was asked to stop; the last whole step is being saved then.
    """
    config = learner.config
    step, kept = start, learner.completions
    # Lines of steps that the checkpoint does not have, and of its own evaluation.
    log.rewind(progress.logged)
    kept.rewind(start)
    while True:
        if progress.pending is not None:
            metrics = _evaluate(progress, step, evaluate, log)
            kept.flush(step)
            yield step, progress, metrics
            _check_collapse(config.stop_on_collapse, step, metrics)
        if step >= stop:
            return
        store.check()
        before = progress.copy()
        try:
            metrics = learner.step(progress, step + 1)
        except Stopped:
            # Always before the update, which donates its input.
            kept.rewind(step)
            kept.flush(step)
            store.save(step, before)
            raise
        step += 1
        if metrics.get("skipped", 0) >= config.max_skipped:
            step, progress = _go_back(learner, step, progress, store)
            log.rewind(progress.logged)
            kept.rewind(step)
        elif step % config.eval_every == 0 or step == config.steps:
            progress.pending = metrics
            kept.flush(step)
            started = time.perf_counter()
            store.save(step, progress)
            metrics["time/save"] = time.perf_counter() - started
        else:
            log.write(step, metrics)
            progress.logged += 1
            yield step, progress, metrics
            _check_collapse(config.stop_on_collapse, step, metrics)


def train(
    learner: Learner,
    progress: TrainProgress,
    *,
    start: int,
    store: Store,
    log: Log,
    evaluate: Callable[[TrainProgress], Metrics],
) -> TrainProgress:
    """Run all steps after `start`, as `steps` does, and return the last progress."""
    made = steps(
        learner,
        progress,
        start=start,
        stop=learner.config.steps,
        store=store,
        log=log,
        evaluate=evaluate,
    )
    for _, now, _ in made:
        progress = now
    return progress


def _evaluate(
    progress: TrainProgress,
    step: int,
    evaluate: Callable[[TrainProgress], Metrics],
    log: Log,
) -> Metrics:
    assert progress.pending is not None
    started = time.perf_counter()
    found = evaluate(progress)
    took = {"time/eval": time.perf_counter() - started}
    metrics = progress.pending | found | took
    if step == 0 and collapse.has_interval(found):
        error = collapse.standard_error(found)
        progress.initial = [float(found["eval/success"]), error]
    metrics |= collapse.held_out_collapse(progress.initial, found)
    log.write(step, metrics)
    progress.record(step, metrics)
    return metrics


def _check_collapse(stop: bool, step: int, metrics: Metrics) -> None:
    if stop and (said := collapse.alarm(step, metrics)):
        raise collapse.CollapseError(said)


def _go_back(
    learner: Learner, step: int, progress: TrainProgress, store: Store
) -> tuple[int, TrainProgress]:
    config = learner.config
    if progress.rollbacks >= config.max_rollbacks:
        raise FloatingPointError(
            f"step {step}: {config.max_skipped} updates in a row were not"
            f" finite, after going back {progress.rollbacks} times; lower the"
            " learning rate or look at the last checkpoint"
        )
    rollbacks = progress.rollbacks + 1
    step, progress = store.restore()
    progress.rollbacks = rollbacks
    return step, progress
