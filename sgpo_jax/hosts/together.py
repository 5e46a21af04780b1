"""Many processes, which meet in a key-value store and in collectives."""

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgpo_jax.hosts.signals import Signals, Stopped
from sgpo_jax.hosts.watch import Peers, Watch, end_for_restart


class LostPeer(Exception):
    """Another process of this run did not come to a meeting."""


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


class Together:
    """Many processes, after `jax.distributed.initialize`.

    Args:
      signals: asks this process to stop.
      heartbeat: seconds after which a silent process is taken for dead.
      patience: seconds a meeting waits for the slowest.
    """

    def __init__(self, signals: Signals, *, heartbeat: int, patience: int):
        self._signals, self._patience = signals, patience
        # The one way to the coordinator's key-value store, which knows no collective
        # and so needs no device and no equal number of calls.
        from jax._src.distributed import global_state

        assert global_state.client is not None, "call jax.distributed.initialize first"
        self._client: Any = global_state.client
        self.index, self.count = jax.process_index(), jax.process_count()
        self._met = 0
        self._announced, self._looked = False, 0.0
        # A meeting that waits in vain says more than the watch can: it comes first.
        peers = Peers(
            self.index,
            self.count,
            heartbeat=float(heartbeat),
            patience=float(patience + heartbeat),
        )
        self._watch = Watch(
            self._client,
            peers,
            index=self.index,
            name=f"{socket.gethostname()}, pid {os.getpid()}",
            interval=min(5.0, heartbeat / 5),
            end=end_for_restart,
        )

    def poll(self) -> None:
        """Raise `Stopped` if any process was asked to; looks at most 5 times a second.

        The process that was asked also tells the others here.
        """
        self._watch.moved(self._met)
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
        try:
            return json.loads(self._client.blocking_key_value_get(key, 60_000))
        except jax.errors.JaxRuntimeError as error:
            raise LostPeer(f"process 0 did not tell {key}: {_words(error)}") from error

    def lead(self, act: Callable[[], object]) -> None:
        """Let process 0 act, the others wait until it has."""
        if self.index == 0:
            act()
        self._meet()

    def suspects(self) -> str:
        """Say who may be the reason of a failed collective; takes a few seconds."""
        return self._watch.suspects()

    def close(self, code: int) -> None:
        """Tell the others that this process ends now, with an exit code."""
        self._watch.close(code)

    def _meet(self) -> None:
        name = f"sgpo/meeting/{self._met}"
        self._met += 1
        self._watch.moved(self._met)
        try:
            self._client.wait_at_barrier(name, self._patience * 1000)
        except jax.errors.JaxRuntimeError as error:
            raise LostPeer(
                f"a process did not come to meeting {self._met} in {self._patience} s:"
                f" {_words(error)}"
            ) from error
        self._watch.moved(self._met)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
