"""The connection to the supervisor, whose answers are not trusted."""

import os
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from . import reaping, wire

SILENCE = 15.0
"""Seconds without a sign of life after which a supervisor with work is given up."""


class Lost(Exception):
    """The supervisor died, is stopped, or sent what it cannot have sent."""


class Link:
    """A supervisor process and the socket to it.

    Attributes:
      loaded: convention of each verifier that was imported.
    """

    def __init__(self, hello: tuple, environment: Sequence[str]):
        self._mark = secrets.token_hex(16)
        tag = os.urandom(wire.TAG)
        self._reader = wire.Reader(tag)
        self.loaded: dict[str, str] = {}
        self._quiet = 0.0
        # A socket, unlike a pipe, cannot be opened again through /proc.
        self._socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "sgpo_jax.rewards.supervisor",
                    str(theirs.fileno()),
                ],
                env=reaping.environment(self._mark, environment),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                # Ctrl-C in the terminal is for the trainer, which then closes this.
                start_new_session=True,
            )
        self._socket.setblocking(False)
        self.send(wire.request(("hello", tag, *hello)), lambda: None)

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    def dead(self) -> bool:
        """Return whether the supervisor has ended."""
        return self._process.poll() is not None

    def send(self, data: bytes, poll: Callable[[], None]) -> None:
        """Send a request; the supervisor reads ahead, so this hardly waits.

        Raises:
          Lost: if the supervisor is gone or does not read.
        """
        left = memoryview(data)
        due = time.monotonic() + SILENCE
        while left:
            try:
                left = left[self._socket.send(left) :]
                due = time.monotonic() + SILENCE
            except BlockingIOError:
                poll()
                if time.monotonic() > due:
                    raise Lost("it does not read") from None
                select.select([], [self._socket], [], 0.1)
            except OSError:
                raise Lost(self._last_words()) from None

    def _last_words(self) -> str:
        """Return how the supervisor ended, with the last line of its stderr."""
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return "its connection is closed, and it has not ended"
        code = self._process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - 2000, 0))
        lines = self._errors.read().decode(errors="replace").strip().split("\n")
        return how + (f": {lines[-1][:300]}" if lines[-1] else "")

    def receive(self, timeout: float) -> list[wire.Record]:
        """Return what has arrived, after waiting up to `timeout` seconds for something.

        Raises:
          Lost: if the supervisor is gone, or a record has not the tag.
        """
        ready, _, _ = select.select([self._socket], [], [], timeout)
        if not ready:
            self._quiet += timeout
            return []
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise Lost(self._last_words())
        self._quiet = 0.0
        try:
            return list(self._reader.feed(data))
        except wire.ForgedError as error:
            raise Lost(str(error)) from None

    def check_alive(self) -> None:
        """Raise `Lost` if the supervisor is silent for too long."""
        if self._quiet > SILENCE:
            raise Lost(f"silent for {SILENCE:g} s")

    def close(self) -> None:
        """End the supervisor, its scorers and what they left behind."""
        self._socket.close()
        try:
            self._process.wait(timeout=2.0)
            clean = self._process.returncode == 0
        except subprocess.TimeoutExpired:
            clean = False
            self._process.kill()
            self._process.wait()
        self._errors.close()
        if not clean:
            reaping.sweep_marked(self._mark)
