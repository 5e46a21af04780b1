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


def commands(page: pathlib.Path) -> list[str]:
    """Command lines of a page, continuations joined, comments kept.

    Those of fenced blocks, and those with options or arguments in sentences and tables.
    """
    lines = []
    for block in blocks(page, "sh"):
        lines += block.replace("\\\n", " ").splitlines()
    lines += re.findall(r"(?<!`)`((?:sgpo|python)\s[^`]+\s[^`]+)`", page.read_text())
    return [" ".join(line.split()) for line in lines if line.strip()]


def fences(page: pathlib.Path) -> set[str]:
    """Languages of the fenced blocks of a page; empty for one without."""
    opening = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    return set(opening[::2])
