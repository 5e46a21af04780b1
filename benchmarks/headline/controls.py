"""Controls: methods that differ by one ingredient from their neighbour in the zoo."""

from sgpo_jax import advantages, methods

RATE = 1.5e-4  # of the zoo's group-relative methods in the default experiment


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
