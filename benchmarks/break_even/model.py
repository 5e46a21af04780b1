"""The map: pools of questions, and training with and without a profile."""

import math
from typing import Any

import numpy as np

from sgpo_jax import theory

GROUP = 8
VISITS = theory.visits_grid(300.0)
LONGER = theory.visits_grid(3000.0)
"""Visits of a plan, which may need more for the same signal."""
NEVER = 0.8
"""Of the questions without signal, the share never solved; the others always are."""
DRIFTS = (0.0, 0.1)
SAMPLES = (4, 8, 16)
OTHERS = {
    "grpo": "GRPO that trains on every group",
    "grpo_nonzero": "GRPO without dead groups",
    "belief": "a belief learned from training",
}
"""What a plan from a profile is compared with."""


def pool(dead: float) -> tuple[np.ndarray, np.ndarray]:
    """Success rates of a pool: a share without signal, the others uniform."""
    prior = theory.BetaMixture(
        alpha=1.0, beta=1.0, never=NEVER * dead, always=(1 - NEVER) * dead
    )
    return prior.nodes(16)


def mixed_share(rate: np.ndarray, share: np.ndarray) -> float:
    """Share of groups with signal, drawn from a pool."""
    return float(share @ theory.probability_mixed(rate, GROUP))


def others(
    rate: np.ndarray, share: np.ndarray, cost: theory.GroupCost, drift: float
) -> dict[str, theory.Progress]:
    """Training without a profile, by the names of `OTHERS`."""
    mixed = mixed_share(rate, share)
    return {
        "grpo": theory.drawn_uniformly(VISITS, mixed, cost=cost, drop_dead=False),
        "grpo_nonzero": theory.drawn_uniformly(VISITS, mixed, cost=cost),
        "belief": theory.drawn_by_belief(VISITS, rate, share, cost=cost, drift=drift),
    }


def planned(
    rate: np.ndarray,
    share: np.ndarray,
    cost: theory.GroupCost,
    *,
    samples: int,
    drift: float = 0.0,
) -> theory.Progress:
    """Training by a plan from a profile of so many samples."""
    mixed = mixed_share(rate, share)
    kept = theory.mixed_when_kept(rate, share, samples=samples, group_size=GROUP)
    return theory.drawn_from_profile(
        LONGER, mixed, kept, cost=cost, samples=samples, drift=drift
    )


def tabulate() -> list[dict[str, Any]]:
    """Visits after which a profile pays, over shares, samples, prompts and drift."""
    rows = []
    for prompt in (0.1, 1.0, 10.0):
        cost = theory.GroupCost(group_size=GROUP, prompt=prompt)
        for drift in DRIFTS:
            for dead in (0.1, 0.3, 0.5, 0.7, 0.9):
                rate, share = pool(dead)
                without = others(rate, share, cost, drift)
                for samples in SAMPLES:
                    made = planned(rate, share, cost, samples=samples, drift=drift)
                    after = {k: made.pays_after(x) for k, x in without.items()}
                    most = {
                        k: float(made.saving_over(x).max()) for k, x in without.items()
                    }
                    rows.append(
                        {
                            "prompt": prompt,
                            "drift": drift,
                            "dead": dead,
                            "samples": samples,
                            "after": {k: _finite(v) for k, v in after.items()},
                            "most": {k: round(v, 3) for k, v in most.items()},
                        }
                    )
    return rows


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
