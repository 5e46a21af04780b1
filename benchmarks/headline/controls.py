"""Controls: methods that differ by one ingredient from their neighbour in the zoo."""

import dataclasses

from sgpo_jax import advantages, methods, planning
from sgpo_jax.config import LEARNING_RATE

RATE = LEARNING_RATE[""]


def grpo_16() -> methods.Method:
    """Groups of 16: half as many prompts of as many rollouts."""
    return methods.named("grpo_token").replace(
        prompts=methods.Shuffled(group_size=16),
        optimizer=methods.AdamW(learning_rate=RATE),
    )


def grpo_16_thin() -> methods.Method:
    """Groups of 16, thinned."""
    return grpo_16().replace(subsample=methods.named("grpo_thin").subsample)


def dapo_thin() -> methods.Method:
    """`dapo`, its refilled batch thinned without bias."""
    return methods.named("dapo").replace(
        subsample=methods.named("grpo_thin").subsample,
        optimizer=methods.AdamW(learning_rate=RATE),
    )


def screened_thin() -> methods.Method:
    """`grpo_thin` in two halves: 4 rollouts, 4 more where the first 4 differ.

    The screening of SPEED-RL, without its refill: what dead pilots save is spent on
    more prompts in a step.
    """
    return methods.named("grpo_thin").replace(
        prompts=methods.Shuffled(group_size=4),
        continuation=methods.ContinueMixed(more=4, growth=1.4),
        optimizer=methods.AdamW(learning_rate=RATE),
    )


def filtered_thin() -> methods.Method:
    """`grpo_thin` on what a profile says can teach: the profile as a filter alone.

    Of the questions never or always solved in it a tenth stays, mixed with the others.
    """
    return methods.named("grpo_thin").replace(
        prompts=methods.Planned(
            filter=planning.DropTrivial(trivial_above=0.99, trivial_share=0.1),
            allocate=planning.Fixed(size=8),
            curriculum=planning.Mixed(),
        ),
        optimizer=methods.AdamW(learning_rate=RATE),
    )


def drawn_flat() -> methods.Method:
    """Groups of 8 drawn by a belief from a flat prior, standardized, thinned.

    `grpo_thin` but for the draw: the belief learns from training alone.
    """
    return methods.named("grpo_thin").replace(
        prompts=methods.ByBelief(group_size=8),
        baseline=advantages.BetaTracker(profile_weight=0.0),
        optimizer=methods.AdamW(learning_rate=RATE),
    )


def drawn() -> methods.Method:
    """`drawn_flat` whose belief starts from the profile, which it pays for."""
    return drawn_flat().replace(baseline=advantages.BetaTracker())


def _sgpo(**parts) -> methods.Method:
    """The paper's rule with other parts of its plan, at its step size."""
    rule = methods.named("sgpo")
    return rule.replace(
        prompts=dataclasses.replace(rule.prompts, **parts),
        optimizer=methods.AdamW(learning_rate=LEARNING_RATE["sgpo"]),
    )


def sgpo_mixed() -> methods.Method:
    """`sgpo` without an order: one phase."""
    return _sgpo(curriculum=planning.Mixed())


def sgpo_eights() -> methods.Method:
    """`sgpo` with groups of 8 for every question."""
    return _sgpo(allocate=planning.Fixed(size=8))


def sgpo_posterior() -> methods.Method:
    """`sgpo` with group sizes by the posterior mean in place of the success rate."""
    return _sgpo(allocate=planning.InverseSuccess(estimate="mean"))


def sgpo_replay() -> methods.Method:
    """`sgpo` whose later phases hold a fifth of earlier questions."""
    return _sgpo(curriculum=planning.EasyToHard(replay=0.2))


def sgpo_kept() -> methods.Method:
    """`sgpo` that keeps a tenth of the trivial questions too."""
    return _sgpo(filter=planning.DropTrivial(trivial_share=0.1))
