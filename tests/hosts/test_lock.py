"""One command at a time in a run folder."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from sgpo_jax.hosts import FolderInUseError, folder_lock, lock

SOURCE = pathlib.Path(lock.__file__)
# The module alone: it needs no package, and starts in a twentieth of a second.
IMPORT = f"""
import contextlib, importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("lock", {str(SOURCE)!r})
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
"""
CALL = f"""{IMPORT}
try:
    with lock.folder_lock(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except lock.FolderInUseError as error:
    print(error, flush=True)
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-S", "-c", CALL, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process):
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(processes):
    for process in processes:
        process.communicate(timeout=30)


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_holds_it(tmp_path, stale):
    """Also where a dead process has left its lock behind."""
    if stale:
        dead = start(tmp_path)
        assert first_line(dead) == "held"
        dead.send_signal(signal.SIGKILL)
        finish([dead])
        assert (tmp_path / "lock.json").exists()
    processes = [start(tmp_path) for _ in range(20)]
    lines = [first_line(process) for process in processes]
    holder = processes[lines.index("held")]
    assert lines.count("held") == 1
    refused = f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}"
    assert all(line.startswith(refused) for line in lines if line != "held")
    finish(processes)
    assert not (tmp_path / "lock.json").exists()
    with folder_lock(tmp_path):
        pass


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    folder = tmp_path / "made" / "run"
    with folder_lock(folder):
        assert folder.exists()
    assert not folder.parent.exists()
    with folder_lock(folder):
        (folder / "config.json").touch()
    assert [each.name for each in folder.iterdir()] == ["config.json"]


def test_folders_that_come_and_go_are_locked_all_the_same(tmp_path):
    """Each removes the empty folder that the others are about to lock."""
    call = f"""{IMPORT}
for _ in range(200):
    with contextlib.suppress(lock.FolderInUseError):
        with lock.folder_lock(pathlib.Path(sys.argv[1])):
            pass
"""
    command = [sys.executable, "-S", "-c", call, str(tmp_path / "a" / "b")]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """It was there for `mkdir` and is gone when that looks whether it is a folder."""
    real, calls = pathlib.Path.mkdir, []

    def mkdir(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 1:
            raise FileExistsError(17, "File exists", str(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
    with folder_lock(tmp_path / "run"):
        assert (tmp_path / "run" / "lock.json").exists()
    (tmp_path / "file").write_text("")
    calls.clear()
    with pytest.raises(FileExistsError), folder_lock(tmp_path / "file"):
        pass


def foreign(tmp_path, **changes):
    holder = {"host": "elsewhere", "pid": 7, "process": "x", "since": "yesterday"}
    (tmp_path / "lock.json").write_text(json.dumps({**holder, **changes}))


def test_a_silent_holder_elsewhere_is_gone(tmp_path):
    foreign(tmp_path)
    began = time.monotonic()
    with folder_lock(tmp_path, silence=0.5):
        assert time.monotonic() - began >= 0.5
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_a_holder_elsewhere_that_gives_signs_of_life_is_believed(tmp_path):
    """Whatever its clock says."""
    foreign(tmp_path)
    path, ended = tmp_path / "lock.json", threading.Event()

    def beat():
        stamp = 10**9
        while not ended.wait(0.05):
            stamp += 10**9
            os.utime(path, ns=(stamp, stamp))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(FolderInUseError, match="process 7 on elsewhere"),
            folder_lock(tmp_path, silence=5.0),
        ):
            pass
    finally:
        ended.set()
        thread.join()


def test_the_same_number_is_not_the_same_process(tmp_path):
    """In a container every run is process 7."""
    foreign(tmp_path, host=socket.gethostname(), pid=os.getpid(), process="before")
    with folder_lock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "null"])
def test_a_damaged_lock_is_no_lock(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with folder_lock(tmp_path, silence=0.2):
        pass


def test_the_command_line_refuses_a_folder_in_use(tmp_path, capsys):
    from sgpo_jax import cli
    from sgpo_jax.pipeline import open_folder
    from sgpo_jax.testing import tiny_experiment

    config = tiny_experiment(str(tmp_path))
    open_folder(config)
    before = sorted(tmp_path.iterdir())
    with folder_lock(tmp_path):
        assert cli.run_command(["run", "--out", config.out]) == 2
    assert "is in use by process" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
