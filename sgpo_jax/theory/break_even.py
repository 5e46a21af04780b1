r"""Break-even of a profile: cost and signal of three ways to choose prompts.

A group teaches if its rewards differ. Compute is compared at equal numbers of such
groups, in generations of a response, per question of the pool. Prompts are encoded
once per group: a group of G after a prompt as long as rho responses costs rho + G to
generate and c (rho + G) to train on, and a profile of N samples rho + N, once.

Assumed: a group with signal is worth the same, whichever question it is of; a pool far
larger than a step; success rates that stay, or, with drift delta, are drawn anew from
the pool at this rate per visit of the pool. What a question that is left out would have
taught is not charged.
"""

import dataclasses
import math
from typing import Annotated

import numpy as np
from jaxtyping import Float

from sgpo_jax.bounds import (
    Count,
    GroupSize,
    NonNegative,
    Positive,
    Range,
    Share,
    bounded,
)
from sgpo_jax.theory.signal import binomial, probability_mixed

CHAIN = 64
"""Visits of one question that are told apart; later ones leave its weight as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class GroupCost:
    r"""Cost of a group, in generations of a response.

    .. math:: (\rho + G) (1 + c)

    Attributes:
      group_size: responses G.
      prompt: length of the prompt over that of a response, rho.
      training: cost c of training on what was generated; forward, backward and old
        log-probabilities.
    """

    group_size: GroupSize = 8
    prompt: NonNegative = 0.0
    training: NonNegative = 4.0

    def units(
        self, groups: Float[np.ndarray, "..."], trained: Float[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """Cost of groups of which some are trained on."""
        return (self.prompt + self.group_size) * (groups + self.training * trained)

    def profile(self, samples: float | int) -> float:
        """Cost of a profile of so many samples, per question: generation alone."""
        return self.prompt + samples if samples else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Signal and cost of training, per question of the pool.

    Attributes:
      visits: groups drawn, increasing from 0.
      signal: groups with signal among them.
      units: compute so far, in generations of a response, profile included.
    """

    visits: Float[np.ndarray, " T"]
    signal: Float[np.ndarray, " T"]
    units: Float[np.ndarray, " T"]

    def saving_over(self, other: "Progress") -> Float[np.ndarray, " T"]:
        """Compute of the other, at each of its visits, over that of this one.

        This one's is that for as much signal; 0 where it does not get there.
        """
        return other.units / np.where(other.signal > 0, self._units_for(other), np.inf)

    def pays_after(self, other: "Progress") -> float:
        """Visits by the other from which this one needs less compute; inf if never.

        Never within the visits that were computed.
        """
        earned = other.units - self._units_for(other)
        (places,) = np.nonzero(earned > 0)
        if not places.size:
            return math.inf
        last = places[0]
        part = -earned[last - 1] / (earned[last] - earned[last - 1])
        first, second = other.visits[last - 1 : last + 1]
        return float(first + part * (second - first))

    def _units_for(self, other: "Progress") -> Float[np.ndarray, " T"]:
        """Compute of this one for each signal of the other."""
        needed = np.interp(other.signal, self.signal, self.units)
        return np.where(other.signal <= self.signal[-1], needed, np.inf)


def visits_grid(
    most: float, *, first: float = 0.1, growth: float = 0.1
) -> Float[np.ndarray, " T"]:
    """Visits from 0 to `most`: equal steps at first, then steps that grow with them."""
    equal = np.arange(0, first / growth, first)
    later = math.ceil(math.log(max(most / equal[-1], 1)) / math.log1p(growth))
    whole = np.concatenate([equal, equal[-1] * (1 + growth) ** np.arange(1, later + 1)])
    return np.append(whole[whole < most], most)


def drawn_uniformly(
    visits: Float[np.ndarray, " T"],
    mixed: Share,
    *,
    cost: GroupCost,
    drop_dead: bool = True,
) -> Progress:
    r"""Every question alike, without a profile: GRPO.

    .. math:: L = q v, \quad C = (\rho + G) (v + c L) \text{ or } (\rho + G) (1 + c) v

    Args:
      visits: groups v per question.
      mixed: share q of groups with signal.
      cost: of a group.
      drop_dead: whether groups without signal are left out of the training pass.
    """
    signal = mixed * visits
    trained = signal if drop_dead else visits
    return Progress(visits=visits, signal=signal, units=cost.units(visits, trained))


def drawn_from_profile(
    visits: Float[np.ndarray, " T"],
    mixed: Share,
    kept: Share,
    *,
    cost: GroupCost,
    samples: float | int,
    drift: NonNegative = 0.0,
    drop_dead: bool = True,
) -> Progress:
    r"""Questions that a profile keeps, alike, for the whole run: a plan.

    .. math:: L = q v + (q_f - q) \frac{1 - e^{-\delta v}}{\delta}, \quad
              C = (\rho + N) + (\rho + G) (v + c L)

    Without drift it pays against GRPO that leaves dead groups out after

    .. math:: v = \frac{\rho + N}{\rho + G} \Big/ \Big(1 - \frac{q}{q_f}\Big)

    visits: with profiles as large as a group and half of the groups dead, two.

    Args:
      visits: groups v per question of the pool; those left out get none of them.
      mixed: share q of groups with signal over the pool.
      kept: share q_f over the questions kept, just after the profile.
      cost: of a group.
      samples: N of the profile.
      drift: share delta of questions whose rate is drawn anew, per visit of the pool.
      drop_dead: whether groups without signal are left out of the training pass.

    Example:
      >>> visits, cost = visits_grid(100.0), GroupCost()
      >>> plan = drawn_from_profile(visits, 0.4, 0.8, cost=cost, samples=8)
      >>> round(plan.pays_after(drawn_uniformly(visits, 0.4, cost=cost)), 3)
      2.0
    """
    fresh = -np.expm1(-drift * visits) / drift if drift else visits
    signal = mixed * visits + (kept - mixed) * fresh
    trained = signal if drop_dead else visits
    units = cost.profile(samples) + cost.units(visits, trained)
    return Progress(visits=visits, signal=signal, units=units)


def drawn_by_belief(
    visits: Float[np.ndarray, " T"],
    rate: Float[np.ndarray, " S"],
    share: Float[np.ndarray, " S"],
    *,
    cost: GroupCost,
    samples: Annotated[int, Range(0, 4096)] = 0,
    drift: NonNegative = 0.0,
    forgetting: Share = 0.9,
    floor: Positive = 0.02,
) -> Progress:
    r"""Questions drawn by what their own groups have shown: `methods.ByBelief`.

    After n visits the belief about a question of rate p has the counts

    .. math:: a_n = \gamma^n (k + \tfrac12) + G p \frac{1 - \gamma^n}{1 - \gamma}

    and likewise b, where k of N samples of a profile succeeded, if there is one; it is
    drawn in proportion to :math:`w_n = \sqrt{a_n b_n} / (a_n + b_n) + \mathrm{floor}`.
    The share of questions with n visits follows the master equation

    .. math:: \frac{d x_n}{d v} = \frac{w_{n-1} x_{n-1} - w_n x_n}{\sum w x}

    solved by implicit steps between the `visits`. Counts are those of the mean outcome.
    Under drift they fit the new rate at once, which flatters the belief (by 9 % of its
    signal in a simulation with a drift of 0.1).

    Args:
      visits: groups v per question, from 0; `visits_grid` makes steps fine enough.
      rate: success rates p that stand for the pool, as `BetaMixture.nodes` has them.
      share: their shares.
      cost: of a group.
      samples: N of a profile that the belief starts from, and pays for.
      drift: share of questions whose rate is drawn anew, per visit of the pool.
      forgetting: gamma, the share of the counts kept at a visit.
      floor: lowest weight.
    """
    size = cost.group_size
    # Axes: outcome of the profile, success rate, visits so far.
    state = np.zeros((samples + 1, len(rate), CHAIN + 1))
    state[:, :, 0] = share * binomial(rate, samples).T
    n = np.arange(CHAIN + 1)
    kept = forgetting**n
    new = n if forgetting == 1 else (1 - kept) / (1 - forgetting)
    right = np.arange(samples + 1)[:, None, None]
    won = kept * (right + 0.5) + size * rate[:, None] * new
    lost = kept * (samples - right + 0.5) + size * (1 - rate[:, None]) * new
    weight = np.sqrt(won * lost) / (won + lost) + floor
    mixed = probability_mixed(rate, size)[:, None]
    signal = [0.0]
    for step in np.diff(visits):
        out = step * weight / (weight * state).sum()
        out[:, :, -1] = 0.0
        arriving = 0.0
        for k in n:
            state[:, :, k] = (state[:, :, k] + arriving) / (1 + out[:, :, k])
            arriving = out[:, :, k] * state[:, :, k]
        drawn = weight * state
        signal.append(signal[-1] + step * float((drawn * mixed).sum() / drawn.sum()))
        if drift:
            moved = -math.expm1(-drift * step)
            anew = state.sum(1, keepdims=True) * share[:, None]
            state += moved * (anew - state)
    found = np.array(signal)
    units = cost.profile(samples) + cost.units(visits, found)
    return Progress(visits=visits, signal=found, units=units)


def mixed_when_kept(
    rate: Float[np.ndarray, " S"],
    share: Float[np.ndarray, " S"],
    *,
    samples: Count,
    group_size: GroupSize,
    trivial_above: Share = 0.75,
) -> float:
    r"""Share of groups with signal among questions that a profile keeps.

    .. math:: q_f = E[\text{mixed}(p, G) \mid 0 < k / N \le \text{cut}]

    NaN if it can keep none.

    Args:
      rate: success rates p that stand for the pool.
      share: their shares.
      samples: N of the profile.
      group_size: responses G.
      trivial_above: cut of the rates that count as trivial.
    """
    k = np.arange(samples + 1)
    keeps = (k > 0) & (k <= trivial_above * samples)
    chance = share * (binomial(rate, samples) @ keeps)
    if not chance.sum() > 0:
        return math.nan
    return float(chance @ probability_mixed(rate, group_size) / chance.sum())
