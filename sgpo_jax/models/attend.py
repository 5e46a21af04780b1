"""Attention interface of the decoder: implementations are passed in."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Layer(NamedTuple):
    """Attention parameters of a layer: window, scale and soft cap.

    Attributes:
      index: which layer; an int where layers are written out.
      window: positions of its own sequence a token reads, itself included; None in
        decoders without sliding windows.
      scale: factor of the products q . k.
      soft_cap: bound c of the logits, c * tanh(logits / c), before the mask; or None.
    """

    index: Int[Array, ""] | int  # pyright: ignore[reportIncompatibleMethodOverride] tuples have a method of that name
    window: Int[Array, ""] | None
    scale: float
    soft_cap: float | None

    def logits(self, products: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Return the scaled and bounded logits of products q . k."""
        logits = products * self.scale
        if self.soft_cap is None:
            return logits
        return self.soft_cap * jnp.tanh(logits / self.soft_cap)


@runtime_checkable
class Attend(Protocol):
    """Attention function: queries, keys and values to outputs, with a cache."""

    def __call__(
        self,
        layer: Layer,
        q: Float[Array, "N L H C"],
        k: Float[Array, "N L K C"],
        v: Float[Array, "N L K C"],
        carry: PyTree,
    ) -> tuple[Float[Array, "N L H C"], PyTree]:
        """Return the attention output and the new carry (a cache, or None)."""
        ...


def causal(
    layer: Layer,
    q: Float[Array, "N L H C"],
    k: Float[Array, "N L K C"],
    v: Float[Array, "N L K C"],
    carry: PyTree,
) -> tuple[Float[Array, "N L H C"], PyTree]:
    """Plain causal attention over the whole row: the simplest `Attend`.

    Softmax in float32; query head h reads key head `h // (H // K)`.

    >>> layer = Layer(jnp.int32(0), None, 1.0, None)
    >>> v = jnp.arange(2.0).reshape(1, 2, 1, 1)
    >>> causal(layer, jnp.zeros_like(v), v, v, None)[0].ravel()
    Array([0. , 0.5], dtype=float32)
    """
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    products = jnp.einsum(
        "nikgc,njkc->nkgij", grouped, k, preferred_element_type=jnp.float32
    )
    index = jnp.arange(q.shape[1], dtype=jnp.int32)
    behind = index[:, None] - index[None]
    reads = behind >= 0
    if layer.window is not None:
        reads &= behind < layer.window
    logits = jnp.where(reads[None, None, None], layer.logits(products), -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("nkgij,njkc->nikgc", weights, v).reshape(q.shape), carry
