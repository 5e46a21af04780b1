"""Supervised fine-tuning (SFT) on demonstrations, for the initial policy."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from sgpo_jax import ledger, packing, streams
from sgpo_jax.training.batch import micro_batch, training_cost
from sgpo_jax.training.state import TrainState
from sgpo_jax.training.step import TrainPrograms, apply_batch


def fine_tune(
    programs: TrainPrograms,
    state: TrainState,
    demonstrations: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    steps: int,
    batch_size: int,
    buckets: packing.Buckets,
    seed: int,
    on_step: Callable[[int, jax.Array], None] | None = None,
) -> tuple[TrainState, ledger.Entry]:
    """Fine-tune on pairs of prompt and response, in shuffled passes.

    Args:
      programs: with `methods.SupervisedLoss` as objective.
      state: from `programs.init`.
      demonstrations: token ids of prompt and response, EOS included.
      steps: updates to make.
      batch_size: demonstrations per update.
      buckets: shapes of packed rows.
      seed: shuffles the demonstrations.
      on_step: called with the step and the loss (on the device).

    Raises:
      ValueError: if there are fewer demonstrations than a batch takes.
    """
    if len(demonstrations) < batch_size:
        raise ValueError(
            f"{len(demonstrations)} demonstrations do not fill a batch of {batch_size}"
        )
    per_pass = len(demonstrations) // batch_size
    cost = ledger.Entry()
    for step in range(steps):
        epoch, place = divmod(step, per_pass)
        order = streams.fine_tuning(seed, epoch).permutation(len(demonstrations))
        rows = order[place * batch_size : (place + 1) * batch_size]
        groups = [
            packing.Group(
                prompt=demonstrations[row][0],
                responses=[demonstrations[row][1]],
                ids=[i],
            )
            for i, row in enumerate(rows.tolist())
        ]
        batches = packing.pack(groups, buckets)
        ones = np.ones(batch_size, np.float32)
        lengths = np.array([len(demonstrations[row][1]) for row in rows], np.float32)
        state, metrics, _ = apply_batch(
            programs,
            state,
            [micro_batch(b, advantage=ones, weights=(ones, lengths)) for b in batches],
        )
        cost += training_cost(programs.config, groups, batches, 0.0)
        if on_step:
            on_step(step + 1, metrics["loss"])
    return state, cost
