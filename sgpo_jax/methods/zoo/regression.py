"""Regression of log-ratios on rewards: trajectory balance and its relatives."""

from sgpo_jax import losses, planning
from sgpo_jax.methods.advantage import Centered
from sgpo_jax.methods.group_relative import OptimalAdvantage
from sgpo_jax.methods.method import Method
from sgpo_jax.methods.prompts import Planned
from sgpo_jax.methods.regression import (
    AdvantageRegression,
    Dro,
    FlowBalance,
    Rebel,
    TrajectoryBalance,
    VarGrad,
)


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


def dro() -> Method:
    """Direct reward optimization: a quadratic penalty on log-ratios (arXiv:2405.19107).

    Centered rewards replace the paper's learnt value, log-ratios are to the initial
    policy. The paper trains offline, this on fresh rollouts. Beta is 0.1 as for
    `vargrad`: with 1 the log-ratio of a whole response is drawn to less than one nat.
    """
    return Method(
        advantage=Centered(),
        objective=Dro(beta=0.1),
        aggregation=losses.PerSequence(),
    )


def a_star_po() -> Method:
    """Regression on the optimal advantage, one response per prompt (arXiv:2505.20686).

    The optimal value of a prompt is that of its success rate in the profile, beta 0.5;
    the policy is regressed with beta 1e-3. Prompts that no sample of the profile solved
    are left out, as published.
    """
    return Method(
        prompts=Planned(
            filter=planning.DropTrivial(trivial_above=1.0, unsolved_share=0.0),
            allocate=planning.Fixed(size=1),
            curriculum=planning.Mixed(),
        ),
        advantage=OptimalAdvantage(),
        objective=AdvantageRegression(),
        aggregation=losses.PerSequence(),
    )


def trajectory_balance() -> Method:
    """Trajectory balance with a learnt normalizer (arXiv:2201.13259).

    Towards the initial policy times exp(reward / beta), beta 0.1. log Z is a network on
    the prompt's last hidden state with a step size of its own.
    """
    return Method(objective=TrajectoryBalance(), aggregation=losses.PerSequence())


def flowrl() -> Method:
    """FlowRL: length-normalized trajectory balance, learnt normalizer (2509.15207).

    Rewards standardized within groups, beta 15; importance weights at most 10. log Z
    reads the hidden state of the prompt's last token instead of the mean over the
    prompt, without dropout; weights only truncated, as in the reference code.
    """
    return Method(objective=FlowBalance(), aggregation=losses.PerSequence())


METHODS = (
    vargrad,
    rebel,
    trajectory_balance,
    flowrl,
    dro,
    a_star_po,
)
