"""GRPO and the methods that change its advantage, clipping and averaging."""

from sgpo_jax import losses
from sgpo_jax.methods.advantage import Centered
from sgpo_jax.methods.method import Method, Refill
from sgpo_jax.methods.objective import ClippedSurrogate
from sgpo_jax.methods.penalty import KL
from sgpo_jax.methods.prompts import Shuffled
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


def grpo_2() -> Method:
    """Groups of two and as many more prompts (arXiv:2510.00977)."""
    return Method(prompts=Shuffled(group_size=2))


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


METHODS = (
    grpo,
    grpo_token,
    grpo_nonzero,
    grpo_thin,
    grpo_2,
    dr_grpo,
    dapo,
)
