"""Held-out accuracy with a confidence interval."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sgpo_jax import streams
from sgpo_jax.artefacts import DamagedError, read_json
from sgpo_jax.bounds import Share, bounded
from sgpo_jax.data import Query
from sgpo_jax.ledger import Entry
from sgpo_jax.models import Params
from sgpo_jax.rewards import SOLVED, HackingSigns
from sgpo_jax.rollouts import RewardedRollouts, SampleAndScore
from sgpo_jax.sampling import Greedy
from sgpo_jax.training.exact import ReferenceScorer
from sgpo_jax.training.examples import Example, examples


class MeanInterval(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """Side of 0 that the interval is on, 1 or -1; 0 if 0 is within.

        >>> [MeanInterval(x, x - 1, x + 1).sign for x in (-2.0, 0.5, 2.0)]
        [-1, 0, 1]
        """
        return (self.low > 0) - (self.high < 0)

    @classmethod
    def over(cls, values: Sequence[float], low: float, high: float) -> "MeanInterval":
        """Normal interval of the mean of independent values, within its bounds.

        A single value says nothing of the spread: its interval is all of the bounds.

        >>> print(MeanInterval.over([0.0, 1.0, 1.0, 0.0], 0.0, 1.0))
        MeanInterval(mean=0.5, low=0.0, high=1.0)
        """
        found = np.asarray(values, np.float64)
        # Rounded once, so that a file means the same on every machine.
        mean, half = math.fsum(found) / len(found), np.inf
        if len(found) > 1:
            half = 1.96 * float(found.std(ddof=1)) / len(found) ** 0.5
        return cls(mean, max(low, mean - half), min(high, mean + half))


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Evaluation:
    """Success rate of a policy on held-out queries.

    Intervals are over queries: the rate of each is one observation, since samples of
    one query are not independent draws of the task.

    Attributes:
      rates: success rate of each query at temperature 1.
      greedy: success of the most likely completion, or None if not asked for.
      unscorable: share of completions that could not be scored; they count as wrong.
      cost: what it cost; never part of the compute that methods are compared by.
      reward: mean reward of what could be scored; None if nothing could.
      solved_at: reward from which a completion counts as a success.
      watch: signs of hacking among rewarded completions.
      examples: completions of some queries, of the greedy policy if it was asked for.
    """

    rates: tuple[Share, ...] = dataclasses.field(repr=False)
    greedy: Share | None
    unscorable: Share
    cost: Entry
    reward: float | None = None
    solved_at: float = SOLVED
    watch: HackingSigns = HackingSigns()
    examples: tuple[Example, ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self):
        if not self.rates:
            raise ValueError("an evaluation has the success rate of at least one query")

    @functools.cached_property
    def success(self) -> MeanInterval:
        """Mean success and its 95 % interval."""
        return MeanInterval.over(self.rates, 0.0, 1.0)

    @property
    def mean(self) -> float:
        """Mean success at temperature 1."""
        return self.success.mean

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval of the mean."""
        return self.success.low

    @property
    def high(self) -> float:
        """Upper end of that interval."""
        return self.success.high

    def change_from(self, before: "Evaluation") -> MeanInterval:
        """Difference of the means, and its 95 % interval over pairs of equal queries.

        Most of the spread of success is that of the queries, which both have in common
        and which a difference within each leaves out: the interval is narrower than
        the two means' own.

        Args:
          before: of the same queries in the same order.

        Raises:
          ValueError: naming the numbers of queries, if they differ.

        Example:
          >>> first, last = (
          ...     Evaluation(rates=rates, greedy=None, unscorable=0.0, cost=Entry())
          ...     for rates in ((0.0, 0.5, 0.9, 1.0), (0.1, 0.7, 1.0, 1.0))
          ... )
          >>> print("{:.2f}, {:.2f} to {:.2f}".format(*last.change_from(first)))
          0.10, 0.02 to 0.18
          >>> f"{last.low:.2f} to {last.high:.2f}"
          '0.28 to 1.00'
        """
        if len(before.rates) != len(self.rates):
            raise ValueError(
                "two evaluations can be compared on the same queries: one has"
                f" {len(before.rates)}, the other {len(self.rates)}"
            )
        return MeanInterval.over(
            np.subtract(self.rates, before.rates).tolist(), -1.0, 1.0
        )

    def __str__(self) -> str:
        """Return the numbers in a line.

        >>> cost = Entry(rollouts=40)
        >>> rates = (0.0, 0.2, 0.4, 0.6, 0.8)
        >>> print(Evaluation(rates=rates, greedy=0.3, unscorable=0.0, cost=cost))
        success 0.400 (0.123 to 0.677), greedy 0.300; 40 rollouts
        """
        parts = [f"success {self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"]
        if self.greedy is not None:
            parts.append(f"greedy {self.greedy:.3f}")
        if self.reward is not None:
            parts.append(f"reward {self.reward:.3f}")
        if self.unscorable:
            parts.append(f"unscorable {self.unscorable:.3f}")
        return f"{', '.join(parts)}; {self.cost.rollouts:,} rollouts"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object, with the mean and its interval."""
        return {**self.success._asdict(), **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Evaluation":
        """Read what `to_json` returned.

        Raises:
          ValueError: naming what is missing or impossible.
        """
        try:
            known = {k: v for k, v in saved.items() if k not in MeanInterval._fields}
            found = cls(
                **{
                    **known,
                    "rates": tuple(saved["rates"]),
                    "cost": Entry(**saved["cost"]),
                    "watch": HackingSigns(**saved.get("watch", {})),
                    "examples": tuple(Example(**x) for x in saved.get("examples", ())),
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = str(error)[:200]
            raise ValueError(f"this is no evaluation: {reason}") from None
        if found.mean != saved.get("mean"):
            raise ValueError(
                f"this is no evaluation: its mean is {saved.get('mean')}, that of its"
                f" rates {found.mean}"
            )
        return found

    @classmethod
    def load(cls, path: pathlib.Path) -> "Evaluation":
        """Read a file of an evaluation.

        Raises:
          DamagedError: naming the file; deleted, it is made again.
        """
        remedy = "delete it: sgpo eval makes it again"
        try:
            return cls.from_json(read_json(path, remedy=remedy))
        except DamagedError:
            raise
        except ValueError as error:
            raise DamagedError(f"{path}: {error}; {remedy}") from None


def evaluate(
    rollouts: SampleAndScore,
    params: Params,
    queries: Sequence[Query],
    *,
    samples: int,
    greedy: bool = False,
    keep: Callable[[Sequence[Query], RewardedRollouts], None] | None = None,
) -> Evaluation:
    """Sample each query and report the mean success.

    All evaluations of a run share their noise, so that differences between steps and
    methods come from the policy.

    Args:
      rollouts: sampler and verifiers.
      params: the policy.
      queries: what is asked.
      samples: samples per query.
      greedy: evaluate the most likely completion, too.
      keep: is given the queries and their scored samples; None for nothing.
    """
    noise = streams.EVALUATION
    scored = rollouts(params, queries, [samples] * len(queries), step=noise)
    if keep is not None:
        keep(queries, scored)
    wins = np.bincount(scored.rollouts.request, scored.solved, minlength=len(queries))
    cost, best, shown = scored.cost, None, scored
    if greedy:
        picked = rollouts(
            params, queries, [1] * len(queries), step=noise, strategy=Greedy()
        )
        best, cost = float(picked.solved.mean()), cost + picked.cost
        shown = picked
    known = np.isfinite(scored.rewards)
    return Evaluation(
        rates=tuple((wins / samples).tolist()),
        greedy=best,
        unscorable=float(np.isnan(scored.rewards).mean()),
        reward=float(scored.rewards[known].mean()) if known.any() else None,
        solved_at=scored.solved_at,
        watch=scored.watch,
        cost=cost,
        examples=examples(queries, shown),
    )


def evaluate_exact(scorer: ReferenceScorer, params: Params) -> Evaluation:
    """Report the mean success without sampling: one forward pass over the references.

    It is the expectation of what `evaluate` returns. The greedy success is not known
    from it.

    Args:
      scorer: the held-out queries, packed.
      params: the policy.
    """
    rates = tuple(scorer(params).tolist())
    return Evaluation(
        rates=rates,
        greedy=None,
        unscorable=0.0,
        reward=MeanInterval.over(rates, 0.0, 1.0).mean,
        cost=scorer.cost,
    )
