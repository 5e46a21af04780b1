"""Sentences of the page, from the numbers: what each ingredient earns; the power."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .analysis import FREE_SUFFIX, LIVE_SUFFIX, ORACLE_SUFFIX, SHARES

PLACE = 2
"""The share of the gain that the sentences are about."""
EARNERS = {
    LIVE_SUFFIX: "Leaving dead groups out (exact, the same runs)",
    "grpo_thin": "Thinning what is left",
    "grpo_thin" + ORACLE_SUFFIX: "Never sampling a dead group, were it free to know,",
    "filtered_thin": "The PROFILE as a filter, paid for,",
    "filtered_thin" + FREE_SUFFIX: "The same profile, if it were free,",
    "drawn_flat": "Drawing prompts by a belief, without a profile,",
    "drawn": "The PROFILE as the start of that belief, paid for,",
    "drawn" + FREE_SUFFIX: "The same profile, if it were free,",
    "tracked": "The PROFILE in the tracked baseline, paid for,",
    "tracked" + FREE_SUFFIX: "The same profile, if it were free,",
}


def text(result: Mapping[str, Any], baseline: str) -> str:
    """What dropping, thinning, drawing and profiling earn, each over the one before."""
    said, exact = [], baseline + LIVE_SUFFIX in result["savings"]
    for link in result["ingredients"]:
        earner = EARNERS[link["after"].removeprefix(baseline)]
        if link["after"] == "grpo_thin" and not exact:
            earner = "Leaving dead groups out and thinning, together,"
        said.append(f"{earner} {earned(link['savings'][PLACE])}.")
    over = (
        "one run of each (intervals are over questions alone; the noise between runs"
        " is not in them, and one run settles no factor near 1)"
    )
    if len(result["seeds"]) > 1:
        over = f"{len(result['seeds'])} seeds"
    where = f"At {SHARES[PLACE]:.0%} of {baseline}'s gain, {over}: "
    return f"**Verdict.** {where}" + " ".join(said)


def horizon(result: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    """How often a question is sampled in training, and what the profile costs."""
    count = result["training_questions"]
    rollouts = np.mean([run["ledger"]["generation"]["rollouts"] for run in members])
    price = np.max([run["ledger"]["profiling"]["flops"] for run in members])
    total = np.mean([result["final_flops"][run["method"]] for run in members])
    return (
        f"{count} training questions, each sampled {rollouts / count:.0f} times on"
        f" average; a profile costs {price / 1e9:.0f} GFLOP, a run"
        f" {total / 1e9:.0f} in all."
    )


def earned(saving: Mapping[str, float | None]) -> str:
    """Say what a saving is, and whether its interval holds more than noise.

    >>> earned({"value": 1.5, "low": 1.2, "high": 1.9})
    'needs 1.50 times less compute [1.20, 1.90]'
    >>> earned({"value": 0.5, "low": 0.4, "high": 0.8})
    'needs 2.00 times MORE compute [1.25, 2.50]'
    >>> earned({"value": 0.8, "low": 0.5, "high": 1.2})
    'makes no difference that these runs resolve (0.80 times less compute [0.50, 1.20])'
    >>> earned({"value": 0.0, "low": 0.0, "high": 0.4})
    'does not get there'
    """
    value, low, high = (
        float("inf") if saving[k] is None else saving[k]
        for k in ("value", "low", "high")
    )
    if value in (0, float("inf")):
        return "does not get there" if value == 0 else "gets there, unlike without it"
    if low <= 1 <= high:
        shown = f"{value:.2f} times less compute [{low:.2f}, {high:.2f}]"
        return f"makes no difference that these runs resolve ({shown})"
    if high < 1:
        most = 1 / low if low else float("inf")
        return f"needs {1 / value:.2f} times MORE compute [{1 / high:.2f}, {most:.2f}]"
    return f"needs {value:.2f} times less compute [{low:.2f}, {high:.2f}]"


def power(result: Mapping[str, Any]) -> str:
    """How many seeds and questions resolve a factor of 1.1."""
    found = result["power"]
    if found is None:
        return "**Power**: unknown; it takes two seeds that reach the target."
    seeds, questions = len(result["seeds"]), result["questions"]
    wide = float(np.exp(1.96 * found["total"] / seeds**0.5))
    needed = ", ".join(
        f"{count} seeds of {number} questions"
        for number, count in found["seeds_to_resolve"].items()
    )
    share = min(1.0, (found["questions"] / max(found["total"], 1e-9)) ** 2)
    return (
        f"**Power.** Between seeds the logarithm of a saving at 75 % of the gain has a"
        f" standard deviation of {found['total']:.2f} ({found['degrees']} degrees of"
        f" freedom), of which the choice of {questions} questions makes"
        f" {found['questions']:.2f} ({share:.0%} of the variance). So {seeds} seeds"
        f" resolve a factor of {wide:.2f}; a factor of 1.10 takes {needed}."
    )
