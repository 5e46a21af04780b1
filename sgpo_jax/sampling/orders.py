"""Scheduling order of queued prompts, and prediction of response lengths.

An order changes when a sample is drawn, never what is drawn: its noise depends on its
query and index alone. Started last, a long sample runs on alone while slots idle; so
the longest first needs the fewest steps (Graham 1969), and the shortest first ends most
samples early.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthStats:
    """Length statistics of the requests of a call, [Q].

    Attributes:
      prompt: prompt tokens.
      expected: response tokens the caller expects; NaN where not given.
      budget: most response tokens; infinite where the sampler's own limit holds.
      tokens: response tokens sampled so far, of running samples too.
      ended: samples that ended.
    """

    prompt: Int[np.ndarray, " Q"]
    expected: Float[np.ndarray, " Q"]
    budget: Float[np.ndarray, " Q"]
    tokens: Int[np.ndarray, " Q"]
    ended: Int[np.ndarray, " Q"]


@runtime_checkable
class LengthPredictor(Protocol):
    """Predictor of the response length of each request."""

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return the expected response tokens of each request; infinite if unknown."""
        ...


@dataclasses.dataclass(frozen=True)
class GivenLengths:
    """Response lengths given by the caller, else the request's budget.

    >>> import numpy as np
    >>> zeros = np.zeros(2, int)
    >>> stats = LengthStats(prompt=zeros, expected=np.array([7.0, np.nan]),
    ...             budget=np.array([np.inf, 9.0]), tokens=zeros, ended=zeros)
    >>> GivenLengths()(stats)
    array([7., 9.])
    """

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return the given lengths."""
        return np.where(np.isnan(stats.expected), stats.budget, stats.expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimatedLengths:
    r"""Response lengths estimated in the call, with the given ones as prior.

    .. math:: \hat m = \frac{w m_0 + t}{w + e}

    with t the tokens sampled for a request and e its samples that ended: the maximum
    likelihood of a geometric length, which counts the early tokens of samples that
    still run as evidence for long ones. The prior m_0 is what the caller expects; else
    a ridge regression of the logarithm of the mean length on that of the prompt, over
    the requests seen so far. Nothing is kept between calls.

    Attributes:
      weight: samples that the prior is worth, w.
      ridge: penalty of the regression's slope, in requests.
    """

    weight: float = 1.0
    ridge: float = 4.0

    def __post_init__(self):
        if not self.weight > 0 or not self.ridge > 0:
            raise ValueError(
                f"weight and ridge must be positive, got {self.weight}, {self.ridge}"
            )

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return the estimate."""
        prior = np.where(np.isnan(stats.expected), self._from_prompts(stats), 0)
        prior += np.nan_to_num(stats.expected)
        started = (stats.tokens > 0) & np.isfinite(prior)
        mean = (self.weight * prior + stats.tokens) / (self.weight + stats.ended)
        return np.where(started, mean, prior)

    def _from_prompts(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        known = stats.ended > 0
        if not known.any():
            return np.full(len(known), np.inf)
        length = np.log(stats.tokens[known] / stats.ended[known])
        feature = np.log(np.maximum(stats.prompt, 1))
        x = feature[known] - feature[known].mean()
        slope = np.sum(x * (length - length.mean())) / (np.sum(x * x) + self.ridge)
        return np.exp(length.mean() + slope * (feature - feature[known].mean()))


@runtime_checkable
class Order(Protocol):
    """Priority of queued requests."""

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return a rank per request: the lowest starts first, equals as given."""
        ...


@dataclasses.dataclass(frozen=True)
class AsGiven:
    """The first request first."""

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return equal ranks."""
        return np.zeros(len(stats.prompt))


@dataclasses.dataclass(frozen=True)
class LongestFirst:
    """Longest expected response first: the fewest steps."""

    predictor: LengthPredictor = GivenLengths()

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return falling lengths."""
        return -self.predictor(stats)


@dataclasses.dataclass(frozen=True)
class ShortestFirst:
    """Shortest expected response first: most results early."""

    predictor: LengthPredictor = GivenLengths()

    def __call__(self, stats: LengthStats) -> Float[np.ndarray, " Q"]:
        """Return rising lengths."""
        return self.predictor(stats)
