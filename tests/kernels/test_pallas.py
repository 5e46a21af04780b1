"""The TPU kernels, run by interpreters."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# The simulator reports races in this module only.
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh
from jax.test_util import check_grads

from sgpo_jax.kernels import shared_prefix_attention
from sgpo_jax.kernels.shared_prefix_attention import (
    from_lengths,
    from_segments,
    over_mesh,
    pallas,
    tiles,
)
from sgpo_jax.kernels.shared_prefix_attention.scores import Scores
from sgpo_jax.kernels.shared_prefix_attention.tiles import TilePlan
from sgpo_jax.kernels.shared_prefix_attention.worklist import (
    TAILED,
    read_part,
    work_list,
)

from .comparisons import (
    assert_no_worse,
    assert_relative,
    dense_bfloat16,
    value_and_grads,
)
from .layouts import forests, inputs, ragged

LENGTH = 60
SMALL = TilePlan(query=16, backward_query=32, key=16, part=8, chunk=4, interpret=True)
PLANS = {
    "wide keys": TilePlan(
        query=8,
        backward_query=8,
        key=32,
        part=8,
        chunk=8,
        mxu_sums=True,
        interpret=True,
    ),
    "wide queries": TilePlan(
        query=32,
        backward_query=16,
        key=8,
        part=8,
        chunk=4,
        key_ranges=3,
        interpret=True,
    ),
}


def between_padding(attend):
    """Zero inputs at padding, as the public function does."""

    def attention(q, k, v, layout):
        real = jnp.asarray(layout.real)[..., None, None]
        q, k, v = (jnp.where(real, x, jnp.zeros((), x.dtype)) for x in (q, k, v))
        return attend(q, k, v, layout)

    return attention


def kernels(plan, *, soft_cap=None, window=None):
    """The TPU kernels as a jitted function returning o, dq, dk, dv."""
    scores = Scores(scale=0.7, soft_cap=soft_cap)

    def attend(q, k, v, layout):
        return pallas.attend(q, k, v, layout, window, scores, plan)

    return value_and_grads(between_padding(attend))


def expected(arrays, layout, **options):
    attention = functools.partial(
        shared_prefix_attention, implementation="reference", scale=0.7, **options
    )
    return value_and_grads(attention)(*arrays, layout)


small = kernels(SMALL)
dense = value_and_grads(
    functools.partial(shared_prefix_attention, implementation="reference", scale=0.7)
)


# 50 batches of 2 rows: 100 layouts, and the program that `ragged` rows take.
@pytest.mark.slow
@hypothesis.settings(max_examples=50)
@hypothesis.given(
    forests(count=2, length=LENGTH), hypothesis.strategies.integers(0, 99)
)
def test_any_layout_equals_reference(segments, seed):
    layout = from_segments(segments, length=LENGTH)
    arrays = inputs(layout, seed=seed)
    assert_relative(small(*arrays, layout), dense(*arrays, layout), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_tiles_do_not_matter(plan):
    layout = ragged(LENGTH)
    arrays = inputs(layout)
    assert_relative(kernels(PLANS[plan])(*arrays, layout), dense(*arrays, layout), 1e-6)


@pytest.mark.slow
def test_soft_cap_and_window():
    options = {"soft_cap": 1.5, "window": 7}
    layout = ragged(LENGTH)
    arrays = inputs(layout)
    actual = kernels(SMALL, **options)(*arrays, layout)
    assert_relative(actual, expected(arrays, layout, **options), 1e-6)


@pytest.mark.slow
def test_bfloat16_is_no_worse_than_dense_bfloat16():
    layout = ragged(LENGTH)
    low = [x.astype(jnp.bfloat16) for x in inputs(layout)]
    exact = dense(*(x.astype(jnp.float32) for x in low), layout)
    theirs = value_and_grads(functools.partial(dense_bfloat16, scale=0.7))(*low, layout)
    assert_no_worse(small(*low, layout), theirs, exact)


def test_nan_at_padding_reaches_nothing():
    layout = ragged(LENGTH)
    real = layout.real[..., None, None]
    clean = inputs(layout)
    poisoned = [jnp.where(real, x, jnp.nan) for x in clean]
    first, second = small(*clean, layout), small(*poisoned, layout)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not jnp.any(jnp.where(real, 0.0, second["o"]))


def test_two_runs_are_bitwise_equal():
    layout = ragged(LENGTH)
    arrays = inputs(layout)
    jax.tree.map(
        np.testing.assert_array_equal, small(*arrays, layout), small(*arrays, layout)
    )


@pytest.mark.slow
def test_gradients_equal_finite_differences():
    layout = from_lengths([[(5, [4, 0, 3]), (2, [1])]], length=20)
    q, k, v, dout = inputs(layout, heads=2, kv_heads=1, width=4)
    attend = between_padding(
        functools.partial(
            pallas.attend, window=None, scores=Scores(scale=0.7), plan=SMALL
        )
    )
    total = jax.jit(lambda *x: (attend(*x, layout) * dout).sum())
    # Central differences in float32: about 1e-3 of the sums of 160 terms.
    check_grads(
        total, (q, k, v), order=1, modes=["rev"], eps=1e-2, atol=0.02, rtol=0.02
    )


@pytest.mark.slow
def test_one_program_per_rung_over_many_plans():
    run, rungs = kernels(SMALL), (32, 64)
    generator = np.random.default_rng(0)
    for plan in range(10):
        length = rungs[plan % 2]
        sizes = generator.integers(0, length // 10, size=8).tolist()
        rows = [[(sizes[0], sizes[1:])], [(length // 10, sizes)]]
        layout = from_lengths(rows, length=length)
        run(*inputs(layout, heads=2, kv_heads=1), layout)
    assert run._cache_size() == len(rungs)


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [1, 2])
def test_no_race_and_nothing_read_before_it_is_written(ranges):
    layout = from_lengths([[(10, [7, 3])], []], length=32)
    arrays = inputs(layout, heads=2, kv_heads=1)
    simulator = pltpu.InterpretParams(
        detect_races=True, dma_execution_mode="on_wait", uninitialized_memory="nan"
    )
    plan = dataclasses.replace(SMALL, key_ranges=ranges, interpret=simulator)
    actual = kernels(plan)(*arrays, layout)
    assert_relative(actual, dense(*arrays, layout), 1e-6)
    assert not interpret_pallas_call.races.races_found


@pytest.mark.slow
def test_rows_and_heads_over_a_mesh(monkeypatch):
    monkeypatch.setattr(tiles, "plan_for", lambda *_: SMALL)
    monkeypatch.setattr(tiles.TpuCore, "current", lambda: None)
    layout = ragged(LENGTH)
    arrays = inputs(layout, heads=2)
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "tensor"))
    attention = over_mesh(mesh, rows="data")
    attention = functools.partial(attention, implementation="pallas", scale=0.7)
    actual = value_and_grads(attention)(*arrays, layout)
    assert_relative(actual, dense(*arrays, layout), 1e-6)
    assert actual["dk"].sharding.shard_shape(actual["dk"].shape) == (1, LENGTH, 1, 8)


def test_pallas_without_a_tpu_raises():
    layout = ragged(LENGTH)
    q, k, v, _ = inputs(layout)
    with pytest.raises(ValueError, match="Unsupported TPU device kind: cpu"):
        shared_prefix_attention(q, k, v, layout, implementation="pallas")


def test_work_list_holds_the_live_tiles_and_one_per_tile_of_padding():
    layout = ragged(64)
    tokens = np.arange(64)
    end = np.asarray(layout.end)[:, None, :]
    read = (tokens <= tokens[:, None]) & (tokens[:, None] < end)
    tiles = read.reshape(2, 4, 16, 4, 16).any((2, 4))
    padding = np.logical_not(tiles.any(2))
    assert padding.sum() == 1
    tiles[..., 0] |= padding
    work = jax.jit(lambda layout: work_list(layout, SMALL, keys=slice(0, 4)))(layout)
    number = int(work.number[0])
    listed = zip(*(np.asarray(x[:number]) for x in work[:3]), strict=True)
    assert list(listed) == list(zip(*np.nonzero(tiles), strict=True))
    row, query, parts = (np.asarray(x[:number]) for x in (work[0], work[1], work[4]))
    assert not parts[padding[row, query]].any()


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_parts_cover_what_is_read_and_little_else_of_a_causal_row(causal):
    layout = from_lengths([[(61, [])]], length=64) if causal else ragged(64)
    plan = dataclasses.replace(SMALL, key=32)
    work = work_list(layout, plan, keys=slice(0, 2))
    rows = len(layout.end)
    covered = np.zeros((rows, 16, 16), bool)  # by half parts of 4 and chunks of 4
    for w in range(int(work.number[0])):
        row, query, key = (int(x[w]) for x in work[:3])
        for index in range(2):
            low, count, tail = (int(x) for x in read_part(work.parts[w], index))
            half, first = 4 * query + 2 * index, 8 * key + low
            covered[row, half, first : first + count - tail] = True
            covered[row, half + 1, first : first + count] = True
    tokens = np.arange(64)
    end = np.asarray(layout.end)[:, None, :]
    read = (tokens <= tokens[:, None]) & (tokens[:, None] < end)
    live = np.any(read.reshape(rows, 16, 4, 16, 4), axis=(2, 4))
    assert covered[live].all()
    if causal:
        # A longer run has no tail: its first half takes the chunk of the second alone.
        for half in range(0, 16, 2):
            live[:, half, half + 1] |= half % 8 + 2 not in TAILED
        np.testing.assert_array_equal(covered, live)
