"""GRPO and the methods that change its advantage, clipping and averaging."""

from sgpo_jax import losses
from sgpo_jax.methods.advantage import Centered
from sgpo_jax.methods.group_relative import (
    BestOfGroup,
    Kalman,
    LeaveOneOut,
    LengthWeighted,
    MeanRelative,
    Whitened,
)
from sgpo_jax.methods.method import Method, Refill
from sgpo_jax.methods.objective import ClippedSurrogate
from sgpo_jax.methods.penalty import KL
from sgpo_jax.methods.prompts import Shuffled
from sgpo_jax.methods.shaping import OverlongPenalty
from sgpo_jax.methods.subsample import DropZeroAdvantage, RussianRoulette
from sgpo_jax.methods.surrogate import PolicyGradient


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

    Dead groups are dropped and refilled; clipping at 0.2 and 0.28; token mean; soft
    penalty in the last fifth of the longest response. Groups are dead or not by the
    verifier's reward, before the penalty. Groups of 8 where the paper samples 16; one
    update per batch where it does 16.
    """
    return Method(refill=Refill(), shaping=OverlongPenalty())


def rloo() -> Method:
    """REINFORCE with the leave-one-out baseline: RLOO (arXiv:2402.14740).

    A response is one action: the sum of its tokens, averaged over responses; one update
    per batch without clipping; KL to the initial policy in the reward, 0.05.
    """
    return Method(
        advantage=LeaveOneOut(),
        objective=PolicyGradient(),
        kl=KL(coef=0.05, in_reward=True),
        aggregation=losses.Constant(1),
    )


def maxrl() -> Method:
    """Maximum-likelihood RL: deviations in units of the group mean (arXiv:2602.02710).

    The weight of a prompt is about 1 / success rate. For rewards that are not negative.
    The advantage is the paper's; the loss around it is that of `grpo_token`.
    """
    return Method(advantage=MeanRelative())


def opo() -> Method:
    """On-policy RL with the length-weighted optimal baseline: OPO (arXiv:2505.23585).

    Strictly one update per batch, hence no ratio and no clipping; no KL penalty and no
    entropy bonus. Token mean.
    """
    return Method(advantage=LengthWeighted(), objective=PolicyGradient())


def reinforce_pp() -> Method:
    """REINFORCE++ with group baseline (arXiv:2501.03262): advantages of unit batch std.

    Rewards minus the group mean, then whitened over the batch; clipping at 0.2; KL to
    the initial policy in the loss by k2. The coefficient 1e-3 is ours.
    """
    return Method(
        advantage=Whitened(),
        objective=ClippedSurrogate(low=0.2, high=0.2),
        kl=KL(coef=1e-3, estimator="k2"),
    )


def pass_at_k() -> Method:
    """Training for the best of a group, pass@k (arXiv:2503.19595).

    Only the best response of a group is credited, by its lead over the second: with
    binary rewards, groups with exactly one success. k is the group size. Not divided by
    the group's deviation, as verl does (`BestOfGroup.standardize`).
    """
    return Method(advantage=BestOfGroup())


def krpo() -> Method:
    """Kalman-filtered baseline within the group: KRPO (arXiv:2505.07527).

    Mean per response, then over responses; clipping at 0.2; KL 0.01. Dead groups have
    advantage exactly 0, where the published filter leaves a remainder. Groups of 8; the
    paper samples 12.
    """
    return Method(
        advantage=Kalman(),
        objective=ClippedSurrogate(low=0.2, high=0.2),
        kl=KL(coef=0.01),
        aggregation=losses.PerSequence(),
    )


METHODS = (
    grpo,
    grpo_token,
    grpo_nonzero,
    grpo_thin,
    grpo_2,
    dr_grpo,
    dapo,
    rloo,
    maxrl,
    opo,
    reinforce_pp,
    pass_at_k,
    krpo,
)
