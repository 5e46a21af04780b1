"""Pages that people read, and the fenced blocks of them."""

import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
BUILT = ("_repository", "_generated", "_build", "api")
PAGES = sorted(
    [
        page
        for page in (ROOT / "docs").rglob("*.md")
        if page.relative_to(ROOT / "docs").parts[0] not in BUILT
    ]
    + [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("[a-z]*/**/README.md")]
)


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """Fenced blocks of a language, without their indentation."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```"
    found = re.findall(pattern, page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


def script(page: pathlib.Path) -> list[tuple[str, str]]:
    """What a page tells its reader to run, in order: ("python", code), ("sh", lines).

    Lines are those of fenced blocks, and commands with options or arguments in
    sentences and tables, with how long they take as a comment. Continuations are
    joined, comments kept.
    """
    steps = []
    for found in STEP.finditer(page.read_text()):
        if found["python"]:
            steps.append(("python", textwrap.dedent(found["python"])))
            continue
        lines = (found["sh"] or "").replace("\\\n", " ").splitlines()
        if found["inline"]:
            lines = [f"{found['inline']} # {found['mark'] or ''}"]
        lines = [" ".join(line.split()).removesuffix(" #") for line in lines]
        steps.append(("sh", "\n".join(line for line in lines if line)))
    return steps


STEP = re.compile(
    r"^(?P<a> *)```python\n(?P<python>.*?)^(?P=a)```"
    r"|^(?P<b> *)```sh\n(?P<sh>.*?)^(?P=b)```"
    r"|(?<!`)`(?P<inline>(?:sgpo|python)\s[^`]+\s[^`]+)`"
    r"(?: \((?P<mark>takes \w+)\))?",
    re.DOTALL | re.MULTILINE,
)


def commands(page: pathlib.Path) -> list[str]:
    """Command lines of a page, see `script`."""
    blocks = [text for kind, text in script(page) if kind == "sh"]
    return [line for block in blocks for line in block.splitlines()]


def fences(page: pathlib.Path) -> set[str]:
    """Languages of the fenced blocks of a page; empty for one without."""
    opening = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    return set(opening[::2])
