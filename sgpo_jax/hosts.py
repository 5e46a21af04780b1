"""The processes of a run: who there is, what they agree on, and how they are stopped.

A run on one process and a run on many are the same code with another `Hosts` passed in.
Each process samples and scores a share of its own, so that processes are not in step
everywhere; they are in step wherever they meet:

* `poll` may be called anywhere, by one process more often than by another. It raises
  `Stopped` once this process or, on many, any other was asked to stop.
* `gather`, `tell` and `lead` are meetings: every process calls them in the same order.
  All leave a `gather` with the same answer, or all with `Stopped`, so that everyone
  stops after the same step, whoever got the signal.

A meeting waits for a bounded time and then raises `LostPeer`, naming who is missing.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

RESTART = 42
"""Exit code that asks for the same command again."""


class Stopped(Exception):
    """This run was asked to stop; `args[0]` is the name of the signal."""


class LostPeer(Exception):
    """Another process of this run did not come to a meeting."""


class Signals:
    """Turns SIGTERM and the first SIGINT into a request that is polled.

    A second SIGINT interrupts at once. Signals that are ignored, as interrupts are in
    a background job, stay ignored. Outside the main thread nothing is caught.
    """

    def __init__(self):
        self.asked = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self.asked == "SIGINT":
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        # The console may be in the middle of a line; this cannot interleave with it.
        text = f"\nsgpo: {self.asked}, stopping at the next safe place\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())


@runtime_checkable
class Hosts(Protocol):
    """The processes of a run; `Alone` and `Together` are the two kinds."""

    @property
    def index(self) -> int:
        """Number of this process; 0 writes what a run leaves."""
        ...

    @property
    def count(self) -> int:
        """How many processes there are."""
        ...

    def poll(self) -> None:
        """Raise `Stopped` if this run shall stop; callable anywhere."""
        ...

    def gather(self, make: Callable[[], bytes]) -> list[bytes]:
        """Meet, and return what `make` gave on each process, in order."""
        ...

    def tell(self, value: Any) -> Any:
        """Meet, and return process 0's value (plain JSON)."""
        ...

    def lead(self, act: Callable[[], object]) -> None:
        """Let process 0 act, the others wait until it has."""
        ...


@dataclasses.dataclass(frozen=True)
class Alone:
    """One process.

    >>> hosts = Alone()
    >>> hosts.gather(lambda: b"mine"), hosts.tell(3)
    ([b'mine'], 3)
    """

    signals: Signals = dataclasses.field(default_factory=Signals)
    index: int = 0
    count: int = 1

    def poll(self) -> None:
        """Raise `Stopped` if a signal asked for it."""
        if self.signals.asked:
            raise Stopped(self.signals.asked)

    def gather(self, make: Callable[[], bytes]) -> list[bytes]:
        """Return what `make` gives."""
        self.poll()
        return [make()]

    def tell(self, value: Any) -> Any:
        """Return the value."""
        return value

    def lead(self, act: Callable[[], object]) -> None:
        """Act."""
        act()


class Together:
    """Many processes, after `jax.distributed.initialize`.

    Args:
      signals: asks this process to stop.
      patience: seconds a meeting waits for the slowest.
    """

    def __init__(self, signals: Signals, *, patience: int):
        self._signals, self._patience = signals, patience
        # The one way to the coordinator's key-value store, which knows no collective
        # and so needs no device and no equal number of calls.
        from jax._src.distributed import global_state

        assert global_state.client is not None, "call jax.distributed.initialize first"
        self._client: Any = global_state.client
        self.index, self.count = jax.process_index(), jax.process_count()
        self._met = 0
        self._announced, self._looked = False, 0.0

    def poll(self) -> None:
        """Raise `Stopped` if any process was asked to; looks at most 5 times a second.

        The process that was asked also tells the others here.
        """
        if self._signals.asked and not self._announced:
            self._announced = True
            key = f"sgpo/stop/{self.index}"
            self._client.key_value_set(key, self._signals.asked)
        if not self._signals.asked and time.monotonic() - self._looked > 0.2:
            self._looked = time.monotonic()
            for _, name in self._client.key_value_dir_get("sgpo/stop/"):
                self._signals.asked = name
        if self._signals.asked:
            raise Stopped(self._signals.asked)

    def gather(self, make: Callable[[], bytes]) -> list[bytes]:
        """Meet, and return what `make` gave on each process, in order.

        Raises:
          Stopped: on every process, if one was asked to stop before or in `make`.
          LostPeer: if a process does not come.
        """
        from jax.experimental import multihost_utils

        try:
            self.poll()
            mine: bytes | None = make()
        except Stopped:
            mine = None
        self._meet()
        size = np.array([-1 if mine is None else len(mine)])
        sizes = multihost_utils.process_allgather(size).reshape(-1)
        if sizes.min() < 0 or mine is None:
            raise Stopped(self._signals.asked or "a signal to another process")
        # Powers of two: one program serves many sizes.
        room = 1 << max(16, int(sizes.max() - 1).bit_length())
        padded = np.frombuffer(mine.ljust(room, b"\0"), np.uint8)
        rows = multihost_utils.process_allgather(padded)
        return [
            row[:size].tobytes() for row, size in zip(rows, sizes.tolist(), strict=True)
        ]

    def tell(self, value: Any) -> Any:
        """Meet, and return process 0's value (plain JSON)."""
        key = f"sgpo/tell/{self._met}"
        if self.index == 0:
            self._client.key_value_set(key, json.dumps(value))
        self._meet()
        return json.loads(self._client.blocking_key_value_get(key, 60_000))

    def lead(self, act: Callable[[], object]) -> None:
        """Let process 0 act, the others wait until it has."""
        if self.index == 0:
            act()
        self._meet()

    def _meet(self) -> None:
        name = f"sgpo/meeting/{self._met}"
        self._met += 1
        try:
            self._client.wait_at_barrier(name, self._patience * 1000)
        except jax.errors.JaxRuntimeError as error:
            text = " ".join(str(error).split())
            raise LostPeer(
                f"a process did not come to meeting {self._met} in {self._patience} s:"
                f" {text[:300]}"
            ) from error


def is_lost_peer(error: BaseException) -> bool:
    """Tell whether a collective failed because another process went away.

    The errors of jax have no types of their own; a device that is out of memory
    raises the same one as a connection that was reset.
    """
    text = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in text
        for word in ("UNAVAILABLE", "DEADLINE", "onnection", "Gloo", "ABORTED")
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How the processes of a run find each other; nothing of it changes the results.

    Attributes:
      coordinator: HOST:PORT of process 0, the same on every process; "auto" takes
        all of it from the environment (GKE, TPU VM, Slurm); empty for one process.
      processes: number of processes.
      process: number of this process.
      heartbeat: seconds after which a silent process is taken for dead.
      patience: seconds to wait for the slowest process wherever all meet; more than
        the longest compilation.
    """

    coordinator: str = ""
    processes: int = 1
    process: int = 0
    heartbeat: int = 100
    patience: int = 600

    def __post_init__(self):
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"distributed.process must lie in 0..{self.processes - 1}, got"
                f" {self.process}; it counts from 0 below distributed.processes"
            )
        if self.processes > 1 and not self.coordinator:
            raise ValueError(
                f"distributed.processes={self.processes} needs distributed.coordinator,"
                " HOST:PORT of process 0 or auto"
            )
        if self.coordinator not in ("", "auto") and ":" not in self.coordinator:
            raise ValueError(
                f"distributed.coordinator must be HOST:PORT or auto, got"
                f" {self.coordinator!r}"
            )
        if min(self.heartbeat, self.patience) < 1:
            raise ValueError("distributed.heartbeat and .patience must be at least 1")


def connect(config: DistributedConfig, signals: Signals) -> Hosts:
    """Find the other processes; before anything touches a device.

    A process that never starts ends the others after `patience` seconds; jax then ends
    them itself, with SIGABRT (exit code 134).
    """
    if not config.coordinator:
        return Alone(signals)
    explicit = {}
    if config.coordinator != "auto":
        explicit = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
        }
    jax.distributed.initialize(
        **explicit,
        initialization_timeout=config.patience,
        heartbeat_timeout_seconds=config.heartbeat,
    )
    return Together(signals, patience=config.patience)
