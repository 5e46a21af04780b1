"""Rotary positions, and how their frequencies are stretched for long contexts."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sgpo_jax.bounds import Count, Positive, bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class LinearScaling:
    """Divide every frequency by `factor` (position interpolation, arXiv:2306.15595).

    >>> LinearScaling(factor=4.0)(np.array([1.0, 0.1]), 100.0)
    array([0.25 , 0.025])
    """

    factor: Positive

    def __call__(
        self, frequency: Float[np.ndarray, " F"], base: float
    ) -> Float[np.ndarray, " F"]:
        """Return the stretched frequencies."""
        return frequency / self.factor


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Llama3Scaling:
    r"""Divide low frequencies by `factor`, keep high ones, blend between (Llama 3.1).

    With w = 2 pi / frequency the wavelength and o = original_context,

    .. math:: f' = (1 - s) f / \mathrm{factor} + s f, \quad
              s = \mathrm{clip}\Big(\frac{o / w - low}{high - low}, 0, 1\Big)

    Attributes:
      factor: by how much the context grew.
      low: turns within the original context up to which a frequency is divided.
      high: turns from which on it is kept.
      original_context: context the model was trained with first.
    """

    factor: Positive
    low: Positive = 1.0
    high: Positive = 4.0
    original_context: Count = 8192

    def __post_init__(self):
        if not 0 < self.low < self.high:
            raise ValueError(f"need 0 < low < high, got {self.low} and {self.high}")

    def __call__(
        self, frequency: Float[np.ndarray, " F"], base: float
    ) -> Float[np.ndarray, " F"]:
        """Return the stretched frequencies."""
        turns = self.original_context * frequency / (2 * math.pi)
        smooth = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return (1 - smooth) * frequency / self.factor + smooth * frequency


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class YarnScaling:
    r"""Stretch slow rotary pairs, keep fast ones, sharpen attention (arXiv:2309.00071).

    Pair i of F turns o base^(-i / F) / 2 pi times within the original context o. With
    i_b the pair that turns b times, rounded outwards,

    .. math:: f'_i = (1 - g) f_i + g f_i / \mathrm{factor}, \quad
              g = \mathrm{clip}\Big(\frac{i - i_\mathrm{fast}}
                                       {i_\mathrm{slow} - i_\mathrm{fast}}, 0, 1\Big)

    Attributes:
      factor: by how much the context grew.
      original_context: context the model was trained with first.
      fast: turns from which on a frequency is kept.
      slow: turns up to which it is divided.
      attention_factor: queries and keys are multiplied by it after rotation.
      rounded: whether i_fast is rounded down and i_slow up.
    """

    factor: Positive
    original_context: Count
    fast: Positive = 32.0
    slow: Positive = 1.0
    attention_factor: Positive = 1.0
    rounded: bool = True

    def __post_init__(self):
        if not 0 < self.slow <= self.fast:
            raise ValueError(f"need 0 < slow <= fast, got {self.slow} and {self.fast}")

    @staticmethod
    def sharpening(factor: float, weight: float = 1.0) -> float:
        """Return 1 + 0.1 weight ln(factor), the attention factor of the paper.

        >>> round(YarnScaling.sharpening(4.0), 4)
        1.1386
        """
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    def __call__(
        self, frequency: Float[np.ndarray, " F"], base: float
    ) -> Float[np.ndarray, " F"]:
        """Return the stretched frequencies."""
        pairs = len(frequency)
        low, high = (
            pairs
            * math.log(self.original_context / (turns * 2 * math.pi))
            / math.log(base)
            for turns in (self.fast, self.slow)
        )
        if self.rounded:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        if low == high:
            high += 0.001
        share = np.clip((np.arange(pairs) - low) / (high - low), 0, 1)
        return (1 - share) * frequency + share * frequency / self.factor


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


def frequencies(
    head_dim: int, base: float, scaling: RopeScaling | None
) -> Float[np.ndarray, " F"]:
    """Return the angle per position of each rotary pair, float32.

    >>> frequencies(4, 100.0, None)
    array([1. , 0.1], dtype=float32)
    """
    half = head_dim // 2
    frequency = base ** (-np.arange(half, dtype=np.float64) / half)
    if scaling is not None:
        frequency = scaling(frequency, base)
    return frequency.astype(np.float32)


def rotate(
    x: Float[Array, "N L H C"],
    positions: Int[Array, "N L"],
    frequency: Float[Array, " F"],
) -> Float[Array, "N L H C"]:
    """Apply rotary position embeddings (arXiv:2104.09864, eq. 34), half-split pairs.

    Angles are float32: bfloat16 cannot separate position 256 from 257.
    """
    angle = (
        positions[:, :, None, None].astype(jnp.float32) * frequency[None, None, None]
    )
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
