"""A sampler whose outcomes depend on query and sample index, as the real one's do."""

import dataclasses
import zlib

import numpy as np

from sgpo_jax import models
from sgpo_jax.ledger import Entry
from sgpo_jax.rollouts import RewardedRollouts
from sgpo_jax.sampling import Finish, Rollouts, Stats


@dataclasses.dataclass
class Bernoulli:
    """Rewards of queries with known success rates; `fail_after` calls it is killed."""

    rate: dict
    unscorable: float = 0.1
    fail_after: int = 10**9
    calls: int = 0
    samples: int = 0
    tokenizer = models.CharTokenizer("0123456789+=")

    def __call__(
        self, params, queries, samples, *, step, strategy=None, version=None,
        first_sample=None,
    ):  # fmt: skip
        self.calls += 1
        if self.calls > self.fail_after:
            raise KeyboardInterrupt
        first = first_sample or [0] * len(queries)
        request = np.repeat(np.arange(len(queries)), samples).astype(np.int32)
        sample = np.concatenate(
            [np.arange(f, f + n) for f, n in zip(first, samples, strict=True)]
        )
        self.samples += len(request)
        rewards, length = np.empty(len(request)), np.empty(len(request), np.int32)
        for i, (row, index) in enumerate(zip(request, sample, strict=True)):
            query = queries[row]
            rng = np.random.default_rng([zlib.crc32(query.id.encode()), index])
            solved = rng.random() < self.rate[query.id]
            # Failures earn a part of the reward that floats cannot add up in any order.
            rewards[i] = 1.0 if solved else rng.random() / 3
            rewards[i] = np.nan if rng.random() < self.unscorable else rewards[i]
            length[i] = rng.integers(1, 9)
        zeros = np.zeros((len(request), 8), np.float32)
        return RewardedRollouts(
            rollouts=Rollouts(
                request=request,
                sample=sample,
                tokens=zeros.astype(np.int32),
                length=length,
                log_prob=zeros,
                log_prob_at_one=zeros,
                support_mass=zeros,
                finish=np.where(length == 8, Finish.LENGTH, Finish.TOKEN),
                stats=Stats(0, 0, 0, 0, 0, 0, 0.0),
            ),
            rewards=rewards,
            texts=[
                f"{queries[r].id}/{s}" for r, s in zip(request, sample, strict=True)
            ],
            cost=Entry(flops=1.0, rollouts=len(request), seconds=float(self.calls)),
            scoring_seconds=0.0,
            scoring_queue=0.0,
        )
