"""A packed training step equals the dense one in loss and in every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models
from sgpo_jax.kernels import shared_prefix_attention
from sgpo_jax.kernels.shared_prefix_attention import from_lengths
from sgpo_jax.testing import TINY as CONFIG

# Mixed group sizes, an empty response, two groups in a row, padding.
GROUPS = [[(5, [3, 1, 0, 4]), (2, [6])], [(7, [2, 2, 2])]]
LENGTH = 24


def attend_with(layout, implementation):
    def attend(layer, q, k, v, carry):
        del layer
        out = shared_prefix_attention(q, k, v, layout, implementation=implementation)
        return out, carry

    return attend


def log_probabilities(params, tokens, layout, implementation):
    """Log-probability of each token given those before it in its own sequence."""
    attend = attend_with(layout, implementation)
    hidden, _ = models.apply(params, CONFIG, tokens, layout.position, attend)
    rows = jnp.arange(len(tokens))[:, None]
    source = hidden[rows, layout.parent]
    logits = source @ models.unembedding(params, CONFIG)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[
        ..., 0
    ]


def unpacked(tokens, weights):
    """Every `prefix + response` in a row of its own, with its response's weights."""
    sequences = []
    for row, groups in enumerate(GROUPS):
        begin = 0
        for prefix, responses in groups:
            first = begin + prefix
            for response in responses:
                index = np.r_[begin : begin + prefix, first : first + response]
                weight = np.where(index >= first, weights[row, index], 0.0)
                sequences.append((prefix + response, tokens[row, index], weight))
                first += response
            begin = first
    layout = from_lengths([[(length, [])] for length, *_ in sequences], length=12)
    dense = np.zeros((2, len(sequences), 12))
    for i, (length, *parts) in enumerate(sequences):
        dense[:, i, :length] = parts
    return layout, dense[0].astype(np.int32), dense[1].astype(np.float32)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_packed_step_equals_dense_step(rng, implementation):
    layout = from_lengths(GROUPS, length=LENGTH)
    tokens = rng.integers(0, CONFIG.vocab_size, (2, LENGTH)).astype(np.int32)
    prefix = np.array([[5, 2], [7, 7]])
    response = layout.position >= np.repeat(prefix, [13, LENGTH - 13], axis=1)
    weights = np.where(response, rng.normal(size=(2, LENGTH)), 0.0).astype(np.float32)
    params = models.init(CONFIG, key=jax.random.key(0))

    @jax.jit
    def step(params, tokens, weights, layout):
        def loss(params):
            of_tokens = log_probabilities(params, tokens, layout, implementation)
            return jnp.sum(weights * of_tokens)

        return jax.value_and_grad(loss)(params)

    packed = step(params, tokens, weights, layout)
    layout, tokens, weights = unpacked(tokens, weights)
    dense = step(params, tokens, weights, layout)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        packed,
        dense,
    )
