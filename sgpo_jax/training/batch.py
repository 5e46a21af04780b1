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
    by: losses.Aggregation,
) -> tuple[np.ndarray, np.ndarray]:
    """Weigh responses of the whole step, before it is split into micro-batches.

    A group may be cut in two by packing; its weights must not be.

    Args:
      lengths: tokens of each response, [R].
      group: group of each response, [R].
      keep: responses that count, [R].
      by: how much each token counts.

    Returns:
      Weight of each token of a response, and of the response in the denominator, [R].
    """
    count = len(lengths)
    room = (1 << max(count - 1, 1).bit_length()) - count
    length = jnp.asarray(np.pad(np.where(keep, lengths, 0), (0, room)), jnp.float32)
    ids = jnp.asarray(np.pad(group, (0, room)), jnp.int32)
    weights = by.weights(length, losses.Groups(ids, count + room))
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
) -> MicroBatch:
    """Attach each response's advantage and weights to its slot."""
    slot = packed.response

    def per_slot(values: np.ndarray) -> np.ndarray:
        return np.where(slot >= 0, values[slot], 0).astype(np.float32)

    return MicroBatch(
        packed=packed,
        advantage=per_slot(advantage),
        token_weight=per_slot(weights[0]),
        response_weight=per_slot(weights[1]),
        old_log_prob=np.zeros(packed.mask.shape, np.float32),
        fresh=np.asarray(True),
    )


def repeated_cost(
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
    aimed = sum(batch.target.size for batch in batches)
    return ledger.Entry(
        flops=ledger.training_flops(
            config,
            tokens=waste.tokens,
            pairs=sum(ledger.packed_pairs(p, k) for p, k in lengths),
            logits=targets,
        ),
        padded_flops=ledger.training_flops(
            config, tokens=padding, pairs=0, logits=aimed - targets
        ),
        rollouts=sum(len(k) for _, k in lengths),
        tokens=waste.tokens,
        padded_tokens=padding,
        seconds=seconds,
    )
