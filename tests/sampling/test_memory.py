"""Shapes, programs and memory of the sampler."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, sampling, sharding
from sgpo_jax.sampling.call import SampleCall
from tests.sampling.tiny import CONFIG, RESPONSE, make_engine, make_requests


@pytest.mark.slow
def test_two_programs_per_prompt_rung(params, rng):
    engine = make_engine(max_prompt=(2, 5))
    for counts in ([3], [1, 40, 2], rng.integers(1, 65, 9), [64] * 3):
        engine.sample(params, make_requests(rng, counts, longest=5), seed=0, step=0)
    assert engine.compiles() == 4


def test_what_comes_back_of_a_program_is_no_new_kind_of_input(params, rng):
    """Also where the parameters are a trainer's, on a mesh of one device, and later."""
    engine = make_engine(lanes=1, slots=1, steps=2)
    requests = make_requests(rng, [9, 1, 1, 1, 1])  # more than one stage, many returns
    mesh = sharding.make_mesh(sharding.MeshShape(), jax.devices()[:1])
    placed = jax.device_put(params, models.shardings(CONFIG, mesh))
    one, two = (
        engine.sample(given, requests, seed=0, step=0) for given in (placed, params)
    )
    assert engine.compiles() == 2
    np.testing.assert_array_equal(one.tokens, two.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [{}, {"max_prompt": (4, 7), "slots": 1}])
def test_prompts_in_chunks_are_as_prompts_at_once(params, engine, rng, grid):
    requests = make_requests(rng, [3, 6, 1, 4, 2, 2])
    whole = engine.sample(params, requests, seed=1, step=1)
    chunked = make_engine(prefill_chunk=2, **grid)
    parts = chunked.sample(params, requests, seed=1, step=1)
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    # float32, sums reordered
    np.testing.assert_allclose(parts.log_prob, whole.log_prob, atol=1e-5)
    # Chunks beyond the longest prompt of a block are not computed.
    short = [dataclasses.replace(r, prompt=[1, 2, 3], samples=1) for r in requests[:2]]
    stats = chunked.sample(params, short, seed=1, step=1).stats
    assert stats.prefill_padded == 2 * 2


def test_prefill_in_chunks_needs_little_more_memory_for_longer_prompts(params):
    """Temporaries of the compiled program."""

    def temporary(length, chunk):
        engine = make_engine(max_prompt=length + 1, prefill_chunk=chunk)
        programs = engine.programs
        _, table = programs.start(engine.grid(length + 1, RESPONSE), 4)
        tokens = jnp.zeros((2, chunk or length), jnp.int32)
        zero = jnp.int32(0)
        lowered = programs.prefill.lower(
            params, table, tokens, zero, zero, chunked=chunk is not None
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(1024, None) > 3 * temporary(512, None)
    # A few of one layer: 2 prompts, 2 heads of width 4, keys and values, float32.
    stored = 2 * 2 * 2 * 4 * 4 * 512
    assert temporary(1024, 64) < temporary(512, 64) + 4 * stored
    assert temporary(1024, 64) < temporary(1024, None) / 20


@pytest.mark.slow
def test_memory_does_not_grow_with_the_group(params, rng):
    """Bytes on the device during a call, beyond what was there before it."""
    prompts = make_requests(rng, [1] * 32)

    def most(engine, group):
        requests = [dataclasses.replace(r, samples=group) for r in prompts]
        requests = requests[: 256 // group]
        before, seen = {id(x) for x in jax.live_arrays()}, []

        def look(_):
            new = [x for x in jax.live_arrays() if id(x) not in before]
            seen.append(sum(x.nbytes for x in new))

        engine.sample(params, requests, seed=0, step=0, on_progress=look)
        return max(seen)

    engine = make_engine(steps=16)
    groups_of_8 = most(engine, 8)
    programs = engine.compiles()
    assert 0 < most(engine, 64) <= groups_of_8
    # The same programs, so the same temporaries.
    assert engine.compiles() == programs == 2
    ring = 2 * CONFIG.num_layers * CONFIG.num_kv_heads * CONFIG.head_dim * RESPONSE * 4
    assert most(make_engine(slots=64, prefixes_per_lane=4, steps=16), 8) > 3 * 62 * ring


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_decode_loop_copies_neither_caches_nor_weights(params, dtype, monkeypatch):
    """What XLA made of it for CPU, where parts of arrays and unordered writes copy."""
    engine = make_engine(cache_dtype=dtype)
    programs, grid = engine.programs, engine.grid(7, RESPONSE)
    lowered = []

    def decode(*args, **static):
        lowered.append(programs.decode.lower(*args, **static))
        raise StopIteration

    monkeypatch.setattr(SampleCall, "_decode", lambda call, state, queue, grid: decode(
        call.params, state, queue, call.noise, programs.placed_ending, grid=grid,
        strategy=call.strategy,
    ))  # fmt: skip
    with pytest.raises(StopIteration):
        engine.sample(params, [sampling.Request(0, [1, 2], 1)], seed=0, step=0)
    text = lowered[0].compile().as_text()

    state, _ = jax.eval_shape(lambda: programs.start(grid, 4))
    caches = {x.shape for x in jax.tree.leaves((state.ring, state.prefixes))}
    stacked = {x.shape for x in jax.tree.leaves(params["layers"])}
    lines = text.splitlines()
    copies = {shape for line in lines if " copy(" in line for shape in _shapes(line)}
    assert not copies & caches
    loops = [_shapes(line) for line in lines if " while(" in line]
    assert any(caches <= carried for carried in loops)
    assert not any(carried & stacked for carried in loops)


def _shapes(line: str) -> set[tuple[int, ...]]:
    """Return the shapes of an instruction's results."""
    results = re.findall(r"[a-z]\w*\[([\d,]*)\]\{", line)
    return {tuple(int(n) for n in dims.split(",") if n) for dims in results}


@pytest.mark.slow
def test_short_budgets_take_a_short_ring(params, engine, rng):
    requests = [
        dataclasses.replace(r, budget=3) for r in make_requests(rng, [3, 6, 1, 4])
    ]
    laddered = make_engine(max_response=(3, RESPONSE))
    rings = []
    sample = laddered.programs.start
    object.__setattr__(
        laddered.programs,
        "start",
        lambda grid, staged: (rings.append(grid.response), sample(grid, staged))[1],
    )
    short = laddered.sample(params, requests, seed=1, step=1)
    whole = engine.sample(params, requests, seed=1, step=1)
    np.testing.assert_array_equal(short.tokens, whole.tokens)
    mixed = [*requests[:2], dataclasses.replace(requests[2], budget=4)]
    laddered.sample(params, mixed, seed=1, step=1)
    assert rings == [3, RESPONSE]
    with pytest.raises(ValueError, match="max_response must be positive and rise"):
        make_engine(max_response=(6, 3))
