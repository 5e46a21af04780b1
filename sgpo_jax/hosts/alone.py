"""The processes of a run, and the one kind that needs no others."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from sgpo_jax.hosts.signals import Signals, Stopped


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

    def suspects(self) -> str:
        """Say who may be the reason of a failed collective; takes a few seconds."""
        ...

    def close(self, code: int) -> None:
        """Tell the others that this process ends now, with an exit code."""
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

    def suspects(self) -> str:
        """Return that there is nobody else."""
        return "there is one process"

    def close(self, code: int) -> None:
        """Tell nobody."""
