"""Named methods: each algorithm of the literature as a value, one function per name.

The docstring of each gives paper, equation, defaults, and where we deviate.
"""

import inspect
from collections.abc import Callable, Mapping

from sgpo_jax import advantages, losses
from sgpo_jax.methods.advantage import BaselineRelative, Centered
from sgpo_jax.methods.method import Method, Refill
from sgpo_jax.methods.objective import ClippedSurrogate
from sgpo_jax.methods.penalty import KL
from sgpo_jax.methods.prompts import ByBelief, Planned, Shuffled
from sgpo_jax.methods.regression import Rebel, VarGrad
from sgpo_jax.methods.serialize import locate
from sgpo_jax.methods.subsample import DropZeroAdvantage, RussianRoulette


def grpo() -> Method:
    """Group Relative Policy Optimization (arXiv:2402.03300), as published.

    Mean over the tokens of a response, then over responses; ratio clipped at 0.2; KL to
    the initial policy in the loss, k3 with 0.04; advantages standardized within groups.
    Groups of 8; the paper samples 64.
    """
    return Method(
        objective=ClippedSurrogate(low=0.2, high=0.2),
        kl=KL(coef=0.04),
        aggregation=losses.PerSequence(),
    )


def grpo_token() -> Method:
    """GRPO with the loss of DAPO: token mean, clipping at 0.2 and 0.28, no KL penalty.

    What most codebases train under the name of GRPO today; dead groups are trained on.
    """
    return Method()


def grpo_nonzero() -> Method:
    """`grpo_token` without a backward pass for responses of advantage 0.

    The same gradient for less work: the control for every claim of saved compute.
    """
    return Method(subsample=DropZeroAdvantage())


def grpo_thin() -> Method:
    """`grpo_token` with responses thinned by Russian roulette, unbiased.

    The second control: less training without a profile and without a tracker.
    """
    return Method(subsample=RussianRoulette(keep_above=1.5))


def dr_grpo() -> Method:
    """GRPO done right (arXiv:2503.20783): centered advantages, constant length.

    A token counts 1 / 1024 whatever the length of its response (the paper: one over the
    longest response allowed; the constant only scales the gradient, before clipping);
    no division by the group's standard deviation, no KL penalty.
    """
    return Method(
        advantage=Centered(),
        objective=ClippedSurrogate(low=0.2, high=0.2),
        aggregation=losses.Constant(1024),
    )


def dapo() -> Method:
    """Decoupled clip and dynamic sampling (arXiv:2503.14476).

    Dead groups are dropped and refilled; clipping at 0.2 and 0.28; token mean. Without
    the paper's penalty on overlong responses; groups of 8 where it samples 16.
    """
    return Method(refill=Refill())


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


def grpo_2() -> Method:
    """Groups of two and as many more prompts (arXiv:2510.00977)."""
    return Method(prompts=Shuffled(group_size=2))


def vargrad() -> Method:
    """Trajectory balance with the group's own normalizer (VarGrad, arXiv:2503.18929).

    Regression of the log-ratio to the initial policy on the reward, beta 0.1; no
    replay buffer, beta is not annealed.
    """
    return Method(objective=VarGrad(), aggregation=losses.PerSequence())


def rebel() -> Method:
    """Regression to relative rewards over all pairs of a group (REBEL, 2404.16767).

    Log-ratios to the policy before the update, eta 1, in the scale of the reference
    code.
    """
    return Method(
        objective=Rebel(), aggregation=losses.PerSequence(), updates_per_batch=2
    )


ZOO: Mapping[str, Callable[[], Method]] = {
    make.__name__: make
    for make in (
        grpo,
        grpo_token,
        grpo_nonzero,
        grpo_thin,
        grpo_2,
        dr_grpo,
        dapo,
        sgpo,
        tracked,
        tracked_flat,
        vargrad,
        rebel,
    )
}


def named(name: str) -> Method:
    """Method of a name, or of "package.module:function" outside the package.

    Raises:
      ValueError: if there is none, with the names there are.
    """
    if name in ZOO:
        return ZOO[name]()
    if ":" not in name:
        raise ValueError(
            f"unknown method {name!r}; known: {', '.join(ZOO)}, or a function of your"
            " own as package.module:function"
        )
    found = locate(name)
    made = found() if inspect.isfunction(found) else found
    if not isinstance(made, Method):
        raise ValueError(
            f"{name} is {type(made).__name__}; it must be a methods.Method, or a"
            " function without arguments that returns one"
        )
    return made


def label_of(name: str) -> str:
    """Label of a method in a run: its name, or that of its function.

    >>> label_of("my_lab.algorithms:mine")
    'mine'
    """
    return name.rpartition(":")[2].rpartition(".")[2]
