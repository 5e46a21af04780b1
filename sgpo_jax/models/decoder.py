"""One configurable decoder, as a Flax NNX module and as pure functions.

The module declares each parameter once: shape, initializer and logical axes. Training,
scoring and sampling use the pure form, in which `params` is a nested dict of arrays:

>>> from sgpo_jax.models import causal
>>> config = DecoderConfig(vocab_size=11, num_layers=2, embed_dim=8, mlp_dim=16,
...                        num_heads=2, num_kv_heads=1, head_dim=4)
>>> params = init(config, key=jax.random.key(0))
>>> tokens = jnp.array([[1, 2, 3]])
>>> hidden, _ = apply(params, config, tokens, jnp.array([[0, 1, 2]]), causal)
>>> logits(params, config, hidden).shape
(1, 3, 11)

What a token may attend to is not the model's business: `attend` is passed in. Packed
training passes shared-prefix attention, the sampler passes attention over its cache.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, PyTree

from sgpo_jax import sharding
from sgpo_jax.models.attend import Attend, Layer
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.lora import project
from sgpo_jax.models.memory import LAYER_INPUT, rematerialized
from sgpo_jax.models.rope import frequencies, rotate

Params = PyTree[Array]
"""Parameters of a policy: a pytree of arrays."""

NO_WINDOW = 2**30
"""Window of layers that read everything, in decoders that have windows elsewhere."""


class _Varying(NamedTuple):
    """Per-layer data besides parameters: attention window, rotary frequencies."""

    layer: Int[Array, "*layers"] | int
    window: Int[Array, "*layers"] | None
    frequency: Float[Array, "*layers F"]


def _varying(c: DecoderConfig) -> _Varying:
    rotary = frequencies(c.head_dim, c.rope_base, c.rope_scaling)
    local = rotary
    if c.local_rope_base is not None:
        local = frequencies(c.head_dim, c.local_rope_base, None)
    whole = [c.window is None or i in c.global_layers for i in range(c.num_layers)]
    windows = [NO_WINDOW if w else c.window for w in whole]
    return _Varying(
        jnp.arange(c.num_layers, dtype=jnp.int32),
        None if c.window is None else jnp.array(windows, jnp.int32),
        jnp.array([rotary if w else local for w in whole]),
    )


class _Matrix(NamedTuple):
    """Shape of a weight matrix: sizes and logical axes of inputs and outputs."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_axes: tuple[str, ...]
    output_axes: tuple[str, ...]


def _matrices(c: DecoderConfig) -> dict[str, _Matrix]:
    d, f, w = (c.embed_dim,), (c.mlp_dim,), c.head_dim
    queries, keys = (c.num_heads, w), (c.num_kv_heads, w)
    heads, kv = ("heads", "head_dim"), ("kv_heads", "head_dim")
    return {
        "query": _Matrix(d, queries, ("embed",), heads),
        "key": _Matrix(d, keys, ("embed",), kv),
        "value": _Matrix(d, keys, ("embed",), kv),
        "output": _Matrix(queries, d, heads, ("embed",)),
        "gate": _Matrix(d, f, ("embed",), ("mlp",)),
        "up": _Matrix(d, f, ("embed",), ("mlp",)),
        "down": _Matrix(f, d, ("mlp",), ("embed",)),
    }


def _adapter(c: DecoderConfig, m: _Matrix, rngs: nnx.Rngs) -> nnx.Dict:
    """Return A, drawn, and B, zero: an adapter that changes nothing yet."""
    assert c.lora is not None
    shape = (c.num_layers, *m.inputs, c.lora.rank)
    a = jax.random.normal(rngs.params(), shape, jnp.float32)
    b = jnp.zeros((c.num_layers, c.lora.rank, *m.outputs), jnp.float32)
    return nnx.Dict(
        a=nnx.Param(
            a * math.prod(m.inputs) ** -0.5, axes=("layers", *m.input_axes, "rank")
        ),
        b=nnx.Param(b, axes=("layers", "rank", *m.output_axes)),
    )


class Decoder(nnx.Module):
    """Decoder-only transformer whose layers are stacked along a leading axis."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.param_dtype)

        def drawn(shape, axes, fan_in: int) -> nnx.Param:
            value = jax.random.normal(rngs.params(), shape, jnp.float32)
            return nnx.Param((value * fan_in**-0.5).astype(dtype), axes=axes)

        def norm(*shape: int) -> nnx.Param:
            axes = ("layers", "norm")[2 - len(shape) :]
            return nnx.Param(jnp.full(shape, 1.0 - c.norm_offset, dtype), axes=axes)

        n, d, w = c.num_layers, c.embed_dim, c.head_dim
        matrices = _matrices(c)
        self.embedding = drawn((c.vocab_size, d), ("vocab", "embed"), d)
        layers = {"attention_norm": norm(n, d), "mlp_norm": norm(n, d)}
        for name, m in matrices.items():
            # Residual branches start small, so that depth does not change the scale.
            branches = 2 * n if name in ("output", "down") else 1
            shape = (n, *m.inputs, *m.outputs)
            axes = ("layers", *m.input_axes, *m.output_axes)
            layers[name] = drawn(shape, axes, branches * math.prod(m.inputs))
        if c.sandwich_norms:
            layers |= {"post_attention_norm": norm(n, d), "post_mlp_norm": norm(n, d)}
        if c.qk_norm:
            layers |= {"query_norm": norm(n, w), "key_norm": norm(n, w)}
        if c.qkv_bias:
            for name in ("query", "key", "value"):
                m = matrices[name]
                zeros = jnp.zeros((n, *m.outputs), dtype)
                axes = ("layers", *m.output_axes)
                layers[f"{name}_bias"] = nnx.Param(zeros, axes=axes)
        self.layers = nnx.Dict(layers)
        self.final_norm = norm(d)
        if not c.tie_embeddings:
            self.unembedding = drawn((d, c.vocab_size), ("embed", "vocab"), d)
        if c.lora is not None:
            self.adapters = nnx.Dict(
                {name: _adapter(c, matrices[name], rngs) for name in c.lora.targets}
            )

    def __call__(
        self,
        tokens: Int[Array, "N L"],
        positions: Int[Array, "N L"],
        attend: Attend,
        carry: PyTree = None,
    ) -> tuple[Float[Array, "N L D"], PyTree]:
        """Return the final hidden states (after the last norm) and the carry."""
        c = self.config
        x = _embed(c, self.embedding[...], tokens)
        stacked = nnx.to_pure_dict(nnx.state(self.layers))
        adapters = nnx.to_pure_dict(nnx.state(self.adapters)) if c.lora else {}
        layer = functools.partial(_layer, c, attend, positions)
        scanned = (_varying(c), stacked, adapters)
        scan = rematerialized(layer, c.remat)
        (x, carry), _ = jax.lax.scan(scan, (x, carry), scanned)
        return _norm(c, x, self.final_norm[...]), carry


def _embed(
    c: DecoderConfig, embedding: Float[Array, "V D"], tokens: Int[Array, "N L"]
) -> Float[Array, "N L D"]:
    x = sharding.lookup(embedding, tokens, jnp.dtype(c.dtype))
    if c.scale_embeddings:
        x = x * jnp.asarray(c.embed_dim**0.5, x.dtype)
    return sharding.constrain(x, ("rows", None, None))


def _norm(
    c: DecoderConfig, x: Float[Array, "*n D"], scale: Float[Array, " D"]
) -> Float[Array, "*n D"]:
    """Return x / sqrt(mean(x^2) + eps) * scale, in float32 inside."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + c.norm_eps)
    factor = scale.astype(jnp.float32)
    if c.norm_offset:
        factor = 1.0 + factor
    factor = jax.lax.broadcast_in_dim(factor, x.shape, (x.ndim - 1,))
    return (x32 * factor).astype(x.dtype)


@functools.partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def _gated(
    activation: str, gate: Float[Array, "N L F"], up: Float[Array, "N L F"]
) -> Float[Array, "N L F"]:
    """Return activation(gate) * up; the backward pass keeps nothing in between.

    Kept, the parts of the activation take three arrays of the widest shape there is
    per layer, and writing them takes longer than computing them again.
    """
    gate = jax.nn.silu(gate) if activation == "silu" else jax.nn.gelu(gate)
    return gate * up


def _layer(
    c: DecoderConfig,
    attend: Attend,
    positions: Int[Array, "N L"],
    state: tuple[Float[Array, "N L D"], PyTree],
    scanned: tuple[_Varying, Mapping[str, Array], Mapping[str, Mapping[str, Array]]],
):
    x, carry = state
    varying, w, adapters = scanned
    x = checkpoint_name(x, LAYER_INPUT)

    def times(name: str, y: Array) -> Array:
        return project(name, y, w, adapters, c.lora)

    with jax.named_scope("attention"):
        y = _norm(c, x, w["attention_norm"])
        q, k, v = (times(name, y) for name in ("query", "key", "value"))
        if c.qkv_bias:
            q, k, v = (
                z + w[f"{name}_bias"].astype(z.dtype)[None, None]
                for name, z in (("query", q), ("key", k), ("value", v))
            )
        if c.qk_norm:
            q, k = _norm(c, q, w["query_norm"]), _norm(c, k, w["key_norm"])
        q = sharding.constrain(q, ("rows", None, "heads", None))
        k = sharding.constrain(k, ("rows", None, "kv_heads", None))
        v = sharding.constrain(v, ("rows", None, "kv_heads", None))
        q = rotate(q, positions, varying.frequency)
        k = rotate(k, positions, varying.frequency)
        layer = Layer(varying.layer, varying.window, c.scale, c.attention_soft_cap)
        o, carry = attend(layer, q, k, v, carry)
        y = times("output", o)
        if c.sandwich_norms:
            y = _norm(c, y, w["post_attention_norm"])
        x = sharding.constrain(x + y, ("rows", None, None))
    with jax.named_scope("mlp"):
        y = _norm(c, x, w["mlp_norm"])
        hidden = _gated(c.activation, times("gate", y), times("up", y))
        hidden = sharding.constrain(hidden, ("rows", None, "mlp"))
        y = times("down", hidden)
        if c.sandwich_norms:
            y = _norm(c, y, w["post_mlp_norm"])
        x = sharding.constrain(x + y, ("rows", None, None))
    return (x, carry), None


@functools.lru_cache(maxsize=64)
def _abstract(config: DecoderConfig) -> tuple[nnx.GraphDef, nnx.State]:
    module = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    return nnx.split(module)


def init(config: DecoderConfig, *, key: Array) -> Params:
    """Return freshly initialized parameters as a nested dict."""
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
      Hidden states after the final norm, and the carry; see :func:`logits`.
    """
    return module(params, config)(tokens, positions, attend, carry)


def unstack(params: Params, config: DecoderConfig) -> Params:
    """Return parameters with a tuple of one tree per layer in place of stacked ones.

    Unstacked parameters are returned as they are.

    >>> config = DecoderConfig(vocab_size=11, num_layers=2, embed_dim=8, mlp_dim=16)
    >>> params = init(config, key=jax.random.key(0))
    >>> [layer["gate"].shape for layer in unstack(params, config)["layers"]]
    [(8, 16), (8, 16)]
    """
    if isinstance(params["layers"], tuple):
        return params

    def cut(name: str) -> tuple[PyTree[Array], ...]:
        leaves, tree = jax.tree.flatten(params[name])
        layers = range(config.num_layers)
        return tuple(tree.unflatten([leaf[i] for leaf in leaves]) for i in layers)

    names = [name for name in ("layers", "adapters") if name in params]
    return {**params, **{name: cut(name) for name in names}}


def apply_unstacked(
    params: Params,
    config: DecoderConfig,
    tokens: Int[Array, "N L"],
    positions: Int[Array, "N L"],
    attend: Attend,
) -> tuple[Float[Array, "N L D"], tuple[PyTree, ...]]:
    """Run the decoder with its layers written out instead of looped over.

    A loop slices the arrays of a layer out of larger ones, which XLA copies on CPU.
    Here `attend` can keep an array per layer: it gets the layer's index as an int,
    and gets no carry. Programs are larger and take longer to compile.

    Args:
      params: as from :func:`unstack`.
      config: the decoder's shape.
      tokens: token ids.
      positions: position of each token in its own sequence.
      attend: attention rule.

    Returns:
      Hidden states after the final norm, and what `attend` returned for each layer.

    Example:
      >>> from sgpo_jax.models import causal
      >>> config = DecoderConfig(vocab_size=11, num_layers=2, embed_dim=8, mlp_dim=16)
      >>> params = unstack(init(config, key=jax.random.key(0)), config)
      >>> tokens = jnp.array([[3, 1, 4]])
      >>> positions = jnp.arange(3)[None]
      >>> hidden, _ = apply_unstacked(params, config, tokens, positions, causal)
      >>> hidden.shape
      (1, 3, 8)
    """
    x = _embed(config, params["embedding"], tokens)
    adapters = params.get("adapters", ({},) * config.num_layers)
    varying, out = _varying(config), []
    for i, weights in enumerate(params["layers"]):
        own = jax.tree.map(lambda value, i=i: value[i], varying)._replace(layer=i)
        of_layer = (own, weights, adapters[i])
        (x, new), _ = _layer(config, attend, positions, (x, None), of_layer)
        out.append(new)
    return _norm(config, x, params["final_norm"]), tuple(out)


def unembedding(params: Params, config: DecoderConfig) -> Float[Array, "D V"]:
    """Return the matrix that maps hidden states to logits, before any soft cap."""
    if config.tie_embeddings:
        return params["embedding"].T
    return params["unembedding"]


def logits(
    params: Params, config: DecoderConfig, hidden: Float[Array, "*n D"]
) -> Float[Array, "*n V"]:
    """Return the logits of hidden states, in float32, soft cap included.

    Training does not: `losses.token_log_probs` computes them chunk by chunk.
    """
    matrix = unembedding(params, config).astype(hidden.dtype)
    out = jnp.matmul(hidden, matrix, preferred_element_type=jnp.float32)
    if config.final_soft_cap is None:
        return out
    return config.final_soft_cap * jnp.tanh(out / config.final_soft_cap)
