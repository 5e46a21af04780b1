"""Group sizes: how many rollouts each query gets, decided from its posterior."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from sgpo_jax import theory
from sgpo_jax.bounds import GroupSize, Range, bounded
from sgpo_jax.planning.concave import split_budget, tie_order
from sgpo_jax.profiling import Posterior

Sizes = Int[np.ndarray, " Q"]


@runtime_checkable
class Allocator(Protocol):
    """Chooses group sizes. All allocators pass one contract test."""

    def __call__(self, belief: Posterior) -> Sizes:
        """Return a group size of at least 1 per query, [Q]."""
        ...


def _check_sizes(minimum: int, maximum: int) -> None:
    if minimum > maximum:
        raise ValueError(
            f"group sizes need minimum <= maximum, got {minimum} and {maximum}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Fixed:
    """The same group size for every query, as in GRPO."""

    size: GroupSize = 8

    def __call__(self, belief: Posterior) -> Sizes:
        """Return `size` for every query."""
        return np.full(len(belief), self.size)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class InverseSuccess:
    r"""Group size near 1 / success rate, rounded down to a power of two.

    .. math:: G = \mathrm{clip}(2^{\lfloor \log_2 (1/\hat p) \rfloor}, G_{min}, G_{max})

    sGPO (arXiv:2606.08854, section 4.3.2, second-hand). A group of 1/p responses holds
    one success on average. Unsolved queries get the largest size.

    Attributes:
      minimum: smallest size.
      maximum: largest size.
      estimate: the success rate used; "rate" is k / n as in the paper, "mean" the
        posterior mean.

    >>> from sgpo_jax.profiling import Profile
    >>> profile = Profile(ids=("a", "b", "c"), samples=[8, 8, 8], successes=[4, 2, 0])
    >>> InverseSuccess()(Posterior.of(profile)).tolist()
    [2, 4, 8]
    """

    minimum: GroupSize = 2
    maximum: GroupSize = 8
    estimate: Literal["rate", "mean"] = "rate"

    def __post_init__(self):
        _check_sizes(self.minimum, self.maximum)

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        rate = belief.profile.success_rate if self.estimate == "rate" else belief.mean
        size = theory.power_of_two_size(
            np.nan_to_num(rate),
            smallest=self.minimum,
            largest=self.maximum,
            trivial_above=1.0,
        )
        return np.where(size == theory.UNSOLVED, self.maximum, size)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ExactInverse:
    r"""Smallest group that is expected to hold one success, 1 / posterior mean.

    .. math:: G = \mathrm{clip}(\lceil 1 / E p \rceil, G_{min}, G_{max})
    """

    minimum: GroupSize = 2
    maximum: GroupSize = 16

    def __post_init__(self):
        _check_sizes(self.minimum, self.maximum)

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        size = np.ceil(1 / np.maximum(belief.mean, 1e-9) - 1e-9)
        return np.clip(size, self.minimum, self.maximum).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class BestSuccessAdvantage:
    r"""Group size at which a success earns most advantage per rollout.

    .. math:: G = \arg\max_G E_{p} J(p, G)

    with `theory.success_advantage` J, whose optimum for a known rate is 1/p; the
    expectation is over the posterior. This library's criterion.

    Attributes:
      sizes: candidates, rising; the first wins a tie.
    """

    sizes: tuple[Annotated[int, Range(2, 4096)], ...] = (2, 3, 4, 6, 8, 12, 16)

    def __post_init__(self):
        if not self.sizes or sorted(self.sizes) != [*self.sizes]:
            raise ValueError(f"sizes must rise, got {self.sizes}")

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        sizes = np.array(self.sizes)
        value = belief.expect_sizes(theory.success_advantage, sizes)
        # Rounding decides no tie: where p is 0, all sizes are worth 0.
        return sizes[np.round(value, 12).argmax(-1)[belief.index]]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class _Budgeted:
    """A budget that is split by the gain of one more rollout.

    Attributes:
      mean: rollouts per query on average; the budget is this times the queries,
        rounded.
      minimum: smallest size.
      maximum: largest size.
    """

    mean: Annotated[float, Range(1, 4096)] = 8.0
    minimum: GroupSize = 2
    maximum: GroupSize = 128

    def __post_init__(self):
        _check_sizes(self.minimum, self.maximum)
        if not self.minimum <= self.mean <= self.maximum:
            raise ValueError(
                f"mean must be between minimum and maximum, got {self.mean}, not in"
                f" [{self.minimum}, {self.maximum}]"
            )

    def budget(self, queries: int) -> int:
        """Rollouts in all."""
        return round(self.mean * queries)

    def _split(self, belief: Posterior, value: Callable[[Any, Any], Any]) -> Sizes:
        """Split the budget by a value of rate and size that is concave in the size."""
        sizes = np.arange(self.minimum, self.maximum + 1)
        gains = np.diff(belief.expect_sizes(value, sizes), axis=-1)
        return self._greedy(belief, gains)

    def _greedy(self, belief: Posterior, gains: np.ndarray) -> Sizes:
        return split_budget(
            gains,
            belief.index,
            tie_order(belief.profile.ids),
            budget=self.budget(len(belief)),
            minimum=self.minimum,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knapsack(_Budgeted):
    r"""Knapsack RL: most learning value under a total budget.

    .. math:: \max \sum_i E\big[(1 - p^{N_i} - (1 - p)^{N_i}) p (1 - p)^2\big], \quad
              \sum_i N_i = B

    arXiv:2509.25849 takes the last pass rate for p; here its posterior, so unsolved
    queries get rollouts because they may be solvable, not what is left over.
    """

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        return self._split(
            belief, lambda p, n: theory.probability_mixed(p, n) * p * (1 - p) ** 2
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HitMaximizing(_Budgeted):
    r"""HORA: most queries with at least one success.

    .. math:: \max \sum_i E\big[1 - (1 - p)^{n_i}\big], \quad \sum_i n_i = B

    After arXiv:2605.07114, its objective as stated there; under a Beta posterior the
    expectation is 1 - prod (b + j) / (a + b + j).
    """

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        return self._split(belief, theory.probability_any_success)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neyman(_Budgeted):
    r"""Neyman allocation: least variance of the mean of the predicted rewards.

    .. math:: \min \sum_i s_i^2 / n_i, \quad s_i^2 = m_i (1 - m_i), \quad
              m_i = E p_i

    so n is proportional to s. The variance of a reward drawn from the belief counts
    what the profile does not know about p as well.
    """

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        mean = belief.classes.mean
        return self._by_variance(belief, mean * (1 - mean))

    def _by_variance(self, belief: Posterior, variance: np.ndarray) -> Sizes:
        sizes = np.arange(self.minimum, self.maximum)
        return self._greedy(belief, variance[:, None] / (sizes * (sizes + 1.0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceMinimizing(Neyman):
    r"""VIP: least variance of the policy gradient.

    .. math:: \min \sum_i E[p_i (1 - p_i)] / n_i

    so n is proportional to the square root, the rule of VIP (arXiv:2602.01601) for
    gradients with centred rewards (Dr. GRPO, RLOO). Unlike `Neyman` it leaves out the
    part of the variance that more rollouts of one rate cannot show.
    """

    def __call__(self, belief: Posterior) -> Sizes:
        """Return the group size of each query."""
        return self._by_variance(belief, belief.expect(lambda p: p * (1 - p)))


ALLOCATORS: dict[str, Allocator] = {
    "fixed": Fixed(),
    "inverse": InverseSuccess(),
    "exact-inverse": ExactInverse(),
    "best-advantage": BestSuccessAdvantage(),
    "knapsack": Knapsack(),
    "neyman": Neyman(),
    "vip": VarianceMinimizing(),
    "hora": HitMaximizing(),
}
"""Allocators by the name the command line has for them, with their defaults."""
