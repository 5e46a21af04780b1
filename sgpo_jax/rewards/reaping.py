"""Processes that verifiers leave behind, and what they may see of the environment.

Where what holds: a scorer with all it started in its process group ends on every POSIX
system. On Linux the supervisor is a child subreaper besides, so that a process that
left its group (`setsid`, double fork) becomes its child and is ended when the scorer
is; if the supervisor itself was killed, the trainer finds what is left by the mark in
the environment, which every descendant inherits. A process that rewrites its own
environment after killing the supervisor is not found: use a container.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection

# Loading it costs a forked process more than all else.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

MARK = "SGPO_JAX_SCORER"
"""Variable that marks the processes of a supervisor."""

ALLOWED = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TEMP TMP LD_LIBRARY_PATH"
    " DYLD_LIBRARY_PATH PYTHONHASHSEED PYTHONHOME VIRTUAL_ENV CONDA_PREFIX"
    " SYSTEMROOT".split()
)
"""Variables that verifiers see, with `LC_*`; tokens and keys are not among them."""


def environment(mark: str, allowed: Collection[str] = ()) -> dict[str, str]:
    """Return the environment of the scoring processes.

    Args:
      mark: value of `MARK`.
      allowed: further variables to pass on.

    Example:
      >>> sorted(environment("x").keys() - ALLOWED)[:3]
      ['JAX_PLATFORMS', 'MKL_NUM_THREADS', 'OMP_NUM_THREADS']
    """
    # The verifiers of the caller must be found; "" is the working directory.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED or name in allowed or name.startswith("LC_")
    }
    threads = dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )
    # A reward that imports jax must not take the accelerator from the trainer.
    return kept | threads | {"PYTHONPATH": path, MARK: mark, "JAX_PLATFORMS": "cpu"}


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_with_parent(parent: int | None = None) -> None:
    """Have this process killed when its parent ends (Linux).

    Args:
      parent: its process id, to notice that it has ended before this was called;
        without it, so has one that left this process to process 1.
    """
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        now = os.getppid()
        if now != parent if parent else now == 1:
            os._exit(0)


def end(pid: int) -> int:
    """Kill a child with its process group; return its wait status."""
    for kill in (os.kill, os.killpg):
        # No process group yet, or none any more.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def sweep(known: Collection[int]) -> int:
    """Kill children that are none of `known`, until there are none; return how many."""
    ended = 0
    for _ in range(1000):
        found = [pid for pid in _children() if pid not in known]
        if not found:
            break
        for pid in found:
            end(pid)
        ended += len(found)
    return ended


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # no /proc, as on macOS
        return []


def has_children(pid: int) -> bool:
    """Return whether a process has children; True where that cannot be known."""
    tasks = f"/proc/{pid}/task"
    try:
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/children") as file:
                if file.read(1):
                    return True
    except OSError:
        return True
    return False


def sweep_marked(mark: str, seconds: float = 2.0) -> None:
    """Kill every process that carries the mark in its environment (Linux)."""
    sought, due = f"{MARK}={mark}".encode(), time.monotonic() + seconds
    while (found := _marked(sought)) and time.monotonic() < due:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _marked(sought: bytes) -> list[int]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError):
                    with open(f"/proc/{name}/environ", "rb") as file:
                        if sought in file.read().split(b"\0"):
                            found.append(int(name))
    return found


def state(pid: int) -> str:
    """Return the state letter of a process, "" where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def cause_of_death(status: int) -> str:
    """Return how a process ended."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.WEXITSTATUS(status)}"
