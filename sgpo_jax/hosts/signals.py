"""Signals that stop a run: SIGTERM and SIGINT, polled at safe points."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

RESTART = 42
"""Exit code that asks for the same command again."""

STOPPED = (RESTART, 130)
"""Exit codes of a process that stopped in an orderly way."""


class Stopped(Exception):
    """A signal asked this run to stop; `args[0]` is its name."""


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
        text = f"\nsgpo: {self.asked}, stopping at the next safe point\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
