"""Pages of the repository outside docs/, and links to its files.

Notebooks, results of benchmarks, the changelog and the like are read where they lie
and are pages of the site too: they are copied to docs/_repository/, which git ignores,
before sources are read. Links are written as they are true between files.
"""

import os
import pathlib
import posixpath
import re
import shutil

DOCS = pathlib.Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
COPY = "_repository"
PAGES = (
    "benchmarks/results/**/*.md",
    "examples/*/README.md",
    "launch/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
FILES = ("benchmarks/results/**/*.png",)
NOTEBOOKS = "notebooks/*.py"
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(\))")


def mirror() -> None:
    """Copy the pages; notebooks as .ipynb, executed ones from SGPO_NOTEBOOKS."""
    import jupytext

    target = DOCS / COPY
    wanted = {p: p for pattern in (*PAGES, *FILES) for p in ROOT.glob(pattern)}
    executed = os.environ.get("SGPO_NOTEBOOKS")
    for source in ROOT.glob(NOTEBOOKS):
        made = source.with_suffix(".ipynb")
        if executed:
            wanted[made] = pathlib.Path(executed) / made.name
        else:
            path = target / made.relative_to(ROOT)
            text = jupytext.writes(jupytext.read(source), fmt="ipynb")
            wanted[made] = write(path, _without_ids(text))
    for name, source in wanted.items():
        path = target / name.relative_to(ROOT)
        if name.suffix == ".md" and not (text := source.read_text()).startswith("#"):
            # Some results are a sentence and a table: pages need a title.
            write(path, f"# {name.stem.replace('_', ' ').capitalize()}\n\n{text}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if source != path and (
            not path.exists() or path.read_bytes() != source.read_bytes()
        ):
            shutil.copyfile(source, path)
    for path in target.rglob("*"):
        if path.is_file() and ROOT / path.relative_to(target) not in wanted:
            path.unlink()


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    """Write a file, unless it says that already: what is unchanged is not built."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


def _without_ids(text: str) -> str:
    """Replace the random names of cells, with which a cache never hits."""
    ids = iter(range(10_000))
    return re.sub(r'("id": )"\w+"', lambda _: f'"id": "cell{next(ids)}"', text)


def resolve(docname: str, target: str) -> str:
    """Link of a page as Sphinx reads it: to a page of the site, or to a file."""
    inside = docname.startswith(COPY)
    page = docname.removeprefix(COPY + "/") if inside else f"docs/{docname}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    if path.startswith("docs/"):
        return "/" + path.removeprefix("docs/")
    if (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
        path += "/README.md"
    if path.startswith("notebooks/"):
        path = str(pathlib.PurePosixPath(path).with_suffix(".ipynb"))
    if (DOCS / COPY / path).exists():
        return f"/{COPY}/{path}"
    start = posixpath.dirname(docname) or "."
    return posixpath.relpath(f"../{path}", start)


def rewrite(docname: str, text: str) -> str:
    """Rewrite the links between files of a page to links of the site."""
    return LINK.sub(lambda m: f"{m[1]}{resolve(docname, m[2])}{m[3] or ''}{m[4]}", text)


def setup(app):
    """Connect to Sphinx."""
    app.connect("builder-inited", lambda _: mirror())

    def read(app, docname, source):
        if app.env.doc2path(docname).suffix == ".md":
            source[0] = rewrite(docname, source[0])

    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
