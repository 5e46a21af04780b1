"""Further advantages relative to the group, and to the optimal value of a profile."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax import advantages, losses
from sgpo_jax.bounds import NonNegative, Positive, Range, bounded
from sgpo_jax.methods.inputs import RewardGroups


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    r"""Rewards minus the mean of the group's other rewards: RLOO (arXiv:2402.14740).

    .. math:: A_i = R_i - \frac{1}{G - 1} \sum_{j \ne i} R_j
    """

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.leave_one_out`."""
        return advantages.leave_one_out(
            groups.rewards, groups.id, num_groups=groups.count
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanRelative:
    r"""Deviation from the group mean in units of it: MaxRL (arXiv:2602.02710).

    .. math:: A_i = (R_i - \bar R_g) / \bar R_g
    """

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.mean_relative`."""
        return advantages.mean_relative(
            groups.rewards, groups.id, num_groups=groups.count
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthWeighted:
    r"""Rewards minus the length-weighted group mean: OPO (arXiv:2505.23585).

    .. math:: A_i = R_i - \frac{\sum_j L_j R_j}{\sum_j L_j}
    """

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.length_weighted`."""
        return advantages.length_weighted(
            groups.rewards, groups.id, groups.length, num_groups=groups.count
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class BatchStandardized:
    r"""Deviation from the group mean over the deviation of the batch's rewards.

    .. math:: A_i = (R_i - \bar R_g) / (\sigma_{batch} + \epsilon)

    Lite PPO (arXiv:2508.08221); it does not blow up near ties of small groups.

    Attributes:
      ddof: 0 for the population standard deviation, 1 for the sample one.
      eps: added to the standard deviation.
    """

    ddof: Annotated[int, Range(0, 1)] = 0
    eps: Positive = 1e-6

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.batch_standardized`."""
        return advantages.batch_standardized(
            groups.rewards,
            groups.id,
            num_groups=groups.count,
            ddof=self.ddof,
            eps=self.eps,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Whitened:
    r"""Centered rewards, whitened over the batch: REINFORCE++ (arXiv:2501.03262).

    .. math:: A_i = (D_i - \mu_D) / (\sigma_D + \epsilon), \quad
              D_i = R_i - \bar R_g

    Mean and deviation are over all scored responses. Groups of equal rewards have
    D = 0, and since the mean of D over the scored responses is 0, A = 0 up to
    rounding, which is removed.

    Attributes:
      eps: added to the standard deviation.
    """

    eps: Positive = 1e-6

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return the whitened deviations, 0 where unscored."""
        keys = {"num_groups": groups.count}
        centered = advantages.centered(groups.rewards, groups.id, **keys)
        scored = advantages.is_scored(groups.rewards, groups.id, **keys)
        live = advantages.is_live(groups.rewards, groups.id, **keys)
        return jnp.where(live, advantages.whiten(centered, scored, eps=self.eps), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class BestOfGroup:
    r"""Lead of the best response over the second: pass@k training (arXiv:2503.19595).

    .. math:: A_i = R_{(1)} - R_{(2)} \text{ for the best response, else } 0

    Attributes:
      standardize: divide by the standard deviation of the group, as verl does.
      eps: added to the standard deviation.
    """

    standardize: bool = False
    eps: Positive = 1e-6

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.pass_at_k`."""
        keys = {"num_groups": groups.count}
        lead = advantages.pass_at_k(groups.rewards, groups.id, **keys)
        if not self.standardize:
            return lead
        return lead / (
            advantages.group_std(groups.rewards, groups.id, ddof=1, **keys) + self.eps
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Kalman:
    r"""Rewards relative to a baseline filtered within the group: KRPO (2505.07527).

    .. math:: A_i = (R_i - x_i) / (\sqrt{P_i} + 10^{-8})

    for the belief x, P of a scalar Kalman filter after seeing R_i.

    Attributes:
      process_noise: Q.
      observation_noise: V.
      average_orders: the mean over all orders of the responses, instead of the order in
        which they were sampled.
    """

    process_noise: NonNegative = 1e-5
    observation_noise: Positive = 1e-2
    average_orders: bool = False

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.kalman` or `advantages.kalman_averaged`."""
        chosen = advantages.kalman
        if self.average_orders:
            chosen = advantages.kalman_averaged
        return chosen(
            groups.rewards,
            groups.id,
            num_groups=groups.count,
            process_noise=self.process_noise,
            observation_noise=self.observation_noise,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class OptimalAdvantage:
    r"""Rewards minus the optimal value of the prompt: A*-PO (arXiv:2505.20686).

    .. math:: A_i = R_i - V^*(x_i), \quad
              V^* = \beta \log(1 + p\,(e^{1 / \beta} - 1))

    for the success rate p of the initial policy in the profile.

    Attributes:
      beta: strength of the reference in the optimal value.
    """

    beta: Positive = 0.5

    needs = ("profile",)

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return rewards minus `losses.optimal_value`, 0 where unscored."""
        value = losses.optimal_value(groups.profile_success, beta=self.beta)
        scored = advantages.is_scored(
            groups.rewards, groups.id, num_groups=groups.count
        )
        return jnp.where(scored, groups.rewards - value, 0)
