"""Controls: methods that differ by one ingredient from their neighbour in the zoo."""

from sgpo_jax import advantages, methods, planning

RATE = 1.5e-4  # of the zoo's group-relative methods in the default experiment


def grpo_16() -> methods.Method:
    """Groups of 16: half as many prompts of as many rollouts."""
    return methods.named("grpo_token").replace(
        prompts=methods.Shuffled(group_size=16),
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
