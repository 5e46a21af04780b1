"""Shared-prefix attention equals dense attention on every sequence by itself."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from sgpo_jax.kernels import Layout, shared_prefix_attention
from sgpo_jax.kernels.shared_prefix_attention import (
    from_lengths,
    from_segments,
    over_mesh,
    xla,
)
from sgpo_jax.kernels.shared_prefix_attention.scores import Scores

from .comparisons import (
    assert_no_worse,
    assert_relative,
    dense_bfloat16,
    value_and_grads,
)
from .layouts import forests, inputs, ragged, rows

VARIANTS = {
    "plain": {},
    "window": {"window": 7},
    "cap": {"soft_cap": 1.5, "scale": 0.7},
}


def public(**options):
    return value_and_grads(functools.partial(shared_prefix_attention, **options))


def tiled(tile, scale=1.0, window=None):
    """The xla implementation with a tile of our choice; padding must hold no NaN."""

    def attention(q, k, v, layout):
        return xla.attend(q, k, v, layout, window, Scores(scale=scale), tile)

    return value_and_grads(attention)


def of_groups(groups):
    """The segments of groups, as (length, segment continued)."""
    segments = []
    for prefix, responses in groups:
        parent = len(segments)
        segments += [(prefix, -1), *((size, parent) for size in responses)]
    return segments


def sequences(segments):
    """Of each segment, the indices of its sequence up to its end, and of its own."""
    found, begin = [], 0
    for size, parent in segments:
        own = np.arange(begin, begin + size)
        before = found[parent][0] if parent >= 0 else own[:0]
        found.append((np.concatenate([before, own]), own))
        begin += size
    return found


def per_sequence(q, k, v, segments, *, window=None, soft_cap=None, scale=None):
    """Dense causal attention of each sequence by itself, one after the other.

    Written without the package: q, k, v are one row; returns the row's outputs.
    """
    out = np.zeros(q.shape)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    for index, own in sequences(segments):
        for head in range(q.shape[1]):
            kv_head = head * k.shape[1] // q.shape[1]
            logits = scale * q[index, head] @ k[index, kv_head].T
            if soft_cap is not None:
                logits = soft_cap * np.tanh(logits / soft_cap)
            age = np.subtract.outer(np.arange(len(index)), np.arange(len(index)))
            hidden = (age < 0) | (age >= (window or len(index)))
            p = np.exp(np.where(hidden, -np.inf, logits))
            means = p @ v[index, kv_head] / p.sum(-1, keepdims=True)
            out[own, head] = means[len(index) - len(own) :]
    return out


GROUPS = of_groups([(5, [3, 1, 0, 9]), (0, [4, 2]), (1, [1]), (6, [])])
TREE = [(4, -1), (3, 0), (5, 1), (0, 1), (2, 3), (1, 3), (6, 0), (4, 6), (3, -1)]


@pytest.mark.parametrize("segments", [GROUPS, TREE], ids=["groups", "tree"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_is_dense_attention_of_every_sequence(variant, segments):
    layout = from_segments([segments], length=40)
    q, k, v, _ = inputs(layout)
    expected = per_sequence(
        *(np.asarray(x[0], np.float64) for x in (q, k, v)),
        segments,
        **VARIANTS[variant],
    )
    actual = shared_prefix_attention(
        q, k, v, layout, implementation="reference", **VARIANTS[variant]
    )
    np.testing.assert_allclose(actual[0], expected, rtol=0, atol=2e-6)


reference_window = jax.jit(
    functools.partial(shared_prefix_attention, implementation="reference", window=5)
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(forests(count=1, length=40))
def test_reference_on_any_tree(rows):
    layout = from_segments(rows, length=40)
    q, k, v, _ = inputs(layout, heads=2, kv_heads=1, width=4)
    exact = (np.asarray(x[0], np.float64) for x in (q, k, v))
    expected = per_sequence(*exact, rows[0], window=5)
    actual = reference_window(q, k, v, layout)
    np.testing.assert_allclose(actual[0], expected, rtol=0, atol=2e-6)
    for index, own in sequences(rows[0]):
        at = np.arange(len(index))[len(index) - len(own) :]
        np.testing.assert_array_equal(layout.position[0, own], at)
        np.testing.assert_array_equal(layout.parent[0, own], np.r_[-1, index][at])


def test_gradient_of_a_prefix_is_the_sum_over_its_responses():
    shared = from_lengths([[(6, [4, 4])]], length=14)
    alone = from_lengths([[(6, [4])], [(6, [4])]], length=10)
    q, k, v, dout = inputs(shared)
    dout = dout.at[:, :6].set(0.0)  # the prefix's own outputs appear once, not twice

    def unshare(x):
        return jnp.concatenate([x[:, :10], jnp.delete(x, slice(6, 10), axis=1)])

    run = public(implementation="reference")
    packed = run(q, k, v, dout, shared)
    dense = run(*(unshare(x) for x in (q, k, v, dout)), alone)
    for name in ("dk", "dv"):
        np.testing.assert_allclose(
            packed[name][0, :6], dense[name][:, :6].sum(0), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [60, 300], ids=["one tile", "many tiles"])
def test_xla_equals_reference(length, variant):
    layout = ragged(length)
    arrays = inputs(layout)
    expected = public(implementation="reference", **VARIANTS[variant])(*arrays, layout)
    actual = public(implementation="xla", **VARIANTS[variant])(*arrays, layout)
    assert_relative(actual, expected, 1e-6)


reference_8 = public(implementation="reference", scale=1.0)
tiled_8 = tiled(8)
reference_8_window = public(implementation="reference", scale=1.0, window=5)
tiled_8_window = tiled(8, window=5)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    rows(count=4, length=44),
    forests(count=4, length=44),
    hypothesis.strategies.integers(0, 99),
)
def test_any_layout_equals_reference(groups, trees, seed):
    segments = [*map(of_groups, groups), *trees]
    layout = from_segments(segments, length=44)
    arrays = inputs(layout, seed=seed)
    expected = reference_8(*arrays, layout)
    assert_relative(tiled_8(*arrays, layout), expected, 1e-6)
    expected = reference_8_window(*arrays, layout)
    assert_relative(tiled_8_window(*arrays, layout), expected, 1e-6)


@pytest.mark.parametrize("kv_heads", [1, 4], ids=["multi-query", "multi-head"])
def test_heads_may_share_keys(kv_heads):
    layout = ragged(60)
    arrays = inputs(layout, kv_heads=kv_heads)
    expected = reference_8(*arrays, layout)
    assert_relative(tiled(16)(*arrays, layout), expected, 1e-6)


@pytest.mark.parametrize("length", [60, 300], ids=["one tile", "many tiles"])
def test_bfloat16_is_no_worse_than_dense_bfloat16(length):
    layout = ragged(length)
    low = [x.astype(jnp.bfloat16) for x in inputs(layout)]
    exact = public(implementation="reference")(
        *(x.astype(jnp.float32) for x in low), layout
    )

    ours = public(implementation="xla")(*low, layout)
    theirs = value_and_grads(functools.partial(dense_bfloat16, scale=8**-0.5))(
        *low, layout
    )
    assert_no_worse(ours, theirs, exact)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("length", [60, 300], ids=["one tile", "many tiles"])
def test_nan_at_padding_reaches_nothing(implementation, length):
    layout = ragged(length)
    real = layout.real[..., None, None]
    clean = inputs(layout)
    poisoned = [jnp.where(real, x, jnp.nan) for x in clean]
    run = public(implementation=implementation)
    expected, actual = run(*clean, layout), run(*poisoned, layout)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
        assert not jnp.any(jnp.where(real, 0.0, actual[name])), name


def test_two_runs_are_bitwise_equal():
    layout = ragged(300)
    arrays = inputs(layout)
    run = public(implementation="xla")
    first, second = run(*arrays, layout), run(*arrays, layout)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_finite_differences():
    layout = jax.tree.map(lambda x: x[:1], ragged(20))
    q, k, v, _ = inputs(layout, heads=2, kv_heads=1, width=4)

    @jax.jit
    def attention(q, k, v):
        return shared_prefix_attention(q, k, v, layout, soft_cap=2.0, window=9)

    check_grads(attention, (q, k, v), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_forward_and_backward_lower_for_gpu():
    layout = ragged(300)
    low = [x.astype(jnp.bfloat16) for x in inputs(layout)]
    lowered = (
        public(implementation="xla")
        .trace(*low, layout)
        .lower(lowering_platforms=("cuda",))
    )
    assert "stablehlo.custom_call" not in lowered.as_text()


def test_one_program_serves_every_layout():
    generator = np.random.default_rng(0)
    lengths = 40, 150
    run = public(implementation="xla")
    for _ in range(25):
        for length in lengths:
            sizes = generator.integers(0, length // 10, size=8).tolist()
            layout = from_lengths([[(sizes[0], sizes[1:])]], length=length)
            run(*inputs(layout, heads=1, kv_heads=1, width=2), layout)
    assert run._cache_size() == len(lengths)


def test_window_may_differ_between_layers_of_a_scan():
    layout = ragged(60)
    q, k, v, _ = inputs(layout)

    @jax.jit
    def scanned(windows):
        def layer(_, window):
            return None, shared_prefix_attention(q, k, v, layout, window=window)

        return jax.lax.scan(layer, None, windows)[1]

    windows = (3, 60)
    for actual, window in zip(scanned(jnp.array(windows)), windows, strict=True):
        expected = shared_prefix_attention(q, k, v, layout, window=window)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrapped", [False, True], ids=["compiler", "over_mesh"])
def test_rows_and_heads_may_be_sharded(wrapped):
    layout = ragged(100)
    arrays = inputs(layout)
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "tensor"))
    attention = over_mesh(mesh, rows="data") if wrapped else shared_prefix_attention
    split = NamedSharding(mesh, PartitionSpec("data", None, "tensor"))
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    actual = value_and_grads(attention)(
        *jax.device_put(arrays, split), jax.device_put(layout, by_row)
    )
    expected = public(implementation="reference")(*arrays, layout)
    assert_relative(actual, expected, 1e-6)


def test_groups_are_trees_of_depth_two():
    groups = [(3, [2, 1]), (0, [2])]
    layout = from_lengths([groups], length=10)
    np.testing.assert_array_equal(layout.end[0], [6, 6, 6, 5, 5, 6, 8, 8, 0, 0])
    np.testing.assert_array_equal(layout.position[0], [0, 1, 2, 3, 4, 3, 0, 1, 0, 0])
    np.testing.assert_array_equal(layout.parent[0], [-1, 0, 1, 2, 3, 2, -1, 6, -1, -1])
    expected = from_segments([of_groups(groups)], length=10)
    jax.tree.map(np.testing.assert_array_equal, layout, expected)


def test_padding_is_exactly_zero_in_an_empty_row():
    layout = from_lengths([[]], length=12)
    q, k, v, _ = inputs(layout)
    assert not jnp.any(shared_prefix_attention(q, k, v, layout))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"soft_cap": 0.0}, "soft_cap must be positive"),
    ],
)
def test_errors_name_the_argument(options, message):
    layout = ragged(20)
    q, k, v, _ = inputs(layout)
    with pytest.raises(ValueError, match=message):
        shared_prefix_attention(q, k, v, layout, **options)


def test_query_heads_are_a_multiple_of_key_heads():
    layout = ragged(20)
    q, _, _, _ = inputs(layout)
    k = q[:, :, :3]
    with pytest.raises(ValueError, match="4 query heads share 3 key heads"):
        shared_prefix_attention(q, k, k, layout)


def test_layout_is_a_pytree_of_three_arrays():
    layout = ragged(20)
    assert isinstance(jax.tree.map(jnp.asarray, layout), Layout)
    with pytest.raises(ValueError, match="row 0 needs 21 tokens but has 20"):
        from_lengths([[(20, [1])]], length=20)
    with pytest.raises(ValueError, match="segment 3 of row 0 continues segment 1"):
        from_segments([[(1, -1), (1, 0), (1, 0), (1, 1)]], length=20)
