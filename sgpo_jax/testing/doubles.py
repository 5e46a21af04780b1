"""Scripted rollouts, and a store and a log that keep everything in memory."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax.data import Query
from sgpo_jax.ledger import Entry
from sgpo_jax.models import Tokenizer
from sgpo_jax.rollouts import RewardedRollouts
from sgpo_jax.sampling import DecodingStrategy, Finish, Rollouts, Stats
from sgpo_jax.testing.tiny import ARITHMETIC
from sgpo_jax.training import TrainProgress


@dataclasses.dataclass
class ScriptedRollouts:
    """Rollouts of random tokens and rewards, a function of the step alone.

    Attributes:
      tokenizer: what training encodes the prompts with.
      response_length: longest response in tokens.
      unscorable: share of the rewards that are NaN; half of the others are 1, half 0.
      staleness: by how many versions the rollouts are older than the policy.
      steps: the step of every call so far.

    >>> scripted = ScriptedRollouts(unscorable=0.0)
    >>> query = Query(id="a", prompt="1+1=", reference="2")
    >>> scripted(None, [query], [3], step=5).rewards.shape, scripted.steps
    ((3,), [5])
    """

    tokenizer: Tokenizer = ARITHMETIC
    response_length: int = 4
    unscorable: float = 0.1
    staleness: int = 0
    steps: list[int] = dataclasses.field(default_factory=list)

    def __call__(
        self,
        params: Any,
        queries: Sequence[Query],
        samples: Sequence[int],
        *,
        step: int,
        strategy: DecodingStrategy | None = None,
        version: int | None = None,
    ) -> RewardedRollouts:
        """Return `samples[i]` rollouts of `queries[i]`; parameters are not read."""
        self.steps.append(step)
        rng = np.random.default_rng(step)
        request = np.repeat(np.arange(len(queries)), samples).astype(np.int32)
        count, longest = len(request), self.response_length
        length = rng.integers(1, longest + 1, size=count).astype(np.int32)
        tokens = rng.integers(1, 11, size=(count, longest)).astype(np.int32)
        is_real = np.arange(longest) < length[:, None]
        tokens[~is_real] = 0
        rewards = rng.integers(0, 2, size=count).astype(np.float64)
        rewards[rng.random(count) < self.unscorable] = np.nan
        zeros = np.zeros(tokens.shape, np.float32)
        rollouts = Rollouts(
            request=request,
            sample=np.zeros(count, np.int32),
            tokens=tokens,
            length=length,
            log_prob=zeros,
            log_prob_at_one=zeros,
            support_mass=is_real.astype(np.float32),
            finish=np.full(count, Finish.TOKEN),
            stats=Stats(0, 0, 0, 0, 0, 0, 0.0),
            version=None if version is None else version - self.staleness,
        )
        return RewardedRollouts(
            rollouts=rollouts,
            rewards=rewards,
            texts=[
                self.tokenizer.decode(row[:n])
                for row, n in zip(tokens.tolist(), length.tolist(), strict=True)
            ],
            cost=Entry(flops=1.0, rollouts=count),
            scoring_seconds=0.0,
            scoring_queue=0.0,
        )


@dataclasses.dataclass
class MemoryStore:
    """Checkpoints kept in memory: a `training.Store`.

    Attributes:
      saved: step and progress of every checkpoint, oldest first.
    """

    saved: list[tuple[int, TrainProgress]] = dataclasses.field(default_factory=list)

    def save(self, step: int, progress: TrainProgress) -> None:
        """Keep a copy; the original's arrays are donated to the next update."""
        train, prompts, copies = jax.tree.map(np.array, progress.arrays)
        kept = dataclasses.replace(
            progress.copy(), train=train, prompts=prompts, copies=copies
        )
        self.saved.append((step, kept))

    def check(self) -> None:
        """Nothing can go wrong in memory."""

    def restore(self) -> tuple[int, TrainProgress]:
        """Return the newest checkpoint."""
        step, progress = self.saved[-1]
        progress = progress.copy()
        progress.train = jax.tree.map(jnp.asarray, progress.train)
        return step, progress
