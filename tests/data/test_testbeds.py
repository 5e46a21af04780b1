"""Testbeds: worked steps, systematic errors, and splits without leakage."""

import json
import re
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sgpo_jax.data import CHARACTERS, Demonstrations, Mixture, demonstrate, parse_source
from sgpo_jax.data.families import FAMILIES, LEVELS, SHORT, WORKED

WORKED_NAMES = [family.name for family in WORKED]


def final_value(query):
    """Return what a chain must end in, by arithmetic that shares nothing with it."""
    inside = query.prompt[4:-2]
    if query.family == "residue":
        number, divisor = map(int, inside.split(","))
        return str(number % divisor)
    return str(sum(map(int, inside.split(","))))


def check_step(step):
    """Evaluate one step's left side in Python; returns (stated, right)."""
    left, stated = step.split("=")
    return int(stated), eval(re.sub(r"\b0+(\d)", r"\1", left))


@pytest.mark.parametrize("name", WORKED_NAMES)
@hypothesis.given(seed=st.integers(0, 2**32), level=st.sampled_from(LEVELS))
@hypothesis.settings(max_examples=40)
def test_every_step_of_a_reference_is_right_and_so_is_its_end(name, seed, level):
    query = FAMILIES[name].query(np.random.default_rng(seed), level)
    steps = query.reference.split(",")
    end = steps.pop() if name == "columns" else steps[-1].split("=")[1]
    assert end == final_value(query)
    for step in steps:
        stated, right = check_step(step)
        assert stated == right, query
    assert set(query.prompt + query.reference) <= set(CHARACTERS)
    assert len(query.prompt) <= 21 and 12 <= len(query.reference) <= 60


@pytest.mark.parametrize("name", WORKED_NAMES)
def test_each_step_is_wrong_as_often_as_the_noise_says(name, rng):
    wrong, total = 0, 0
    for _ in range(400):
        query = FAMILIES[name].query(rng, 3)
        steps = demonstrate(rng, query, 0.2).split(",")
        for step in steps[:-1] if name == "columns" else steps:
            stated, right = check_step(step)
            wrong, total = wrong + (stated != right), total + 1
    # Five standard deviations of `total` draws at 0.2.
    assert abs(wrong / total - 0.2) < 5 * 0.4 / total**0.5
    query = FAMILIES[name].query(rng, 3)
    assert demonstrate(rng, query, 0.0) == query.reference
    chains = [demonstrate(rng, query, 0.5) for _ in range(20)]
    steps = {chain.count(",") for chain in chains}
    assert steps == {query.reference.count(",")}, "errors must not change the shape"


def digits(prompt):
    return re.findall("[0-9]+", prompt)


WRONG_WAY = {
    "addition": lambda q: sum(
        (int(a) + int(b)) % 10 * 10**i
        for i, (a, b) in enumerate(
            zip(*(d[::-1].ljust(3, "0") for d in digits(q)), strict=True)
        )
    ),
    "subtraction": lambda q: sum(
        abs(int(a) - int(b)) * 10**i
        for i, (a, b) in enumerate(
            zip(*(d[::-1].ljust(3, "0") for d in digits(q)), strict=True)
        )
    ),
    "modulo": lambda q: divmod(*map(int, digits(q)))[0],
    "gcd": lambda q: max(map(int, digits(q))) - min(map(int, digits(q))),
    "bits": lambda q: len(q[5:-2]) - int(q[5:-2], 2).bit_count(),
    "count": lambda q: sum(letter != q[6] for letter in q[8:-2]),
    "reversal": lambda q: q[4:-2],
    "sorting": lambda q: "".join(sorted(q[5:-2])[::-1]),
}


@pytest.mark.parametrize("name", [family.name for family in SHORT])
@hypothesis.given(seed=st.integers(0, 2**32), level=st.sampled_from(LEVELS))
@hypothesis.settings(max_examples=30)
def test_a_systematic_error_is_one_answer_and_the_right_one_the_rest(name, seed, level):
    rng = np.random.default_rng(seed)
    query = FAMILIES[name].query(rng, level)
    wrong = str(WRONG_WAY[name](query.prompt))
    answers = {demonstrate(rng, query, 0.5, "systematic") for _ in range(60)}
    assert answers == {query.reference, wrong}
    assert demonstrate(rng, query, 1.0, "systematic") == wrong
    assert set(wrong) <= set(CHARACTERS)


def test_a_systematic_error_mostly_is_an_error_where_questions_are_hard(rng):
    for family in SHORT:
        queries = [family.query(rng, level) for level in LEVELS[3:] for _ in range(300)]
        same = [family.systematic(q.prompt) == q.reference for q in queries]
        # Seen: 0.45 for gcd, 0.3 for subtraction, below that for the others.
        assert np.mean(same) < 0.55, family.name


@pytest.mark.parametrize("errors", ["random", "systematic"])
def test_demonstrations_hold_no_excluded_question(errors):
    mixture = Mixture(families=("columns", "sorting"), levels=(2, 3), count=50)
    held_out = mixture.make(seed=0)
    show = Demonstrations(noise=(0.1, 0.5, 0.5), errors=errors)
    pairs = show.make(mixture, 500, seed=0, exclude=held_out)
    assert {p for p, _ in pairs}.isdisjoint(q.prompt for q in held_out)


def test_other_processes_draw_the_same_questions_and_demonstrations():
    data = "procedural:families=columns+residue+sorting,levels=1+4,count=5"
    code = f"""
import json
from sgpo_jax.data import Demonstrations, parse_source
source = parse_source({data!r})
show = Demonstrations(noise=(0.3,) * 4, errors="systematic")
pairs = show.make(source.mixture, 20, seed=3)
print(json.dumps([[q.id, q.reference] for q in source.load().queries] + list(pairs)))
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"},
    ).stdout
    source = parse_source(data)
    show = Demonstrations(noise=(0.3,) * 4, errors="systematic")
    pairs = show.make(source.mixture, 20, seed=3)
    here = [[q.id, q.reference] for q in source.load().queries]
    assert json.loads(out) == here + [list(pair) for pair in pairs]
