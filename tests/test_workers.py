"""A test that kills its process fails by name, and all others still run."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

PROJECT = pathlib.Path(__file__).parent.parent / "pyproject.toml"
FILE = """
import os, time

def test_before(): time.sleep(0.1)
def test_dies(): {death}
def test_after(): time.sleep(0.1)
"""


@pytest.mark.parametrize("death", ["os.abort()", "os._exit(0)"])
def test_a_worker_that_dies_ends_no_other_test(tmp_path, death):
    options = tomllib.loads(PROJECT.read_text())["tool"]["pytest"]["ini_options"]
    (distribution,) = [o for o in options["addopts"] if o.startswith("--dist=")]
    (tmp_path / "test_fatal.py").write_text(FILE.format(death=death))
    for name in ("first", "last"):
        fine = FILE.format(death="pass").replace("dies", "lives")
        (tmp_path / f"test_{name}.py").write_text(fine)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", distribution, "."]
    # A run that hangs is the fault this test is about.
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"^FAILED test_fatal\.py::test_dies", done.stdout, re.MULTILINE)
    assert "1 failed, 8 passed" in done.stdout
