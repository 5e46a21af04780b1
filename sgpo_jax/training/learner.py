"""A step of policy-gradient training: draw, sample, score, pack, update."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sgpo_jax import ledger, losses, packing, sharding
from sgpo_jax.data import Query
from sgpo_jax.planning import Schedule
from sgpo_jax.planning.schedules import Draw
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
from sgpo_jax.training.progress import Metrics, Progress, TrainConfig
from sgpo_jax.training.selection import Selection
from sgpo_jax.training.state import TrainState
from sgpo_jax.training.step import Programs, apply_batch


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
      agree: called in the middle of a step, when it had to wait for a compilation; may
        raise `Stopped`, on all processes or none.
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
    agree: Callable[[], object] = lambda: None

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
            "sampler/occupancy": scored.rollouts.stats.occupancy,
            "queue/sample": scored.rollouts.stats.queue,
            "queue/score": scored.scoring_queue,
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
        groups = make_groups([encode(q.turns) for q in queries], rollouts, keep)
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
        packed_at = time.perf_counter()
        placed = [jax.block_until_ready(self.programs.put(batch)) for batch in batches]
        placed_at = time.perf_counter()
        logged: Metrics = {
            "time/pack": packed_at - started,
            "time/transfer": placed_at - packed_at,
        }
        for epoch in range(self.config.epochs):
            progress.train, device_metrics, scores = apply_batch(
                self.programs, progress.train, placed, on_compile=self.agree
            )
            if epoch == 0:
                gap = sampler_gap(
                    batches, [sharding.fetch(s) for s in scores], rollouts
                )
                placed = [
                    dataclasses.replace(b, old_log_prob=s, fresh=np.asarray(False))
                    for b, s in zip(placed, scores, strict=True)
                ]
                logged["sampler_gap"] = gap
            logged |= {name: float(value) for name, value in device_metrics.items()}
        now = time.perf_counter()
        logged["time/train"] = now - placed_at
        seconds = now - started
        cost = training_cost(self.programs.config, groups, packed, seconds)
        repeated = repeated_cost(self.programs.config, groups)
        for _ in range(self.config.epochs):
            progress.ledger.add("training", cost)
            progress.ledger.add(ledger.REPEATED, repeated)
            cost = dataclasses.replace(cost, seconds=0.0)
        epochs = self.config.epochs
        logged |= rates(
            sampling=scored.cost,
            training=dataclasses.replace(
                cost,
                flops=cost.flops * epochs,
                tokens=cost.tokens * epochs,
                seconds=logged["time/train"],
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
