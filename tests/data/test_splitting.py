"""Held-out sets: disjoint by content, stratified, stable."""

import collections

import hypothesis
import hypothesis.strategies as st
import pytest

from sgpo_jax.data import Loaded, Mixture, Query, divide, normalize, split

texts = st.text(alphabet="ab ABé\u00a0\tｂ=", min_size=1, max_size=5)
pools = st.lists(
    st.tuples(texts, st.sampled_from("xy"), st.integers(1, 2)), max_size=30
)


def _pool(rows):
    return [
        Query(id=str(i), prompt=prompt, reference="", family=family, level=level)
        for i, (prompt, family, level) in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def pool():
    return Mixture(count=20).make(seed=0)


@hypothesis.given(pools, st.floats(0.01, 0.99), st.integers(0, 3))
@hypothesis.settings(max_examples=60)
def test_partition_with_no_question_on_both_sides(rows, share, seed):
    queries = _pool(rows)
    hypothesis.assume(len({normalize(query.prompt) for query in queries}) >= 2)
    train, held = split(queries, held_out=share, seed=seed)
    assert sorted(q.id for q in train + held) == sorted(q.id for q in queries)
    questions = {normalize(query.prompt) for query in train}
    assert questions.isdisjoint(normalize(query.prompt) for query in held)


def test_spellings_of_one_question_go_together():
    spellings = [
        "What is 2 + 2?",
        "what is 2+2?",
        " WHAT IS\n2 + 2?\u00a0",
        "what is２+2?",
    ]
    for seed in range(20):
        queries = _pool([(text, "x", 1) for text in [*spellings, "a", "b", "c"]])
        _, held = split(queries, held_out=2, seed=seed)
        assert len([query for query in held if query.prompt in spellings]) in (0, 4)
        assert len({normalize(query.prompt) for query in held}) == 2


@pytest.mark.parametrize("held_out", [0.25, 0.05, 80])
def test_every_family_and_level_is_on_both_sides(pool, held_out):
    strata = {(query.family, query.level) for query in pool}
    for side in split(pool, held_out=held_out, seed=0):
        assert {(query.family, query.level) for query in side} == strata


def test_number_is_exact_and_proportional(pool):
    train, held = split(pool, held_out=100, seed=0)
    assert (len(train), len(held)) == (700, 100)
    sizes = collections.Counter((query.family, query.level) for query in held)
    assert set(sizes.values()) == {2, 3}


def test_share_is_about_the_share(pool):
    _, held = split(pool, held_out=0.25, seed=0)
    # Five standard deviations of 800 draws at 0.25.
    assert abs(len(held) - 200) < 62


def test_sides_are_stable_when_the_pool_grows():
    small, large = Mixture(count=30).make(seed=0), Mixture(count=50).make(seed=0)
    assert set(small) < set(large)
    for_small = [set(side) for side in split(small, held_out=0.25, seed=0)]
    for_large = [set(side) for side in split(large, held_out=0.25, seed=0)]
    assert for_small[0] <= for_large[0] and for_small[1] <= for_large[1]


def test_order_of_the_pool_does_not_matter_and_the_seed_does(pool):
    train, held = split(pool, held_out=0.25, seed=0)
    again = split(pool[::-1], held_out=0.25, seed=0)
    assert again == (train[::-1], held[::-1])
    assert split(pool, held_out=0.25, seed=1) != (train, held)


def test_lone_surrogate_has_a_place():
    train, held = split(_pool([("\ud800", "x", 1), ("a", "x", 1)]), held_out=1, seed=0)
    assert len(train) == len(held) == 1


@pytest.mark.parametrize("held_out", [0, -1, 5, 0.0, 1.0, -0.5, float("nan")])
def test_an_empty_side_is_refused(held_out):
    queries = _pool([(text, "x", 1) for text in "abcde"])
    with pytest.raises(ValueError, match="held_out must be"):
        split(queries, held_out=held_out, seed=0)


def test_own_held_out_set_is_kept_and_leaves_the_train_set(pool):
    own = Loaded(pool, held_out=(pool[3], pool[5]))
    train, held = divide(own, held_out=0.5, seed=0)
    assert held == (pool[3], pool[5])
    assert set(train) == set(pool) - set(held)
    assert divide(Loaded(pool), held_out=7, seed=1) == split(pool, held_out=7, seed=1)
