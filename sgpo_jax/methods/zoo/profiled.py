"""Methods that read a profile of the initial policy."""

from sgpo_jax import advantages
from sgpo_jax.methods.advantage import BaselineRelative
from sgpo_jax.methods.method import Method
from sgpo_jax.methods.prompts import ByBelief, Planned
from sgpo_jax.methods.subsample import DropZeroAdvantage, RussianRoulette


def sgpo() -> Method:
    """SGPO (arXiv:2606.08854), the paper's rule on one profile of the initial policy.

    Trivial prompts dropped, a tenth of the unsolved kept, group sizes near 1 / success
    rate in powers of two from 2 to 8, easy prompts first, dead groups left out.
    """
    return Method(prompts=Planned(), subsample=DropZeroAdvantage())


def tracked() -> Method:
    """A Beta baseline per prompt, started from the profile, that also draws prompts.

    A relative of Single-stream Policy Optimization (arXiv:2509.13232): groups of 4
    share their prompt, and small advantages are thinned without bias.
    """
    return Method(
        prompts=ByBelief(group_size=4),
        baseline=advantages.BetaTracker(),
        advantage=BaselineRelative(),
        subsample=RussianRoulette(),
    )


def tracked_flat() -> Method:
    """`tracked` from a flat prior, without a profile: what the profile must beat."""
    return tracked().replace(baseline=advantages.BetaTracker(profile_weight=0.0))


METHODS = (
    sgpo,
    tracked,
    tracked_flat,
)
