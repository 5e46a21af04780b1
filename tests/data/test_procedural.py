"""Procedural questions: right answers, distinct prompts, noise that is noise."""

import math

import numpy as np
import pytest

from sgpo_jax.data import CHARACTERS, Demonstrations, Mixture, Query, demonstrate
from sgpo_jax.data.families import FAMILIES, LEVELS, SHORT
from sgpo_jax.data.procedural import Procedural

SOLVE = {
    "addition": lambda q: str(sum(map(int, q[:-1].split("+")))),
    "subtraction": lambda q: str(int(q.split("-")[0]) - int(q[:-1].split("-")[1])),
    "modulo": lambda q: str(int(q.split("%")[0]) % int(q[:-1].split("%")[1])),
    "gcd": lambda q: str(math.gcd(*map(int, q[4:-2].split(",")))),
    "bits": lambda q: str(int(q[5:-2], 2).bit_count()),
    "count": lambda q: str(list(q[8:-2]).count(q[6])),
    "reversal": lambda q: "".join(reversed(q[4:-2])),
    "sorting": lambda q: "".join(sorted(q[5:-2])),
}


@pytest.fixture(scope="module")
def pool():
    return Mixture().make(seed=0)


def test_answers_agree_with_a_second_solver(pool):
    for query in pool:
        assert query.reference == SOLVE[query.family](query.prompt), query


def test_pool_is_full_distinct_and_within_the_characters(pool):
    assert len(pool) == 40 * len(SHORT) * len(LEVELS)
    assert len({query.prompt for query in pool}) == len(pool)
    assert len({query.id for query in pool}) == len(pool)
    used = set("".join(query.prompt + query.reference for query in pool))
    assert used == set(CHARACTERS)
    assert list(CHARACTERS) == sorted(CHARACTERS)
    assert max(len(query.prompt) for query in pool) <= 17
    assert max(len(query.reference) for query in pool) <= 6


def test_make_is_deterministic_and_streams_are_independent(pool):
    assert Mixture().make(seed=0) == pool
    assert Mixture().make(seed=1) != pool
    part = Mixture(families=("gcd",), levels=(3,)).make(seed=0)
    assert set(part) <= set(pool)


@pytest.mark.parametrize(
    ("family", "level", "size"), [("addition", 1, 100), ("bits", 1, 64)]
)
def test_small_space_is_taken_whole_and_said(family, level, size):
    mixture = Mixture(families=(family,), levels=(level, 5), count=500)
    loaded = Procedural(mixture=mixture).load()
    assert len(loaded.queries) == size + 500
    assert loaded.held_out is None
    said = f"{family} level {level} has only {size} distinct questions of 500 asked"
    assert loaded.problems == (said,)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("level", LEVELS)
def test_no_prompt_has_two_levels(name, level, rng):
    here = {FAMILIES[name].query(rng, level).prompt for _ in range(300)}
    for other in set(LEVELS) - {level}:
        assert here.isdisjoint(
            FAMILIES[name].query(rng, other).prompt for _ in range(300)
        )


@pytest.mark.parametrize("name", [family.name for family in SHORT])
def test_noise_is_the_probability_of_a_wrong_answer(name, rng):
    for level in LEVELS:
        query = FAMILIES[name].query(rng, level)
        assert demonstrate(rng, query, 0.0) == query.reference
        wrong = [demonstrate(rng, query, 1.0) for _ in range(50)]
        assert query.reference not in wrong
        assert set("".join(wrong)) <= set(CHARACTERS) - set("+-%(),=")
        noisy = [demonstrate(rng, query, 0.3) for _ in range(500)]
        share = np.mean([answer != query.reference for answer in noisy])
        # Five standard deviations of 500 draws at 0.3.
        assert abs(share - 0.3) < 0.103


def test_demonstrations_leave_out_the_excluded_and_the_never_shown():
    mixture = Mixture(families=("addition", "reversal", "gcd"), count=30)
    exclude = mixture.make(seed=0)
    show = Demonstrations(noise=(0.0, 0.5), excluded_families=("gcd",))
    pairs = show.make(mixture, 400, seed=3, exclude=exclude)
    assert len(pairs) == 400
    assert pairs == show.make(mixture, 400, seed=3, exclude=exclude)
    prompts = {prompt for prompt, _ in pairs}
    assert prompts.isdisjoint(query.prompt for query in exclude)
    assert not any(prompt.startswith("gcd") for prompt in prompts)
    assert max(len(prompt) for prompt in prompts) <= len("rev(abc)=")


def test_demonstrations_end_when_nothing_is_left():
    mixture = Mixture(families=("addition",), levels=(1,), count=100)
    with pytest.raises(ValueError, match="every question of addition level 1"):
        Demonstrations().make(mixture, 1, seed=0, exclude=mixture.make(seed=0))
    with pytest.raises(ValueError, match="shows no family"):
        Demonstrations(excluded_families=("addition",)).make(mixture, 1, seed=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"families": ("adition",)}, "unknown family 'adition'; known: addition"),
        ({"levels": (6,)}, "1 to 5"),
        ({"levels": ()}, "must not be empty"),
        ({"count": 0}, "at least 1"),
    ],
)
def test_mixture_refuses_nonsense(options, match):
    with pytest.raises(ValueError, match=match):
        Mixture(**options)


def test_demonstrations_over_a_pool_of_another_source():
    pool = [
        Query(id="1", prompt="capital?", reference="paris", family="x", level=1),
        Query(id="2", prompt="below?", reference="-7", family="x", level=2),
        Query(id="3", prompt="hard?", reference="0", family="x", level=3),
        Query(id="4", prompt="unlevelled?", reference="x y", family="y"),
    ]
    pairs = Demonstrations(noise=(0.0, 1.0)).over(pool, 200, seed=0)
    answers = {prompt: {a for p, a in pairs if p == prompt} for prompt, _ in pairs}
    assert answers["capital?"] == {"paris"} and answers["unlevelled?"] == {"x y"}
    assert "-7" not in answers["below?"] and len(answers["below?"]) > 3
    assert "hard?" not in answers
    with pytest.raises(ValueError, match="shows none of 4 questions"):
        Demonstrations(excluded_families=("x", "y")).over(pool, 1, seed=0)
