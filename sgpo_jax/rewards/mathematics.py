r"""Mathematical equality through the package math-verify (Hugging Face).

It runs sympy on text of the policy, which may take for ever: its place is in the
processes of a `Worker`, whose deadline ends it; its own time limits, which need the
main thread and do not hold in C, are off.
"""

import re
from typing import Any

from .answers import Answer, final_answer

LONGEST = 2_000  # characters of an answer that are parsed
DEEPEST = 50  # brackets within one another
_BOMB = re.compile(r"!\s*!|\d{6,}\s*!|\^\s*\{?\s*-?\d{5,}|\d\s*\^\s*\{?\s*\d+\s*\^")
_HEDGE = re.compile(r"\\text\s*{\s*or\s*}|\bor\b", re.IGNORECASE)


def equal(completion: str, reference: str) -> float | None:
    r"""Mathematical equality: 1 if the answer equals the reference, else 0.

    LaTeX and plain expressions, equations, sets, intervals and matrices. Of the
    completion only the final answer is read (see `final_answer`), so that a right
    number on the way is not paid, and all of it: `3, 4` is a set of two, `5x` not 5,
    and `6:15` a ratio. Powers and factorials too large to compute are wrong.
    Where math-verify pays too much it is overruled: two alternatives ("3 or 4") answer
    only a reference that names two, and an open interval is not a closed one.

    Returns:
      None if the reference cannot be parsed; see `comparable`.

    Example:
      >>> equal("So it is $\\boxed{\\frac{2}{4}}$", "0.5")
      1.0
      >>> equal("\\boxed{(1, 2)}", "[1, 2]")
      0.0
    """
    from math_verify import verify

    gold = _parsed(final_answer(reference))
    if not gold:
        return None
    answer = final_answer(completion)
    text = answer.text.strip().rstrip(",;")
    if not answer.marked and len(text) > 200:
        text = text.rstrip().rpartition("\n")[2]
    if not answer.exact:
        text = text.partition("\n")[0] if answer.marked else text
    if len(text) > LONGEST:
        return 0.0
    wanted = final_answer(reference).text.strip()
    several = _HEDGE.search(wanted) or _depth(wanted)[1]
    if _HEDGE.search(text) and not several:
        return 0.0
    ends = _brackets(text), _brackets(wanted)
    if all(ends) and ends[0] != ends[1]:
        return 0.0
    if _depth(text)[1] > _depth(wanted)[1]:
        return 0.0
    got = _parsed(answer._replace(text=text))
    if not got:
        return 0.0
    same = verify(
        gold, got, strict=True, allow_set_relation_comp=True, timeout_seconds=None
    )
    return float(same)


def _depth(text: str) -> tuple[int, int]:
    """Return how deep brackets go, and how many list commas are outside of them.

    >>> _depth("f((1, 2))"), _depth("3,4"), _depth("1,000")
    ((2, 0), (0, 1), (0, 0))
    """
    depth = deepest = commas = 0
    for place, character in enumerate(text):
        if character in "([{":
            depth, deepest = depth + 1, max(deepest, depth + 1)
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth <= 0:
            commas += not _THOUSANDS.match(text, place + 1)
    return deepest, commas


_THOUSANDS = re.compile(r"\d{3}(?!\d)")


_ENDS = re.compile(
    r"^\$*\s*(?:\\left)?\s*([\[(\]])(.*,.*)(?:\\right)?\s*([\])\[])\s*\$*\.?$"
)


def _brackets(text: str) -> str:
    """Return the ends of an interval or a tuple, "" for anything else.

    >>> _brackets("(0, 1]"), _brackets("3")
    ('(]', '')
    """
    body = text.replace("\\left", "").replace("\\right", "").strip()
    found = _ENDS.match(body)
    return found[1] + found[3] if found else ""


def _parsed(answer: Answer) -> list[Any]:
    """Return what the whole of an answer says; of a sentence, the last expression."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    def read(text: str, *kinds: Any) -> list[Any]:
        return parse(
            text,
            extraction_config=kinds,
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
        )

    if not comparable(answer):
        return []
    plain = spelled(answer.text)
    if answer.exact or not (_WORD.search(plain) or _ROW.search(plain)):
        found = read(f"${plain}$", LatexExtractionConfig())
        if answer.exact or any(not isinstance(value, str) for value in found):
            return found
    kinds = LatexExtractionConfig(), ExprExtractionConfig()
    return read(answer.text, *kinds) or read(f"${plain}$", *kinds)


# Words that no expression has: those of functions, of lists and in commands are others.
_WORD = re.compile(r"\n|(?<![\\A-Za-z{])(?!(?:and|or|sqrt)\b)[A-Za-z]{2,}")
_ROW = re.compile(r"^[^\\]*\d\s+\d[^\\]*$")  # numbers with nothing between them
_SPELLINGS = [
    (re.compile(r"(?<!\\)\$|\\[()\[\]]|^[*_\s]+|[*_\s.,;]+$"), ""),
    (re.compile("°"), r"^\\circ"),
    (re.compile("~"), " "),
    (re.compile(r"(?<=\d)(?:\\[,!;: ]|\{,\}|[  ])(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d.\\])(\d{1,3}) (?=\d{3}(?!\d))(?=[\d ]+(?:\.\d+)?$)"), r"\1"),
    (re.compile(r"(?<![\w.}])(\d+) +(\d+) */ *(\d+)(?![\w.])"), r"\1\\frac{\2}{\3}"),
    (re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?!\w)"), r"\1\\cdot10^{\2}"),
    (re.compile(r"(?<=\w)\*\*(?=\w)"), "^"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"(?<=\d) +(?!and\b|or\b)[A-Za-z]{2,}(?: +[A-Za-z]+)*$"), ""),
]


def comparable(answer: Answer) -> bool:
    r"""Return whether there is something in an answer that takes no for ever to read.

    >>> comparable(final_answer("\\boxed{}")), comparable(final_answer("\\boxed{7 8}"))
    (False, False)
    """
    if len(answer.text) > LONGEST:
        return False
    plain = spelled(answer.text)
    if _depth(plain)[0] > DEEPEST or _BOMB.search(plain):
        return False
    if answer.exact and _ROW.search(plain):
        return False
    return bool(plain.strip("{}\\ ,;:!?-"))


def spelled(text: str) -> str:
    r"""Return an expression as LaTeX spells it, without what surrounds it.

    >>> spelled("$1 000$."), spelled("2 1/2"), spelled("**2**3**"), spelled("1e-6")
    ('1000', '2\\frac{1}{2}', '2^3', '1\\cdot10^{-6}')
    """
    for spelling, latex in _SPELLINGS:
        text = spelling.sub(latex, text)
    return text


def imported() -> dict[str, Any]:
    """Options of `equal`: none; imports math-verify.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "mathematical equality needs math-verify: pip install 'sgpo_jax[math]'"
        ) from error
    import logging

    # It warns that no time limit is set; the Worker has one.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return {}
