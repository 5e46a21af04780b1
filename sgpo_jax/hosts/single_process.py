"""Process group: the interface, and the group of a single process."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from sgpo_jax.hosts.signals import Signals, Stopped


@runtime_checkable
class ProcessGroup(Protocol):
    """Process group of a run: `SingleProcess` or `MultiProcess`."""

    @property
    def index(self) -> int:
        """Index of this process; process 0 is the main process, which writes files."""
        ...

    @property
    def count(self) -> int:
        """Number of processes."""
        ...

    def poll(self) -> None:
        """Raise `Stopped` if this run shall stop; callable anywhere."""
        ...

    def gather(self, make: Callable[[], bytes]) -> list[bytes]:
        """All-gather at a barrier: return the result of `make` on each process."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Broadcast the value of process 0 (plain JSON) to all, at a barrier."""
        ...

    def on_main_process(self, act: Callable[[], object]) -> None:
        """Call a function on process 0; the others wait at a barrier."""
        ...

    def diagnose(self) -> str:
        """Name the processes that may have failed a collective; takes a few seconds."""
        ...

    def close(self, code: int) -> None:
        """Announce the exit code with which this process ends now."""
        ...


@dataclasses.dataclass(frozen=True)
class SingleProcess:
    """Process group of one process.

    >>> hosts = SingleProcess()
    >>> hosts.gather(lambda: b"mine"), hosts.broadcast(3)
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
        """Return the result of `make`."""
        self.poll()
        return [make()]

    def broadcast(self, value: Any) -> Any:
        """Return the value."""
        return value

    def on_main_process(self, act: Callable[[], object]) -> None:
        """Call the function."""
        act()

    def diagnose(self) -> str:
        """Return that there is no other process."""
        return "there is one process"

    def close(self, code: int) -> None:
        """Do nothing: there is no other process."""
