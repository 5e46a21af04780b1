"""Commands on the pages are commands of the program, parsed by its own parsers."""

import argparse
import contextlib
import os
import runpy
import shlex
import sys
import types

import pytest

from sgpo_jax import cli, methods
from sgpo_jax.commands import export, options, plan, profile, sample_options, sweep

from .pages import PAGES, ROOT, commands, name

PLACEHOLDERS = {"URL": "http://localhost:8000/v1"}
ENDS = {"|", "&&", "||", ">", ";", "..."}


def _programs(line: str) -> list[list[str]]:
    """Words of each program of a line; variables before it are left out."""
    found: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ENDS:
            found.append([])
        elif found[-1] or "=" not in word.partition("/")[0]:
            found[-1].append(word)
    return [words for words in found if words]


def _found(first: str) -> list[tuple[str, str]]:
    return [
        (name(page), line)
        for page in PAGES
        for line in commands(page)
        if any(words[0] == first for words in _programs(line))
    ]


def _measured(first: str) -> list[tuple[str, str]]:
    """Commands that made the pages of results."""
    import evidence_pages

    # A command of the program by its name alone is no command line.
    wanted = {"python": "python ", "sgpo": ("sgpo aot --", "sgpo run --")}[first]
    return [
        (name(page), " ".join((one or other).split()))
        for page in sorted((ROOT / "benchmarks" / "results").rglob("*.md"))
        for one, other in evidence_pages.COMMAND.findall(page.read_text())
        if (one or other).startswith(wanted)
    ]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No run folder lies here, and the modules of the pages exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.delitem(sys.modules, "own", raising=False)
    theirs = types.ModuleType("my_lab.algorithms")
    theirs.mine = methods.Method()  # type: ignore[attr-defined]
    theirs.rebel = methods.Method()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_lab", types.ModuleType("my_lab"))
    monkeypatch.setitem(sys.modules, "my_lab.algorithms", theirs)


def _parse(words: list[str]) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in words]
    command, rest = words[1], words[2:]
    if command in ("--help", "-h") or "--help" in rest:
        try:
            assert cli.run_command(words[1:]) == 0
        except SystemExit as end:  # of tyro, which prints the options
            assert end.code == 0
    elif command == "sample":
        sample_options.parse(rest)
    elif command == "export":
        export.parse(rest)
    elif command == "methods":
        # NAME stands for one.
        assert all(word in methods.ZOO or word.startswith("NAME") for word in rest)
    elif kinds := profile.KINDS.keys() & options.given_options(rest):
        assert command == "profile"
        options.parse_dataclass(profile.OPTIONS[kinds.pop()], rest, prog="sgpo")
    elif command == "plan" and "profile" in options.given_options(rest):
        options.parse_dataclass(plan.PlanOptions, rest, prog="sgpo")
    elif command == "sweep":
        pytest.importorskip("optuna")
        sweep.parse(rest)
    elif command == "aot":
        import tyro

        from sgpo_jax.commands.aot import Aot

        tyro.cli(Aot, args=rest)
    else:
        assert command in cli.STAGES or command == "doctor", command
        options.take_flag(rest, "--dry-run")
        options.take_flag(rest, "--open")
        options.experiment(command, rest)


@pytest.mark.parametrize(
    ("page", "line"), dict.fromkeys([*_found("sgpo"), *_measured("sgpo")])
)
def test_the_program_takes_it(page, line):
    for words in _programs(line):
        if words[0] == "sgpo":
            _parse(words)


class Parsed(Exception):
    """A script has parsed its options."""


def _start(words: list[str], monkeypatch) -> None:
    """Let a benchmark parse its options, and no more."""
    module = words[0] == "-m"
    file = ROOT / (words[1].replace(".", "/") if module else words[0])
    if module:
        alone = file.with_suffix(".py")
        file = alone if alone.exists() else file / "__main__.py"
    parser = argparse.ArgumentParser
    known = parser.parse_known_args

    def parse_known(self, *given):
        raise Parsed(known(self, *given))

    def parse(self, *given):
        if rest := known(self, *given)[1]:
            self.error(f"unrecognized arguments: {rest}")
        raise Parsed

    monkeypatch.setattr(parser, "parse_known_args", parse_known)
    monkeypatch.setattr(parser, "parse_args", parse)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    if module:  # it may have been imported by a test of its own
        imported = words[1] if file.stem != "__main__" else f"{words[1]}.__main__"
        monkeypatch.delitem(sys.modules, imported, raising=False)
    monkeypatch.setattr(sys, "argv", words[module:])
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(file.parent))
    parses = "argparse" in file.read_text()  # one that does not would begin
    begun = pytest.raises(Parsed) if parses else contextlib.nullcontext()
    name = "__main__" if parses else "page"
    try:
        with begun:
            if module:
                runpy.run_module(words[1], run_name=name, alter_sys=True)
            else:
                runpy.run_path(str(file), run_name=name)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("page", "line"), dict.fromkeys([*_found("python"), *_measured("python")])
)
def test_the_script_takes_it(page, line, monkeypatch):
    for first, *words in _programs(line):
        if first != "python":
            continue
        if any(word.startswith("benchmarks") for word in words[:2]):
            _start(words, monkeypatch)
        elif words[0] == "-m":
            assert words[1] == "sphinx", "unknown module"
        else:
            assert (ROOT / words[0]).exists()


def test_a_wrong_option_is_found():
    """The check can fail."""
    with pytest.raises(ValueError, match="learning"):
        _parse(["sgpo", "run", "--learning-rat", "3"])
    with pytest.raises(ValueError, match="unknown method"):
        _parse(["sgpo", "run", "--methods", "grpoo"])


def test_a_wrong_option_of_a_script_is_found(monkeypatch):
    """The check can fail."""
    with pytest.raises(SystemExit):
        _start(["benchmarks/prompt_sampling.py", "--count", "3"], monkeypatch)
