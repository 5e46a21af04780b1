"""Workflows for GitHub: by its schema, and what they say of this project."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCHEMA = ("-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows")


def refused(*paths: pathlib.Path) -> str:
    """What the schema says against the files."""
    pytest.importorskip("check_jsonschema")
    done = subprocess.run(
        [sys.executable, *SCHEMA, *paths], capture_output=True, text=True
    )
    return done.stdout if done.returncode else ""


def test_they_are_of_the_schema():
    assert len(WORKFLOWS) == 2
    assert refused(*WORKFLOWS) == ""


def test_a_misspelled_key_is_found(tmp_path):
    wrong = tmp_path / "ci.yml"
    text = WORKFLOWS[0].read_text()
    wrong.write_text(text.replace("timeout-minutes", "timeout-minute"))
    assert "timeout-minute" in refused(wrong)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_they_may_read_only_and_name_what_exists(path):
    text = path.read_text()
    content = yaml.safe_load(text)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["timeout-minutes"]
    for script in re.findall(r"(?:python|bash) ([\w./]+/[\w./]+)", text):
        assert (ROOT / script).exists(), script
    for extras in re.findall(r"pip install '\.\[([\w,-]+)\]'", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_every_version_of_python_that_is_claimed_is_checked():
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    content = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert content["jobs"]["ci"]["strategy"]["matrix"]["python"] == claimed
