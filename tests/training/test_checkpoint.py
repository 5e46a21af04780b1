"""Only a step whose checksums hold is restored; the others are named and put aside."""

import contextlib

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
