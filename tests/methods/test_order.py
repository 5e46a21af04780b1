"""The order of a pass: a permutation, wherever it is read, that looks random."""

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax.methods.prompts.order import encrypt, shuffled
from sgpo_jax.methods.prompts.shuffled import take

COUNTS = st.one_of(st.integers(1, 40), st.integers(41, 3000))


@settings(max_examples=60)
@given(count=COUNTS, seed=st.integers(0, 2**63))
def test_a_cipher_permutes_its_range(count, seed):
    found = encrypt(np.arange(count), count, seeds=(seed, 1))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


@settings(max_examples=30)
@given(
    count=st.sampled_from([7, 1000, 1 << 16, (1 << 16) + 1, 1 << 20, 10**9]),
    start=st.integers(0, 1200),
    length=st.integers(0, 600),
)
def test_parts_are_those_of_the_whole(count, start, length):
    """On either side of the size from which places are computed one by one."""
    whole = shuffled(count, 0, 2000, seeds=(3,))
    part = shuffled(count, start, start + length, seeds=(3,))
    np.testing.assert_array_equal(part, whole[start : start + length])


def chi_square(observed):
    """Statistic over the number of cells, near 1 for uniform counts."""
    expected = observed.sum() / observed.size
    return ((observed - expected) ** 2).sum() / expected / observed.size


def test_every_place_holds_every_item_equally_often():
    """Over 1,200 keys; and so do pairs of neighbours, which a weak cipher correlates.

    The statistic has a standard deviation of sqrt(2 / cells): six of them are allowed.
    """
    count, keys = 11, 1200
    orders = np.stack(
        [encrypt(np.arange(count), count, seeds=(k,)) for k in range(keys)]
    )
    places = np.zeros((count, count))
    pairs = np.zeros((count, count))
    for order in orders:
        places[np.arange(count), order] += 1
        pairs[order[:-1], order[1:]] += 1
    slack = 6 * np.sqrt(2 / places.size)
    assert chi_square(places) < 1 + slack
    assert chi_square(pairs[~np.eye(count, dtype=bool)]) < 1 + slack


def test_passes_over_many_prompts_take_no_memory_of_their_own():
    """The end of a pass of two million prompts into the next, without a whole order."""
    count = 2_000_000
    sizes = np.broadcast_to(np.int64(8), count)
    tracemalloc.start()
    items, cursor = take(count - 100, sizes, budget=4096, seeds=(0, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert cursor == count + 412 and len(set(items.tolist())) == 512
    head, _ = take(count, sizes, budget=8 * 412, seeds=(0, 0))
    np.testing.assert_array_equal(items[100:], head)
