"""Conclusions of a run, in sentences."""

from collections.abc import Mapping, Sequence

import numpy as np

from sgpo_jax.profiling import Profile, nothing_solved
from sgpo_jax.report.curves import CostComparison
from sgpo_jax.training import Evaluation, MeanInterval

SHARE = 0.9
"""Share of the baseline's gain at which sentences compare costs."""


def verdict(
    evaluations: Mapping[str, Evaluation],
    comparisons: Mapping[str, Sequence[CostComparison]],
    baseline: str,
) -> list[str]:
    """Sentences on the accuracy of each policy, and its cost against the baseline.

    A success has changed if the 95 % interval of the change, over the questions that
    both evaluations have in common, leaves 0 out. Costs are compared at a share of the
    baseline's gain, if that is one.

    Args:
      evaluations: by policy; "initial" is one.
      comparisons: with the baseline, by method.
      baseline: the method that others are compared with.

    Example:
      >>> from sgpo_jax.ledger import Entry
      >>> def of(*rates):
      ...     return Evaluation(rates=rates, greedy=None, unscorable=0.0, cost=Entry())
      >>> verdict({"initial": of(0.1, 0.7), "grpo": of(0.3, 0.9)}, {}, "grpo")
      ['grpo: held-out success rose from 0.400 to 0.600.']
    """
    first, found = evaluations["initial"], []
    for name, last in evaluations.items():
        if name == "initial":
            continue
        change = last.change_from(first)
        if change.sign:
            moved = "rose" if change.sign > 0 else "fell"
            how = f"{moved} from {first.mean:.3f} to {last.mean:.3f}."
        else:
            how = (
                f"did not change beyond noise: {first.mean:.3f} before, {last.mean:.3f}"
                f" after, 95 % interval of the change {change.low:+.3f} to"
                f" {change.high:+.3f}."
            )
        parts = [f"{name}: held-out success {how}{_rewards(first, last)}"]
        if name in comparisons:
            parts += [_against(evaluations[baseline], last, baseline)]
            gain = evaluations[baseline].change_from(first)
            parts += [_cost(comparisons[name], gain, baseline)]
        found.append(" ".join(parts))
    return found


def _against(other: Evaluation, last: Evaluation, baseline: str) -> str:
    """Sentence on the success beside the baseline's."""
    over = last.change_from(other)
    how = ("not told apart from", "above", "below")[over.sign]
    return (
        f"That is {how} {baseline}: {over.mean:+.3f}, 95 % interval {over.low:+.3f} to"
        f" {over.high:+.3f}."
    )


def _rewards(first: Evaluation, last: Evaluation) -> str:
    """Sentence on mean rewards; empty where they are the success."""
    if first.reward is None or last.reward is None:
        return ""
    before, after = f"{first.reward:.3f}", f"{last.reward:.3f}"
    if (before, after) == (f"{first.mean:.3f}", f"{last.mean:.3f}"):
        return ""
    return f" Mean reward {before} before, {after} after."


def _cost(points: Sequence[CostComparison], gain: MeanInterval, baseline: str) -> str:
    """Sentence on the compute for most of the baseline's gain."""
    if not points or gain.sign < 0:
        return f"{baseline} gained nothing, so costs cannot be compared."
    if not gain.sign:
        return (
            f"The gain of {baseline} is within noise, and so is what a share of it"
            " costs: train longer, or hold out more questions."
        )
    (point,) = (point for point in points if point.share == SHARE)
    if not np.isfinite(point.other):
        return f"It never reached {SHARE:.0%} of {baseline}'s gain."
    ratio, word = point.ratio, "less"
    if ratio < 1:
        ratio, word = 1 / ratio, "more"
    return (
        f"{SHARE:.0%} of {baseline}'s gain took {ratio:.2f} times {word} total"
        " compute, profiling included."
    )


def unsolved(profile: Profile) -> str:
    """Sentence for a profile in which nothing was solved; empty for any other.

    Example:
      >>> unsolved(Profile(ids=("a", "b"), samples=[8, 8], successes=[0, 0]))[:42]
      'None of the 16 samples solved its question'
    """
    said = nothing_solved(profile)
    return said and (
        f"{said} Look at completions (sgpo sample), at the longest response"
        " (--sampler.max-response) and at the verifier; then take easier questions, or"
        " a policy that solves some."
    )
