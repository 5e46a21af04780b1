"""The public function: one signature, three implementations."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import pallas, reference, tiles, xla
from .layout import Layout
from .reads import Window
from .scores import Scores

Implementation = Literal["reference", "xla", "pallas"]
"""Implementations of the attention: dense, by tiles, and the TPU kernel."""


def shared_prefix_attention(
    q: Float[Array, "N L H C"],
    k: Float[Array, "N L K C"],
    v: Float[Array, "N L K C"],
    layout: Layout,
    *,
    scale: float | None = None,
    window: Window = None,
    soft_cap: float | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "N L H C"]:
    r"""Attention over packed rows in which responses share their group's prefix.

    .. math:: o_i = \sum_{j \in A_i} \frac{e^{s_{ij}}}{\sum_{l \in A_i} e^{s_{il}}} v_j,
              \quad s_{ij} = \mathrm{cap}(\mathrm{scale} \cdot q_i \cdot k_j)

    with A_i the keys that `Layout` lets token i read. Outputs and gradients equal those
    of dense causal attention on every `prefix + response` by itself, with the gradients
    of a prefix summed over its responses; "Prefix Grouper" (arXiv:2506.05433) computes
    the same in two calls per group.

    Args:
      q: queries.
      k: keys; query head h reads key head `h // (H // K)`.
      v: values.
      layout: which keys each token reads.
      scale: factor of the products, by default 1 / sqrt(C).
      window: positions of its own sequence a token reads, itself included; may be
        traced, so that layers of a scan differ in it. None reads all.
      soft_cap: bound of the logits, soft_cap * tanh(logits / soft_cap).
      implementation: `"reference"` is dense in float32. `"xla"` keeps one number per
        query and head for the backward pass and does work proportional to the tiles
        that are read. `"pallas"` does so on TPU. None takes `"pallas"` on TPU and
        `"xla"` elsewhere. A name is never replaced by another.

    Returns:
      Outputs in the dtype of q, exactly 0 at padding. Values at padding, even NaN, and
      their cotangents reach nothing.

    Raises:
      ValueError: if the query heads are no multiple of the key heads, a
        hyper-parameter is out of range, or `"pallas"` is asked for without a TPU.

    Example:
      >>> from sgpo_jax.kernels.shared_prefix_attention import from_lengths
      >>> layout = from_lengths([[(2, [1, 1])]], length=4)
      >>> v = jnp.arange(4.0).reshape(1, 4, 1, 1)
      >>> shared_prefix_attention(jnp.zeros_like(v), v, v, layout).ravel()
      Array([0.       , 0.5      , 1.       , 1.3333334], dtype=float32)
    """
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"{q.shape[2]} query heads share {k.shape[2]} key heads")
    if isinstance(window, int) and window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    scores = Scores(
        scale=q.shape[-1] ** -0.5 if scale is None else scale, soft_cap=soft_cap
    )
    if implementation is None:
        implementation = "pallas" if jax.default_backend() == "tpu" else "xla"
    # Zeros at padding: a weight of 0 does not silence a NaN.
    real = jnp.asarray(layout.real)[..., None, None]
    q, k, v = (jnp.where(real, x, jnp.zeros((), x.dtype)) for x in (q, k, v))
    layout = Layout(*(jnp.asarray(x) for x in layout))
    match implementation:
        case "reference":
            out = reference.attend(q, k, v, layout, window, scores)
        case "xla":
            tile = xla.tile_for(q.shape[1])
            out = xla.attend(q, k, v, layout, window, scores, tile)
        case "pallas":
            heads = tiles.Heads(
                group=q.shape[2] // k.shape[2],
                width=q.shape[3] + -q.shape[3] % tiles.LANES,
                itemsize=q.dtype.itemsize,
            )
            plan = tiles.plan_for(q.shape[1], heads, tiles.TpuCore.current())
            # Zero at padding already; a second pass would keep a second copy.
            return pallas.attend(q, k, v, layout, window, scores, plan)
    return jnp.where(real, out, jnp.zeros((), out.dtype))
