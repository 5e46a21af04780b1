"""Verifiers: what a completion is worth, as pure functions of text.

A verifier is a function `(completion, reference, **options)` that returns a number, a
bool, or None if it cannot score. It runs in the processes of a `Worker`, never in the
trainer. `names.find` makes one from its name and options, as `numeric:tolerance=1e-3`.
"""

import re
from collections.abc import Mapping
from fractions import Fraction

from .answers import final_answer
from .numbers import Quantity, read_quantity, read_reference


def exact(completion: str, reference: str) -> float:
    r"""Equality of text: 1 if both are equal up to white space at the ends, else 0.

    Example:
      >>> exact(" cba\n", "cba"), exact("c b a", "cba")
      (1.0, 0.0)
    """
    return float(completion.strip() == reference.strip())


# ASCII only: Python's int() takes other scripts' digits and underscores, and refuses
# more than 4,300 digits. Possessive quantifiers keep every search linear.
_INTEGER = re.compile(r"[+-]?+[0-9]++")


def integer(completion: str, reference: str) -> float:
    """Equality of whole numbers: 1 if the completion is the reference's, else 0.

    Only ASCII digits with an optional sign count: `007` and `-0` are numbers, while
    `7.0`, `1_000`, `1e3` and digits of other scripts are not.

    Raises:
      ValueError: if the reference is not a whole number.

    Example:
      >>> integer("007", "7"), integer("7.0", "7")
      (1.0, 0.0)
    """
    wanted = _whole(reference)
    if wanted is None:
        raise ValueError(f"reference {reference!r} is not a whole number")
    return float(_whole(completion) == wanted)


def _whole(text: str) -> str | None:
    text = text.strip(" \t\r\n")
    if not _INTEGER.fullmatch(text):
        return None
    digits = text.lstrip("+-").lstrip("0")
    return "-" + digits if digits and text.startswith("-") else digits or "0"


def gsm8k(completion: str, reference: str) -> float:
    r"""Equality of final numbers: 1 if the completion's is the reference's, else 0.

    The final number is the first after the last `####`, box or "answer is", and without
    such a mark the last of all; see `numbers` for the spellings. A percent sign, a
    currency and a unit do not matter.

    Raises:
      ValueError: if the reference is not a single number.

    Example:
      >>> gsm8k("48 + 24 = 72 clips.\n#### 72.00", "72")
      1.0
      >>> gsm8k("The answer is $1,250 in 3 days.", "1250")
      1.0
      >>> gsm8k("#### 3/4", "3")
      0.0
    """
    return numeric(completion, reference)


def numeric(
    completion: str,
    reference: str,
    *,
    tolerance: float = 0.0,
    percent: bool = False,
    unit: str = "",
) -> float:
    """Equality of final numbers within a tolerance: 1 if abs(a - b) is small, else 0.

    `|a - b| <= tolerance max(1, |b|)`, computed exactly: absolute for references below
    1, relative above. Fractions and mixed numbers count as what they are worth.

    Args:
      completion: what the policy answered.
      reference: the right number, in any spelling that is read.
      tolerance: 0 for equality.
      percent: whether 25% is 0.25; otherwise the sign is passed over and 25% is 25.
      unit: of the answer, a key of `UNITS`. Numbers in another unit of the same
        quantity are converted, others are wrong; without a unit it is taken to be this
        one. Empty to pass over units.

    Raises:
      ValueError: if the reference is not a single number, or the unit is unknown.

    Example:
      >>> numeric("about 3.1416", "3.14159", tolerance=1e-4)
      1.0
      >>> numeric("#### 25%", "1/4", percent=True), numeric("1.5 km", "1500", unit="m")
      (1.0, 1.0)
    """
    wanted = read_reference(reference)
    if wanted is None:
        raise ValueError(f"reference {reference!r} is not a single number")
    got = read_quantity(completion)
    if got is None:
        return 0.0
    a, b = (_worth(quantity, percent, unit) for quantity in (got, wanted))
    if a is None or b is None:
        return 0.0
    if not tolerance:
        return float(a == b)
    return float(abs(a - b) <= Fraction(tolerance) * max(Fraction(1), abs(b)))


_LENGTH = {"mm": "1/1000", "cm": "1/100", "m": "1", "km": "1000"}
_LENGTH |= {"in": "127/5000", "ft": "381/1250", "yd": "1143/1250", "mi": "201168/125"}
_MASS = {"mg": "1/1000", "g": "1", "kg": "1000", "t": "1000000"}
_TIME = {"ms": "1/1000", "s": "1", "sec": "1", "seconds": "1", "min": "60"}
_TIME |= {"minutes": "60", "h": "3600", "hr": "3600", "hours": "3600", "days": "86400"}
_VOLUME = {"ml": "1/1000", "cl": "1/100", "dl": "1/10", "l": "1", "L": "1"}
UNITS: Mapping[str, tuple[str, Fraction]] = {
    name: (quantity, Fraction(factor))
    for quantity, table in {
        "length": _LENGTH,
        "mass": _MASS,
        "time": _TIME,
        "volume": _VOLUME,
    }.items()
    for name, factor in table.items()
}
"""Units that are converted: the quantity they measure and their factor in it."""


def _worth(quantity: Quantity, percent: bool, unit: str) -> Fraction | None:
    value = quantity.value / 100 if percent and quantity.percent else quantity.value
    if not unit or not quantity.unit or quantity.unit == unit:
        return value
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is none of {', '.join(sorted(UNITS))}")
    kind, factor = UNITS.get(quantity.unit, ("", Fraction(1)))
    return value * factor / UNITS[unit][1] if kind == UNITS[unit][0] else None


def final_number(text: str) -> str | None:
    """Return the number `gsm8k` compares, in its shortest spelling.

    Example:
      >>> final_number("So 3 x 4 = 12.50"), final_number("#### 2/6")
      ('12.5', '1/3')
    """
    found = read_quantity(text)
    return None if found is None else _shortest(found.value)


def _shortest(value: Fraction) -> str:
    """Spell a number as a decimal where that ends, else as a fraction."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return str(value)
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator)
    digits = digits.rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    if not places:
        return sign + digits
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


_CHOSEN = re.compile(
    r"[\s*_`$:(\[{\\]{0,8}(?:text|mathrm|mathbf|textbf)?[\s*_`$({\[]{0,8}"
    r"(?:option|choice)?[\s*_`$({\[]{0,4}([A-Za-z])(?![A-Za-z0-9'’])(.{0,24})",
    re.IGNORECASE | re.DOTALL,
)
_CLOSING = " \n\t)]}.*$"
_ANOTHER = re.compile(r"[\s)*.,/&]{0,4}(?:and|or|,|/|&)[\s(*]{0,4}[A-Z](?![A-Za-z])")
_SENTENCE = re.compile(r"\s+(?!because|since|as\b|is\b)[a-z]")


def choice(completion: str, reference: str, *, letters: str = "ABCDE") -> float:
    r"""Multiple choice: 1 if the chosen letter is the reference's, else 0.

    The letter is after the last `####`, in the last box or `<answer>`, after the
    last "answer is" or "answer:", or is the whole completion. Two letters are no
    choice. Capital A in front of a word is an article.

    Raises:
      ValueError: if the reference is none of the letters.

    Example:
      >>> choice("So the answer is (B).", "B"), choice("A or B", "B")
      (1.0, 0.0)
    """
    wanted = reference.strip().strip("().").upper()
    if len(wanted) != 1 or wanted not in letters.upper():
        raise ValueError(f"reference {reference!r} is none of the letters {letters}")
    answer = final_answer(completion)
    if not answer.marked and len(completion) > 100:
        return 0.0
    found = _CHOSEN.match(answer.text)
    if found is None:
        return 0.0
    letter, rest = found.groups()
    whole = not answer.marked and rest.strip(_CLOSING)
    if whole or _ANOTHER.match(rest):
        return 0.0
    if letter in "AaI" and _SENTENCE.match(rest):
        return 0.0
    return float(letter.upper() == wanted)
