"""The process that runs verifiers: forked, bounded and replaceable."""

import builtins
import ctypes
import faulthandler
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from . import wire
from .conventions import Call, Item


class Limits(NamedTuple):
    """Bounds on the code that scores.

    Attributes:
      deadline: seconds per item.
      batch: seconds per call of a function that takes the whole batch.
      startup: seconds to import the verifiers of a batch.
      memory: bytes of address space.
    """

    deadline: float
    batch: float
    startup: float
    memory: int


class Outcome(NamedTuple):
    """What became of an item: a value, or why there is none."""

    value: float
    kind: int = 0
    detail: str = ""


FLUSH = 0.001
"""Seconds that results are kept back, so that cheap ones go up together."""

_RUNNING = struct.Struct("<II")


def running(progress: mmap.mmap) -> tuple[int, int]:
    """Return the chunk and the item that a scorer is at."""
    return _RUNNING.unpack_from(progress, 0)


def work(
    connection: socket.socket,
    progress: mmap.mmap,
    verifiers: Mapping[str, Call],
    memory: int,
) -> NoReturn:
    """Score chunks until the supervisor closes the connection.

    Args:
      connection: to the supervisor.
      progress: shared with it; see `running`.
      verifiers: by name.
      memory: bytes of address space.
    """
    try:
        confine(memory)
        while True:
            chunk = wire.receive(connection)
            _score(connection, progress, verifiers, *chunk)
    except EOFError:
        pass
    finally:
        os._exit(0)


def confine(memory: int) -> None:
    """Bound what a runaway verifier takes. No barrier against hostile code."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG: a scorer must not outlive a killed supervisor.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()
    # The file of the supervisor's errors is not for what verifiers print.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _score(
    connection: socket.socket,
    progress: mmap.mmap,
    verifiers: Mapping[str, Call],
    tag: bytes,
    chunk: int,
    name: str,
    queries: Mapping[int, str],
    items: Sequence[tuple[int, str, list[int] | None]],
) -> None:
    verify = verifiers[name]
    known = {key: json.loads(text) for key, text in queries.items()}
    given = [Item(known[key], text, tokens) for key, text, tokens in items]
    out = bytearray()
    begun = flushed = time.monotonic()
    poisoned = False
    outcomes = iter(_together(verify, given)) if verify.whole_batch else None
    for index, item in enumerate(given):
        if outcomes is None:
            _RUNNING.pack_into(progress, 0, chunk, index)
            outcome, poisoned = _outcome(verify, item)
        else:
            outcome = next(outcomes)
        out += wire.pack(tag, wire.Record(chunk, index, *outcome))
        if poisoned or time.monotonic() - flushed > FLUSH:
            connection.sendall(out)
            out.clear()
            flushed = time.monotonic()
        if poisoned:
            # The supervisor gives the rest to another process.
            os._exit(0)
    took = time.monotonic() - begun
    out += wire.pack(tag, wire.Record(chunk, len(given), took, wire.DONE, ""))
    connection.sendall(out)


def _together(verify: Call, items: Sequence[Item]) -> list[Outcome]:
    try:
        values = list(verify.score(items))
        if len(values) != len(items):
            detail = f"{len(values)} rewards for {len(items)} completions"
            return [Outcome(0.0, _TYPE, detail)] * len(items)
    except BaseException as error:
        return [_raised(error)] * len(items)
    return [_outcome_of(value) for value in values]


_NAMES: dict[str, Any] = builtins.__dict__
_CLEAN, _VALUES = dict(_NAMES), [*_NAMES.values()]


def _outcome(verify: Call, item: Item) -> tuple[Outcome, bool]:
    """Score an item; return its outcome, and whether it changed the builtins."""
    poisoned = False
    try:
        try:
            values = verify.score([item])
        finally:
            poisoned = [*_NAMES.values()] != _VALUES
            if poisoned:
                _NAMES.clear()
                _NAMES.update(_CLEAN)
        return _outcome_of(*values), poisoned
    # SystemExit and the like included: no verifier ends the batch of the others.
    except BaseException as error:
        return _raised(error), poisoned


_NONE, _NAN, _TYPE, _EXCEPTION = (
    wire.KINDS.index(kind) for kind in ("none", "nan", "type", "exception")
)


def _outcome_of(value: Any) -> Outcome:
    """Read what a verifier returned: a number, `{"score": ...}` or a tuple of one."""
    if type(value) is float and math.isfinite(value):
        return Outcome(value)
    try:
        if isinstance(value, Mapping):
            value = value["score"]
        elif isinstance(value, tuple) and value:
            value = value[0]
        if value is None:
            return Outcome(0.0, _NONE, "the verifier returned None")
        if isinstance(value, str | bytes):
            name = type(value).__name__
            return Outcome(0.0, _TYPE, f"the verifier returned {name}")
        number = float(value)  # pyright: ignore[reportArgumentType]
    except BaseException as error:
        return _raised(error)
    if not math.isfinite(number):
        return Outcome(0.0, _NAN, f"the verifier returned {number}")
    return Outcome(number)


def _raised(error: BaseException) -> Outcome:
    text = f"{type(error).__name__}: {error}"[: wire.DETAIL]
    return Outcome(0.0, _EXCEPTION, text)
