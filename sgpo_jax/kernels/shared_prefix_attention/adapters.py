"""Shared-prefix attention inside models that were not written for it."""

from typing import Any

from jaxtyping import Array, Float

from .api import shared_prefix_attention
from .layout import Layout


def attention_fn(
    query: Float[Array, "N L H C"],
    key: Float[Array, "N L K C"],
    value: Float[Array, "N L K C"],
    bias: None = None,
    mask: Layout | None = None,
    *,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    **options: Any,
) -> Float[Array, "N L H C"]:
    """`shared_prefix_attention` as the `attention_fn` of Flax's attention modules.

    Flax hands a mask to its attention function as it got it: give the layout as the
    mask. A model that uses positions must be given `layout.position` too.

    Args:
      query: queries.
      key: keys.
      value: values.
      bias: not supported.
      mask: the layout.
      dropout_rate: probability of dropping a weight.
      deterministic: whether dropout is off.
      **options: what else Flax passes, for dropout, precision and inspection: unused.

    Raises:
      ValueError: if there is no layout, or a bias or dropout is asked for.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from .layout import from_lengths
      >>> layer = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0),
      ...                                attention_fn=attention_fn)
      >>> layer(jnp.ones((1, 6, 8)), mask=from_lengths([[(2, [1, 3])]], length=6)).shape
      (1, 6, 8)
    """
    del options
    if not isinstance(mask, Layout):
        raise ValueError(f"give a Layout as the mask, not {type(mask).__name__}")
    if bias is not None or (dropout_rate > 0 and not deterministic):
        raise ValueError("shared-prefix attention has neither a bias nor dropout")
    return shared_prefix_attention(query, key, value, mask)
