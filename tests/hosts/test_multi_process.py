"""Two processes of which one is hurt: the other ends soon, with 42 and a reason."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow
HEARTBEAT = 3  # as in member.py


def start(folder, *, only=(0, 1), patience=20):
    folder.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=1"
    return {
        index: subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.hosts.member", address),
                *(str(index), str(folder), str(patience)),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in only
    }


def send(number, to):
    return lambda folder, processes: processes[to].send_signal(number)


def fault(folder, processes):
    (folder / "fault.1").touch()


# What is done, and to each process the exit code and a word it says.
CASES = {
    "SIGTERM to 0": (send(signal.SIGTERM, 0), {0: (42, ""), 1: (42, "")}),
    "SIGTERM to 1": (send(signal.SIGTERM, 1), {0: (42, ""), 1: (42, "")}),
    "SIGKILL to 1": (send(signal.SIGKILL, 1), {0: (42, "process 1 (")}),
    # jax aborts at once when the coordinator resets the connection.
    "SIGKILL to 0": (send(signal.SIGKILL, 0), {1: (-6, "leader task")}),
    "SIGSTOP to 1": (send(signal.SIGSTOP, 1), {0: (42, "sgpo: process 1 (")}),
    "SIGSTOP to 0": (send(signal.SIGSTOP, 0), {1: (42, "which coordinates, is sil")}),
    "a fault of 1": (fault, {0: (42, "ended with code 1"), 1: (1, "ZeroDivision")}),
}


@pytest.mark.parametrize("what", CASES)
def test_one_of_two_is_hurt(what, tmp_path):
    folder = tmp_path / "shared"
    hurt, wanted = CASES[what]
    processes = start(folder)
    try:
        met = [folder / "met.0", folder / "met.1"]
        due = time.monotonic() + 120
        while not all(path.exists() for path in met):
            assert time.monotonic() < due
            time.sleep(0.02)
        hurt(folder, processes)
        begun = time.monotonic()
        for index, (code, word) in wanted.items():
            said = processes[index].communicate(timeout=60)[1]
            assert processes[index].returncode == code, said
            assert word in said
        # Beats are 0.6 s apart; the rest is for machines that are busy.
        assert time.monotonic() - begun < HEARTBEAT + 15
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_never_starts(index, tmp_path):
    (process,) = start(tmp_path / "shared", only=[index], patience=2).values()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 42, said
    assert "not all processes reached 127.0.0.1:" in said
