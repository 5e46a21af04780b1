"""Regression of log-ratios on rewards: trajectory balance and its relatives."""

from sgpo_jax import losses
from sgpo_jax.methods.method import Method
from sgpo_jax.methods.regression import Rebel, VarGrad


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


METHODS = (
    vargrad,
    rebel,
)
