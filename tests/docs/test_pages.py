"""Examples on the pages run, tests they name exist, public names are documented."""

import ast
import re

import pytest

from .pages import PAGES, ROOT, blocks, fences, name

README = ROOT / "README.md"  # tests/test_readme.py runs it, and says what it shows
LIBRARY = ROOT / "docs" / "start" / "library.md"  # most of the time of all together
EXAMPLES = [
    pytest.param(p, marks=pytest.mark.slow if p == LIBRARY else ())
    for p in PAGES
    if p != README and blocks(p, "python")
]


@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_its_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, name(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_kind_that_is_tested(page):
    """Commands are `sh`, examples are `python`; no block escapes both tests."""
    directives = {"{toctree}", "{drawing}", "toml"}
    kinds = {kind.split()[0] if kind else "" for kind in fences(page)}
    assert kinds <= {"sh", "python", *directives}


def test_tests_that_are_named_exist():
    text = (ROOT / "docs" / "brings.md").read_text()
    found = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text)
    assert len(found) > 30
    for file, function in found:
        source = (ROOT / "tests" / file).read_text()
        tree = ast.parse(source)
        defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        assert not function or function in defined, f"{file}::{function}"


def test_every_page_of_the_package_has_a_page():
    """Each package and module at the top that has public names, or says why not."""
    from api_pages import PACKAGES

    inside = {"cli", "commands", "pipeline", "ahead_of_time", "trainer"}
    inside |= {"prompt_config", "client_config"}  # a part of config
    found = {
        path.name.removesuffix(".py")
        for path in (ROOT / "sgpo_jax").iterdir()
        if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    }
    assert {f"sgpo_jax.{n}" for n in found - inside} <= set(PACKAGES)


def bare_names(modules) -> list[str]:
    """Public names without a docstring, or without a text below a constant."""
    import importlib

    from api_pages import comment, kind, public_names

    bare = []
    for module in modules:
        for public in public_names(module):
            value = getattr(importlib.import_module(module), public)
            data = kind(value) == "data"
            if not (comment(module, public) if data else value.__doc__):
                bare.append(f"{module}.{public}")
    return bare


def test_every_public_name_is_described():
    from api_pages import PACKAGES

    assert bare_names(PACKAGES) == []


def test_a_name_that_is_not_described_is_found(tmp_path, monkeypatch):
    """The check can fail."""
    (tmp_path / "sgpo_jax_bare.py").write_text(
        '"""A module."""\n\nSAID = 1\n"""A constant."""\n\nUNSAID = 2\n\n\n'
        'def said():\n    """Return."""\n\n\ndef unsaid():\n    pass\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = bare_names(["sgpo_jax_bare"])
    assert found == ["sgpo_jax_bare.UNSAID", "sgpo_jax_bare.unsaid"]


def test_types_are_written_as_they_are_imported():
    from api_pages import _short

    assert (
        _short(
            "(n: Annotated[int, ~sgpo_jax.bounds.Range(low=1, below=False)] = 2,"
            " m: Annotated[dict[str, ~a.Method], Fixed, Suppress] = <factory>,"
            " t: tuple[~typing.Annotated[float, Range(low=0)], ...], x:"
            " ~jaxlib._jax.Array)"
        )
        == "(n: int = 2, m: dict[str, ~a.Method] = <factory>, t: tuple[float, ...],"
        " x: Array)"
    )


def test_types_of_fields_are_short_and_objects_have_no_address():
    from api_pages import _short, shorten_types

    lines = [
        ":vartype tokens: collections.abc.Sequence[jaxtyping.Int[Array, 'N 1.5 L']]",
        ":ivar tokens: as in collections.abc.Sequence",
    ]
    shorten_types(None, "", "", None, None, lines)
    assert lines == [
        ":vartype tokens: ~collections.abc.Sequence[~jaxtyping.Int[Array, 'N 1.5 L']]",
        ":ivar tokens: as in collections.abc.Sequence",
    ]
    assert _short("(a: A = B(c=<d.e.F object at 0x7f3a>))") == "(a: A = B(c=F()))"


def test_every_method_is_in_the_index_with_its_paper():
    pytest.importorskip("jupytext")
    import method_pages

    from sgpo_jax import methods

    page = method_pages.page()
    for method in methods.ZOO:
        assert f"\n{method}\n~" in page
        assert f"sgpo run --methods grpo_token {method}\n" in page or (
            method == "grpo_token"
        )
    assert "https://arxiv.org/abs/2402.03300" in page


def test_every_result_is_in_the_list():
    import evidence_pages

    page = evidence_pages.page()
    for path in (ROOT / "benchmarks" / "results").rglob("*.md"):
        assert f"{path.relative_to(ROOT)})" in page


def test_links_between_files_are_links_of_the_site(tmp_path, monkeypatch):
    import mirrored

    monkeypatch.setattr(mirrored, "DOCS", tmp_path)
    copy = tmp_path / "_repository"
    for path in ("launch/README.md", "notebooks/train.ipynb"):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_text("")
    for page, text, site in (
        ("pods", "[l](../launch/README.md)", "[l](/_repository/launch/README.md)"),
        ("pods", "[l](../launch)", "[l](/_repository/launch/README.md)"),
        ("howto/a", "[x](../brings.md#data)", "[x](/brings.md#data)"),
        (
            "start/why",
            "[n](../../notebooks/train.py)",
            "[n](/_repository/notebooks/train.ipynb)",
        ),
        # A file that is no page is offered as it is.
        ("_repository/launch/README", "[f](flags.py)", "[f](../../../launch/flags.py)"),
        ("_repository/CHANGELOG", "[d](docs/pods.md)", "[d](/pods.md)"),
        ("pods", "[o](https://a.b/c) [h](#here)", "[o](https://a.b/c) [h](#here)"),
    ):
        assert mirrored.rewrite(page, text) == site


def test_links_of_mirrored_pages_lead_somewhere():
    import mirrored

    for pattern in mirrored.PAGES:
        for page in ROOT.glob(pattern):
            for _, target, _, _ in mirrored.LINK.findall(page.read_text()):
                assert (page.parent / target).exists(), f"{page}: {target}"
