r"""Numbers as models write them, read exactly.

A number is read whole or not at all: `3/4` is never 3, `10:30` never 10, `2 million`
never 2. Signs may be a hyphen, U+2212 or an en dash; thousands may be separated by
commas, by (thin) spaces or by LaTeX's `{,}` and `\,`.
"""

import functools
import re
from fractions import Fraction
from typing import NamedTuple

from .answers import Answer, final_answer

LONGEST = 400  # characters of a line that are looked at around a number


class Quantity(NamedTuple):
    """A number with the text beside it.

    Attributes:
      value: the number itself; a percent sign does not change it.
      percent: whether a percent sign or the word follows.
      unit: the word or sign that follows, "" for none.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""


_SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
# Letters that may touch a number, as in 25cm.
UNITS = frozenset(
    "mm cm dm m km in ft yd mi mg g kg t lb lbs oz ml cl dl l L s sec secs min mins h"
    " hr hrs ms W kW kWh V A N J Hz kHz MHz GHz Pa mph kmh kph C F K st nd rd th usd"
    " USD eur EUR px GB MB KB TB"
    " pm am".split()
)
_SYMBOLS = frozenset(
    "pi sqrt sin cos tan log ln exp theta alpha beta gamma choose factorial squared"
    " cubed half halves".split()
)

_LATEX = (
    (re.compile(r"<<[^<>]{0,400}>>"), ""),  # GSM8K's calculator annotations
    (re.compile(r"</?[A-Za-z][^<>]{0,40}>"), " "),
    (re.compile(r"\\[dtc]?frac\s?{\s?(-?[\d.,]+)\s?}\s?{\s?([\d.,]+)\s?}"), r" \1/\2 "),
    (re.compile(r"\\[dtc]?frac\s?(\d)\s?(\d)"), r" \1/\2 "),
    (re.compile(r"\^\s?{?\s?\\circ\s?}?"), "°"),
    (re.compile(r"\b([mck]?m|in|ft|yd|mi)\s?\^\s?{?\s?[23]\s?}?"), r"\1"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"(?<=\d)\\[,;:! ](?=\d{3})"), "\u2009"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed|mathit|operatorname)\b"), " "),
    (re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])"), " "),
    (re.compile(r"\\[,;:! ()\[\]]"), " "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:approx|simeq|sim)(?![A-Za-z])"), "≈"),
    (re.compile(r"\\([$%#&_])"), r"\1"),
    (re.compile(r"\\[A-Za-z]+"), "§"),  # any other command is no number
    (re.compile(r"[{}]"), " "),
    (re.compile(r"(?<!\d)[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}(?!\s?[\d§])"), ""),
)
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\ufe63\uff0d\u2010\u2011", "-"))
_LABEL = re.compile(r"\b(?:step|part|case|question|problem)\s{0,2}\d++", re.IGNORECASE)

_WORDS = "|".join([*_SCALES, "percent", "and", "or", "to", "x", "X"])
_RUN = re.compile(
    rf"(?:(?<=[0-9.])[eE][+-]?[0-9]|[0-9.,:;/*^+\-×÷·=≈~<>≤≥±()\[\]$€£¥%!|\s§√π∞_'’]|\b(?:{_WORDS})\b)++"
)
_GAP = r"[,\u00a0\u2009\u202f\u2007 '’]"
_PLAIN = (
    rf"(?:[0-9]{{1,3}}(?:{_GAP}[0-9]{{3}})++|[0-9]{{1,2}}(?:,[0-9]{{2}}){{1,9}},[0-9]{{3}}"
    r"|[0-9]++)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]{1,3})?+|\.[0-9]++(?:[eE][+-]?[0-9]{1,3})?+"
)
_SCALE = "|".join(_SCALES)
_QUANTITY = re.compile(
    rf"(?P<sign>[+-]?)\s?[$€£¥]{{0,2}}\s?(?P<inner>[+-]?)\s?"
    rf"(?:(?P<whole>[0-9]{{1,9}})\s(?=[0-9]{{1,9}}/))?"
    rf"(?P<number>{_PLAIN})(?:\s?/\s?(?P<divisor>{_PLAIN}))?"
    rf"(?:\s?(?P<scale>{_SCALE}))?\s?(?P<tail>%|percent\b|[$€£¥])?"
)
_DIGIT = re.compile(r"\d")


def read_quantity(text: str) -> Quantity | None:
    r"""Return the final number of a completion, None if there is no single one.

    After a mark (see `final_answer`) the first quantity counts, without one the last.

    Example:
      >>> read_quantity(r"The answer is $9{,}500.").value
      Fraction(9500, 1)
      >>> read_quantity("#### 3-5"), read_quantity("it is 10:30")
      (None, None)
    """
    return _read(final_answer(text))


@functools.lru_cache(maxsize=4096)
def read_reference(text: str) -> Quantity | None:
    r"""Return the number of a reference, None if it is not one number and nothing else.

    Example:
      >>> read_reference("2*6=<<2*6=12>>12\n#### 12").value
      Fraction(12, 1)
      >>> read_reference("(3, 4)"), read_reference("x^2+5")
      (None, None)
    """
    answer = final_answer(text)
    part = answer.text.strip()
    if not part or len(part) > LONGEST or "\n" in part:
        return None
    line = _normalized(part)
    runs = [run for run in _RUN.finditer(line) if _DIGIT.search(run.group())]
    if len(runs) != 1 or not _alone(line, runs[0]):
        return None
    return _interpret(line, runs[0], Answer(part, True, exact=True))


def _alone(line: str, run: re.Match) -> bool:
    """Return whether nothing but a unit is beside the number."""
    outside = line[: run.start()] + line[run.end() :]
    return not line[: run.start()].strip() and not re.search(r"[\d^\\]", outside)


def _read(answer: Answer) -> Quantity | None:
    line = _line(answer)
    if line is None:
        return None
    line = _LABEL.sub(" ", _normalized(line))
    runs = [run for run in _RUN.finditer(line) if _DIGIT.search(run.group())]
    if not runs:
        return None
    return _interpret(line, runs[0 if answer.marked else -1], answer)


def _line(answer: Answer) -> str | None:
    """Return the line with the first digit, or the last, cut to a bounded length."""
    text = answer.text
    if answer.marked:
        first = _DIGIT.search(text)
        if first is None:
            return None
        start = max(text.rfind("\n", 0, first.start()) + 1, first.start() - LONGEST)
        end = text.find("\n", first.start())
        return text[
            start : end if 0 <= end < start + 3 * LONGEST else start + 3 * LONGEST
        ]
    last = _last_digit(_LABEL_TAIL.sub("", text))
    if last is None:
        return None
    start = max(text.rfind("\n", 0, last) + 1, last - 2 * LONGEST)
    end = text.find("\n", last)
    return text[start : end if 0 <= end < last + LONGEST else last + LONGEST]


# A heading at the very end has no number: the completion was cut there.
_LABEL_TAIL = re.compile(
    r"(?:step|part|case|question|problem)\s{0,2}\d{1,4}\W{0,8}\Z", re.IGNORECASE
)


def _last_digit(text: str) -> int | None:
    for end in range(len(text), 0, -4096):
        start = max(0, end - 4096)
        found = _DIGIT.search(text[start:end][::-1])
        if found:
            return end - 1 - found.start()
    return None


_MARKUP = re.compile(r"[\\<{}*_`^]")


def _normalized(line: str) -> str:
    if _MARKUP.search(line) is None:
        return line.translate(_MINUS)
    for pattern, by in _LATEX:
        line = pattern.sub(by, line)
    return line.translate(_MINUS)


_ARROW = re.compile(r"[-=]{1,2}>|→|⇒")
_LISTED = re.compile(r"[,;|]\s|\b(?:and|or|to)\b")
_EQUALS = re.compile(r"[=≈~]")
_WORD = re.compile(r"\s*([A-Za-zµΩ°]+)")
_LETTER = re.compile(r"(?:^|[^A-Za-z])([A-Za-z])\s*$")


def _interpret(line: str, run: re.Match, answer: Answer) -> Quantity | None:
    """Read the mathematics of a line as one number."""
    part, cut_left, cut_right = _last_member(run.group())
    if not part:
        return None
    if answer.exact and part.rstrip().endswith("!"):
        return None  # a factorial; in a sentence it is a mark of exclamation
    before = "" if cut_left else line[: run.start()]
    after = "" if cut_right else line[run.end() :]
    spaced = part[:1].isspace() or not before
    sign = _trusted_sign(before, part, answer.marked) if not cut_left else True
    unit = _unit(part, after)
    if sign is None or unit is None:
        return None
    part = _bare(part, word_follows=bool(_WORD.match(after)))
    if not sign and spaced:
        part = part.lstrip("-*+ ")
    found = _QUANTITY.fullmatch(part)
    if found is None or (found["sign"] and found["inner"]):
        return None
    value = _value(found)
    if value is None:
        return None
    percent = found["tail"] in ("%", "percent")
    return Quantity(value, percent, unit)


def _last_member(run: str) -> tuple[str, bool, bool]:
    """Return the right side of a chain of equations, and which ends were cut off."""
    run = _ARROW.sub("=", run)
    parts = [part for part in _LISTED.split(run) if _DIGIT.search(part)]
    words = re.search(r"\d.*\b(?:and|or|to)\b.*\d", run)
    cut = False
    if len(parts) > 1:
        # `3, 4` is no single number; of `3 + 4 = 7, 7 + 5 = 12` the last is meant.
        if words or "=" not in parts[-1]:
            return "", False, False
        run, cut = parts[-1], True
    sides = _EQUALS.split(run)
    if len(sides) > 1:
        while sides and not sides[-1].strip(" .,:;!*|"):
            sides.pop()
        if not sides or not _DIGIT.search(sides[-1]):
            return "", False, False
        tail = run.rstrip(" .,:;!*|").endswith(("=", "≈", "~"))
        return sides[-1], len(sides) > 1 or cut, tail
    if len(parts) == 1:
        # Connecting words and punctuation around the only part with digits.
        at = run.index(parts[0])
        return parts[0], cut or at > 0, at + len(parts[0]) < len(run)
    return run, cut, False


def _trusted_sign(before: str, part: str, marked: bool) -> bool | None:
    """Return whether a leading sign is of the number; None if it is part of more."""
    first = part.lstrip()[:1]
    if not before.strip():
        dash = first in "-*+" and part.lstrip()[1:2].isspace()
        return marked or not dash  # without a mark that is an item of a list
    if not part[:1].isspace() and (before[-1].isalnum() or before[-1] in "_§\\)"):
        return True if first in ",.:;!'’" else None
    if first and first in "+*/^×÷·±<>≤≥":
        return None
    if first == "-" and part.lstrip()[1:2].isspace():
        variable = _LETTER.search(before)
        return None if variable and variable[1] not in "aI" else False
    return True


def _unit(part: str, after: str) -> str | None:
    """Return the word after a number, None if it makes it part of more."""
    if not after:
        return ""
    if not part[-1].isspace() and after[0].isalnum():
        word = _WORD.match(after)
        if part[-1].isdigit():
            known = (
                word
                and word[1] in UNITS
                and not after[word.end() : word.end() + 1].isalnum()
            )
            return word[1] if word and known else None
        if part[-1] in "*+^_(" and not part.endswith(" ("):
            return None
        if part[-1] in "-/" and (word is None or not _is_unit(word[1])):
            return None
        return word[1] if word else ""
    word = _WORD.match(after)
    if word is None:
        return "" if not after[0].isnumeric() else None
    return word[1] if _is_unit(word[1]) else None


def _is_unit(word: str) -> bool:
    if word.lower() in _SYMBOLS:
        return False
    return len(word) > 1 or word in UNITS or word in "aI°"


def _bare(part: str, *, word_follows: bool) -> str:
    """Drop punctuation, brackets and dashes around a number."""
    previous = None
    while part != previous:
        previous = part
        part = part.strip().rstrip(".,:;!|_'’$").lstrip(",:;!|_'’)]")
        if part.startswith(".") and not part[1:2].isdigit():
            part = part[1:]
        part = part.rstrip("([")
        for opened, closed in ("()", "[]"):
            if part.startswith(opened) and part.count(closed) <= 1:
                if part.endswith(closed) or closed not in part:
                    part = part[1:].removesuffix(closed)
            elif part.endswith(closed) and opened not in part:
                part = part[:-1]
        if part.endswith("*"):
            part = part.rstrip("*")
        if word_follows and part.endswith(("-", "/")):
            part = part[:-1]
    return part


def _value(found: re.Match) -> Fraction | None:
    number = _fraction(found["number"])
    if found["divisor"]:
        divisor = _fraction(found["divisor"])
        if not divisor:
            return None
        number /= divisor
    if found["whole"]:
        number += int(found["whole"])
    if found["scale"]:
        number *= _SCALES[found["scale"]]
    return -number if "-" in (found["sign"], found["inner"]) else number


def _fraction(text: str) -> Fraction:
    return Fraction(re.sub(_GAP, "", text))
