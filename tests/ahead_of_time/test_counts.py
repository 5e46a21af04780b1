"""Counts read from compiled modules, against what the programs are written to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgpo_jax.ahead_of_time.counts import count

LAYERS, M, K = 5, 64, 128


def counts(function, *args):
    return count(jax.jit(function).lower(*args).compile().as_text())


def layers(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]


def test_a_loop_counts_as_often_as_it_runs():
    x, w = jnp.zeros((M, K)), jnp.zeros((LAYERS, K, K))
    assert counts(layers, x, w).flops == 2 * M * K * K * LAYERS


def test_a_loop_whose_length_is_data_counts_once():
    def search(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1.0, lambda x: jnp.tanh(x @ w), x)

    assert counts(search, jnp.zeros((M, K)), jnp.zeros((K, K))).flops == 2 * M * K * K


PAIRS = """HloModule pairs, num_partitions=4

%body (p: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %p = (s32[], f32[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,8]{1,0} get-tuple-element(%p), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %z = f32[8,8]{1,0} dot(%y, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %sum = f32[8,8]{1,0} all-reduce(%z), channel_id=1, replica_groups={}, to_apply=%add
  ROOT %out = (s32[], f32[8,8]{1,0}) tuple(%next, %sum)
}

%condition (q: (s32[], f32[8,8])) -> pred[] {
  %q = (s32[], f32[8,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %end = s32[] constant(16)
  ROOT %less = pred[] compare(%j, %end), direction=LT
}

ENTRY %main (a: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %a = (s32[], f32[8,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[8,8]{1,0}) while(%a), condition=%condition, body=%body
}
"""


def test_turns_joined_in_pairs_are_not_counted_twice():
    found = count(PAIRS)
    assert found.flops == 16 * 2 * 8**3
    (summed,) = found.collectives
    assert (summed.count, summed.group, summed.bytes) == (8, 4, 8 * 8 * 8 * 4)
    # A ring passes all but one part, twice.
    assert summed.wire_bytes == 2 * 3 / 4 * summed.bytes


BETWEEN = """HloModule between, num_partitions=4

ENTRY %main (a: f32[64,8]) -> f32[64,8] {
  %a = f32[64,8]{1,0} parameter(0)
  %sum = f32[64,8]{1,0} all-reduce(%a), channel_id=1, replica_groups={}, to_apply=%add
  %t = token[] after-all()
  %out = (f32[64,8]{1,0}, u32[], token[]) send(%sum, %t), channel_id=2, MORE
  %in = (f32[64,8]{1,0}, u32[], token[]) recv(%t), channel_id=1, MORE
  %d = (f32[64,8]{1,0}, token[]) recv-done(%in), channel_id=1, is_host_transfer=true
  ROOT %r = f32[64,8]{1,0} get-tuple-element(%d), index=0
}
""".replace(
    "MORE",
    'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1:3}x{0:3}",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}',
)


def test_what_goes_between_slices_is_counted_apart():
    found = count(BETWEEN)
    inside, between = found.collectives
    size = 64 * 8 * 4
    assert (inside.over, inside.group, inside.bytes) == ("ici", 4, size)
    assert (between.over, between.kind) == ("dcn", "all-reduce")
    assert (between.group, between.count, between.bytes) == (3, 1, size)
    assert found.sent("ici") == 2 * 3 / 4 * size
    assert found.sent("dcn") == 2 * 2 / 3 * size
    # The sum is read and written; what is sent is read, what comes is written.
    assert found.bytes == 2 * size + 2 * size


@pytest.mark.parametrize(
    ("equation", "shapes", "flops"),
    [
        ("mk,kn->mn", ((4, 8), (8, 16)), 2 * 4 * 8 * 16),
        ("bmk,bkn->bmn", ((3, 4, 8), (3, 8, 16)), 2 * 3 * 4 * 8 * 16),
        ("akjc,aksc->aksj", ((2, 3, 32, 8), (2, 3, 4, 8)), 2 * 6 * 4 * 8 * 32),
    ],
)
def test_products(equation, shapes, flops):
    x, y = (jnp.zeros(shape) for shape in shapes)
    assert counts(lambda x, y: jnp.einsum(equation, x, y), x, y).flops == flops


def test_collectives_of_scanned_layers():
    mesh = Mesh(np.array(jax.devices()[:4]), "tensor")

    def array(shape, *spec):
        place = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)

    found = counts(layers, array((M, K), None, "tensor"), array((LAYERS, K, K)))
    assert found.flops <= 2 * M * K * K * LAYERS
    (gathered,) = [c for c in found.collectives if c.kind == "all-gather"]
    assert gathered.group == 4
    # Each layer's input is split along K and its product wants all of it; how often the
    # compiler gathers is its choice, but what it gathers is [M, K].
    assert gathered.bytes == gathered.count * M * K * 4

    summed = counts(
        lambda x, w: jax.lax.fori_loop(
            0,
            LAYERS,
            lambda _, x: jax.lax.with_sharding_constraint(
                jnp.tanh(x @ w), NamedSharding(mesh, PartitionSpec(None, "tensor"))
            ),
            x,
        ),
        array((M, K), None, "tensor"),
        array((K, K), "tensor", None),
    )
    moved = {c.kind: c for c in summed.collectives}
    assert sum(c.count for c in moved.values()) >= LAYERS
    assert all(c.count % LAYERS == 0 for c in moved.values())


def test_collectives_written_by_hand_are_each_counted():
    mesh = Mesh(np.array(jax.devices()[:4]), "x")

    def exchange(a, b):
        first = jax.lax.all_gather(a, "x", tiled=True)
        second = jax.lax.all_gather(b, "x", tiled=True)
        turned = jax.lax.all_to_all(second, "x", 1, 0, tiled=True)
        return jax.lax.psum_scatter(first, "x", tiled=True), turned

    split = PartitionSpec("x")
    program = jax.shard_map(
        exchange, mesh=mesh, in_specs=(split, split), out_specs=(split, split)
    )
    found = counts(program, jnp.zeros((M, 8)), jnp.zeros((2 * M, 12)))
    moved = {c.kind: (c.count, c.bytes) for c in found.collectives}
    assert moved["all-gather"] == (2, (M * 8 + 2 * M * 12) * 4)
    assert moved["all-to-all"] == (1, 2 * M * 12 * 4)
    assert moved["reduce-scatter"] == (1, M * 8 * 4 / 4)


def test_bytes_of_a_copy():
    # What is read and what is written, nothing else.
    assert counts(lambda x: x + 1, jnp.zeros((M, K))).bytes == 2 * M * K * 4


def test_of_what_is_sliced_only_the_slice_is_moved():
    def first(table, i):
        return jax.lax.dynamic_index_in_dim(table, i, keepdims=False) * 2

    rows = jnp.zeros((1000, 128))
    found = counts(first, rows, jnp.zeros((), jnp.int32))
    assert found.bytes <= 2 * 128 * 4 + 64


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        count("hello")
