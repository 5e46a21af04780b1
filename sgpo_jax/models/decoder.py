"""One configurable decoder, as a Flax NNX module and as pure functions.

The module declares each parameter once: shape, initializer and logical axes. Training,
scoring and sampling use the pure form, in which `params` is a nested dict of arrays:

>>> from sgpo_jax.models import causal
>>> config = DecoderConfig(vocab_size=11, num_layers=2, embed_dim=8, mlp_dim=16,
...                        num_heads=2, num_kv_heads=1, head_dim=4)
>>> params = init(config, key=jax.random.key(0))
>>> tokens = jnp.array([[1, 2, 3]])
>>> hidden, _ = apply(params, config, tokens, jnp.array([[0, 1, 2]]), causal)
>>> hidden.shape
(1, 3, 8)

What a token may attend to is not the model's business: `attend` is passed in. Packed
training passes shared-prefix attention, the sampler passes attention over its cache.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from sgpo_jax import sharding
from sgpo_jax.models.attend import Attend, Layer
from sgpo_jax.models.config import DecoderConfig

Params = PyTree[Array]


def rms_norm(
    x: Float[Array, "*n D"], scale: Float[Array, " D"], eps: float
) -> Float[Array, "*n D"]:
    """Return x / sqrt(mean(x^2) + eps) * scale, in float32 inside."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    scale = jax.lax.broadcast_in_dim(scale.astype(jnp.float32), x.shape, (x.ndim - 1,))
    return (x32 * scale).astype(x.dtype)


def rotate(
    x: Float[Array, "N L H C"], positions: Int[Array, "N L"], base: float
) -> Float[Array, "N L H C"]:
    """Apply rotary position embeddings (arXiv:2104.09864, eq. 34), half-split pairs.

    Angles are float32: bfloat16 cannot tell position 256 from 257.
    """
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = (
        positions[:, :, None, None].astype(jnp.float32) * frequency[None, None, None]
    )
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class Decoder(nnx.Module):
    """Decoder-only transformer whose layers are stacked along a leading axis."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        c = config

        def param(shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int = 0):
            # fan_in = 0 marks a scale, which starts at one.
            if not fan_in:
                return nnx.Param(jnp.ones(shape, jnp.float32), axes=axes)
            value = jax.random.normal(rngs.params(), shape, jnp.float32)
            return nnx.Param(value * fan_in**-0.5, axes=axes)

        def stacked(shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int = 0):
            return param((c.num_layers, *shape), ("layers", *axes), fan_in)

        d, h, k, w = c.embed_dim, c.num_heads, c.num_kv_heads, c.head_dim
        heads, kv = ("heads", "head_dim"), ("kv_heads", "head_dim")
        self.embedding = param((c.vocab_size, d), ("vocab", "embed"), d)
        self.layers = nnx.Dict(
            attention_norm=stacked((d,), ("norm",)),
            query=stacked((d, h, w), ("embed", *heads), d),
            key=stacked((d, k, w), ("embed", *kv), d),
            value=stacked((d, k, w), ("embed", *kv), d),
            # Residual branches start small, so that depth does not change the scale.
            output=stacked((h, w, d), (*heads, "embed"), 2 * c.num_layers * h * w),
            mlp_norm=stacked((d,), ("norm",)),
            gate=stacked((d, c.mlp_dim), ("embed", "mlp"), d),
            up=stacked((d, c.mlp_dim), ("embed", "mlp"), d),
            down=stacked(
                (c.mlp_dim, d), ("mlp", "embed"), 2 * c.num_layers * c.mlp_dim
            ),
        )
        self.final_norm = param((d,), ("norm",))
        if not c.tie_embeddings:
            self.unembedding = param((d, c.vocab_size), ("embed", "vocab"), d)

    def __call__(
        self,
        tokens: Int[Array, "N L"],
        positions: Int[Array, "N L"],
        attend: Attend,
        carry: PyTree = None,
    ) -> tuple[Float[Array, "N L D"], PyTree]:
        """Return the final hidden states (after the last norm) and the carry."""
        c = self.config
        x = self.embedding[...][tokens].astype(jnp.dtype(c.dtype))
        x = sharding.constrain(x, ("rows", None, None))
        stacked = nnx.to_pure_dict(nnx.state(self.layers))
        layer = functools.partial(_layer, c, attend, positions)
        indexed = (jnp.arange(c.num_layers), stacked)
        (x, carry), _ = jax.lax.scan(_rematerialized(layer, c), (x, carry), indexed)
        return rms_norm(x, self.final_norm[...], c.norm_eps), carry


def _layer(
    c: DecoderConfig,
    attend: Attend,
    positions: Int[Array, "N L"],
    state: tuple[Float[Array, "N L D"], PyTree],
    layer: tuple[Int[Array, ""], dict[str, Array]],
):
    x, carry = state
    index, w = layer
    matrices = {name: p.astype(x.dtype) for name, p in w.items()}
    scale = c.head_dim**-0.5

    with jax.named_scope("attention"):
        y = rms_norm(x, w["attention_norm"], c.norm_eps)
        q = jnp.einsum("nld,dhc->nlhc", y, matrices["query"])
        k = jnp.einsum("nld,dkc->nlkc", y, matrices["key"])
        v = jnp.einsum("nld,dkc->nlkc", y, matrices["value"])
        q = sharding.constrain(q, ("rows", None, "heads", None))
        k = sharding.constrain(k, ("rows", None, "kv_heads", None))
        v = sharding.constrain(v, ("rows", None, "kv_heads", None))
        q = rotate(q, positions, c.rope_base)
        k = rotate(k, positions, c.rope_base)
        o, carry = attend(Layer(index, None, scale, None), q, k, v, carry)
        x = x + jnp.einsum("nlhc,hcd->nld", o, matrices["output"])
        x = sharding.constrain(x, ("rows", None, None))
    with jax.named_scope("mlp"):
        y = rms_norm(x, w["mlp_norm"], c.norm_eps)
        gate = jnp.einsum("nld,df->nlf", y, matrices["gate"])
        up = jnp.einsum("nld,df->nlf", y, matrices["up"])
        hidden = sharding.constrain(jax.nn.silu(gate) * up, ("rows", None, "mlp"))
        x = x + jnp.einsum("nlf,fd->nld", hidden, matrices["down"])
        x = sharding.constrain(x, ("rows", None, None))
    return (x, carry), None


def _rematerialized(layer: Callable[..., Any], c: DecoderConfig) -> Callable[..., Any]:
    match c.remat:
        case "none":
            return layer
        case "dots":
            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            return jax.checkpoint(layer, policy=policy)
        case "everything":
            return jax.checkpoint(layer)


@functools.lru_cache(maxsize=64)
def _abstract(config: DecoderConfig) -> tuple[nnx.GraphDef, nnx.State]:
    module = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    return nnx.split(module)


def init(config: DecoderConfig, *, key: Array) -> Params:
    """Return freshly initialized parameters, float32, as a nested dict."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(key))))


def shapes(config: DecoderConfig) -> PyTree[jax.ShapeDtypeStruct]:
    """Return the shape and dtype of every parameter, allocating nothing."""
    return nnx.to_pure_dict(_abstract(config)[1])


def logical_axes(config: DecoderConfig) -> PyTree:
    """Return the logical axes of every parameter, for `sharding.tree_shardings`."""
    state = _abstract(config)[1]
    return nnx.to_pure_dict(
        jax.tree.map(
            lambda p: p.get_metadata()["axes"],
            state,
            is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
        )
    )


def module(params: Params, config: DecoderConfig) -> Decoder:
    """Return a Flax NNX module holding `params`, for use with Flax's own tools."""
    graph, state = _abstract(config)
    state = jax.tree.map(lambda leaf: leaf, state)  # a copy, to be filled
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def apply(
    params: Params,
    config: DecoderConfig,
    tokens: Int[Array, "N L"],
    positions: Int[Array, "N L"],
    attend: Attend,
    carry: PyTree = None,
) -> tuple[Float[Array, "N L D"], PyTree]:
    """Run the decoder.

    Args:
      params: as from :func:`init`.
      config: the decoder's shape.
      tokens: token ids.
      positions: position of each token in its own sequence (not in the row).
      attend: attention rule; `causal`, shared-prefix, or one over a cache.
      carry: passed through `attend` from layer to layer: a cache, or None.

    Returns:
      Hidden states after the final norm, and the carry. Multiply by
      :func:`unembedding` for logits.
    """
    return module(params, config)(tokens, positions, attend, carry)


def unembedding(params: Params, config: DecoderConfig) -> Float[Array, "D V"]:
    """Return the matrix that maps hidden states to logits."""
    if config.tie_embeddings:
        return params["embedding"].T
    return params["unembedding"]
