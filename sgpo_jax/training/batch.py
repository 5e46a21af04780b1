"""From scored rollouts to the micro-batches of a step."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from sgpo_jax import ledger, losses, packing
from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling import Rollouts
from sgpo_jax.training.state import MicroBatch


def make_groups(
    prompts: Sequence[Sequence[int]], rollouts: Rollouts, keep: np.ndarray
) -> list[packing.Group]:
    """Collect the kept rollouts of each prompt; ids are rows of the rollouts."""
    members: list[list[int]] = [[] for _ in prompts]
    for row in np.flatnonzero(keep).tolist():
        members[rollouts.request[row]].append(row)
    return [
        packing.Group(
            prompt=prompt,
            responses=[
                rollouts.tokens[row, : rollouts.length[row]].tolist() for row in rows
            ],
            ids=rows,
        )
        for prompt, rows in zip(prompts, members, strict=True)
        if rows
    ]


def response_weights(
    lengths: np.ndarray,
    group: np.ndarray,
    keep: np.ndarray,
    *,
    aggregation: losses.Aggregation,
) -> tuple[np.ndarray, np.ndarray]:
    """Weigh responses of the whole step, before it is split into micro-batches.

    A group may be cut in two by packing; its weights must not be.

    Args:
      lengths: tokens of each response, [R].
      group: group of each response, [R].
      keep: responses that count, [R].
      aggregation: how much each token counts.

    Returns:
      Weight of each token of a response, and of the response in the denominator, [R].
    """
    count = len(lengths)
    room = (1 << max(count - 1, 1).bit_length()) - count
    length = jnp.asarray(np.pad(np.where(keep, lengths, 0), (0, room)), jnp.float32)
    ids = jnp.asarray(np.pad(group, (0, room)), jnp.int32)
    weights = aggregation.weights(length, losses.Groups(ids, count + room))
    token, response = (np.asarray(x)[:count] for x in weights)
    return token, response


def only_sampled(packed: packing.Packed, rollouts: Rollouts) -> packing.Packed:
    """Mask the tokens that were forced on a response: context, but no choices of it."""
    sampled = rollouts.sampled[packed.response]
    width = min(packed.mask.shape[1], sampled.shape[1])
    mask = packed.mask.copy()
    mask[:, :width] &= sampled[:, :width]
    return dataclasses.replace(packed, mask=mask)


def micro_batch(
    packed: packing.Packed,
    *,
    advantage: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    rewards: np.ndarray | None = None,
    sampler_log_prob: np.ndarray | None = None,
) -> MicroBatch:
    """Attach what the loss reads of each response to its slot.

    Args:
      packed: rows whose `response` are rows of the arrays below.
      advantage: one per response, [R].
      weights: token and response weights, [R].
      rewards: one per response, [R]; None where no objective reads them.
      sampler_log_prob: of each token, [R, T]; None if no part reads it.
    """
    slot = packed.response

    def per_slot(values: np.ndarray) -> np.ndarray:
        return np.where(slot >= 0, values[slot], 0).astype(np.float32)

    reward = np.full(len(slot), np.nan, np.float32)
    if rewards is not None:
        reward = np.where(slot >= 0, rewards[slot], np.nan).astype(np.float32)
    drawn = None
    if sampler_log_prob is not None:
        drawn = np.zeros(packed.mask.shape, np.float32)
        width = min(packed.mask.shape[1], sampler_log_prob.shape[1])
        drawn[:, :width] = sampler_log_prob[slot, :width]
        drawn = np.where(packed.mask, drawn, 0)
    return MicroBatch(
        packed=packed,
        advantage=per_slot(advantage),
        reward=reward,
        token_weight=per_slot(weights[0]),
        response_weight=per_slot(weights[1]),
        old_log_prob=np.zeros(packed.mask.shape, np.float32),
        on_policy=np.asarray(True),
        sampler_log_prob=drawn,
    )


def sampler_log_probs(rollouts: Rollouts) -> np.ndarray:
    """Log-probability with which each token was drawn, [R, T]; 0 where none was.

    That over the whole vocabulary minus the log of the mass that truncated sampling
    (top-k, top-p, min-p) left.
    """
    drawn = rollouts.sampled
    mass = np.where(drawn, rollouts.support_mass, 1)
    return np.where(drawn, rollouts.log_prob - np.log(mass), 0).astype(np.float32)


def by_response(
    batches: Sequence[packing.Packed], values: Sequence[np.ndarray], count: int
) -> np.ndarray:
    """Numbers per slot as numbers per response, 0 where a response is in no slot."""
    found = np.zeros(count, np.float32)
    for packed, value in zip(batches, values, strict=True):
        used = packed.response >= 0
        found[packed.response[used]] = value[used]
    return found


def cost_without_prefix_sharing(
    config: DecoderConfig, groups: Sequence[packing.Group]
) -> ledger.Entry:
    """Count the same passes if every response encoded its prompt for itself.

    The mathematics is the same, so this is what an implementation without shared
    prefixes spends on the same training.
    """
    lengths = [(len(g.prompt), len(r)) for g in groups for r in g.responses]
    return ledger.Entry(
        flops=ledger.training_flops(
            config,
            tokens=sum(p + k for p, k in lengths),
            pairs=sum(ledger.packed_pairs(p, [k]) for p, k in lengths),
            logits=sum(k for _, k in lengths),
        ),
        rollouts=len(lengths),
        tokens=sum(p + k for p, k in lengths),
    )


def training_cost(
    config: DecoderConfig,
    groups: Sequence[packing.Group],
    batches: Sequence[packing.Packed],
    seconds: float,
) -> ledger.Entry:
    """Count a step's forward and backward passes; see `ledger.training_flops`."""
    waste = packing.waste(groups, batches)
    lengths = [(len(g.prompt), [len(r) for r in g.responses]) for g in groups]
    targets = sum(sum(k) for _, k in lengths)
    padding = waste.padded - waste.tokens
    computed = sum(batch.target.size for batch in batches)
    return ledger.Entry(
        flops=ledger.training_flops(
            config,
            tokens=waste.tokens,
            pairs=sum(ledger.packed_pairs(p, k) for p, k in lengths),
            logits=targets,
        ),
        padded_flops=ledger.training_flops(
            config, tokens=padding, pairs=0, logits=computed - targets
        ),
        rollouts=sum(len(k) for _, k in lengths),
        tokens=waste.tokens,
        padded_tokens=padding,
        seconds=seconds,
    )


def scoring_cost(
    config: DecoderConfig, groups: Sequence[packing.Group], seconds: float
) -> ledger.Entry:
    """Count one forward pass over packed groups."""
    lengths = [(len(g.prompt), [len(r) for r in g.responses]) for g in groups]
    tokens = sum(p + sum(k) for p, k in lengths)
    return ledger.Entry(
        flops=ledger.forward_flops(
            config,
            tokens=tokens,
            pairs=sum(ledger.packed_pairs(p, k) for p, k in lengths),
            logits=sum(sum(k) for _, k in lengths),
        ),
        rollouts=sum(len(k) for _, k in lengths),
        tokens=tokens,
        seconds=seconds,
    )
