"""A plan's predictions against what a run measured."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgpo_jax.planning.plan import Phase, Plan
from sgpo_jax.planning.prediction import Cost, Prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictedVsMeasured:
    """One quantity of a phase, or of the whole run.

    Attributes:
      quantity: what it is.
      phase: from 1; 0 for the whole run.
      predicted: by the plan.
      measured: in the run; NaN where nothing was.
    """

    quantity: str
    phase: int
    predicted: float
    measured: float

    @property
    def is_share(self) -> bool:
        """True for shares, which are in [0, 1]."""
        return self.quantity.startswith("share")

    @property
    def error(self) -> float:
        """Predicted over measured less 1; of shares their difference."""
        if self.is_share:
            return self.predicted - self.measured
        if not self.measured:
            return math.nan
        return self.predicted / self.measured - 1


def compare_with_run(
    plan: Plan, predicted: Prediction, lines: Sequence[Mapping[str, Any]]
) -> list[PredictedVsMeasured]:
    """Set a plan's predictions against the metrics of a run that trained by it.

    A run rarely ends with a whole pass: tokens are compared per response, operations
    for the rollouts that were really sampled in each phase.

    Args:
      plan: the plan.
      predicted: of one pass, with the shape of the policy for operations.
      lines: metrics by step, as `read_metrics` gives them.
    """
    steps = [line for line in lines if "frac_reward_zero_std" in line]
    rows: list[PredictedVsMeasured] = []
    expected = 0.0
    for number, phase in enumerate(plan.phases):
        mine = [line for line in steps if line.get("phase", 0) == number]
        if not mine:
            continue
        cost = predicted.phases[number]
        rows += _phase(number + 1, phase, cost, mine)
        if cost.flops is not None:
            sampled = sum(line["rollouts"] for line in mine)
            expected += cost.flops / phase.rollouts * sampled
    spent = _spent(lines)
    if expected and spent:
        rows.append(
            PredictedVsMeasured(
                quantity="operations of generation and training",
                phase=0,
                predicted=expected,
                measured=spent,
            )
        )
    return rows


def _phase(
    number: int, phase: Phase, cost: Cost, lines: Sequence[Mapping[str, Any]]
) -> list[PredictedVsMeasured]:
    def column(name: str) -> np.ndarray:
        return np.array([line[name] for line in lines], np.float64)

    dead, groups = column("frac_reward_zero_std"), column("queries")
    rollouts = column("rollouts")
    tenth = max(1, math.ceil(len(lines) / 10))
    pairs = {
        "share of dead groups, first tenth of the steps": (
            phase.dead,
            np.average(dead[:tenth], weights=groups[:tenth]),
        ),
        "share of dead groups": (phase.dead, np.average(dead, weights=groups)),
        "rollouts per group": (
            phase.rollouts / len(phase.ids),
            rollouts.sum() / groups.sum(),
        ),
    }
    if cost.tokens:
        length = np.average(column("completions/mean_length"), weights=rollouts)
        pairs["tokens per response"] = (cost.tokens / phase.rollouts, length)
    return [
        PredictedVsMeasured(
            quantity=name,
            phase=number,
            predicted=float(expected),
            measured=float(found),
        )
        for name, (expected, found) in pairs.items()
    ]


def _spent(lines: Sequence[Mapping[str, Any]]) -> float:
    """Return the operations of generation and training so far."""
    ledgers = [line["ledger"] for line in lines if "ledger" in line]
    last = ledgers[-1] if ledgers else {}
    parts = [last.get(part, {}) for part in ("generation", "training")]
    return float(sum(part.get("flops", 0.0) for part in parts))
