"""Lock of a run folder: one command at a time, also over a network file system.

Nothing but the standard library is imported.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

BEAT = 10.0
"""Seconds between two signs of life of a holder."""

SILENCE = 35.0
"""Seconds without a sign of life after which a holder on another host is gone."""


class FolderInUseError(Exception):
    """Another process works on the folder; the message names it, and since when."""


@contextlib.contextmanager
def folder_lock(
    folder: pathlib.Path, *, beat: float = BEAT, silence: float = SILENCE
) -> Iterator[None]:
    """Hold a folder's lock: the file `lock.json`, made only where there is none.

    A holder that was killed on this host is recognized by its process, one on another
    host by its silence: the file's modification time does not change.
    No clocks of two hosts are compared.

    Args:
      folder: made if it is not there, and removed again if nothing was written.
      beat: seconds between two signs of life.
      silence: seconds to wait for one of another host.

    Raises:
      FolderInUseError: if another process holds it.
      OSError: if the folder cannot be written.
    """
    made = _make(folder)
    path, mine = folder / "lock.json", _myself()
    while not _create(path, mine):
        if (holder := _read(path)) is None:
            continue
        if _is_alive(path, holder, silence):
            raise FolderInUseError(_words(folder, holder))
        _take_away(path, holder)
    ended = threading.Event()
    thread = threading.Thread(target=_live, args=(path, ended, beat), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _read(path) == mine:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for empty in made:
                empty.rmdir()


def _make(folder: pathlib.Path) -> list[pathlib.Path]:
    """Make a folder; return those that were not there, the innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    # One that was there a moment ago may be removed by who made it: tried again.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        pass
    except FileExistsError:
        if folder.exists() and not folder.is_dir():
            raise
    return missing


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "process": _began(pid),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _began(pid: int) -> str:
    """Return the start time of a process, as the kernel counts; "" if it is gone.

    Process ids are reused, in a container the same one every time.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        line = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _without_proc(pid)
    return f"{boot}:{line.rpartition(')')[2].split()[19]}"


def _without_proc(pid: int) -> str:
    if pathlib.Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"


def _create(path: pathlib.Path, holder: dict[str, Any]) -> bool:
    """Make the file with its content at once; False if there is one.

    A hard link fails where its name exists, and never shows half a file.
    """
    whole = path.with_name(f".lock.{holder['host']}.{holder['pid']}")
    try:
        whole.write_text(json.dumps(holder))
    except FileNotFoundError:
        # Another removed the folder it had made, after this one saw it.
        _make(path.parent)
        return False
    try:
        os.link(whole, path)
    except FileExistsError:
        return False
    except OSError:
        # No hard links there: exclusive creation, content right after.
        try:
            with path.open("x") as file:
                file.write(json.dumps(holder))
        except FileExistsError:
            return False
    finally:
        whole.unlink(missing_ok=True)
    return True


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the holder; None if there is no file."""
    for _ in range(5):
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(0.1)  # being written
            continue
        if isinstance(found, dict) and {"host", "pid", "process"} <= found.keys():
            return found
        break
    return {"host": "", "pid": 0, "process": "?", "since": "an unknown time"}


def _is_alive(path: pathlib.Path, holder: dict[str, Any], silence: float) -> bool:
    if holder["host"] == socket.gethostname():
        return bool(holder["process"]) and _began(holder["pid"]) == holder["process"]
    deadline = time.monotonic() + silence
    try:
        before = path.stat().st_mtime_ns
        while time.monotonic() < deadline:
            time.sleep(min(1.0, silence / 10))
            if path.stat().st_mtime_ns != before:
                return True
    except FileNotFoundError:
        pass
    return False


def _take_away(path: pathlib.Path, holder: dict[str, Any]) -> None:
    """Remove a dead holder's file, unless another process has put its own there.

    Those of one host take turns at it.
    """
    with path.with_name(".lock.turn").open("w") as turn:
        with contextlib.suppress(OSError):
            fcntl.flock(turn, fcntl.LOCK_EX)
        if _read(path) == holder:
            path.unlink(missing_ok=True)


def _live(path: pathlib.Path, ended: threading.Event, beat: float) -> None:
    while not ended.wait(beat):
        with contextlib.suppress(OSError):
            os.utime(path)


def _words(folder: pathlib.Path, holder: dict[str, Any]) -> str:
    return (
        f"{folder} is in use by process {holder['pid']} on {holder['host'] or '?'}"
        f" since {holder.get('since')}; wait for it, or use another --out"
    )
