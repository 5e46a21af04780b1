import jax
import jax.numpy as jnp
import pytest

from sgpo_jax import ledger, models
from sgpo_jax.ledger import Entry, Ledger

CONFIG = models.DecoderConfig(
    vocab_size=64,
    num_layers=1,
    embed_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=128,
)


def test_operations_agree_with_the_compilers_count():
    """XLA counts the same program, softmax, norms and rotations included."""
    n, length = 4, 32
    params = models.init(CONFIG, key=jax.random.key(0))
    tokens = jnp.zeros((n, length), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), (n, length))

    def logits(params):
        hidden, _ = models.apply(params, CONFIG, tokens, positions, models.causal)
        return hidden @ models.unembedding(params, CONFIG)

    analysis = jax.jit(logits).lower(params).compile().cost_analysis()
    ours = ledger.forward_flops(
        CONFIG,
        tokens=n * length,
        # The plain implementation computes the whole square.
        pairs=n * length * length,
        logits=n * length,
    )
    assert analysis["flops"] == pytest.approx(ours, rel=0.1)


def test_pairs_by_hand():
    # Prompt of 3: 1 + 2 + 3. Two responses of 2 in a row: (3 + 1) + (3 + 2) each.
    assert ledger.packed_pairs(3, [2, 2]) == 6 + 2 * 9
    # The sampler feeds back only the first token of each: it reads 3 + itself.
    assert ledger.sample_pairs(3, [2, 2]) == 6 + 2 * 4


def test_a_ledger_adds_and_survives_json():
    one = Ledger()
    one.add("profiling", Entry(flops=1.0, rollouts=8, seconds=0.5))
    one.add("training", Entry(flops=2.0, padded_flops=3.0, rollouts=4))
    one.add("sft", Entry(flops=100.0))
    again = Ledger(one.to_json())
    assert dict(again) == dict(one)
    again.update(one)
    assert again.total == Entry(flops=6.0, padded_flops=6.0, rollouts=24, seconds=1.0)
    assert again["nothing"] == Entry()
