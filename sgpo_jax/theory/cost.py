"""Cost model of a run, in rollouts.

The unit is the generation of one rollout. Training on it (old log-probabilities,
forward, backward) costs about 4 more; profiling pays for generation only.
"""

import numpy as np
from jaxtyping import Float, Int, Num

from sgpo_jax.theory.signal import Numbers


def rollouts_per_pass(
    sizes: Int[np.ndarray, " S"],
    queries: Num[np.ndarray, " S"],
    *,
    unsolved: float = 0.0,
) -> float:
    r"""Expected rollouts of one pass over a plan with phases.

    .. math:: \sum_s G_s (n_s + u)

    Each group size is a phase, and the unsolved queries kept are repeated in each with
    the group size of the phase.

    Args:
      sizes: group size G of each phase.
      queries: solvable queries n of each phase.
      unsolved: unsolved queries kept u (for a random share: their expected number).

    Example:
      >>> sizes, queries = np.array([2, 4, 8]), np.array([227, 288, 326])
      >>> round(rollouts_per_pass(sizes, queries, unsolved=0.1 * 159))
      4437
    """
    return float((sizes * (queries + unsolved)).sum())


def compute_ratio(
    baseline: Numbers,
    rollouts: Numbers,
    *,
    profile: Numbers = 0,
    passes: Numbers = 1,
    training: float = 4.0,
) -> Float[np.ndarray, "..."]:
    r"""Ratio of the compute of a baseline to that of a profiled run.

    .. math:: \frac{n B (1 + c)}{n R (1 + c) + P}

    Args:
      baseline: rollouts B of the baseline, per pass.
      rollouts: rollouts R of the profiled run, per pass.
      profile: rollouts P of the profile, paid once, for generation only.
      passes: number of passes n.
      training: cost c of training on a rollout; 0 counts generation only.

    Example:
      >>> passes = np.array([1, 2, 3])
      >>> compute_ratio(16_000, 4_437, profile=8_000, passes=passes).round(2)
      array([2.65, 3.06, 3.22])
    """
    per_rollout = np.asarray(passes, np.float64) * (1 + training)
    cost = np.asarray(rollouts) * per_rollout + np.asarray(profile)
    return np.asarray(np.asarray(baseline) * per_rollout / cost)


def break_even_passes(
    baseline: Numbers, rollouts: Numbers, *, profile: Numbers, training: float = 4.0
) -> Float[np.ndarray, "..."]:
    r"""Number of passes from which a profile has paid for itself.

    .. math:: n = \frac{P}{(1 + c) (B - R)}

    Args:
      baseline: rollouts B of the baseline, per pass.
      rollouts: rollouts R of the profiled run, per pass.
      profile: rollouts P of the profile.
      training: cost c of training on a rollout; 0 counts generation only.

    Returns:
      The number of passes; infinite if the profiled run saves nothing.

    Example:
      >>> float(break_even_passes(8_000, 4_437, profile=8_000).round(2))
      0.45
    """
    saved = (1 + training) * (np.asarray(baseline, np.float64) - np.asarray(rollouts))
    worth = saved > 0
    return np.where(worth, np.asarray(profile) / np.where(worth, saved, 1), np.inf)


def prefix_sharing_ratio(
    prompt_to_response: Numbers, group_size: Numbers
) -> Float[np.ndarray, "..."]:
    r"""Ratio of tokens without prefix sharing to tokens with it.

    .. math:: \frac{G (1 + \rho)}{\rho + G}

    At most G. Smaller groups leave less to share: the saving of a profiled plan and
    that of sharing overlap.

    Args:
      prompt_to_response: length of the prompt over that of a response, rho.
      group_size: number of responses G.

    Example:
      >>> prefix_sharing_ratio(4.0, np.array([2, 4, 8, 16])).round(2)
      array([1.67, 2.5 , 3.33, 4.  ])
    """
    rho, size = np.asarray(prompt_to_response, np.float64), np.asarray(group_size)
    return np.asarray(size * (1 + rho) / (rho + size))
