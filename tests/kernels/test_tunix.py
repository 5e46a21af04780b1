"""A model of another package, google-tunix's Qwen2, on packed rows.

Its attention is written into the model, so the layers get a subclass of it. Skipped
without the package, which is large: `pip install '.[interop]'`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sgpo_jax.kernels import shared_prefix_attention
from sgpo_jax.kernels.shared_prefix_attention import pack

# Its imports and its sums of int and float are not held to our settings.
pytestmark = pytest.mark.filterwarnings("ignore")
qwen2 = pytest.importorskip("tunix.models.qwen2.model")


class SharedPrefix(qwen2.Attention):
    """Takes a `Layout` where the model passes a mask through."""

    def block(self, x, cache, attn_mask, sin, cos, segment_ids=None):
        assert cache is None and segment_ids is None

        def project(einsum, bias):
            heads = einsum(x)
            return heads + bias[...].reshape(heads.shape[2:])[None, None]

        q = project(self.q_proj, self.q_bias)
        k = project(self.k_proj, self.k_bias)
        v = project(self.v_proj, self.v_bias)
        q, k = (qwen2.apply_rotary_embedding(y, sin, cos) for y in (q, k))
        return None, self.o_proj(shared_prefix_attention(q, k, v, attn_mask))


def with_shared_prefixes(model):
    """The same weights, with a new attention in every layer."""
    model = nnx.clone(model)
    for layer in model.layers:
        attention = SharedPrefix(model.config, rngs=nnx.Rngs(0))
        nnx.update(attention, nnx.state(layer.attn))
        layer.attn = attention
    return model


def test_packed_equals_dense_in_logits_and_gradients(rng):
    config = qwen2.ModelConfig(
        num_layers=2,
        vocab_size=23,
        embed_dim=16,
        hidden_dim=24,
        num_heads=4,
        num_kv_heads=2,
        head_dim=4,
        rope_theta=10_000,
        norm_eps=1e-6,
    )
    dense = qwen2.Qwen2(config, rngs=nnx.Rngs(0))
    for layer in dense.layers:  # biases begin at 0, where they would show nothing
        for bias in (layer.attn.q_bias, layer.attn.k_bias, layer.attn.v_bias):
            bias[...] = rng.normal(size=bias.shape).astype(np.float32)
    packed = with_shared_prefixes(dense)
    prompt, responses = rng.integers(23, size=5), rng.integers(23, size=(3, 4))
    weights = rng.normal(size=(3, 4, 23)).astype(np.float32)

    tokens, layout = pack([[(prompt, list(responses))]], length=20)

    @nnx.jit
    def of_packed(model):
        position = jnp.asarray(layout.position)
        layouts = jax.tree.map(jnp.asarray, layout)
        logits, _ = model(jnp.asarray(tokens, jnp.int32), position, None, layouts)
        found = logits[0, 5:17].reshape(3, 4, 23)
        return jnp.sum(found * weights), found

    @nnx.jit
    def of_dense(model):
        rows = np.concatenate([np.tile(prompt, (3, 1)), responses], axis=1)
        position = jnp.broadcast_to(jnp.arange(9, dtype=jnp.int32), (3, 9))
        mask = jnp.broadcast_to(jnp.tril(jnp.ones((9, 9), bool)), (3, 9, 9))
        logits, _ = model(jnp.asarray(rows, jnp.int32), position, None, mask)
        found = logits[:, 5:]
        return jnp.sum(found * weights), found

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (_, found), grads = nnx.value_and_grad(of_packed, has_aux=True)(packed)
        (_, expected), exact = nnx.value_and_grad(of_dense, has_aux=True)(dense)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for actual, true in zip(
        jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True
    ):
        assert jnp.linalg.norm(actual - true) <= 1e-5 * jnp.linalg.norm(true) + 1e-12
