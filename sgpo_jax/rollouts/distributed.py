"""Rollouts on many processes: each samples and scores a share of the queries."""

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sgpo_jax import ledger
from sgpo_jax.data import Query
from sgpo_jax.hosts import ProcessGroup
from sgpo_jax.models import Params, Tokenizer
from sgpo_jax.rewards import HackingSigns
from sgpo_jax.rollouts.generator import RewardedRollouts, RolloutGenerator
from sgpo_jax.sampling import DecodingStrategy, Rollouts, Stats

_ROWS = ("request", "sample", "tokens", "length", "log_prob", "log_prob_at_one")
_ROWS += ("support_mass", "finish")


def assign(samples: Sequence[int], processes: int) -> list[list[int]]:
    """Divide queries among processes: the largest first, each to the least loaded.

    A function of the plan alone, so that every process knows every share.

    >>> assign([2, 9, 3, 5], 2)
    [[1], [0, 2, 3]]
    """
    shares: list[list[int]] = [[] for _ in range(processes)]
    load = [0] * processes
    for query in sorted(range(len(samples)), key=lambda i: -samples[i]):
        least = load.index(min(load))
        shares[least].append(query)
        load[least] += samples[query]
    return [sorted(share) for share in shares]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedRollouts:
    """A `SampleAndScore` whose calls are collectives of all processes.

    Every process calls it with the same arguments and gets the same whole result.

    Attributes:
      local: samples on this process's own devices.
      hosts: the processes.
      place: brings parameters of the global mesh to this process's devices.
    """

    local: RolloutGenerator
    hosts: ProcessGroup
    place: Callable[[Params], Params]

    def replace(self, **changes: Any) -> "DistributedRollouts":
        """Return rollouts whose local source has other attributes."""
        return dataclasses.replace(self, local=self.local.replace(**changes))

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return self.local.tokenizer

    def __call__(
        self,
        params: Params,
        queries: Sequence[Query],
        samples: Sequence[int],
        *,
        step: int,
        strategy: DecodingStrategy | None = None,
        version: int | None = None,
        first_sample: Sequence[int] | None = None,
    ) -> RewardedRollouts:
        """Sample `samples[i]` completions of `queries[i]` and score them."""
        shares = assign(samples, self.hosts.count)
        placed = self.place(params)

        def mine() -> bytes:
            share = shares[self.hosts.index]
            part = self.local(
                placed,
                [queries[i] for i in share],
                [samples[i] for i in share],
                step=step,
                strategy=strategy,
                first_sample=first_sample and [first_sample[i] for i in share],
            )
            return _pack(part, share)

        parts = [_unpack(part) for part in self.hosts.gather(mine)]
        return self._merge(parts, version)

    def _merge(
        self, parts: Sequence[dict[str, np.ndarray]], version: int | None
    ) -> RewardedRollouts:
        """Put the parts together, ordered by (request, sample)."""
        rows = {
            name: np.concatenate([part[name] for part in parts])
            for name in (*_ROWS, "rewards")
        }
        order = np.lexsort((rows["sample"], rows["request"]))
        rows = {name: column[order] for name, column in rows.items()}
        rewards = rows.pop("rewards")
        stats = np.array([part["stats"] for part in parts])
        costs = [_cost(part["cost"]) for part in parts]
        cost = sum(costs, ledger.Entry())
        # Processes work side by side.
        cost = dataclasses.replace(cost, seconds=max(c.seconds for c in costs))
        rollouts = Rollouts(**rows, stats=_stats(stats), version=version)
        return RewardedRollouts(
            rollouts=rollouts,
            rewards=rewards,
            texts=self.local.texts(rollouts),
            cost=cost,
            scoring_seconds=max(float(part["scoring"]) for part in parts),
            scoring_queue=float(np.mean([part["queue"] for part in parts])),
            solved_at=self.local.worker.solved_at,
            watch=sum(map(_watch, parts), HackingSigns()),
        )


_COST = tuple(field.name for field in dataclasses.fields(ledger.Entry))


def _cost(values: np.ndarray) -> ledger.Entry:
    """Read a cost; counts become integers again, which an array of floats has lost."""
    entry = dict(zip(_COST, values.tolist(), strict=True))
    counts = ("rollouts", "tokens", "padded_tokens")
    return ledger.Entry(**(entry | {name: int(entry[name]) for name in counts}))


def _watch(part: dict[str, np.ndarray]) -> HackingSigns:
    return HackingSigns(**json.loads(part["watch"].tobytes()))


def _stats(parts: np.ndarray) -> Stats:
    """Add up what each process did, side by side."""
    counts = parts[:, :-1].sum(0).astype(int).tolist()
    return Stats(*counts, seconds=float(parts[:, -1].max()))


def _pack(part: RewardedRollouts, share: Sequence[int]) -> bytes:
    """Write a part as one file of arrays, its requests numbered as in the whole."""
    rollouts = part.rollouts
    arrays = {name: getattr(rollouts, name) for name in _ROWS}
    arrays["request"] = np.asarray(share, np.int32)[rollouts.request]
    file = io.BytesIO()
    np.savez(
        file,
        **arrays,
        rewards=part.rewards,
        watch=np.frombuffer(json.dumps(part.watch.to_json()).encode(), np.uint8),
        stats=np.array(dataclasses.astuple(rollouts.stats), np.float64),
        cost=np.array([getattr(part.cost, name) for name in _COST], np.float64),
        scoring=np.array(part.scoring_seconds),
        queue=np.array(part.scoring_queue),
    )
    return file.getvalue()


def _unpack(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
