"""Models of others can use shared-prefix attention."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sgpo_jax.kernels.shared_prefix_attention import (
    attention_fn,
    from_lengths,
    pack,
    unpack,
)


@pytest.fixture
def layer():
    return nnx.MultiHeadAttention(
        2, 8, decode=False, rngs=nnx.Rngs(0), attention_fn=attention_fn
    )


@pytest.mark.slow
def test_flax_attention_sees_its_own_sequence_only(layer, rng):
    prefix, responses = 3, [2, 4]
    layout = from_lengths([[(prefix, responses)]], length=10)
    x = rng.normal(size=(1, 10, 8)).astype(np.float32)
    packed = unpack(np.asarray(layer(x, mask=layout)), [[(prefix, responses)]])
    causal = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    (first, inputs), (shared, outputs) = (
        unpack(x, [[(prefix, responses)]])[0][0],
        (packed[0][0]),
    )
    for member, found in zip(inputs, outputs, strict=True):
        sequence = np.concatenate([first, member])[None]
        mask = nnx.make_causal_mask(jnp.ones(sequence.shape[:2]))
        alone = causal(sequence, mask=mask)[0]
        np.testing.assert_allclose(shared, alone[:prefix], atol=1e-6)
        np.testing.assert_allclose(found, alone[prefix:], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": None}, "give a Layout as the mask, not NoneType"),
        ({"dropout_rate": 0.1}, "neither a bias nor dropout"),
    ],
)
def test_what_is_not_supported_raises(options, message):
    q = jnp.zeros((1, 4, 2, 4))
    layout = from_lengths([[(2, [2])]], length=4)
    with pytest.raises(ValueError, match=message):
        attention_fn(q, q, q, **{"mask": layout, **options})


def test_unpack_inverts_pack(rng):
    groups = [(rng.integers(9, size=3), [rng.integers(9, size=n) for n in (2, 0, 1)])]
    packed, layout = pack([groups, []], length=7)
    assert layout.real.sum() == 6 and not packed[~layout.real].any()
    (found,), empty = unpack(packed, [[(3, [2, 0, 1])], []])
    assert not empty
    np.testing.assert_array_equal(found[0], groups[0][0])
    for actual, expected in zip(found[1], groups[0][1], strict=True):
        np.testing.assert_array_equal(actual, expected)
