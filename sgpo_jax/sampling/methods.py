"""Decoding strategies: greedy, temperature, top-k, top-p and min-p sampling.

A strategy masks the log-probabilities at its temperature; the token is the argmax of
the rest plus Gumbel noise, which is an exact draw from the renormalized rest
(Gumbel-max). What was cut off is recorded, so that importance ratios can be right.
"""

import dataclasses
from typing import Annotated, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from sgpo_jax import bounds
from sgpo_jax.bounds import TINY, Count, Range
from sgpo_jax.sampling.noise import first_largest, gumbel


@runtime_checkable
class DecodingStrategy(Protocol):
    """Decoding strategy: temperature and truncation of the distribution."""

    @property
    def temperature(self) -> float:
        """Divisor of the logits, applied first."""
        ...

    @property
    def truncates(self) -> bool:
        """True if `keep` ever masks tokens."""
        ...

    def keep(self, log_prob: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """Return `log_prob` with the tokens that may not be drawn at -inf."""
        ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The most probable token; log-probabilities are those at temperature 1.

    >>> Greedy().keep(jnp.log(jnp.array([[0.5, 0.25, 0.25]])))
    Array([[-0.693...,       -inf,       -inf]], dtype=float32)
    """

    temperature: float = dataclasses.field(default=1.0, init=False)
    truncates: bool = dataclasses.field(default=True, init=False)

    def keep(self, log_prob: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """Keep one token; the first of equals."""
        index = jnp.arange(log_prob.shape[-1])[None]
        best = jnp.argmax(log_prob, axis=-1, keepdims=True)
        return jnp.where(index == best, log_prob, -jnp.inf)


@dataclasses.dataclass(frozen=True)
@bounds.bounded
class Temperature:
    """A draw from softmax(logits / temperature) over the whole vocabulary."""

    temperature: bounds.Temperature = 1.0
    truncates: bool = dataclasses.field(default=False, init=False)

    def keep(self, log_prob: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """Keep all tokens."""
        return log_prob


@dataclasses.dataclass(frozen=True)
@bounds.bounded
class TopK:
    """A draw among the k most probable tokens; ties with the last are kept.

    >>> TopK(2).keep(jnp.log(jnp.array([[0.5, 0.125, 0.375]])))
    Array([[-0.693...,       -inf, -0.980...]], dtype=float32)
    """

    k: Count
    temperature: bounds.Temperature = 1.0
    truncates: bool = dataclasses.field(default=True, init=False)

    def keep(self, log_prob: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """Keep the k most probable tokens."""
        last = jax.lax.top_k(log_prob, min(self.k, log_prob.shape[-1]))[0][:, -1:]
        return jnp.where(log_prob >= last, log_prob, -jnp.inf)


@dataclasses.dataclass(frozen=True)
@bounds.bounded
class TopP:
    """A draw from the smallest set of likeliest tokens whose mass reaches p.

    Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751); ties with the last token
    are kept.

    >>> TopP(0.6).keep(jnp.log(jnp.array([[0.5, 0.125, 0.375]])))
    Array([[-0.693...,       -inf, -0.980...]], dtype=float32)
    """

    p: Annotated[float, Range(TINY, 1)]
    temperature: bounds.Temperature = 1.0
    truncates: bool = dataclasses.field(default=True, init=False)

    def keep(self, log_prob: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """Keep tokens while the mass of the likelier ones is below p."""
        falling = -jnp.sort(-log_prob, axis=-1)
        mass = jnp.exp(falling)
        likelier = jnp.cumsum(mass, axis=-1) - mass
        last = jnp.min(
            jnp.where(likelier < self.p, falling, jnp.inf), axis=-1, keepdims=True
        )
        return jnp.where(log_prob >= last, log_prob, -jnp.inf)


@dataclasses.dataclass(frozen=True)
@bounds.bounded
class MinP:
    """A draw among tokens at least p times as probable as the likeliest.

    Nguyen et al. 2024 (arXiv:2407.01082).

    >>> MinP(0.5).keep(jnp.log(jnp.array([[0.5, 0.125, 0.375]])))
    Array([[-0.693...,       -inf, -0.980...]], dtype=float32)
    """

    p: Annotated[float, Range(TINY, 1)]
    temperature: bounds.Temperature = 1.0
    truncates: bool = dataclasses.field(default=True, init=False)

    def keep(self, log_prob: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """Keep tokens within a factor p of the likeliest."""
        last = jnp.max(log_prob, axis=-1, keepdims=True) + jnp.log(self.p)
        return jnp.where(log_prob >= last, log_prob, -jnp.inf)


def choose(
    logits: Float[Array, "N V"],
    key: UInt32[Array, "N 2"],
    age: Int[Array, " N"],
    strategy: DecodingStrategy,
    forced: Int[Array, " N"] | None = None,
) -> tuple[Int[Array, " N"], Float[Array, "3 N"]]:
    """Choose a token per row; its noise depends on (key, age) only.

    Where `forced` is a token and not -1, that token is taken; the probability mass it
    was drawn from is then 0, for it was not drawn.

    Returns:
      Tokens; and for each: its log-probability at the strategy's temperature, at
      temperature 1, and the probability mass it drew from.
    """
    logits = logits.astype(jnp.float32)
    log_prob = jax.nn.log_softmax(logits / strategy.temperature)
    kept = strategy.keep(log_prob)

    noisy = kept + gumbel(key, age, logits.shape[1])
    token = first_largest(noisy)[:, None]
    if forced is not None:
        token = jnp.where(forced >= 0, forced, token[:, 0])[:, None]

    def chosen(values: Array) -> Array:
        return jnp.take_along_axis(values, token, axis=-1)[:, 0]

    at_temperature = at_one = chosen(log_prob)
    if strategy.temperature != 1:
        at_one = chosen(jax.nn.log_softmax(logits))
    mass = jnp.ones_like(at_one)
    if strategy.truncates:
        mass = jnp.sum(jnp.exp(kept), axis=-1)
    if forced is not None:
        mass = jnp.where(forced >= 0, 0, mass)
    return token[:, 0].astype(jnp.int32), jnp.stack([at_temperature, at_one, mass])
