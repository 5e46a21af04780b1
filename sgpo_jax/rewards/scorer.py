"""The process that runs verifiers: forked, bounded and replaceable."""

import builtins
import faulthandler
import itertools
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from . import reaping, wire
from .conventions import Item, RewardFunction


class ScoringLimits(NamedTuple):
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
    """Result of an item: a value, or why there is none."""

    value: float
    kind: int = 0
    detail: str = ""


FLUSH = 0.005
"""Seconds that results are kept back, so that cheap ones go up together."""

_RUNNING = struct.Struct("<II")


def running(progress: mmap.mmap) -> tuple[int, int]:
    """Return the chunk and the item that a scorer is at."""
    return _RUNNING.unpack_from(progress, 0)


def work(
    connection: socket.socket,
    progress: mmap.mmap,
    verifiers: Mapping[str, RewardFunction],
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
            message = wire.receive(connection)
            _score(connection, progress, verifiers, message)
    except EOFError:
        pass
    finally:
        os._exit(0)


def confine(memory: int) -> None:
    """Bound what a runaway verifier takes. No barrier against hostile code."""
    os.setpgid(0, 0)
    reaping.end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()
    # The file of the supervisor's errors is not for what verifiers print.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Sender:
    """Results on their way up: cheap ones together, the others at once."""

    def __init__(self, connection: socket.socket, tag: bytes, chunk: int):
        self._connection, self._tag, self._chunk = connection, tag, chunk
        self._first = 0
        self._values: list[float] = []
        self._kinds = bytearray()
        self._details: list[str] = []

    def add(self, outcome: Outcome) -> None:
        """Take an outcome."""
        self._values.append(outcome.value)
        self._kinds.append(outcome.kind)
        if outcome.kind:
            self._details.append(outcome.detail)
        if len(self._values) == wire.MOST:
            self.flush()

    def flush(self, done: float | None = None) -> None:
        """Send what there is, and the seconds that all took if that is all."""
        data = b""
        if self._values:
            body = wire.pack_results(self._values, self._kinds, self._details)
            record = wire.Record(self._chunk, self._first, wire.RESULTS, body)
            data = wire.pack(self._tag, record)
            self._first += len(self._values)
            self._values, self._kinds, self._details = [], bytearray(), []
        if done is not None:
            body = wire.SECONDS.pack(done)
            record = wire.Record(self._chunk, self._first, wire.DONE, body)
            data += wire.pack(self._tag, record)
        self._connection.sendall(data)


def _score(
    connection: socket.socket,
    progress: mmap.mmap,
    verifiers: Mapping[str, RewardFunction],
    message: tuple,
) -> None:
    tag, used, chunk, name, encoded, numbers, texts, tokens = message
    verify = verifiers[name]
    queries = {key: json.loads(text) for key, text in encoded.items()}
    items = [
        Item(queries[number], text, ids)
        for number, text, ids in zip(
            numbers, texts, tokens or itertools.repeat(None, len(texts)), strict=True
        )
    ]
    out = _Sender(connection, tag, chunk)
    begun = time.monotonic()
    if verify.whole_batch:
        for outcome in _together(verify, items, used):
            out.add(outcome)
    else:
        _one_by_one(verify, items, out, progress, chunk, used)
    out.flush(done=time.monotonic() - begun)


def _one_by_one(
    verify: RewardFunction,
    items: Sequence[Item],
    out: _Sender,
    progress: mmap.mmap,
    chunk: int,
    used: bool,
) -> None:
    score, clock = _pure if verify.trusted else _guarded, time.monotonic
    flushed = clock()
    for index, item in enumerate(items):
        _RUNNING.pack_into(progress, 0, chunk, index)
        outcome, poisoned = score(verify, item)
        again = used and outcome.kind == _EXCEPTION
        if not again:
            out.add(outcome)
        if poisoned or again:
            out.flush()
            # The supervisor gives the rest to another process.
            os._exit(0)
        now = clock()
        if now - flushed > FLUSH:
            out.flush()
            flushed = now


def _together(
    verify: RewardFunction, items: Sequence[Item], used: bool
) -> list[Outcome]:
    try:
        values = list(verify.score(items))
        if len(values) != len(items):
            detail = f"{len(values)} rewards for {len(items)} completions"
            return [Outcome(0.0, _TYPE, detail)] * len(items)
    except BaseException as error:
        if used:
            os._exit(0)
        return [_raised(error)] * len(items)
    return [_outcome_of(value) for value in values]


_NAMES: dict[str, Any] = builtins.__dict__
_CLEAN, _VALUES = dict(_NAMES), [*_NAMES.values()]


def _pure(verify: RewardFunction, item: Item) -> tuple[Outcome, bool]:
    """Score an item by a function that changes nothing in its process."""
    try:
        return _outcome_of(*verify.score((item,))), False
    except BaseException as error:
        return _raised(error), False


def _guarded(verify: RewardFunction, item: Item) -> tuple[Outcome, bool]:
    """Score an item; return its outcome, and whether it changed the builtins."""
    poisoned = False
    try:
        try:
            values = verify.score((item,))
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
