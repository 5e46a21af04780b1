"""Mathematical equality: what is equal, what must not be, what would hang."""

import importlib.util
import random

import numpy as np
import pytest

from sgpo_jax.data import Query
from sgpo_jax.rewards import Worker

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is absent"
)

MATRIX = "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"
CASES = [
    ("$\\frac{1}{2}$", "0.5", 1),
    ("\\boxed{\\frac{2}{4}}", "1/2", 1),
    ("\\boxed{\\{1,2\\}}", "\\{2,1\\}", 1),
    ("\\boxed{(0,1]}", "(0,1]", 1),
    ("\\boxed{[0,1]}", "(0,1]", 0),
    ("\\boxed{(1,2)}", "(2,1)", 0),
    ("\\boxed{x \\in (0,1)}", "(0,1)", 1),
    ("\\boxed{x>3}", "(3,\\infty)", 1),
    (f"\\boxed{{{MATRIX}}}", MATRIX, 1),
    (f"\\boxed{{{MATRIX.replace('4', '5')}}}", MATRIX, 0),
    ("\\boxed{3\\text{ or }4}", "4", 0),
    ("\\boxed{3, 4}", "4", 0),
    ("\\boxed{4, 3}", "4", 0),
    ("\\boxed{x=5}", "5", 1),
    ("\\boxed{2\\sqrt{2}}", "\\sqrt{8}", 1),
    ("\\boxed{x^2+2x+1}", "(x+1)^2", 1),
    ("\\boxed{5}", "x^2+5", 0),
    ("First 5, then \\boxed{6}", "5", 0),
    ("\\boxed{3.14}", "\\pi", 0),
    ("", "5", 0),
    ("\\boxed{-\\infty}", "\\infty", 0),
    ("\\boxed{50\\%}", "0.5", 1),
    ("\\boxed{1,000}", "1000", 1),
    ("#### 7", "7", 1),
    ("\\boxed{10^{-6}}", "0", 0),
    ("\\boxed{y}", "x", 0),
    # A piece of an answer is not the answer.
    ("\\boxed{3,4,6}", "3,4,5", 0),
    ("\\boxed{3.4}", "3,4", 0),
    ("\\boxed{1}", "1,-2", 0),
    ("\\boxed{5x}", "5", 0),
    ("\\boxed{6:20}", "6:15", 0),
    ("\\boxed{10:30}", "10", 0),
    ("\\boxed{3}", "3 or 4", 0),
    ("It is 3 or 4", "4", 0),
    ("\\boxed{7 8}", "15", 0),
    ("\\boxed{-2, 1}", "1,-2", 1),
    ("\\boxed{x=2 \\text{ or } x=3}", "2, 3", 1),
    ("\\boxed{12\\text{ and }15}", "12, 15", 1),
    ("\\boxed{\\pm 2}", "2, -2", 1),
    # The same in other spellings.
    ("\\boxed{y = 2x + 3}", "y=2x+3", 1),
    ("\\boxed{3 : 4}", "3:4", 1),
    ("\\boxed{1 1/2}", "1.5", 1),
    ("\\boxed{1e-6}", "0.000001", 1),
    ("\\boxed{10\\,000}", "10 000", 1),
    ("pi/2", "\\frac{\\pi}{2}", 1),
    ("\\boxed{2**3}", "8", 1),
    ("\\boxed{72 clips per day}", "72", 1),
    ("\\boxed{90°}", "90^\\circ", 1),
    ("answer is \\[\\frac12\\].", "1/2", 1),
    ("**4**", "4", 1),
    ("So x is 4", "4", 1),
    ("7\n8", "8", 1),
    ("7 8", "8", 1),
    ("\\boxed{5,}", "5", 1),
    ("\\boxed{100000000!}", "5", 0),
    ("\\boxed{9^{9^{9}}}", "5", 0),
    ("\\boxed{10^{10000000000}}", "5", 0),
    ("\\boxed{" + "(" * 500 + "}", "5", 0),
    ("x" * 10_000_000, "5", 0),
]


@pytest.fixture(scope="module")
def worker():
    with Worker(deadline=20.0, workers=2) as worker:
        yield worker


def query(reference):
    return Query(id="q", prompt="", reference=reference, verifier="math")


def test_equal_and_unequal(worker):
    texts, references, _ = zip(*CASES, strict=True)
    got = worker.score(texts, [query(reference) for reference in references])
    wrong = [c[:2] for c, g in zip(CASES, got, strict=True) if c[2] != g]
    assert not wrong


def test_several_numbers_are_equal_in_any_order_and_no_part_of_them_is(worker):
    draw = random.Random(0)
    texts, references, wanted = [], [], []
    for _ in range(100):
        numbers = draw.sample(range(-99, 98), draw.randint(2, 4))
        comma = draw.choice([",", ", ", ";", " \\text{ and } "])
        given = draw.sample(numbers, len(numbers))
        kind = draw.choice(["same", "fewer", "other"])
        if kind == "fewer":
            given.pop()
        if kind == "other":
            given[-1] += 1
        texts.append("\\boxed{" + comma.join(map(str, given)) + "}")
        references.append(draw.choice([", ", ","]).join(map(str, numbers)))
        wanted.append(float({*given} == {*numbers}))
    got = worker.score(texts, [query(reference) for reference in references])
    cases = zip(texts, references, wanted, got, strict=True)
    assert not [case for case in cases if case[2] != case[3]]


@pytest.mark.slow
def test_what_computes_for_ever_costs_itself_only():
    bomb = "\\boxed{\\binom{3000000}{1500000}}"
    with Worker(deadline=1.5, workers=1) as worker:
        worker.check([query("1")])
        values = worker.score(["\\boxed{1}", bomb, "\\boxed{1}"], [query("1")] * 3)
    np.testing.assert_array_equal(values, [1, np.nan, 1])
