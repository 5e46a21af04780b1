"""Objectives of a sweep: held-out success against total compute, in one number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sgpo_jax import report

TENTHS = 10
"""Shares of the budget at which trials are compared, equal for all of them."""


def area(curve: report.Curve, flops: float) -> float:
    r"""Mean held-out success while so much compute is spent.

    .. math:: \frac1C \int_0^C s(c)\, dc

    Linear between evaluations; before the first, while a profile is paid for, success
    is the initial policy's, and after the last it stays.

    Args:
      curve: of a run.
      flops: the compute, C.

    >>> x = np.array([0.0, 2.0])
    >>> curve = report.Curve(steps=x, flops=x, repeated=x, low=None, high=None,
    ...                      success=np.array([0.2, 0.6]))
    >>> round(area(curve, 2.0), 6), round(area(curve, 4.0), 6)
    (0.4, 0.5)
    """
    inside = curve.flops[(curve.flops > 0) & (curve.flops < flops)]
    x = np.concatenate([[0.0], inside, [flops]])
    y = np.interp(x, curve.flops, curve.success)
    return float(np.trapezoid(y, x) / flops)


def final(curve: report.Curve, flops: float) -> float:
    """Held-out success when so much compute is spent, three evaluations averaged.

    Args:
      curve: of a run.
      flops: the compute.
    """
    return float(np.interp(flops, curve.flops, curve.smooth()))


OBJECTIVES: Mapping[str, Callable[[report.Curve, float], float]] = {
    "area": area,
    "final": final,
}
"""Objectives by name; larger is better."""


def values(
    objective: str, lines: Sequence[Mapping[str, Any]], budget: float, *, ended: bool
) -> list[float]:
    """Return the objective at each tenth of the budget that a run has reached.

    Args:
      objective: its name.
      lines: of the run's metrics.
      budget: total compute of a whole trial.
      ended: whether the run is at its end, and keeps its last success.
    """
    curve = report.Curve.from_metrics(lines)
    if not len(curve.flops):
        return []
    tenths = budget * np.arange(1, TENTHS + 1) / TENTHS
    reached = tenths if ended else tenths[tenths <= curve.flops[-1]]
    return [OBJECTIVES[objective](curve, float(flops)) for flops in reached]
