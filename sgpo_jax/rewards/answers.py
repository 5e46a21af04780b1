r"""Extraction of final answers from completions.

A mark decides: the last `####` (GSM8K), else the last `\boxed{...}` or
`<answer>...</answer>`, else the last "answer is" or "answer:". All searches are linear
in the length of the text.
"""

import re
from typing import NamedTuple

_TAGGED = re.compile(r"<answer>", re.IGNORECASE)
_SAID = re.compile(r"answer(?:\s{0,3}is|[*_\s]{0,4}:)", re.IGNORECASE)
_HEADING = re.compile(r"[\s*_`#]{0,8}[A-Za-z]{2,}+(?![\w(]{0,3}\s{0,3}[=≈~])")


class Answer(NamedTuple):
    """A part of a completion that holds the answer.

    Attributes:
      text: the part.
      marked: whether a mark precedes the answer; without one, the last candidate
        counts.
      exact: whether the part is the answer and nothing else, as in a box.
    """

    text: str
    marked: bool
    exact: bool = False


def final_answer(text: str) -> Answer:
    r"""Find the part of a completion that holds its answer.

    `####` followed by words is a heading of Markdown, not a mark: what follows it is
    searched for other marks. A mark with nothing after it is passed over.

    Example:
      >>> final_answer("48 + 24 = 72\n#### 72")
      Answer(text=' 72', marked=True, exact=False)
      >>> final_answer(r"Thus \boxed{\frac{1}{2}}.")
      Answer(text='\\frac{1}{2}', marked=True, exact=True)
      >>> final_answer("#### Step 2\nIt is 12")
      Answer(text=' Step 2\nIt is 12', marked=False, exact=False)
    """
    body = text.rstrip("# \t\r\n")
    _, mark, rest = body.rpartition("####")
    if not mark:
        return _other_marks(text)
    if _HEADING.match(rest):
        return _other_marks(rest)
    return Answer(rest, True)


def _other_marks(text: str) -> Answer:
    boxed = last_boxed(text)
    if boxed is not None:
        return Answer(boxed, True, exact=True)
    if "<" in text and (tags := list(_TAGGED.finditer(text))):
        inside = text[tags[-1].end() :]
        end = inside.lower().find("</answer>")
        # An open tag without its end is a completion that was cut.
        return Answer(inside[:end] if end >= 0 else inside, True, exact=end >= 0)
    start = max(text.lower().rfind("answer is"), 0)
    ends = [said.end() for said in _SAID.finditer(text, start)]
    return Answer(text[ends[-1] :], True) if ends else Answer(text, False)


def last_boxed(text: str) -> str | None:
    r"""Return what the last complete `\boxed{...}` holds, braces matched.

    >>> last_boxed(r"\boxed{1} or \boxed{\sqrt{2}} or \boxed{3")
    '\\sqrt{2}'
    """
    end = len(text)
    while (start := text.rfind("\\boxed", 0, end)) >= 0:
        inside = _braces(text, start + len("\\boxed"), end)
        if inside is not None:
            return inside
        # A box that is not closed here is not closed by what follows.
        end = start
    return None


def _braces(text: str, start: int, end: int) -> str | None:
    depth, begun = 0, None
    for place in _BRACE.finditer(text, start, end):
        if begun is None:
            if place.group() != "{" or text[start : place.start()].strip():
                return None
            begun = place.end()
        depth += 1 if place.group() == "{" else -1
        if depth == 0:
            return text[begun : place.start()]
    return None


_BRACE = re.compile(r"(?<!\\)[{}]")
