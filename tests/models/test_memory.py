"""What the backward pass keeps, and where, in programs compiled for a TPU."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from sgpo_jax import chips, models
from sgpo_jax.ahead_of_time import topology

pytest.importorskip("libtpu")

ROWS, LENGTH = 16, 128
# Many layers: their inputs take more than what one of them computes.
CONFIG = models.DecoderConfig(
    vocab_size=256,
    num_layers=32,
    embed_dim=256,
    num_heads=2,
    num_kv_heads=2,
    head_dim=128,
    mlp_dim=512,
    dtype="bfloat16",
)
LAYER_INPUTS = CONFIG.num_layers * ROWS * LENGTH * CONFIG.embed_dim * 2


def gradients(remat, device):
    """Compile the gradients of a sum of squares for one chip."""
    config = dataclasses.replace(CONFIG, remat=remat)
    one = jax.sharding.SingleDeviceSharding(device)

    def loss(params, tokens):
        positions = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
        hidden, _ = models.apply(params, config, tokens, positions, models.causal)
        return (hidden.astype(jnp.float32) ** 2).sum()

    shapes = (models.shapes(config), jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32))
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), shapes
    )
    return jax.jit(jax.grad(loss)).lower(*placed).compile()


@pytest.mark.slow
def test_offloading_moves_the_layers_inputs_to_the_host():
    device = topology.devices(chips.parse_slice("v5e-4"))[0]
    kept = gradients("everything", device)
    assert kept.memory_analysis().host_temp_size_in_bytes == 0
    assert "S(5)" not in kept.as_text()  # the host's memory space
    moved = gradients("offload", device)
    assert moved.memory_analysis().host_temp_size_in_bytes == LAYER_INPUTS
    assert "S(5)" in moved.as_text()
    # All but the few inputs that are on their way.
    saved = (kept.memory_analysis(), moved.memory_analysis())
    assert saved[0].temp_size_in_bytes - saved[1].temp_size_in_bytes > LAYER_INPUTS / 2
