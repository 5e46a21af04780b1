"""Two processes do the same run as one, and stop together."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sgpo_jax.profiling import Profile
from tests.pipeline.test_run import SMALL, lines, run

ROOT = pathlib.Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow
ONE_METHOD = ("--method.names", "tracked", "--train.steps", "4")


def start(out: pathlib.Path) -> subprocess.Popen:
    flags = "--xla_force_host_platform_device_count=1"
    return subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "launch" / "local_multiprocess.py"), "2"),
            *("--", "run", "--out", str(out), "--cache", "", *SMALL, *ONE_METHOD),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert run("run", out, pathlib.Path(""), *ONE_METHOD) == 0
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory, alone):
    """A run on two, from the same policy, stopped in the middle of training."""
    out = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(alone / "policy", out / "policy")
    process = start(out)
    metrics = out / "methods" / "tracked" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    shown = process.communicate(timeout=300)[0]
    return out, process.returncode, shown


def test_processes_stop_together_and_ask_for_a_restart(two):
    out, code, shown = two
    assert code == 42, shown
    assert not (out / "report.md").exists()


def test_two_processes_sample_what_one_does(two, alone):
    """Noise belongs to a query and a sample, so the profile is the same to the bit."""
    ours, theirs = (Profile.load(x / "profile.parquet") for x in (two[0], alone))
    assert ours.fingerprint() == theirs.fingerprint()
    assert (two[0] / "plan.json").read_text() == (alone / "plan.json").read_text()


def test_two_processes_report_what_one_does(two, alone):
    out, _, _ = two
    process = start(out)
    shown = process.communicate(timeout=500)[0]
    assert process.returncode == 0, shown
    assert (out / "report.md").exists()
    ours, theirs = lines(out, "tracked"), lines(alone, "tracked")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in other.keys() - {"ledger", "sampler/occupancy"}:
            # The sums of a gradient are taken in another order: float32 rounding.
            np.testing.assert_allclose(
                mine[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name
            )
    for name in ("initial", "tracked"):
        found = [
            json.loads((p / "eval" / f"{name}.json").read_text()) for p in (out, alone)
        ]
        assert found[0]["mean"] == found[1]["mean"]
