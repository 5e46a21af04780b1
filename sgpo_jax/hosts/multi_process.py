"""Process group of many processes, over jax's coordination service."""

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgpo_jax.hosts.signals import Signals, Stopped
from sgpo_jax.hosts.watch import HeartbeatWatch, Peers, end_for_restart


class LostPeer(Exception):
    """Another process of this run did not reach a barrier."""


def is_lost_peer(error: BaseException) -> bool:
    """Return whether a collective failed because another process was lost.

    The errors of jax have no types of their own; a device that is out of memory
    raises the same one as a connection that was reset.
    """
    text = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in text
        for word in ("UNAVAILABLE", "DEADLINE", "onnection", "Gloo", "ABORTED")
    )


class MultiProcess:
    """Process group of many processes, after `jax.distributed.initialize`.

    Args:
      signals: asks this process to stop.
      heartbeat_timeout: seconds after which a silent process is taken for dead.
      barrier_timeout: timeout of a barrier in seconds.
    """

    def __init__(
        self, signals: Signals, *, heartbeat_timeout: int, barrier_timeout: int
    ):
        self._signals, self._barrier_timeout = signals, barrier_timeout
        # The one way to the coordinator's key-value store, which knows no collective
        # and so needs no device and no equal number of calls.
        from jax._src.distributed import global_state

        assert global_state.client is not None, "call jax.distributed.initialize first"
        self._client: Any = global_state.client
        self.index, self.count = jax.process_index(), jax.process_count()
        self._passed = 0
        self._announced, self._looked = False, 0.0
        # A barrier that times out says more than the watch can: it is first.
        peers = Peers(
            self.index,
            self.count,
            heartbeat=float(heartbeat_timeout),
            stall_timeout=float(barrier_timeout + heartbeat_timeout),
        )
        self._watch = HeartbeatWatch(
            self._client,
            peers,
            index=self.index,
            name=f"{socket.gethostname()}, pid {os.getpid()}",
            interval=min(5.0, heartbeat_timeout / 5),
            end=end_for_restart,
        )

    def poll(self) -> None:
        """Raise `Stopped` if any process got a signal; looks at most 5 times a second.

        The process that got it also announces it here.
        """
        self._watch.mark_progress(self._passed)
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
        """All-gather at a barrier: return the result of `make` on each process.

        Raises:
          Stopped: on every process, if one was asked to stop before or in `make`.
          LostPeer: if a process does not reach the barrier.
        """
        from jax.experimental import multihost_utils

        try:
            self.poll()
            mine: bytes | None = make()
        except Stopped:
            mine = None
        self._barrier()
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

    def broadcast(self, value: Any) -> Any:
        """Broadcast the value of process 0 (plain JSON) to all, at a barrier."""
        key = f"sgpo/broadcast/{self._passed}"
        if self.index == 0:
            self._client.key_value_set(key, json.dumps(value))
        self._barrier()
        try:
            return json.loads(self._client.blocking_key_value_get(key, 60_000))
        except jax.errors.JaxRuntimeError as error:
            raise LostPeer(f"process 0 sent no {key}: {_words(error)}") from error

    def on_main_process(self, act: Callable[[], object]) -> None:
        """Call a function on process 0; the others wait at a barrier."""
        if self.index == 0:
            act()
        self._barrier()

    def diagnose(self) -> str:
        """Name the processes that may have failed a collective; takes a few seconds."""
        return self._watch.diagnose()

    def close(self, code: int) -> None:
        """Announce the exit code with which this process ends now."""
        self._watch.close(code)

    def _barrier(self) -> None:
        name = f"sgpo/barrier/{self._passed}"
        self._passed += 1
        self._watch.mark_progress(self._passed)
        try:
            self._client.wait_at_barrier(name, self._barrier_timeout * 1000)
        except jax.errors.JaxRuntimeError as error:
            raise LostPeer(
                f"a process did not reach barrier {self._passed} in"
                f" {self._barrier_timeout} s: {_words(error)}"
            ) from error
        self._watch.mark_progress(self._passed)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
