"""The example of a method of one's own, as its README runs it."""

import pathlib
import re
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent.parent / "examples" / "own_method"


@pytest.mark.slow
def test_the_script_trains():
    command = [sys.executable, str(FOLDER / "train.py"), "--steps", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"(step \d+: reward \d\.\d{3}\n){2}", run.stdout)


def test_the_parts_are_short_and_the_readme_names_what_is_there():
    source = (FOLDER / "own.py").read_text()
    parts = re.split(r"\n\n\n", source)[1:]
    assert len(parts) == 4
    assert all(len(part.strip().splitlines()) <= 15 for part in parts)
    readme = (FOLDER / "README.md").read_text()
    for path in re.findall(r"examples/own_method/\w+\.py", readme):
        assert (FOLDER / path.rpartition("/")[2]).exists()
    assert "own:mine" in readme
