"""Families of procedural questions, with right and systematically wrong answers.

Prompts are bare (`47+85=`), in a small ASCII character set, at most 20 characters
long; answers have at most 6, worked ones at most 60. A level is a size, from 1 (easy)
to 5 (hard), and no prompt is in two levels of a family.
"""

import dataclasses
import math
import string
from collections.abc import Callable

import numpy as np

from . import systematic, worked
from .queries import Query, content_id

LEVELS = (1, 2, 3, 4, 5)
# Digits of the two numbers of a sum or difference, by level.
DIGITS = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3))
LETTERS = "abcdefgh"
CHARACTERS = "".join(
    sorted(set("+-%(),=" + string.digits + LETTERS + "bitscountgcdrevsort"))
)
"""Characters of the embedded mixture, each a token of its policies."""


def addition(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """Two numbers of one to three digits each, as in 47+85=132."""
    a, b = (_number(rng, digits) for digits in DIGITS[level - 1])
    return f"{a}+{b}=", str(a + b)


def subtraction(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """Two numbers as in `addition`, the larger first, as in 85-47=38."""
    a, b = (_number(rng, digits) for digits in DIGITS[level - 1])
    return f"{max(a, b)}-{min(a, b)}=", str(abs(a - b))


def modulo(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """A number of `level` digits, a divisor from 2 to 9, as in 17%5=2."""
    a, b = _number(rng, level), int(rng.integers(2, 10))
    return f"{a}%{b}=", str(a % b)


def common_divisor(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """Two numbers up to 9, 15, 25, 50 or 99, as in gcd(12,18)=6."""
    limits = (1, 9, 15, 25, 50, 99)
    lowest, limit = limits[level - 1], limits[level]
    # Numbers drawn freely would have the answer 1 most of the time.
    factor = int(rng.integers(1, limit // 2 + 1))
    pair = [
        factor * int(rng.integers(lowest // factor + 1, limit // factor + 1)),
        factor * int(rng.integers(1, limit // factor + 1)),
    ]
    a, b = rng.permutation(pair).tolist()
    return f"gcd({a},{b})=", str(math.gcd(a, b))


def ones(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """Ones among `level` + 5 binary digits, as in bits(101100)=3."""
    word = _word(rng, "01", level + 5)
    return f"bits({word})=", str(word.count("1"))


def occurrences(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """Occurrences of a letter among `level` + 1 letters, as in count(a,abca)=2."""
    letter, word = _word(rng, LETTERS[:4], 1), _word(rng, LETTERS[:4], level + 1)
    return f"count({letter},{word})=", str(word.count(letter))


def reversal(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """A word of `level` + 1 letters backwards, as in rev(abc)=cba."""
    word = _word(rng, LETTERS, level + 1)
    return f"rev({word})=", word[::-1]


def sorting(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """The `level` + 1 digits in ascending order, as in sort(3142)=1234."""
    word = _word(rng, string.digits, level + 1)
    return f"sort({word})=", "".join(sorted(word))


def _number(rng: np.random.Generator, digits: int) -> int:
    lowest = 10 ** (digits - 1) if digits > 1 else 0
    return int(rng.integers(lowest, 10**digits))


def _word(rng: np.random.Generator, alphabet: str, length: int) -> str:
    return "".join(alphabet[i] for i in rng.integers(len(alphabet), size=length))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFamily:
    """A kind of question.

    Attributes:
      name: written into `Query.family`.
      sample: (rng, level) -> (prompt, answer).
      numeric: whether the answer is a number rather than a row of symbols.
      systematic: prompt -> the answer of one consistent wrong way.
      work: (prompt, slip) -> a chain of steps, if answers are chains; see `worked`.
    """

    name: str
    sample: Callable[[np.random.Generator, int], tuple[str, str]]
    numeric: bool = True
    systematic: Callable[[str], str] | None = None
    work: Callable[[str, worked.Slip], str] | None = None

    def query(self, rng: np.random.Generator, level: int) -> Query:
        """Draw a question.

        Example:
          >>> FAMILIES["addition"].query(np.random.default_rng(0), 2).prompt
          '86+6='
        """
        prompt, answer = self.sample(rng, level)
        return Query(
            id=content_id(self.name, prompt),
            prompt=prompt,
            reference=answer,
            verifier="exact",
            family=self.name,
            level=level,
        )


def _worked(
    name: str,
    draw: Callable[[np.random.Generator, int], str],
    work: Callable[[str, worked.Slip], str],
) -> TaskFamily:
    def sample(rng: np.random.Generator, level: int) -> tuple[str, str]:
        prompt = draw(rng, level)
        return prompt, work(prompt, worked.exactly)

    return TaskFamily(name=name, sample=sample, numeric=False, work=work)


def _word_family(
    name: str,
    sample: Callable[[np.random.Generator, int], tuple[str, str]],
    wrong_way: Callable[[str], str],
) -> TaskFamily:
    return TaskFamily(name=name, sample=sample, numeric=False, systematic=wrong_way)


SHORT = (
    TaskFamily(name="addition", sample=addition, systematic=systematic.without_carry),
    TaskFamily(
        name="subtraction", sample=subtraction, systematic=systematic.without_borrowing
    ),
    TaskFamily(name="modulo", sample=modulo, systematic=systematic.quotient),
    TaskFamily(name="gcd", sample=common_divisor, systematic=systematic.difference),
    TaskFamily(name="bits", sample=ones, systematic=systematic.zeros),
    TaskFamily(name="count", sample=occurrences, systematic=systematic.other_letters),
    _word_family("reversal", reversal, systematic.as_it_stands),
    _word_family("sorting", sorting, systematic.descending),
)
WORKED = (
    _worked("columns", worked.columns, worked.work_columns),
    _worked("totals", worked.totals, worked.work_totals),
    _worked("residue", worked.residue, worked.work_residue),
)
FAMILIES = {family.name: family for family in (*SHORT, *WORKED)}
