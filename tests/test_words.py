"""The field's words: docstrings, class names and identifiers of the package."""

import ast
import collections
import importlib
import pathlib
import re

import pytest

import sgpo_jax

ROOT = pathlib.Path(sgpo_jax.__file__).parent
OPENING = re.compile(r"(What|How|Who|Which|Where|Whether|When|Why)\b")
RETIRED = set(
    """
    Alone Hosts Together aimed predicting behind_in_prefix behind_in_ring is_wanting
    Ladder ladder make_ladder rung rungs prompt_rungs banks empty_banks idle_banks Tape
    Told Learned Seen Vectors FAR waited SharedRollouts RolloutSource Scored
    Facts what_stays imitate imitation Imitation REPEATED repeated_cost most_stale
    WarmupConfig Epochs NonZero Selection Thinned
    """.split()
)
"""Names that gave way to the field's; see the glossary."""
FILES = sorted(ROOT.rglob("*.py"))


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    return {str(f.relative_to(ROOT)): ast.parse(f.read_text()) for f in FILES}


def docstrings(module: ast.Module):
    """Yield every docstring with its line, those of attributes too."""
    for node in ast.walk(module):
        body = getattr(node, "body", ())
        for one in body if isinstance(body, list) else ():
            if (
                isinstance(one, ast.Expr)
                and isinstance(one.value, ast.Constant)
                and isinstance(one.value.value, str)
            ):
                yield one.lineno, one.value.value


def identifiers(module: ast.Module):
    """Yield every name that is defined or read, with its line."""
    for node in ast.walk(module):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name
            case ast.Name():
                yield node.lineno, node.id
            case ast.Attribute():
                yield node.lineno, node.attr
            case ast.arg() | ast.keyword():
                yield node.lineno, node.arg
            case ast.alias():
                yield node.lineno, node.asname or node.name


def test_docstrings_open_with_what_the_thing_is(modules):
    wrong = [
        f"{name}:{line}: {text.splitlines()[0]}"
        for name, module in modules.items()
        for line, text in docstrings(module)
        if OPENING.match(text.strip())
    ]
    assert not wrong, "open with the field's noun: " + "; ".join(wrong)


def test_public_class_names_are_unique(modules):
    places = collections.defaultdict(list)
    for name, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice


def test_retired_names_stay_away(modules):
    found = [
        f"{name}:{line}: {word}"
        for name, module in modules.items()
        for line, word in identifiers(module)
        if word in RETIRED
    ]
    assert not found


GLOSSARY = ROOT.parent / "docs" / "concepts" / "glossary.md"


@pytest.mark.skipif(not GLOSSARY.exists(), reason="the documentation is not installed")
def test_the_glossary_names_what_there_is():
    text = GLOSSARY.read_text()
    code = re.findall(r"`([a-z_]+)\.([A-Za-z_]+)`", text)
    assert len(code) > 20
    for module, name in code:
        if (module, name) != ("manifest", "json"):
            assert hasattr(importlib.import_module(f"sgpo_jax.{module}"), name), name
    terms = re.findall(r"^(\S.*)\n: ", text, re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    assert not RETIRED & set(re.findall(r"\w+", text))
