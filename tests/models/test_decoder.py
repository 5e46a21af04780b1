import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models
from sgpo_jax.testing import TINY as CONFIG

EVERYTHING = dataclasses.replace(
    CONFIG,
    num_layers=3,
    window=2,
    global_layers=(1,),
    local_rope_base=100.0,
    qk_norm=True,
    qkv_bias=True,
    sandwich_norms=True,
    lora=models.Lora(rank=2),
)


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, EVERYTHING], ids=["plain", "everything"])
def test_layers_written_out_are_the_layers_looped_over(config):
    leaves, tree = jax.tree.flatten(models.init(config, key=jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # No parameter is zero or one, so that none can be left out.
    noisy = [
        x + 0.3 * jax.random.normal(k, x.shape)
        for x, k in zip(leaves, keys, strict=True)
    ]
    params = tree.unflatten(noisy)
    tokens = jnp.arange(10, dtype=jnp.int32).reshape(2, 5)
    positions = jnp.broadcast_to(jnp.arange(5, dtype=jnp.int32), tokens.shape)
    looped, _ = models.apply(params, config, tokens, positions, models.causal)
    told = []

    def attend(layer, q, k, v, carry):
        told.append(layer.index)
        return models.causal(layer, q, k, v, carry)[0], k[0, 0, 0, 0]

    unstacked = models.unstack(params, config)
    written, out = models.apply_unstacked(unstacked, config, tokens, positions, attend)
    # float32; the same sums, compiled apart.
    np.testing.assert_allclose(written, looped, atol=1e-4)
    assert told == list(range(config.num_layers))
    assert len({float(value) for value in out}) == config.num_layers
    assert models.unstack(unstacked, config) is unstacked


@pytest.fixture(scope="module")
def params():
    return models.init(CONFIG, key=jax.random.key(0))


def positions(n: int, length: int):
    return jnp.broadcast_to(jnp.arange(length), (n, length))


def test_gradients_show_causality(params):
    """Position 3 must depend on tokens 0..3 and on no later one."""
    tokens = jnp.arange(6)[None] % CONFIG.vocab_size
    table = params["embedding"][tokens]

    def at_three(inputs):
        # Every position gets a vocabulary entry of its own, so inputs are separable.
        own = {**params, "embedding": inputs[0]}
        hidden, _ = models.apply(
            own, CONFIG, jnp.arange(6)[None], positions(1, 6), models.causal
        )
        return hidden[0, 3].sum()

    grads = jax.jit(jax.grad(at_three))(table)[0]
    norms = np.linalg.norm(np.asarray(grads), axis=-1)
    assert (norms[:4] > 0).all()
    assert (norms[4:] == 0).all()


def test_rotary_positions_are_relative(params):
    """Shifting all positions of a sequence changes nothing."""
    tokens = jnp.array([[1, 5, 3, 2]])
    run = jax.jit(lambda p: models.apply(params, CONFIG, tokens, p, models.causal)[0])
    # float32 sines of angles up to 100: rounding of the angle only.
    np.testing.assert_allclose(
        run(positions(1, 4)), run(positions(1, 4) + 100), atol=2e-5
    )


def test_axes_match_shapes():
    shapes, axes = models.shapes(CONFIG), models.logical_axes(CONFIG)
    for shape, names in zip(
        jax.tree.leaves(shapes),
        jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)),
        strict=True,
    ):
        assert len(shape.shape) == len(names)


def test_module_is_the_same_function(params):
    tokens = jnp.array([[1, 2, 3]])
    ours, _ = models.apply(params, CONFIG, tokens, positions(1, 3), models.causal)
    module = models.module(params, CONFIG)
    theirs, _ = module(tokens, positions(1, 3), models.causal)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("remat", ["dots", "everything"])
def test_rematerialization_keeps_gradients(params, remat):
    import dataclasses

    tokens = jnp.array([[1, 2, 3, 4]])

    def loss(params, config):
        hidden, _ = models.apply(params, config, tokens, positions(1, 4), models.causal)
        return jnp.sum(hidden**2)

    config = dataclasses.replace(CONFIG, remat=remat)
    plain = jax.jit(jax.grad(loss), static_argnums=1)(params, CONFIG)
    again = jax.jit(jax.grad(loss), static_argnums=1)(params, config)
    jax.tree.map(
        # float32, other fusions
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        plain,
        again,
    )


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="num_kv_heads=3 must divide"):
        models.DecoderConfig(vocab_size=5, num_kv_heads=3)
    with pytest.raises(ValueError, match="even"):
        models.DecoderConfig(vocab_size=5, head_dim=7)
