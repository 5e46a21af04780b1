"""Two and four processes do the same run as one, and stop together."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sgpo_jax.profiling import Profile
from tests.claims import takes_minutes
from tests.conftest import DEVICES
from tests.pipeline.test_run import SMALL, lines, run

ROOT = pathlib.Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow
EACH_ITS_OWN = {"ledger", "sampler/occupancy", "queue/sample"}  # lanes of a process
STEPS = 6
ONE_METHOD = ("--methods", "tracked", "--train.steps", f"{STEPS}")


def start(out: pathlib.Path, processes: int, *more: str) -> subprocess.Popen:
    # The same compiler settings: a profile is the same to the bit.
    one = DEVICES.replace("=8", "=1")
    flags = os.environ["XLA_FLAGS"].replace(DEVICES, one)
    script = ROOT / "launch" / "local_multiprocess.py"
    return subprocess.Popen(
        [
            *(sys.executable, str(script), str(processes), "--", "run"),
            *("--out", str(out), "--cache", "", *SMALL, *ONE_METHOD, *more),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop_in_training(process: subprocess.Popen, out: pathlib.Path) -> str:
    """Wait for the line of a step that was trained, stop, return what was said."""
    metrics = out / "methods" / "tracked" / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") > 1:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    shown = process.communicate(timeout=300)[0]
    assert metrics.exists(), shown
    assert 1 <= lines(out, "tracked")[-1]["step"] < STEPS, shown
    return shown


def saved(folder: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Return a checkpoint's arrays by name, whatever devices it was saved from."""
    with ocp.CheckpointManager(folder.resolve()) as manager:
        assert manager.latest_step() == step
        arrays = ocp.StandardCheckpointer().metadata(folder / f"{step}" / "arrays")
        like = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), arrays.item_metadata.tree
        )
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(like))
        tree = manager.restore(step, args=args)["arrays"]
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found}


def trained_params(out: pathlib.Path) -> dict[str, np.ndarray]:
    found = saved(out / "methods" / "tracked" / "checkpoints", STEPS)
    start = "[0]['params']"
    return {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}


def assert_same_report(ours: pathlib.Path, theirs: pathlib.Path):
    assert (ours / "report.md").exists()
    a, b = lines(ours, "tracked"), lines(theirs, "tracked")
    assert [line["step"] for line in a] == [line["step"] for line in b]
    for mine, other in zip(a, b, strict=True):
        for name in other.keys() - EACH_ITS_OWN:
            # The sums of a gradient are taken in another order: float32 rounding.
            np.testing.assert_allclose(
                mine[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name
            )
    for name in ("initial", "tracked"):
        found = [
            json.loads((x / "eval" / f"{name}.json").read_text())
            for x in (ours, theirs)
        ]
        assert found[0]["mean"] == found[1]["mean"]


@pytest.fixture(scope="module")
def two(tmp_path_factory, finished):
    """A run on two, from the same policy, stopped in the middle of training."""
    out = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(finished / "policy", out / "policy")
    process = start(out, 2)
    shown = stop_in_training(process, out)
    return out, process.returncode, shown


def test_processes_stop_together_and_ask_for_a_restart(two):
    out, code, shown = two
    assert code == 42, shown
    assert not (out / "report.md").exists()


def test_two_processes_sample_what_one_does(two, finished):
    """Noise belongs to a query and a sample, so the profile is the same to the bit."""
    ours, theirs = (Profile.load(x / "profile.parquet") for x in (two[0], finished))
    assert ours.fingerprint() == theirs.fingerprint()


def test_two_processes_report_what_one_does(two, finished):
    process = start(two[0], 2)
    shown = process.communicate(timeout=500)[0]
    assert process.returncode == 0, shown
    assert_same_report(two[0], finished)


@takes_minutes
def test_four_processes_go_on_with_adapters_that_two_saved(tmp_path):
    """As one process trains them: what is saved is whole, the base stays as it was."""
    adapters = ("--model.lora-rank", "2")
    alone, out = tmp_path / "alone", tmp_path / "many"
    assert run("run", alone, pathlib.Path(""), *ONE_METHOD, *adapters) == 0
    shutil.copytree(alone / "policy", out / "policy")
    process = start(out, 2, *adapters)
    shown = stop_in_training(process, out)
    assert process.returncode == 42, shown
    process = start(out, 4, *adapters)
    shown = process.communicate(timeout=500)[0]
    assert process.returncode == 0, shown
    assert "was written on processes=2" in " ".join(shown.split())
    assert_same_report(out, alone)
    ours, theirs = (trained_params(x) for x in (out, alone))
    before = saved(alone / "policy", 0)
    assert ours.keys() == theirs.keys() == before.keys()
    for name, array in ours.items():
        if "adapters" in name:
            # Adam divides by the root of tiny second moments: more than rounding.
            np.testing.assert_allclose(array, theirs[name], rtol=1e-3, atol=1e-5)
            assert (array != before[name]).any(), name
        else:
            np.testing.assert_array_equal(array, before[name], err_msg=name)
