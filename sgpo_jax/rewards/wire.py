"""Messages between the trainer, the supervisor and the scorers.

Requests go down, from a process to one that it started, as `marshal`: both run the same
interpreter. Results come up as fixed binary records and JSON, which are checked: what
runs below is not trusted.
"""

import json
import marshal
import socket
import struct
from collections.abc import Iterator
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
"""What became of an item: a value (the empty string), or why there is none."""

CONTROL = 255
DONE = 254  # a scorer is through with its chunk; the value is its seconds
_RECORD = struct.Struct(f"<{TAG}sIIdBI")


class Record(NamedTuple):
    """One result.

    Attributes:
      batch: number of the batch, or of the chunk on the way up from a scorer.
      item: which item of it.
      value: the reward.
      kind: index into `KINDS`, or `CONTROL` or `DONE`.
      detail: message, or the JSON of a control message.
    """

    batch: int
    item: int
    value: float
    kind: int
    detail: str


def pack(tag: bytes, record: Record) -> bytes:
    """Return the bytes of a record."""
    batch, item, value, kind, detail = record
    text = detail.encode("utf-8", "backslashreplace") if detail else b""
    return _RECORD.pack(tag, batch, item, value, kind, len(text)) + text


class ForgedError(ValueError):
    """Bytes that no honest process of this project sends."""


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
                tag, *head, kind, length = _RECORD.unpack_from(data, place)
                limit = LONGEST if kind == CONTROL else 8 * DETAIL
                if tag != self.tag or length > limit:
                    raise ForgedError("a result without the tag of its batch")
                end = place + size + length
                if end > len(data):
                    break
                text = data[place + size : end].decode("utf-8", "replace")
                place = end
                batch, item, value = head
                yield Record(batch, item, value, kind, text)
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
    return Record(0, 0, 0.0, CONTROL, json.dumps(message)[:LONGEST])
