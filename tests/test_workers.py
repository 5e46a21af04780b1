"""A test that kills its process or hangs fails by name, and all others still run."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

PROJECT = pathlib.Path(__file__).parent.parent / "pyproject.toml"
FILE = """
import ctypes, os, time

def test_before(): time.sleep(0.1)
def test_{name}(): {body}
def test_after(): time.sleep(0.1)
"""
FATAL = {
    "aborts": "os.abort()",
    "exits": "os._exit(0)",
    # Holds the interpreter's lock, as native code that deadlocks: no signal handler
    # runs, and no other thread.
    "hangs": "ctypes.PyDLL(None).sleep(60)",
}


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_ends_no_other_test(tmp_path):
    options = tomllib.loads(PROJECT.read_text())["tool"]["pytest"]["ini_options"]
    (distribution,) = [o for o in options["addopts"] if o.startswith("--dist=")]
    # What returns to Python is interrupted first, and fails with its own traceback.
    assert options["timeout"] < options["faulthandler_timeout"]
    assert options["faulthandler_exit_on_timeout"]
    for name, body in {**FATAL, "passes": "pass", "also_passes": "pass"}.items():
        (tmp_path / f"test_{name}.py").write_text(FILE.format(name=name, body=body))
    command = [
        *(sys.executable, "-m", "pytest", "-p", "xdist", "-q", "-n", "2"),
        *(distribution, "."),
        *("-o", "faulthandler_timeout=3", "-o", "faulthandler_exit_on_timeout=true"),
    ]
    # A run that hangs is the fault this test is about.
    done = subprocess.run(
        command,
        cwd=tmp_path,
        # Other plugins take seconds to import, in every process.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout
    for name in FATAL:
        failed = rf"^FAILED test_{name}\.py::test_{name}"
        assert re.search(failed, done.stdout, re.MULTILINE), done.stdout
    assert "3 failed, 12 passed" in done.stdout
    assert re.search(r'test_hangs\.py", line \d+ in test_hangs', done.stderr)
