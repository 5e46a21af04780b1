"""Held-out accuracy with a confidence interval."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sgpo_jax.data import Query
from sgpo_jax.ledger import Entry
from sgpo_jax.models import Params
from sgpo_jax.profiling import SUCCESS, SampleAndScore
from sgpo_jax.sampling import Greedy
from sgpo_jax.training.exact import ReferenceScorer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How often a policy is right on held-out queries.

    Attributes:
      mean: mean success at temperature 1.
      low: lower end of the 95 % interval of the mean.
      high: upper end.
      greedy: success of the most likely completion, or None if not asked for.
      unscorable: share of completions that could not be scored; they count as wrong.
      cost: what it cost; never part of the compute that methods are compared by.
    """

    mean: float
    low: float
    high: float
    greedy: float | None
    unscorable: float
    cost: Entry


def evaluate(
    rollouts: SampleAndScore,
    params: Params,
    queries: Sequence[Query],
    *,
    samples: int,
    greedy: bool = False,
) -> Evaluation:
    """Sample each query and report the mean success.

    All evaluations of a run share their noise, so that differences between steps and
    methods come from the policy. The interval is over queries: each query's mean is one
    observation, since samples of one query are not independent draws of the task.
    """
    # Training uses noise steps from 1 on and the profile step 0.
    noise = 2**31 - 1
    scored = rollouts(params, queries, [samples] * len(queries), step=noise)
    wins = np.bincount(
        scored.rollouts.request, scored.rewards >= SUCCESS, minlength=len(queries)
    )
    rates = wins / samples
    half = 1.96 * rates.std(ddof=1) / len(rates) ** 0.5 if len(rates) > 1 else 0.0
    cost, best = scored.cost, None
    if greedy:
        picked = rollouts(
            params, queries, [1] * len(queries), step=noise, method=Greedy()
        )
        best, cost = float(np.mean(picked.rewards >= SUCCESS)), cost + picked.cost
    mean = float(rates.mean())
    return Evaluation(
        mean=mean,
        low=max(0.0, mean - float(half)),
        high=min(1.0, mean + float(half)),
        greedy=best,
        unscorable=float(np.isnan(scored.rewards).mean()),
        cost=cost,
    )


def evaluate_exact(scorer: ReferenceScorer, params: Params) -> Evaluation:
    """Report the mean success without sampling: one forward pass over the references.

    The interval is over queries, as in `evaluate`, whose mean this is the expectation
    of. The greedy success is not known from it.

    Args:
      scorer: the held-out queries, packed.
      params: the policy.
    """
    rates = scorer(params)
    half = 1.96 * rates.std(ddof=1) / len(rates) ** 0.5 if len(rates) > 1 else 0.0
    mean = float(rates.mean())
    return Evaluation(
        mean=mean,
        low=max(0.0, mean - float(half)),
        high=min(1.0, mean + float(half)),
        greedy=None,
        unscorable=0.0,
        cost=scorer.cost,
    )
