"""Built-in verifiers: what counts as the right answer, and what must not."""

import fractions
import json
import pathlib
import time

import hypothesis
import hypothesis.strategies as st
import pytest

from sgpo_jax.rewards import (
    choice,
    exact,
    final_number,
    gsm8k,
    integer,
    names,
    numeric,
    reference_problem,
)


@pytest.mark.parametrize(
    ("completion", "reference", "value"),
    [("7", "7", 1), ("\t7 \n", "7", 1), ("7.", "7", 0), ("", "", 1), ("A", "a", 0)],
)
def test_exact(completion, reference, value):
    assert exact(completion, reference) == value


@pytest.mark.parametrize("text", ["34", " 34\n", "+34", "0034"])
def test_integer_accepts(text):
    assert integer(text, "34") == 1


@pytest.mark.parametrize(
    "text",
    [
        "٣٤",
        "3_4",
        "34.0",
        "3.4e1",
        "3 4",
        "+-34",
        "-34",
        "34.",
        "0x22",
        "\u00a034",
        "³⁴",
    ],
)
def test_integer_refuses_other_spellings(text):
    assert integer(text, "34") == 0


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1_000", "", "-", "9" * 6000])
def test_integer_survives(text):
    assert integer(text, "1000") == 0
    assert integer("9" * 6000, "0" + "9" * 6000) == 1


def test_integer_has_one_zero():
    assert integer("-0", "0") == integer("0", "-000") == 1


@pytest.mark.parametrize("reference", ["", "seven", "٣٤", "nan"])
def test_bad_reference_is_an_error_not_a_zero(reference):
    with pytest.raises(ValueError, match="reference"):
        integer("7", reference)
    with pytest.raises(ValueError, match="single number"):
        gsm8k("7", reference)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48 + 24 = 72\n#### 72", "72"),
        ("#### 71\n#### 72", "72"),
        ("#### $1,234.50", "1234.5"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### 18 dollars, in 3 days", "18"),
        ("#### no idea, maybe 5?", "5"),
        ("5 #### none", None),
        ("The answer is 72.", "72"),
        ("the ANSWER IS: 72, not 3", "72"),
        ("the answer is 3? No, the answer is 72", "72"),
        ("so 70 and 2 make 72.0", "72"),
        ("<<48/2=24>>24", "24"),
        ("5-3=2", "2"),
        ("from 5-10", None),
        ("x = -10", "-10"),
        ("1,2", None),
        ("1,234,567", "1234567"),
        ("1,2345", None),
        ("007.10", "7.1"),
        ("-0.0", "0"),
        ("50%", "50"),
        ("٣٤", None),
        ("5 is ٣٤", "5"),
        ("3 1_000", None),
        ("3 1e999", None),
        ("nan", None),
        ("inf", None),
        ("1.2.3", None),
        ("x2", None),
        ("", None),
    ],
)
def test_final_number(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize("text", ["9" * 6000, "x" + "9" * 6000 + "x 9"])
def test_numbers_of_any_length(text):
    assert gsm8k(text, "10") == 0


@pytest.mark.parametrize(
    "pattern", ["1", "1,111", ",111", "-", "$", "1.", "1e1", "answer is ", "#### "]
)
@pytest.mark.parametrize("verify", [gsm8k, integer, exact])
def test_one_mebibyte_is_linear(pattern, verify):
    start = time.perf_counter()
    verify(pattern * (2**20 // len(pattern)), "7")
    # About 0.1 s measured; a quadratic search would take hours.
    assert time.perf_counter() - start < 5.0


@hypothesis.given(
    st.text(alphabet="0123456789-+,.$eE_# answeri٣\ud800\x00", max_size=60)
)
@hypothesis.settings(max_examples=300)
def test_any_text_is_scored(text):
    for verify in (exact, integer, gsm8k):
        assert verify(text, "7") in (0.0, 1.0)


@hypothesis.given(st.integers(), st.integers())
def test_numeric_equality(a, b):
    assert integer(str(a), str(b)) == (a == b)
    assert gsm8k(f"so it is {a:,}.00", f"#### {b}") == (a == b)


CASES = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parent / "numbers.jsonl")
    .read_text()
    .split("\n")
    if line
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["completion"][-30:])
def test_numbers_as_people_write_them(case):
    refused = reference_problem("gsm8k", case["reference"])
    if refused is None:
        assert gsm8k(case["completion"], case["reference"]) == case["reward"]
    else:
        assert case["reward"] == 0
        with pytest.raises(ValueError, match="single number"):
            gsm8k(case["completion"], case["reference"])


_SIGNS = ["", "-", "\u2212", "\u2013", "+"]
_WRAPS = [
    "#### {}",
    "\\boxed{{{}}}",
    "The answer is {}.",
    "**Final Answer**: **{}**",
    "<answer>{}</answer>",
    "so x = {}",
    "#### **{}**",
    "The answer is ${}$.",
]


@hypothesis.given(
    st.sampled_from(_WRAPS),
    st.sampled_from(_SIGNS),
    st.integers(0, 10**9),
    st.sampled_from([",", "\u202f", "{,}", "\\,", ""]),
    st.sampled_from(["", "%", " cm", " dollars"]),
    st.integers(0, 99),
)
def test_any_spelling_of_a_number_is_read(wrap, sign, whole, gap, unit, cents):
    unit = unit if wrap[0] not in "\\T*" else ""
    spelled = f"{sign}{f'{whole:,}'.replace(',', gap)}.{cents:02d}{unit}"
    value = fractions.Fraction(f"{whole}.{cents:02d}")
    value = -value if sign not in ("", "+") else value
    assert gsm8k(wrap.format(spelled), str(value)) == 1
    assert gsm8k(wrap.format(spelled), str(value + 1)) == 0


@hypothesis.given(
    st.sampled_from(_WRAPS),
    st.integers(2, 999),
    st.sampled_from(
        [
            *(
                "^2",
                ":30",
                "e",
                "x",
                "\\pi",
                "\\sqrt{2}",
                " or 1",
                "-5",
                " + 1",
                "y",
                "*4",
            ),
            *(" million", " 1/3", "/7", "_000", ".5.1", "*4", " - y", "²", "½", ", 1"),
        ]
    ),
)
def test_what_belongs_to_an_expression_is_not_cut_from_it(wrap, number, rest):
    assert gsm8k(wrap.format(f"{number}{rest}"), str(number)) == 0


def test_tolerance_percent_and_units():
    assert numeric("3.1415", "3.14159", tolerance=1e-4) == 1
    assert numeric("3.14", "3.14159", tolerance=1e-4) == 0
    assert numeric("1.0002e6", "1000000", tolerance=1e-3) == 1
    assert numeric("25%", "0.25", percent=True) == 1
    assert numeric("0.25", "25%", percent=True) == 1
    assert numeric("25%", "0.25") == 0
    assert numeric("#### 150 cm", "1.5", unit="m") == 1
    assert numeric("#### 150 kg", "150", unit="m") == 0
    assert numeric("#### 3 1/2", "7/2") == numeric("#### 3 1/2", "3.5") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("B", 1), ("(B)", 1), ("b", 1), ("\\boxed{\\text{B}}", 1), ("#### B", 1),
        ("The answer is **B**.", 1), ("Answer: B) 5 apples", 1), ("A or B", 0),
        ("The answer is B or C", 0), ("answer: B, C", 0), ("<answer>B</answer>", 1),
        ("The answer is A dog", 0), ("", 0), ("Bob", 0), ("BB", 0), ("C", 0),
    ],
)  # fmt: skip
def test_choice(text, value):
    assert choice(text, "B") == value


@pytest.mark.parametrize(
    ("verifier", "reference", "fine"),
    [
        ("gsm8k", "1,250", True), ("gsm8k", "(3, 4)", False), ("gsm8k", "", False),
        ("gsm8k", "\\sqrt{2}", False), ("numeric:tolerance=0.1", "1/3", True),
        ("integer", "7.0", False), ("choice", "B", True), ("choice", "F", False),
        ("choice:letters=ABCDEF", "F", True), ("exact", " ", False),
        ("0.5*gsm8k + 0.5*format:x", "seven", False), ("my:function", "", True),
    ],
)  # fmt: skip
def test_references_that_cannot_be_compared_are_named(verifier, reference, fine):
    assert (reference_problem(verifier, reference) is None) == fine


@pytest.mark.parametrize(
    "name",
    [
        "numeric:tolerance=" + "[" * 1900,
        "trl:sgpo_jax.rewards.v" + "9" * 1900,
        "sgpo_jax.rewards:" + "f" * 1900,
        "exact:" + "x" * 1900,
    ],
)
def test_a_long_or_deep_name_is_refused_in_short(name):
    with pytest.raises(ValueError) as raised:
        names.find(name)
    assert len(str(raised.value)) < 2600
    assert "9" * 201 not in str(raised.value)
