"""Accuracy against total compute, and what equal accuracy costs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgpo_jax.artefacts import DamagedError
from sgpo_jax.bounds import shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Held-out success of one method as its total compute grows.

    Attributes:
      steps: steps done at each evaluation, from 0.
      flops: total compute spent by then, profiling included.
      repeated: what it would have been had every response encoded its own prompt.
      success: mean held-out success at temperature 1.
      low: lower end of its 95 % interval.
      high: upper end.
    """

    steps: np.ndarray
    flops: np.ndarray
    repeated: np.ndarray
    success: np.ndarray
    low: Any
    high: Any

    @classmethod
    def from_metrics(cls, lines: Sequence[Mapping[str, Any]]) -> "Curve":
        """Collect the evaluations among the lines of a metrics file."""
        seen = [line for line in lines if "eval/success" in line]

        def column(name: str) -> np.ndarray:
            try:
                return np.array([line[name] for line in seen], np.float64)
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                raise DamagedError(
                    f"an evaluation in the metrics has no number {name!r}:"
                    f" {shown(error, 200)}"
                ) from None

        return cls(
            steps=column("step"),
            flops=column("total_flops"),
            repeated=column("total_flops_repeated"),
            success=column("eval/success"),
            low=column("eval/low"),
            high=column("eval/high"),
        )

    def smooth(self) -> np.ndarray:
        """Average each evaluation with its neighbours.

        One evaluation is off by about half the width of its interval, so that a first
        crossing of the raw curve would be a matter of luck. The first point stays: it
        is before training, and the same for all methods.
        """
        x = self.success
        padded = np.pad(x, 1, mode="edge")
        mean = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        return np.concatenate([x[:1], mean[1:]])

    def cost_of(self, target: float, *, repeated: bool = False) -> float:
        """Return the compute at which the smoothed curve first reaches `target`.

        Linear between evaluations; infinite if it never does.

        Args:
          target: held-out success.
          repeated: count training as if prompts were not shared.

        >>> flops = np.array([0.0, 1.0, 2.0, 3.0])
        >>> curve = Curve(steps=np.arange(4), flops=flops, repeated=2 * flops,
        ...               success=np.array([0.2, 0.5, 0.5, 0.5]), low=None, high=None)
        >>> round(curve.cost_of(0.3), 2), round(curve.cost_of(0.3, repeated=True), 2)
        (0.5, 1.0)
        """
        flops = self.repeated if repeated else self.flops
        y = self.smooth()
        above = np.flatnonzero(y >= target)
        if not len(above):
            return float("inf")
        i = int(above[0])
        if i == 0:
            return float(flops[0])
        share = (target - y[i - 1]) / (y[i] - y[i - 1])
        return float(flops[i - 1] + share * (flops[i] - flops[i - 1]))


SHARES = (0.5, 0.75, 0.9, 1.0)
"""Shares of the baseline's gain at which costs are compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostComparison:
    """Compute to reach the same accuracy, for the baseline and another method.

    Attributes:
      share: share of the baseline's whole gain.
      target: the held-out success meant.
      baseline: compute of the baseline.
      repeated: compute of the baseline without shared prefixes, as most
        implementations run it.
      other: compute of the other method; infinite if it never got there.
    """

    share: float
    target: float
    baseline: float
    repeated: float
    other: float

    @property
    def ratio(self) -> float:
        """Baseline over other: above 1, the other is cheaper."""
        return self.baseline / self.other

    @property
    def ratio_repeated(self) -> float:
        """Baseline without shared prefixes over other, which has them."""
        return self.repeated / self.other


def compare(baseline: Curve, other: Curve) -> list[CostComparison]:
    """Compare costs at shares of the baseline's gain; the best point is its all.

    Empty if the baseline never rose above its beginning: nothing is a share of nothing.
    """
    y = baseline.smooth()
    gain = y.max() - y[0]
    if gain <= 0:
        return []
    targets = [(share, float(y[0] + share * gain)) for share in SHARES]
    return [
        CostComparison(
            share=share,
            target=target,
            baseline=baseline.cost_of(target),
            repeated=baseline.cost_of(target, repeated=True),
            other=other.cost_of(target),
        )
        for share, target in targets
    ]
