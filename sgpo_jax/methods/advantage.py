"""Advantages: what each response is worth, from the rewards of its group.

An advantage is a frozen dataclass, or a plain function of the same signature,
`(RewardGroups) -> [R]`, written with `jax.numpy` since it is jitted. The result is 0
where the reward is missing.
"""

import dataclasses
import functools
from typing import Annotated, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpo_jax import advantages
from sgpo_jax.bounds import Positive, Range, bounded
from sgpo_jax.methods.inputs import RewardGroups
from sgpo_jax.methods.needs import needs_of


@runtime_checkable
class Advantage(Protocol):
    """Rewards of groups to one advantage per response."""

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return one advantage per response, [R]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Standardized:
    r"""Rewards standardized within the group: GRPO (arXiv:2402.03300).

    .. math:: A_i = (R_i - \bar R_g) / (\sigma_g + \epsilon)

    Attributes:
      ddof: 0 for the population standard deviation, 1 for the sample one.
      eps: added to the standard deviation.
    """

    ddof: Annotated[int, Range(0, 1)] = 0
    eps: Positive = 1e-6

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.standardized`."""
        return advantages.standardized(
            groups.rewards,
            groups.id,
            num_groups=groups.count,
            ddof=self.ddof,
            eps=self.eps,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Centered:
    r"""Rewards minus the group mean: Dr. GRPO (arXiv:2503.20783).

    .. math:: A_i = R_i - \bar R_g
    """

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return `advantages.centered`."""
        return advantages.centered(groups.rewards, groups.id, num_groups=groups.count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineRelative:
    r"""Rewards minus the prompt's tracked baseline, over the batch's deviation.

    .. math:: A_i = (R_i - m_{q(i)}) / \sigma_{batch}

    m is the expected reward from before this step (`Method.baseline`), so no group is
    ever dead and a group may hold one response. Single-stream Policy Optimization
    (arXiv:2509.13232).

    Attributes:
      center: subtract the mean over the batch as well, as that paper does.
    """

    center: bool = False

    needs = ("baseline",)

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return the whitened difference, 0 where unscored."""
        scored = advantages.is_scored(
            groups.rewards, groups.id, num_groups=groups.count
        )
        difference = jnp.where(scored, groups.rewards - groups.baseline, 0)
        return advantages.whiten(difference, scored, center=self.center)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosteriorRelative:
    r"""Rewards minus the mean of the prompt's posterior without the response itself.

    .. math:: A_i = \frac{R_i - m_i}{\sigma_{batch}}, \qquad
              m_i = \frac{w\, m_{q(i)} + \sum_{j \ne i} R_j}{w + n_g - 1}

    with m the tracked baseline, worth w rewards (a + b of a Beta distribution), and the
    sum over the n - 1 other responses of the group. It does not depend on the response
    it judges, so the gradient stays unbiased; it lies between `BaselineRelative`
    (n = 1) and leave-one-out (w = 0). This library's combination.
    """

    needs = ("baseline", "baseline_weight")

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return the whitened difference, 0 where unscored."""
        scored = advantages.is_scored(
            groups.rewards, groups.id, num_groups=groups.count
        )
        rewards = jnp.where(scored, groups.rewards, 0)

        def per_group(x: Float[Array, " R"]) -> Float[Array, " R"]:
            return jax.ops.segment_sum(x, groups.id, groups.count)[groups.id]

        others = per_group(rewards) - rewards
        count = per_group(scored.astype(rewards.dtype)) - 1
        weight = groups.baseline_weight
        total = jnp.where(scored, weight + count, 1)
        mean = (weight * groups.baseline + others) / total
        difference = jnp.where(scored, groups.rewards - mean, 0)
        return advantages.whiten(difference, scored, center=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Downsampled:
    r"""Advantages of the most diverse rewards of each group, 0 for the others: PODS.

    .. math:: A_i = \frac{R_i - \bar R}{\sigma + \epsilon} \quad (i \in S_g), \qquad
              S_g = \arg\max_{|S| = m} \mathrm{Var}(R_S)

    `advantages.max_variance` (arXiv:2504.13818). Together with
    `subsample=DropZeroAdvantage()` only those kept get a backward pass.

    Attributes:
      keep: responses kept per group, m.
      over: mean and deviation of the kept responses, or of the whole group.
      standardize: divide by the deviation.
      eps: added to the deviation.
    """

    keep: Annotated[int, Range(2, 4096)] = 4
    over: Literal["kept", "group"] = "kept"
    standardize: bool = True
    eps: Positive = 1e-6

    def __call__(self, groups: RewardGroups, /) -> Float[Array, " R"]:
        """Return the advantages, 0 for responses that are not kept."""
        keep = advantages.max_variance(
            groups.rewards, groups.id, num_groups=groups.count, keep=self.keep
        )
        rewards = groups.rewards
        if self.over == "kept":
            rewards = jnp.where(keep, rewards, jnp.nan)
        if self.standardize:
            found = advantages.standardized(
                rewards, groups.id, num_groups=groups.count, eps=self.eps
            )
        else:
            found = advantages.centered(rewards, groups.id, num_groups=groups.count)
        return jnp.where(keep, found, 0)


@functools.partial(jax.jit, static_argnames="advantage")
def _jitted(groups: RewardGroups, *, advantage: Advantage) -> jax.Array:
    return advantage(groups)


def evaluate(advantage: Advantage, groups: RewardGroups, count: int) -> np.ndarray:
    """Advantages of the first `count` responses, as float32 on the host.

    Raises:
      ValueError: if the advantage is not one finite number per scored response.
    """
    found = np.asarray(
        _jitted(groups.restricted(needs_of(advantage)), advantage=advantage)
    )
    if found.shape != groups.rewards.shape:
        raise ValueError(
            f"advantage {advantage} returned shape {found.shape} for"
            f" {groups.rewards.shape[0]} responses; return one number per response"
        )
    scored = np.isfinite(np.asarray(groups.rewards))
    return np.where(scored, found, 0).astype(np.float32)[:count]


def check_advantage(advantage: Advantage) -> None:
    """Trace an advantage on the shapes of eight responses in two groups.

    Raises:
      ValueError: if it fails, or returns anything but one number per response.
    """
    each = np.ones(8, np.float32)
    groups = RewardGroups(
        rewards=each,
        id=np.repeat(np.arange(2, dtype=np.int32), 4),
        length=each,
        size=4 * each,
        count=8,
        max_length=8,
        optional=dict.fromkeys(("baseline", "baseline_weight", "profile"), each),
    ).restricted(needs_of(advantage))
    try:
        found = jax.eval_shape(advantage, groups)
        if getattr(found, "shape", None) != each.shape:
            raise ValueError(f"it returns {found}")
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"the advantage fails on eight responses in two groups:"
            f" {type(error).__name__}, {text[:300]}; an advantage returns one number"
            " per response, [R]"
        ) from error


def pad_groups(groups: RewardGroups) -> RewardGroups:
    """Copy padded to a power of two responses, so that few programs are compiled."""
    responses = len(groups.rewards)
    room = (1 << max(responses - 1, 1).bit_length()) - responses

    def zeros(x: np.ndarray, dtype: type) -> np.ndarray:
        return np.pad(np.asarray(x, dtype), (0, room))

    rewards = np.pad(
        np.asarray(groups.rewards, np.float32), (0, room), constant_values=np.nan
    )
    return RewardGroups(
        rewards=rewards,
        id=zeros(groups.id, np.int32),
        length=zeros(groups.length, np.float32),
        size=zeros(groups.size, np.float32),
        count=responses + room,
        max_length=groups.max_length,
        optional={name: zeros(x, np.float32) for name, x in groups.optional.items()},
    )
