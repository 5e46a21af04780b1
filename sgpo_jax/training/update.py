"""Updates from the rollouts of a step: pack, score, accumulate, update."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sgpo_jax import ledger, packing, sharding
from sgpo_jax.methods import Method
from sgpo_jax.training import copies
from sgpo_jax.training.batch import (
    by_response,
    cost_without_prefix_sharing,
    make_groups,
    micro_batch,
    only_sampled,
    response_weights,
    sampler_log_probs,
    scoring_cost,
    training_cost,
)
from sgpo_jax.training.collect import Collected
from sgpo_jax.training.progress import Metrics, TrainProgress
from sgpo_jax.training.state import MicroBatch
from sgpo_jax.training.step import TrainPrograms, apply_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed rollouts of a step, split into minibatches of whole groups.

    Attributes:
      groups: prompts with the responses that are trained on, per minibatch.
      packed: micro-batches on the host, per minibatch.
      live: prompts with the responses among them whose advantage is not 0.
      live_packed: rows of `live`; what leaving the others out would have trained on.
    """

    groups: list[list[packing.Group]]
    packed: list[list[MicroBatch]]
    live: list[packing.Group]
    live_packed: list[packing.Packed]

    @property
    def all_groups(self) -> list[packing.Group]:
        """Groups of all minibatches."""
        return [group for groups in self.groups for group in groups]

    @property
    def all_packed(self) -> list[packing.Packed]:
        """Rows of all minibatches."""
        return [batch.packed for batches in self.packed for batch in batches]


def make_batch(
    method: Method,
    buckets: packing.Buckets,
    prompts: Sequence[Sequence[int]],
    taken: Collected,
    *,
    advantage: np.ndarray,
    factor: np.ndarray,
) -> Batch | None:
    """Pack the responses that are trained on; None if there are none.

    Args:
      method: aggregation, minibatches and needs.
      buckets: shapes of packed rows.
      prompts: token ids of each group's prompt.
      taken: rollouts of the step.
      advantage: one per rollout, [R].
      factor: of the subsample, [R]; 0 leaves a response out.
    """
    rollouts, keep = taken.rollouts, factor != 0
    groups = make_groups(prompts, rollouts, keep)
    if not groups:
        return None
    scored = np.isfinite(taken.rewards)
    token, response = response_weights(
        rollouts.sampled.sum(axis=1),
        taken.group,
        scored,
        aggregation=method.aggregation,
    )
    # Those left out stay in the denominator: the expected step is the same.
    if response[keep].sum() > 0:
        response = response * (response.sum() / response[keep].sum())
    drawn = None
    if "sampler_log_probs" in method.needs:
        drawn = sampler_log_probs(rollouts)
    parts = minibatches(groups, method.minibatches)
    packed = [
        [
            micro_batch(
                only_sampled(rows, rollouts),
                advantage=advantage,
                weights=(token * factor, response),
                rewards=taken.rewards,
                sampler_log_prob=drawn,
            )
            for rows in packing.pack(part, buckets)
        ]
        for part in parts
    ]
    live, rows = groups, [one.packed for part in packed for one in part]
    if (advantage[keep] == 0).any():
        live = make_groups(prompts, rollouts, keep & (advantage != 0))
        rows = packing.pack(live, buckets)
    return Batch(groups=parts, packed=packed, live=live, live_packed=rows)


def minibatches(groups: list[packing.Group], parts: int) -> list[list[packing.Group]]:
    """Deal groups into parts of about equal number, in order; none of them empty."""
    edges = np.linspace(0, len(groups), parts + 1).round().astype(int)
    return [groups[a:b] for a, b in itertools.pairwise(edges) if a < b]


def learn(
    programs: TrainPrograms,
    method: Method,
    progress: TrainProgress,
    batch: Batch,
    taken: Collected,
    *,
    on_compile: Callable[[], object] = lambda: None,
) -> Metrics:
    """Update the policy on a batch, changing `progress`; return metrics.

    Passes over the batch, minibatches in each; old log-probabilities are those of the
    policy before the first update.
    """
    started = time.perf_counter()
    put = [
        [jax.block_until_ready(programs.put(one)) for one in part]
        for part in batch.packed
    ]
    placed_at = time.perf_counter()
    put = [with_reference(programs, progress, part) for part in put]
    scored_at = time.perf_counter()
    logged: Metrics = {
        "time/transfer": placed_at - started,
        "time/scoring": scored_at - placed_at,
    }
    several, updates = method.updates_per_batch > 1, []
    old = _old_log_probs(programs, progress, put)
    for update_pass in range(method.updates_per_batch):
        for place, hosts in enumerate(batch.packed):
            part = with_residual_means(
                programs, progress, put[place], hosts, taken.group
            )
            progress.train, device_metrics, scores = apply_batch(
                programs, progress.train, part, on_compile=on_compile
            )
            if update_pass == 0:
                before = scores if place == 0 else old[place]
                if several:
                    put[place] = [
                        dataclasses.replace(
                            one, old_log_prob=score, on_policy=np.asarray(False)
                        )
                        for one, score in zip(part, before, strict=True)
                    ]
                old[place] = before
            _after_update(method, progress)
            updates.append({name: float(x) for name, x in device_metrics.items()})
    logged |= {name: float(np.mean([x[name] for x in updates])) for name in updates[0]}
    logged["skipped"] = updates[-1]["skipped"]  # in a row, up to now
    logged["sampler_gap"] = sampler_gap(batch, old, taken)
    if "drift" in method.needs:
        logged["policy_drift"] = _drift(programs, progress, put, old)
    logged["time/train"] = time.perf_counter() - scored_at
    _charge(programs, method, progress, batch, logged)
    waste = packing.waste(batch.all_groups, batch.all_packed)
    return logged | {
        "padding": waste.share,
        "prefix_sharing": waste.dense / waste.tokens,
        "compiles": programs.compiles(),
    }


def _old_log_probs(
    programs: TrainPrograms, progress: TrainProgress, put: list[list[MicroBatch]]
) -> list[list[jax.Array]]:
    """Score minibatches after the first before any update, and mark them so.

    The first minibatch needs no scores: its first update is on policy.
    """
    old: list[list[jax.Array]] = [[]]
    for place, part in enumerate(put[1:], start=1):
        scores = [programs.score(progress.train.params, one.packed) for one in part]
        put[place] = [
            dataclasses.replace(one, old_log_prob=score, on_policy=np.asarray(False))
            for one, score in zip(part, scores, strict=True)
        ]
        old.append(scores)
    return old


def with_reference(
    programs: TrainPrograms, progress: TrainProgress, part: Sequence[MicroBatch]
) -> list[MicroBatch]:
    """Attach log-probabilities under the reference, if the loss reads them."""
    if "reference" not in programs.loss.needs:
        return list(part)
    params = copies.with_copy(progress.train, progress.copies["reference"])
    return [
        dataclasses.replace(one, reference_log_prob=programs.score(params, one.packed))
        for one in part
    ]


def with_residual_means(
    programs: TrainPrograms,
    progress: TrainProgress,
    part: Sequence[MicroBatch],
    hosts: Sequence[MicroBatch],
    group: np.ndarray,
) -> list[MicroBatch]:
    """Attach group means of the objective's residual under the current policy.

    They belong to one update: a later one, of another pass or minibatch, has others.

    Args:
      programs: of the method's loss.
      progress: the policy.
      part: micro-batches of one update, which holds groups whole.
      hosts: the same on the host.
      group: group of each rollout, [R].
    """
    if "residual_mean" not in programs.loss.needs:
        return list(part)
    packed = [one.packed for one in hosts]
    found = [
        sharding.fetch(programs.residual(progress.train.weights, one)) for one in part
    ]
    residual = by_response(packed, found, len(group))
    used = np.zeros(len(group), bool)
    for one in packed:
        used[one.response[one.response >= 0]] = True
    total = np.bincount(group[used], residual[used], minlength=group.max() + 1)
    count = np.bincount(group[used], minlength=group.max() + 1)
    mean = (total / np.maximum(count, 1))[group].astype(np.float32)

    def attached(one: MicroBatch, slot: np.ndarray) -> MicroBatch:
        values = np.where(slot >= 0, mean[slot], 0).astype(np.float32)
        return dataclasses.replace(one, residual_mean=values)

    return [
        attached(one, host.response) for one, host in zip(part, packed, strict=True)
    ]


def _drift(
    programs: TrainPrograms,
    progress: TrainProgress,
    put: list[list[MicroBatch]],
    old: list[list[jax.Array]],
) -> float:
    """Mean absolute change of the log-probability of a token by the step's updates."""
    total, count = 0.0, 0
    for one, before in zip(itertools.chain(*put), itertools.chain(*old), strict=True):
        now = programs.score(progress.train.params, one.packed)
        mask = sharding.fetch(one.packed.mask)
        change = np.abs(sharding.fetch(now) - sharding.fetch(before))
        total += float(change[mask].sum(dtype=np.float64))
        count += int(mask.sum())
    return total / max(count, 1)


def _after_update(method: Method, progress: TrainProgress) -> None:
    """Move the copies that follow the policy."""
    if method.averaging:
        progress.copies["averaged"] = copies.averaged(
            progress.copies["averaged"], progress.train, decay=method.averaging
        )
    refresh = method.kl.refresh if method.kl is not None else 0
    if refresh and int(progress.train.step) % refresh == 0:
        progress.copies["reference"] = copies.trained_copy(progress.train)


def _charge(
    programs: TrainPrograms,
    method: Method,
    progress: TrainProgress,
    batch: Batch,
    logged: Metrics,
) -> None:
    """Enter the passes of a step into the ledger."""
    groups, config = batch.all_groups, programs.config
    passes = method.updates_per_batch
    cost = training_cost(config, groups, batch.all_packed, logged["time/train"])
    live = training_cost(config, batch.live, batch.live_packed, 0.0)
    for number in range(passes):
        progress.ledger.add("training", cost)
        progress.ledger.add(ledger.LIVE, live)
        progress.ledger.add(
            ledger.WITHOUT_PREFIX_SHARING, cost_without_prefix_sharing(config, groups)
        )
        if number == 0:
            cost = dataclasses.replace(cost, seconds=0.0)
    forward = [bool("reference" in programs.loss.needs)]
    # One before each update: together the groups once a pass.
    forward += [True] * passes if "residual_mean" in method.needs else []
    forward.append("drift" in method.needs)
    for _ in range(sum(forward)):
        progress.ledger.add("scoring", scoring_cost(config, groups, 0.0))
    later = [group for part in batch.groups[1:] for group in part]
    if later:
        progress.ledger.add("scoring", scoring_cost(config, later, 0.0))
    progress.ledger.add("scoring", ledger.Entry(seconds=logged["time/scoring"]))
    logged["training_tokens"] = cost.tokens * passes
    logged["training_flops"] = cost.flops * passes


def sampler_gap(
    batch: Batch, scores: Sequence[Sequence[jax.Array]], taken: Collected
) -> float:
    """Mean |log-probability in training - in sampling| per token."""
    total, count = 0.0, 0
    for part, found in zip(batch.packed, scores, strict=True):
        for one, score in zip(part, found, strict=True):
            slot, mask = one.packed.response, one.packed.mask
            sampled = taken.rollouts.log_prob[slot, : mask.shape[1]]
            width = sampled.shape[1]
            difference = np.abs(sharding.fetch(score)[:, :width] - sampled)
            total += float(difference[mask[:, :width]].sum())
            count += int(mask.sum())
    return total / max(count, 1)
