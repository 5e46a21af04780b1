"""Messages between the trainer, the supervisor and the scorers.

Requests go down, from a process to one that it started, as `marshal`: both run the same
interpreter. Results are fixed binary records and JSON, which are checked: what
runs below is not trusted.
"""

import array
import json
import marshal
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

TAG = 16  # bytes of the tag that a result carries
DETAIL = 200  # characters kept of an error message
LONGEST = 1 << 22  # bytes of a control message

KINDS = (
    "",
    "none",
    "nan",
    "type",
    "exception",
    "timeout",
    "crash",
    "lost",
)
"""Status codes of scored items: a value (the empty string), or the failure."""

CONTROL = 255
DONE = 254  # a scorer is through with its chunk; the body is its seconds
RESULTS = 253
MOST = 512  # results in one record
_RECORD = struct.Struct(f"<{TAG}sIIBI")
_COUNT = struct.Struct("<I")
SECONDS = struct.Struct("<d")


class Record(NamedTuple):
    """A message on the way up.

    Attributes:
      chunk: number of the chunk.
      item: index of its first item.
      kind: `CONTROL`, `DONE` or `RESULTS`.
      body: JSON, seconds, or what `results` reads.
    """

    chunk: int
    item: int
    kind: int
    body: bytes


class OutcomeColumns(NamedTuple):
    """Outcomes of consecutive items, in columns.

    Attributes:
      values: their rewards.
      kinds: indices into `KINDS`.
      details: messages of those whose kind is not 0.
    """

    values: array.array
    kinds: bytes
    details: list[str]


class ForgedError(ValueError):
    """Bytes that no honest process of this project sends."""


def pack(tag: bytes, record: Record) -> bytes:
    """Return the bytes of a record."""
    chunk, item, kind, body = record
    return _RECORD.pack(tag, chunk, item, kind, len(body)) + body


def pack_results(
    values: Sequence[float], kinds: Sequence[int], details: Sequence[str]
) -> bytes:
    """Return the body of a record of results."""
    body = _COUNT.pack(len(values)) + array.array("d", values).tobytes() + bytes(kinds)
    if details:
        body += json.dumps([_plain(detail) for detail in details]).encode()
    return body


def results(body: bytes) -> OutcomeColumns:
    """Read the body of a record of results.

    Raises:
      ForgedError: if it is none.
    """
    try:
        (count,) = _COUNT.unpack_from(body)
        end = _COUNT.size + 8 * count
        values = array.array("d", body[_COUNT.size : end])
        kinds, text = body[end : end + count], body[end + count :]
        details = json.loads(text) if text else []
    except (struct.error, ValueError, RecursionError) as error:
        raise ForgedError(f"a result of another form: {error}") from error
    fits = len(values) == len(kinds) == count > 0 and max(kinds) < len(KINDS)
    if not fits or not isinstance(details, list):
        raise ForgedError("a result of another form")
    right = [isinstance(detail, str) for detail in details]
    if not all(right) or len(right) != count - kinds.count(0):
        raise ForgedError("a result of another form")
    return OutcomeColumns(values, kinds, [_plain(detail) for detail in details])


def _plain(text: str) -> str:
    return text[:DETAIL].encode("utf-8", "backslashreplace").decode()


class Reader:
    """Cuts a stream of bytes into records and checks the tag of each."""

    def __init__(self, tag: bytes):
        self.tag = tag
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that are complete.

        Raises:
          ForgedError: if a tag is wrong or a message too long.
        """
        data, place = self._rest + data if self._rest else data, 0
        size = _RECORD.size
        try:
            while place + size <= len(data):
                tag, chunk, item, kind, length = _RECORD.unpack_from(data, place)
                if tag != self.tag or length > LONGEST:
                    raise ForgedError("a result without the tag of its batch")
                end = place + size + length
                if end > len(data):
                    break
                body, place = data[place + size : end], end
                yield Record(chunk, item, kind, body)
        finally:
            self._rest = data[place:]


def request(message: Any) -> bytes:
    """Return the bytes of a request: a length of eight bytes, then `marshal`."""
    body = marshal.dumps(message)
    return len(body).to_bytes(8, "big") + body


class Requests:
    """Cuts a stream of bytes into requests."""

    def __init__(self):
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the requests that are complete."""
        self._rest += data
        while len(self._rest) >= 8:
            end = 8 + int.from_bytes(self._rest[:8], "big")
            if end > len(self._rest):
                return
            body = bytes(self._rest[8:end])
            del self._rest[:end]
            yield marshal.loads(body)


def receive(connection: socket.socket) -> Any:
    """Wait for one request.

    Raises:
      EOFError: if the sender is gone.
    """
    size = int.from_bytes(_read(connection, 8), "big")
    return marshal.loads(_read(connection, size))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other process is gone")
        parts += part
    return bytes(parts)


def control(message: Any) -> Record:
    """Return a record that carries JSON instead of a result."""
    return Record(0, 0, CONTROL, json.dumps(message).encode()[:LONGEST])
