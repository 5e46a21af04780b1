"""Collapse of the policy: success far below that of the policy training began with."""

import math

import numpy as np

from sgpo_jax.training.progress import Metrics

ERRORS = 4.0
"""Standard errors below the initial policy from which a fall is no chance."""
SHARE = 0.5
"""Share of the initial success below which a fall matters."""

MOST = 1e6
"""Errors that are said where a spread is 0."""


class CollapseError(Exception):
    """Training was stopped because it made the policy much worse."""


def errors_below(
    now: float, before: float, *, now_error: float, before_error: float
) -> float:
    r"""Standard errors that a success lies below an earlier one, 0 if above.

    .. math:: z = \max\left(0, \frac{p_0 - p}{\sqrt{s_0^2 + s^2}}\right)

    The two are taken to be independent; they share questions, which makes z smaller
    than it is and the alarm rarer.

    >>> round(errors_below(0.1, 0.4, now_error=0.03, before_error=0.04), 6)
    6.0
    >>> errors_below(0.5, 0.4, now_error=0.03, before_error=0.04)
    0.0
    """
    spread = math.hypot(now_error, before_error)
    fall = max(0.0, before - now)
    if fall == 0:
        return 0.0
    return min(fall / spread, MOST) if spread else MOST


def is_collapse(now: float, before: float, errors: float) -> bool:
    """Return whether a success is less than half of what it was, and not by chance.

    >>> is_collapse(0.1, 0.4, 6.0), is_collapse(0.3, 0.4, 6.0)
    (True, False)
    """
    return errors >= ERRORS and now < SHARE * before


def training_metrics(
    rewards: np.ndarray, solved_at: float, expected: np.ndarray, groups: np.ndarray
) -> Metrics:
    """Success of a step's rollouts against what the profile expects of its prompts.

    The standard error is that of as many independent draws as there are groups:
    rollouts of a prompt are alike.

    Args:
      rewards: of the rollouts, [R]; NaN where there is none.
      solved_at: reward of a success.
      expected: success rate of each group's prompt under the initial policy, [Q]; NaN
        where the profile does not know.
      groups: group of each rollout, [R].
    """
    rate = expected[groups]
    known = np.isfinite(rewards) & np.isfinite(rate)
    if not known.any():
        return {}
    now, before = float((rewards[known] >= solved_at).mean()), float(rate[known].mean())
    count = len(np.unique(groups[known]))
    error = math.sqrt(before * (1 - before) / count)
    z = errors_below(now, before, now_error=0.0, before_error=error)
    found = {"success_initial": before}
    if is_collapse(now, before, z):
        found["collapse"] = z
    return found


def held_out_collapse(initial: list[float] | None, metrics: Metrics) -> Metrics:
    """Held-out success of an evaluation against the one before training.

    Args:
      initial: success of the initial policy and its standard error.
      metrics: with `eval/success` and its interval; {} is returned without.
    """
    if initial is None or not has_interval(metrics):
        return {}
    now, (before, before_error) = metrics["eval/success"], initial
    z = errors_below(
        now, before, now_error=standard_error(metrics), before_error=before_error
    )
    return {"eval/collapse": z} if is_collapse(now, before, z) else {}


def has_interval(metrics: Metrics) -> bool:
    """Return whether held-out success was evaluated, with its 95 % interval."""
    return {"eval/success", "eval/low", "eval/high"} <= metrics.keys()


def standard_error(metrics: Metrics) -> float:
    """Return the standard error that an evaluation's 95 % interval stands for."""
    return (metrics["eval/high"] - metrics["eval/low"]) / (2 * 1.96)


def alarm(step: int, metrics: Metrics) -> str:
    """Return a line on a step at which the policy has collapsed, "" at any other.

    >>> alarm(7, {"success": 0.02, "success_initial": 0.5, "collapse": 5.25})
    'step 7: COLLAPSE: success of the rollouts is 0.020, of the initial policy on the
     same prompts 0.500, 5.2 standard errors more; lower the learning rate, or ...'
    """
    remedy = (
        "lower the learning rate, or add a KL penalty; train.stop-on-collapse ends such"
        " a run"
    )
    if "eval/collapse" in metrics:
        return (
            f"step {step}: COLLAPSE: held-out success is"
            f" {metrics['eval/success']:.3f}, {metrics['eval/collapse']:.1f} standard"
            f" errors below the initial policy's; {remedy}"
        )
    if "collapse" in metrics:
        return (
            f"step {step}: COLLAPSE: success of the rollouts is"
            f" {metrics['success']:.3f}, of the initial policy on the same prompts"
            f" {metrics['success_initial']:.3f}, {metrics['collapse']:.1f} standard"
            f" errors more; {remedy}"
        )
    return ""
