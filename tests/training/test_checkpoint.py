"""Only a step whose checksums hold is restored; the others are named and put aside."""

import contextlib
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import training


def flip(step):
    path = max((step / "arrays").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(step):
    path = max((step / "arrays").rglob("d/*"), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def remove(step):
    (step / "arrays" / "_METADATA").unlink()


def empty(step):
    (step.parent / "3").mkdir()


def link(step):
    (step.parent / "3").symlink_to(step, target_is_directory=True)


def junk(step):
    (step.parent / "notes").mkdir()
    (step.parent / "3").write_text("not a checkpoint")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "checkpoints"
    with contextlib.closing(training.Checkpoints(folder)) as made:
        for step in (1, 2):
            made.save(step, {"x": jnp.full(64, step, jnp.float32)}, {"step": step})
    return folder


def test_a_whole_step_is_restored(folder):
    with contextlib.closing(training.Checkpoints(folder)) as found:
        assert found.latest() == 2
        arrays, plain = found.restore(2, {"x": jnp.zeros(64)})
        np.testing.assert_array_equal(arrays["x"], np.full(64, 2))
        assert plain == {"step": 2}
        assert not found.problems


@pytest.mark.parametrize(
    ("damage", "newest", "problem"),
    [
        (flip, 1, "is not what was written"),
        (truncate, 1, "bytes"),
        (remove, 1, "_METADATA is missing"),
        (empty, 2, "it is empty"),
        (link, 2, "symbolic link"),
        (junk, 2, "no folder"),
    ],
)
def test_the_newest_sound_step_is_used(folder, damage, newest, problem):
    damage(folder / "2")
    with contextlib.closing(training.Checkpoints(folder)) as found:
        assert found.latest() == newest
        (line,) = found.problems
        assert problem in line
        arrays, _ = found.restore(newest, {"x": jnp.zeros(64)})
        np.testing.assert_array_equal(arrays["x"], np.full(64, newest))
        # The number is free again, and what was there is kept.
        found.save(newest + 1, {"x": jnp.zeros(64)}, {})
    assert len(list(folder.glob("unsound-*"))) == 1
    with contextlib.closing(training.Checkpoints(folder)) as again:
        assert again.latest() == newest + 1
        assert not again.problems


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(training.CheckpointError, match="Steps saved before are"):
        training.Checkpoints(tmp_path / "file" / "checkpoints")


@pytest.mark.parametrize("days", [(1, -1, 1), (-1, 30, -60)])
def test_clocks_that_jump_change_no_order(tmp_path, monkeypatch, days):
    """Steps are ordered and kept by number, whatever time it is."""
    from_now, real = 0.0, time.time
    monkeypatch.setattr(time, "time", lambda: real() + from_now)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + from_now) * 1e9))
    folder = tmp_path / "checkpoints"
    with contextlib.closing(training.Checkpoints(folder)) as made:
        for step, day in enumerate(days, start=1):
            made.save(step, {"x": jnp.full(4, step, jnp.float32)}, {"step": step})
            from_now += 86_400 * day  # in the middle of the write
            made.wait()
            moment = real() - 86_400 * 10 * step
            os.utime(folder / str(step), (moment, moment))
    with contextlib.closing(training.Checkpoints(folder)) as found:
        assert found.latest() == 3 and not found.problems
        assert found.plain(3) == {"step": 3}
    assert {p.name for p in folder.iterdir() if p.name.isdecimal()} == {"2", "3"}


FULL = """
import pathlib, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import numpy as np
from sgpo_jax import cli, training
folder = pathlib.Path(sys.argv[1])
kept = training.Checkpoints(folder / "checkpoints")
kept.save(1, {"x": np.zeros(4)}, {"step": 1})
kept.wait()
log = training.MetricsWriter(folder / "log")
cli.quiet_libraries()
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    kept.save(2, {"x": np.random.default_rng(0).normal(size=200_000)}, {"step": 2})
    kept.wait()
except training.CheckpointError as error:
    print("CHECKPOINT", error)
try:
    for step in range(2000):
        log.write(step, {"reward": step / 7})
except OSError as error:
    print("LOG", error.errno)
import os
os._exit(0)
"""


@pytest.mark.slow
def test_a_full_disk_is_a_line_and_loses_nothing(tmp_path):
    """A limit on the size of files stands for the disk."""
    job = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    said = job.stdout.splitlines()
    assert [line.split()[0] for line in said] == ["CHECKPOINT", "LOG"], job.stderr
    assert "Steps saved before are untouched; make room" in said[0]
    assert "Traceback" not in job.stderr
    with contextlib.closing(training.Checkpoints(tmp_path / "checkpoints")) as found:
        assert found.latest() == 1
    lines = training.read_metrics(tmp_path / "log")
    assert [line["step"] for line in lines] == list(range(len(lines)))


def test_the_best_is_kept(tmp_path):
    with contextlib.closing(training.Checkpoints(tmp_path, keep=2)) as made:
        for step in range(1, 6):
            made.best = 1
            made.save(step, {"x": jnp.zeros(3)}, {})
    kept = {p.name for p in tmp_path.iterdir() if p.name.isdecimal()}
    assert kept == {"1", "4", "5"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("DEADLINE_EXCEEDED: Barrier timed out", jax.errors.JaxRuntimeError),
        ("INTERNAL: out of luck", training.CheckpointError),
    ],
)
def test_a_lost_process_is_no_fault_of_the_folder(tmp_path, monkeypatch, text, kind):
    """It is worth another try, and a disk that is full is not."""

    def wait():
        raise jax.errors.JaxRuntimeError(text)

    made = training.Checkpoints(tmp_path)
    monkeypatch.setattr(made._manager, "wait_until_finished", wait)
    with pytest.raises(kind, match=text[:8]):
        made.save(1, {"x": jnp.zeros(3)}, {})
