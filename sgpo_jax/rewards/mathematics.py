r"""Mathematical equality through the package math-verify (Hugging Face).

It runs sympy on text of the policy, which may take for ever: its place is in the
processes of a `Worker`, whose deadline ends it; its own time limits, which need the
main thread and do not hold in C, are off.
"""

import re
from typing import Any

from .answers import final_answer

LONGEST = 2_000  # characters of an answer that are parsed
DEEPEST = 50  # brackets within one another
_BOMB = re.compile(r"!\s*!|\d{6,}\s*!|\^\s*\{?\s*-?\d{5,}|\d\s*\^\s*\{?\s*\d+\s*\^")
_HEDGE = re.compile(r"\\text\s*{\s*or\s*}|\bor\b", re.IGNORECASE)


def equal(completion: str, reference: str) -> float | None:
    r"""Mathematical equality: 1 if the answer equals the reference, else 0.

    LaTeX and plain expressions, equations, sets, intervals and matrices. Of the
    completion only the final answer is read (see `final_answer`), so that a right
    number on the way is not paid. Powers and factorials too large to compute are wrong.
    Where math-verify pays too much it is overruled: two alternatives ("3 or 4") answer
    only a reference that names two, and an open interval is not a closed one.

    Returns:
      None if the reference cannot be parsed.

    Example:
      >>> equal("So it is $\\boxed{\\frac{2}{4}}$", "0.5")
      1.0
      >>> equal("\\boxed{(1, 2)}", "[1, 2]")
      0.0
    """
    from math_verify import verify

    gold = _parsed(reference)
    if not gold:
        return None
    answer = final_answer(completion)
    text = answer.text.strip()
    if not answer.marked and len(text) > 200:
        text = text.rstrip().rpartition("\n")[2]
    if not answer.exact:
        text = text.partition("\n")[0] if answer.marked else text
    if len(text) > LONGEST or _BOMB.search(text):
        return 0.0
    if bool(_HEDGE.search(text)) > bool(_HEDGE.search(_answer(reference))):
        return 0.0
    wanted = _answer(reference)
    ends = _brackets(text), _brackets(wanted)
    if all(ends) and ends[0] != ends[1]:
        return 0.0
    if _depth(text)[0] > DEEPEST or _depth(text)[1] > _depth(wanted)[1]:
        return 0.0
    got = _parsed(text)
    if not got:
        return 0.0
    same = verify(
        gold, got, strict=True, allow_set_relation_comp=True, timeout_seconds=None
    )
    return float(same)


def _depth(text: str) -> tuple[int, int]:
    """Return how deep brackets go, and how many list commas are outside of them.

    >>> _depth("f((1, 2))"), _depth("3, 4"), _depth("1,000")
    ((2, 0), (0, 1), (0, 0))
    """
    depth = deepest = commas = 0
    for place, character in enumerate(text):
        if character in "([{":
            depth, deepest = depth + 1, max(deepest, depth + 1)
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth <= 0:
            commas += text[place + 1 : place + 2].isspace()
    return deepest, commas


def _answer(text: str) -> str:
    return final_answer(text).text.strip()


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


def _parsed(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    body = _answer(text)
    plain = body.strip().strip("$").strip()
    if "\\" in plain or "^" in plain or "{" in plain:
        tries = [f"${plain}$", body]
    else:
        tries = [body, f"${plain}$"]
    if re.match(r"^[\[(].*,.*[\])]$", plain):
        tries = [f"${plain}$"]
    for candidate in tries:
        found = parse(
            candidate,
            extraction_config=[LatexExtractionConfig(), ExprExtractionConfig()],
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
        )
        if found:
            return found
    return []


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
