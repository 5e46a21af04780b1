"""The loop of policy-gradient training: draw, sample, score, pack, update."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from sgpo_jax import ledger, losses, packing, sharding
from sgpo_jax.data import Query
from sgpo_jax.hosts import Stopped
from sgpo_jax.planning import Schedule
from sgpo_jax.planning.schedules import Draw, State
from sgpo_jax.profiling import SUCCESS, SampleAndScore, Scored
from sgpo_jax.training.batch import (
    make_groups,
    micro_batch,
    only_sampled,
    repeated_cost,
    response_weights,
    training_cost,
)
from sgpo_jax.training.operations import Trace, rates
from sgpo_jax.training.selection import Selection
from sgpo_jax.training.step import Programs, TrainState, apply_batch

Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, and on how much at a time.

    Attributes:
      steps: updates from fresh rollouts.
      rollouts: rollouts sampled per step.
      epochs: updates on the rollouts of one step; more than one makes the later
        updates off-policy, which is what clipping is for.
      eval_every: steps between evaluations and checkpoints.
      max_skipped: updates skipped in a row for a non-finite loss or gradient before
        the run goes back to its last checkpoint.
      max_rollbacks: how often it may go back before it gives up.
    """

    steps: int = 100
    rollouts: int = 256
    epochs: int = 1
    eval_every: int = 10
    max_skipped: int = 3
    max_rollbacks: int = 3

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("max_rollbacks", "steps") else 1
            if value < lowest:
                raise ValueError(f"{field.name} must be at least {lowest}, got {value}")


@dataclasses.dataclass(kw_only=True)
class Progress:
    """What changes while a run goes on; all of it is in every checkpoint.

    Attributes:
      train: parameters and optimizer.
      schedule: cursors or beliefs of the schedule.
      ledger: compute spent so far.
      rollbacks: times the run went back; changes the noise that follows.
      logged: lines of metrics written so far.
      pending: metrics of the last step, if it is yet to be evaluated and logged; so a
        checkpoint is written before the evaluation, which may be cut short.
      best: step and held-out success of the best evaluation so far.
    """

    train: TrainState
    schedule: State
    ledger: ledger.Ledger
    rollbacks: int = 0
    logged: int = 0
    pending: Metrics | None = None
    best: list[float] | None = None

    def copy(self) -> "Progress":
        """Return what stays as it is while a step changes the original."""
        spent = ledger.Ledger(self.ledger.to_json())
        return dataclasses.replace(self, ledger=spent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """One method on one set of queries: everything that does not change.

    Attributes:
      programs: jitted training programs.
      rollouts: sampler and verifiers.
      queries: the training queries, in the order of the schedule's rows.
      schedule: which queries, how often, worth what.
      ladder: shapes of packed rows.
      select: which responses are trained on.
      by: how much each token counts in the loss.
      config: length and sizes.
      seed: root of the schedule's draws.
      trace: which steps are profiled; None for none.
      most_stale: updates the policy may be ahead of the one that gave the rollouts.
    """

    programs: Programs
    rollouts: SampleAndScore
    queries: Sequence[Query]
    schedule: Schedule
    ladder: packing.Ladder
    select: Selection
    by: losses.Aggregation
    config: TrainConfig
    seed: int
    trace: Trace | None = None
    most_stale: int = 0

    def start(self, train: TrainState) -> Progress:
        """Return the progress of a run that has not begun."""
        return Progress(
            train=train,
            schedule=self.schedule.init(),
            ledger=ledger.Ledger(),
            pending={},  # the initial policy is evaluated too
        )

    def step(self, progress: Progress, step: int) -> Metrics:
        """Do one step (counted from 1), changing `progress`, and return metrics."""
        with self.trace.step(step) if self.trace else contextlib.nullcontext():
            return self._step(progress, step)

    def _step(self, progress: Progress, step: int) -> Metrics:
        started = time.perf_counter()
        # After going back, the same draws would only lead to the same place.
        noise = step + (progress.rollbacks << 24)
        draw, schedule = self.schedule.draw(
            progress.schedule,
            budget=self.config.rollouts,
            progress=(step - 1) / self.config.steps,
            seed=hash_seed(self.seed, noise),
        )
        queries = [self.queries[row] for row in draw.rows]
        version = int(progress.train.step)
        scored = self.rollouts(
            progress.train.params,
            queries,
            draw.sizes.tolist(),
            step=noise,
            version=version,
        )
        scored.rollouts.check_version(version, most_stale=self.most_stale)
        progress.ledger.add("generation", scored.cost)
        progress.ledger.add("scoring", ledger.Entry(seconds=scored.scoring_seconds))
        group = scored.rollouts.request
        advantage, progress.schedule = self.schedule.credit(
            schedule, draw, group=group, rewards=scored.rewards
        )
        metrics = rollout_metrics(draw, scored, advantage)
        metrics |= {
            "time/sample": scored.cost.seconds,
            "time/score": scored.scoring_seconds,
        }
        factor = self.select(advantage, seed=hash_seed(self.seed, noise, 1))
        # What could not be scored is neither right nor wrong.
        factor = np.where(np.isnan(scored.rewards), 0, factor)
        metrics |= self._learn(progress, queries, scored, advantage, factor)
        metrics["step_time_sec"] = time.perf_counter() - started
        return metrics

    def _learn(
        self,
        progress: Progress,
        queries: Sequence[Query],
        scored: Scored,
        advantage: np.ndarray,
        factor: np.ndarray,
    ) -> Metrics:
        started = time.perf_counter()
        rollouts = scored.rollouts
        keep = factor != 0
        encode = self.rollouts.tokenizer.encode_prompt
        groups = make_groups([encode(q.prompt) for q in queries], rollouts, keep)
        packed = packing.pack(groups, self.ladder)
        if not packed:
            return {"trained": 0, "padding": 0.0}
        token, response = response_weights(
            rollouts.sampled.sum(axis=1),
            rollouts.request,
            ~np.isnan(scored.rewards),
            by=self.by,
        )
        # Those left out stay in the denominator: the expected step is the same.
        response = response * (response.sum() / response[keep].sum())
        weights = (token * factor, response)
        batches = [
            micro_batch(
                only_sampled(one, rollouts), advantage=advantage, weights=weights
            )
            for one in packed
        ]
        packing_seconds = time.perf_counter() - started
        logged: Metrics = {"time/pack": packing_seconds}
        for epoch in range(self.config.epochs):
            progress.train, device_metrics, scores = apply_batch(
                self.programs, progress.train, batches
            )
            if epoch == 0:
                gap = sampler_gap(
                    batches, [sharding.fetch(s) for s in scores], rollouts
                )
                batches = [
                    dataclasses.replace(b, old_log_prob=s, fresh=np.asarray(False))
                    for b, s in zip(batches, scores, strict=True)
                ]
                logged["sampler_gap"] = gap
            logged |= {name: float(value) for name, value in device_metrics.items()}
        seconds = time.perf_counter() - started
        cost = training_cost(self.programs.config, groups, packed, seconds)
        repeated = repeated_cost(self.programs.config, groups)
        for _ in range(self.config.epochs):
            progress.ledger.add("training", cost)
            progress.ledger.add(ledger.REPEATED, repeated)
            cost = dataclasses.replace(cost, seconds=0.0)
        logged["time/train"] = seconds - packing_seconds
        epochs = self.config.epochs
        logged |= rates(
            sampling=scored.cost,
            training=dataclasses.replace(
                cost,
                flops=cost.flops * epochs,
                tokens=cost.tokens * epochs,
                seconds=seconds - packing_seconds,
            ),
            devices=jax.device_count()
            if self.programs.mesh is None
            else self.programs.mesh.size,
            kind=jax.devices()[0].device_kind,
        )
        waste = packing.waste(groups, packed)
        return logged | {
            "trained": int(keep.sum()),
            "padding": waste.share,
            "prefix_sharing": waste.dense / waste.tokens,
            "compiles": self.programs.compiles(),
        }


def hash_seed(*parts: int) -> int:
    """Mix integers into one seed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def sampler_gap(
    batches: Sequence[Any], scores: Sequence[np.ndarray], rollouts: Any
) -> float:
    """Return the mean |log-probability in training - in sampling| per token."""
    total, count = 0.0, 0
    for batch, score in zip(batches, scores, strict=True):
        slot, mask = batch.packed.response, batch.packed.mask
        sampled = rollouts.log_prob[slot, : mask.shape[1]]
        width = sampled.shape[1]
        difference = np.abs(score[:, :width] - sampled)
        total += float(difference[mask[:, :width]].sum())
        count += int(mask.sum())
    return total / max(count, 1)


def rollout_metrics(draw: Draw, scored: Scored, advantage: np.ndarray) -> Metrics:
    """Describe the rollouts of a step; names follow TRL's where it has them."""
    rollouts, rewards = scored.rollouts, scored.rewards
    known = ~np.isnan(rewards)
    dead = np.bincount(rollouts.request, advantage != 0, minlength=len(draw.rows)) == 0
    return {
        "reward": float(rewards[known].mean()) if known.any() else 0.0,
        "success": float((rewards >= SUCCESS).mean()),
        "unscorable": float((~known).mean()),
        "frac_reward_zero_std": float(dead.mean()),
        "completions/mean_length": float(rollouts.length.mean()),
        "completions/clipped_ratio": float((~rollouts.finished).mean()),
        "rollouts": len(rewards),
        "queries": len(draw.rows),
        "phase": draw.phase,
    }


@runtime_checkable
class Store(Protocol):
    """Keeps the progress of a run; see `ProgressStore`."""

    def save(self, step: int, progress: Progress) -> None:
        """Write a checkpoint of a step."""
        ...

    def check(self) -> None:
        """Raise if a checkpoint could not be written."""
        ...

    def restore(self) -> tuple[int, Progress]:
        """Return the newest checkpoint."""
        ...


@runtime_checkable
class Log(Protocol):
    """Takes the metrics of steps; see `MetricsWriter`."""

    def write(self, step: int, metrics: Metrics) -> None:
        """Append a line."""
        ...

    def rewind(self, lines: int) -> None:
        """Drop all but the first lines: their steps will be done again."""
        ...


def train(
    learner: Learner,
    progress: Progress,
    *,
    start: int,
    store: Store,
    log: Log,
    evaluate: Callable[[Progress], Metrics],
) -> Progress:
    """Run the steps after `start`, saving and evaluating every so often.

    Args:
      learner: what to do.
      progress: where it stands after `start` steps.
      start: steps already done.
      store: keeps checkpoints.
      log: takes the metrics of a step.
      evaluate: returns held-out metrics; they are merged into the step's.

    Raises:
      FloatingPointError: if updates stay non-finite after going back
        `max_rollbacks` times.
      Stopped: if the run was asked to stop; the last whole step is being saved then.
    """
    config = learner.config
    step = start
    while True:
        if progress.pending is not None:
            _evaluate(progress, step, evaluate, log)
        if step == config.steps:
            return progress
        store.check()
        before = progress.copy()
        try:
            metrics = learner.step(progress, step + 1)
        except Stopped:
            # Only sampling and scoring stop, before the update donates its input.
            store.save(step, before)
            raise
        step += 1
        if metrics.get("skipped", 0) >= config.max_skipped:
            step, progress = _go_back(learner, step, progress, store)
            log.rewind(progress.logged)
        elif step % config.eval_every == 0 or step == config.steps:
            progress.pending = metrics
            store.save(step, progress)
        else:
            log.write(step, metrics)
            progress.logged += 1


def _evaluate(
    progress: Progress,
    step: int,
    evaluate: Callable[[Progress], Metrics],
    log: Log,
) -> None:
    assert progress.pending is not None
    found = evaluate(progress)
    log.write(step, progress.pending | found)
    progress.logged += 1
    progress.pending = None
    success = found.get("eval/success")
    if success is not None and (progress.best is None or success > progress.best[1]):
        progress.best = [float(step), float(success)]


def _go_back(
    learner: Learner, step: int, progress: Progress, store: Store
) -> tuple[int, Progress]:
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
