"""One exchange with a server that is not trusted: bounded in time and in bytes."""

import http.client
import io
import json
import socket
import time
import urllib.error
import urllib.request
from typing import Any

# What may go away by itself: timeout, conflict, too early, too many, server errors.
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}


class RefusedError(ValueError):
    """An answer that is no completion to learn from.

    Attributes:
      kind: what is wrong with it, in words that count alike.
    """

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class BusyError(OSError):
    """The server asks to be tried again later."""

    def __init__(self, reason: str, retry_after: str | None):
        super().__init__(reason)
        self.retry_after = retry_after


def post(
    message: urllib.request.Request, *, seconds: float, most_bytes: int
) -> dict[str, Any]:
    """Post a message and return the JSON object that is answered.

    Raises:
      BusyError, OSError, http.client.HTTPException, RefusedError: as `post_bytes`.
    """
    body = post_bytes(message, seconds=seconds, most_bytes=most_bytes)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError("no JSON", " ".join(str(error).split())[:200]) from None
    if not isinstance(content, dict):
        raise RefusedError("no completion", repr(content)[:200])
    return content


def post_bytes(
    message: urllib.request.Request, *, seconds: float, most_bytes: int
) -> bytes:
    """Post a message and return what is answered.

    The whole exchange ends after `seconds`, however slowly bytes drip. Redirections are
    not followed: they would carry headers with secrets elsewhere.

    Raises:
      BusyError: if the server wants to be asked again.
      OSError, http.client.HTTPException: if there was no whole answer in time.
      RefusedError: if asking again would not help.
    """
    deadline = time.monotonic() + seconds
    opener = urllib.request.build_opener(
        _Plain(deadline), _Encrypted(deadline), _Stay()
    )
    try:
        with opener.open(message, timeout=seconds) as answer:
            body = answer.read(most_bytes + 1)
            if len(body) > most_bytes:
                raise RefusedError("too long an answer", f"over {most_bytes} bytes")
            if answer.length:
                raise http.client.IncompleteRead(body, answer.length)
    except urllib.error.HTTPError as error:
        with error:
            detail = " ".join(error.read(300).decode(errors="replace").split())
        reason = f"HTTP {error.code}"
        if error.code in _TRANSIENT:
            asked = error.headers.get("Retry-After")
            raise BusyError(f"{reason}: {detail}", asked) from None
        raise RefusedError(reason, detail) from None
    return body


class _Timed(io.RawIOBase):
    """Bytes of a socket until a deadline, which a drip does not put off."""

    def __init__(self, sock: socket.socket, deadline: float):
        self._socket, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._socket.close()
        super().close()


class _Wire:
    """A socket of which `http.client` reads answers that end by a deadline."""

    def __init__(self, sock: socket.socket, deadline: float):
        self._socket, self._deadline, self._read = sock, deadline, False

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        self._read = True
        return io.BufferedReader(_Timed(self._socket, self._deadline))

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(_left(self._deadline))  # of the whole, not of a part
        self._socket.sendall(data)

    def close(self) -> None:
        if not self._read:  # else the reader closes it
            self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Bounded:
    """A connection whose socket knows the deadline of the whole exchange."""

    def __init__(self, host: str, *, deadline: float, **options: Any):
        super().__init__(host, **options)  # pyright: ignore[reportCallIssue] of the other base
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()  # pyright: ignore[reportAttributeAccessIssue] of the other base
        self.sock: Any = _Wire(self.sock, self._deadline)


class _PlainConnection(_Bounded, http.client.HTTPConnection):
    pass


class _EncryptedConnection(_Bounded, http.client.HTTPSConnection):
    pass


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, deadline: float):
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PlainConnection, req, deadline=self._deadline)  # pyright: ignore[reportArgumentType] do_open hands its keywords on


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, deadline: float):
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_EncryptedConnection, req, deadline=self._deadline)  # pyright: ignore[reportArgumentType] do_open hands its keywords on


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
