"""Heartbeats of the processes of a run: a lost process ends the others.

A collective hangs on a process that is gone, and the error that jax raises
after a while says neither which it was nor what to do. So every process writes a
heartbeat to the key-value store of the run, from a thread, and reads all others.
"""

import dataclasses
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax

from sgpo_jax.hosts.signals import RESTART, STOPPED

PREFIX = "sgpo/beat/"

LEAVING = 1.0
"""Seconds a process may take to end once it has said so, on a machine that is busy."""


@runtime_checkable
class KeyValueStore(Protocol):
    """The part of a client of jax's coordination service that is used here."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool) -> None:
        """Set a value."""
        ...

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """Return all keys that begin so, and their values."""
        ...


@dataclasses.dataclass(frozen=True)
class Beat:
    """Heartbeat of a process.

    Attributes:
      number: grows with every beat.
      name: where the process runs.
      barriers_passed: number of barriers it has passed.
      left: its exit code, once it is about to end.
    """

    number: int
    name: str
    barriers_passed: int
    left: int | None = None


class Peers:
    """Failure detector: the last heartbeat of each process of a run.

    Args:
      index: number of this process.
      count: number of processes.
      heartbeat: seconds without a beat after which a process is lost.
      stall_timeout: seconds without a safe point after which this process is stuck.
      clock: seconds that never go back.

    >>> now = [0.0]
    >>> peers = Peers(0, 2, heartbeat=10.0, stall_timeout=60.0, clock=lambda: now[0])
    >>> peers.update({1: Beat(1, "pod-1", barriers_passed=3)})
    >>> for now[0] in (4.0, 8.0, 12.0):
    ...     peers.update({1: Beat(1, "pod-1", barriers_passed=3)})
    ...     peers.lost()
    'process 1 (pod-1) has given no sign of life for 12 s'
    """

    def __init__(
        self,
        index: int,
        count: int,
        *,
        heartbeat: float,
        stall_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._index, self._heartbeat, self._stall_timeout = (
            index,
            heartbeat,
            stall_timeout,
        )
        self._clock = clock
        now = clock()
        self._beats = {i: Beat(0, "not seen yet", 0) for i in range(count)}
        self._seen = dict.fromkeys(range(count), now)
        self._answered = self._progressed = self._looked = now

    def update(self, beats: dict[int, Beat]) -> None:
        """Take the heartbeats that the coordinator has now."""
        now = self._clock()
        self._answered = now
        for process, beat in beats.items():
            if beat != self._beats[process]:
                self._beats[process], self._seen[process] = beat, now

    def mark_progress(self) -> None:
        """Record that this process has reached a safe point."""
        self._progressed = self._clock()

    def lost(self) -> str | None:
        """Return which process is lost, or None.

        Time in which this process itself was suspended does not count.
        """
        now = self._clock()
        gap = now - self._looked
        self._looked = now
        if gap > self._heartbeat / 2:
            self._answered += gap
            self._progressed += gap
            self._seen = {i: seen + gap for i, seen in self._seen.items()}
        deaf = now - self._answered
        if deaf > self._heartbeat and self._beats[0].left is None:
            name = self._beats[0].name
            return f"process 0 ({name}), which coordinates, is silent for {deaf:.0f} s"
        # Without an answer of the coordinator the others cannot be judged.
        if deaf < self._heartbeat / 2:
            for process, beat in self._others():
                who = f"process {process} ({beat.name})"
                if beat.left not in (None, 0, *STOPPED):
                    return f"{who} ended with code {beat.left}"
                silent = now - self._seen[process]
                if silent > self._heartbeat and beat.left != 0:
                    return f"{who} has given no sign of life for {silent:.0f} s"
        if now - self._progressed > self._stall_timeout:
            stuck = now - self._progressed
            return f"this process is stuck for {stuck:.0f} s{self._behind()}"
        return None

    def silent(self, seconds: float) -> str:
        """Return the processes without a heartbeat for so long, for a message."""
        now = self._clock()
        if now - self._answered > seconds:
            return f"process 0 ({self._beats[0].name}), which coordinates, is silent"
        names = [
            f"process {process} ({beat.name})"
            for process, beat in self._others()
            if now - self._seen[process] > seconds
        ]
        return f"no sign of life from {', '.join(names)}" if names else "all are alive"

    def all_left(self) -> bool:
        """Return whether all others are about to end."""
        return all(beat.left is not None for _, beat in self._others())

    def _others(self) -> list[tuple[int, Beat]]:
        return [(i, beat) for i, beat in self._beats.items() if i != self._index]

    def _behind(self) -> str:
        mine = self._beats[self._index].barriers_passed
        late = [i for i, beat in self._beats.items() if beat.barriers_passed < mine]
        return f", waiting for process {', '.join(map(str, late))}" if late else ""


class HeartbeatWatch:
    """The two threads that beat and that look at `Peers`.

    They are two since a coordinator that hangs also blocks the first.

    Args:
      store: where beats are kept.
      peers: the failure detector.
      index: number of this process.
      name: where this process runs.
      interval: seconds between beats.
      end: called with what is wrong, from a thread; ends the process.
    """

    def __init__(
        self,
        store: KeyValueStore,
        peers: Peers,
        *,
        index: int,
        name: str,
        interval: float,
        end: Callable[[str], object],
    ):
        self._store, self._peers, self._end = store, peers, end
        self._index, self._name, self._interval = index, name, interval
        self._passed = 0
        self._left: int | None = None
        self._closing, self._told = threading.Event(), threading.Event()
        for work in (self._beat, self._look):
            threading.Thread(target=work, daemon=True, name="sgpo-watch").start()

    def mark_progress(self, barriers_passed: int) -> None:
        """Record that this process has reached a safe point, after so many barriers."""
        self._peers.mark_progress()
        self._passed = barriers_passed

    def diagnose(self) -> str:
        """Wait a few intervals, then name processes without heartbeat."""
        time.sleep(3 * self._interval)
        return self._peers.silent(2 * self._interval)

    def close(self, code: int) -> None:
        """Announce that this process ends now; process 0 ends last.

        It keeps what the others read, and jax aborts who loses it: they are waited for
        until they have announced it, and a moment more, in which they end.
        """
        self._left = code
        self._closing.set()
        self._told.wait(timeout=10)

    def _beat(self) -> None:
        for number in itertools.count(1):
            left = self._left
            beat = Beat(number, self._name, self._passed, left)
            try:
                self._store.key_value_set(
                    f"{PREFIX}{self._index}",
                    json.dumps(dataclasses.asdict(beat)),
                    allow_overwrite=True,
                )
                if left is not None and self._index:
                    self._told.set()
                    return
                found = self._store.key_value_dir_get(PREFIX)
            except jax.errors.JaxRuntimeError:
                pass  # `Peers` sees that there was no answer.
            else:
                beats = {int(k.removeprefix(PREFIX)): json.loads(v) for k, v in found}
                self._peers.update({i: Beat(**beat) for i, beat in beats.items()})
                if left is not None and self._peers.all_left():
                    time.sleep(LEAVING)
                    self._told.set()
                    return
            if self._closing.wait(self._interval):
                time.sleep(0.05)

    def _look(self) -> None:
        while not self._closing.wait(self._interval):
            problem = self._peers.lost()
            if problem is not None:
                self._end(problem)
                return


def end_for_restart(problem: str) -> None:
    """Print what is wrong and a stack trace, and end this process; from any thread.

    The main thread may be inside a collective, where no exception reaches it.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    where = "".join(traceback.format_stack(frame, limit=6)) if frame else ""
    text = (
        f"\n{where}sgpo: {problem}; the same command resumes from the last checkpoint\n"
    )
    os.write(2, text.encode())
    os._exit(RESTART)
