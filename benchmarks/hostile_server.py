"""A server that answers wrongly in every way we know, and what the client makes of it.

    python benchmarks/hostile_server.py --answers 2000

Each request draws one of the answers below by its seed: right ones, ones that are
right when asked again, malformed, impossible, endless and dripping ones, and silence.
It is checked that every sample is either had, with the tokens that the server gave, or
counted as a failure; that no wrong answer is had; and that no socket and no thread is
left behind. Prints the counts and writes benchmarks/results/hostile_server.md.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

RESULT = pathlib.Path(__file__).parent / "results" / "hostile_server.md"
TOKENS = [2, 3]
MOST_BYTES = 200_000
TOO_MANY = 50


def choice(**changes: Any) -> dict[str, Any]:
    """Return the JSON of a right answer, with changes to its choice."""
    right = {
        "text": "12",
        "finish_reason": "length",
        "token_ids": TOKENS,
        "logprobs": {"token_logprobs": [-0.5, -1.0]},
    }
    return {"choices": [{**right, **changes}], "usage": {"prompt_tokens": 4}}


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """Return the bytes of an HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def ok(content: Any) -> bytes:
    """Return the bytes of a JSON answer."""
    return http(json.dumps(content).encode())


Answer = Callable[[socket.socket, int], None]
"""Answers a request on a socket; told how often it was asked."""


def sends(data: bytes) -> Answer:
    """Answer with bytes."""
    return lambda sock, attempt: sock.sendall(data)


def drips(data: bytes) -> Answer:
    """Answer with a byte at a time, for ever."""

    def answer(sock: socket.socket, attempt: int) -> None:
        for i in range(10_000):
            sock.sendall(data[i % len(data) : i % len(data) + 1])
            time.sleep(0.02)

    return answer


def floods(first: bytes, data: bytes) -> Answer:
    """Answer with the same bytes as fast as they are read."""

    def answer(sock: socket.socket, attempt: int) -> None:
        sock.sendall(first)
        for _ in range(100_000):
            sock.sendall(data)

    return answer


def resets(sock: socket.socket, attempt: int) -> None:
    """Reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def is_silent(sock: socket.socket, attempt: int) -> None:
    """Wait until the client goes."""
    sock.recv(1)


def at_last(first: Answer) -> Answer:
    """Answer rightly when asked again."""
    right = sends(ok(choice()))
    return lambda sock, attempt: (first if attempt == 1 else right)(sock, attempt)


def _logs(*values: Any) -> dict[str, Any]:
    return choice(logprobs={"token_logprobs": list(values)})


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BUSY = "503 Service Unavailable"

GOOD: dict[str, Answer] = {
    "right": sends(ok(choice())),
    "right, in chunks": sends(
        CHUNKED + b"".join(b"1\r\n%c\r\n" % x for x in json.dumps(choice()).encode())
        + b"0\r\n\r\n"
    ),
    "right, absurd usage": sends(ok({**choice(), "usage": {"prompt_tokens": -1e99}})),
    "right, no usage": sends(ok({**choice(), "usage": "none"})),
    "busy, then right": at_last(sends(http(b"", BUSY, "Retry-After: \xb2\r\n"))),
    "busy for ages, then right": at_last(
        sends(http(b"", "429 Slow", "Retry-After: 999999999999\r\n"))
    ),
    "cut, then right": at_last(sends(http(b"{" * 500)[:-100])),
    "reset, then right": at_last(resets),
}  # fmt: skip
LIES: dict[str, Answer] = {
    name: sends(ok(content))
    for name, content in {
        "a list": [],
        "null": None,
        "no choices": {},
        "choices of another kind": {"choices": "two"},
        "no choice": {"choices": []},
        "two choices": {"choices": choice()["choices"] * 2},
        "a choice of another kind": {"choices": ["12"]},
        "no text": choice(text=None),
        "text of another kind": choice(text=["12"]),
        "finish reason error": choice(finish_reason="error", text="", token_ids=[]),
        "finish reason abort": choice(finish_reason="abort"),
        "finish reason null": choice(finish_reason=None),
        "finish reason of another kind": choice(finish_reason=["stop"]),
        "negative token": choice(token_ids=[2, -3]),
        "huge token": choice(token_ids=[2, 2**40]),
        "token beyond the vocabulary": choice(token_ids=[2, 13]),
        "fractional token": choice(token_ids=[2, 3.5]),
        "token of another kind": choice(token_ids=[2, "3"]),
        "true as token": choice(token_ids=[2, True]),
        "tokens of another kind": choice(token_ids="23"),
        "log-probability above 0": _logs(-0.5, 0.5),
        "infinite log-probability": _logs(-0.5, float("-inf")),
        "log-probability that is none": _logs(-0.5, float("nan")),
        "log-probability of another kind": _logs("-0.5", -1.0),
        "too few log-probabilities": _logs(-0.5),
        "log-probabilities of another kind": choice(logprobs={"token_logprobs": 3}),
        "content of another kind": choice(logprobs={"content": [3]}),
        "content without ids": choice(logprobs={"content": [{}, {}]}),
        "too many tokens": choice(token_ids=[2] * TOO_MANY, logprobs=None),
        "empty": choice(text="", token_ids=[], logprobs=None),
        "impossible stop": choice(finish_reason="stop", stop_reason=2**40),
        "stop of another kind": choice(finish_reason="stop", stop_reason=[3]),
        "impossible text": choice(text="\ud800", token_ids=[], logprobs=None),
    }.items()
}
BROKEN: dict[str, Answer] = {
    "no JSON": sends(http(b"{'choices': }")),
    "no text at all": sends(http(b"\xff\xfe\x00\xd8")),
    "deep JSON": sends(http(b"[" * 100_000)),
    "a number of 100,000 digits": sends(http(b'{"choices": ' + b"9" * 100_000 + b"}")),
    "redirection": sends(http(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n")),
    "refusal": sends(http(b'{"error": "bad\nseed"}' * 50, "400 Bad Request")),
    "no HTTP": sends(b"220 ready\r\n" * 50),
    "cut": sends(http(b"{" * 500)[:-100]),
    "bad chunks": sends(CHUNKED + b"zz\r\n{}\r\n"),
    "many headers": sends(HEAD + b"A: b\r\n" * 5_000 + b"\r\n"),
    "reset": resets,
    "busy": sends(http(b"", BUSY)),
    "silence": is_silent,
    "dripping body": drips(HEAD + b"\r\n" + b" " * 10_000),
    "dripping headers": drips(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 10_000),
    "endless body": floods(HEAD + b"\r\n", b" " * 65_536),
    "endless chunks": floods(CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "endless continue": floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
}
ANSWERS = {**GOOD, **LIES, **BROKEN}
UNTIL_TIMEOUT = ("silence", "dripping body", "dripping headers", "endless continue")
"""Answers that only a timeout ends; on a busy machine it can hit right ones too."""


class HostileServer:
    """Answers on a port of its own; a request's seed says how.

    Attributes:
      url: where it is.
      drawn: how often each answer was asked for first.
    """

    def __init__(self, answers: dict[str, Answer] = ANSWERS):
        self.answers, self.drawn = list(answers.items()), collections.Counter()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._asked: collections.Counter[int] = collections.Counter()
        self._lock, self._closed = threading.Lock(), False
        self._threads: list[threading.Thread] = []

    def name_of(self, seed: int) -> str:
        """Return which answer a seed gets."""
        return self.answers[random.Random(seed).randrange(len(self.answers))][0]

    def __enter__(self) -> "HostileServer":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(30)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._start(self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(20)
            try:
                seed = int(_body(connection)["seed"])
                name = self.name_of(seed)
                with self._lock:
                    self._asked[seed] += 1
                    attempt = self._asked[seed]
                    self.drawn[name] += attempt == 1
                dict(self.answers)[name](connection, attempt)
            except OSError:
                return  # the client went away, which is right


def _body(connection: socket.socket) -> dict[str, Any]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += _received(connection)
    return json.loads(body)


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("the client went away within its request")
    return data


@dataclasses.dataclass
class Outcome:
    """What a soak left.

    Attributes:
      answers: samples asked for.
      had: samples that were had.
      counts: failures by kind, as the client counts them.
      drawn: answers by name.
      wrong: what should not be; empty if all is right.
      seconds: wall time.
    """

    answers: int
    had: int
    counts: dict[str, int]
    drawn: dict[str, int]
    wrong: list[str]
    seconds: float


def soak(
    count: int,
    *,
    timeout: float = 0.5,
    concurrency: int = 32,
    answers: dict[str, Answer] = ANSWERS,
) -> Outcome:
    """Ask for samples of a hostile server, and check each."""
    from sgpo_jax import models, sampling

    tokenizer = models.CharTokenizer("0123456789+=")
    threads, files = threading.active_count(), _open_files()
    started = time.monotonic()
    seeds: dict[tuple[int, int], int] = {}
    with HostileServer(answers) as hostile:
        client = sampling.Server(
            hostile.url,
            model="m",
            tokenizer=tokenizer,
            max_response=8,
            concurrency=concurrency,
            most_bytes=MOST_BYTES,
            retry=sampling.Retry(
                attempts=3,
                wait=0.01,
                longest=0.05,
                timeout=timeout,
                deadline=30.0 + timeout,
            ),
        )
        requests = [
            sampling.Request(key, tokenizer.encode("1+1="), 20)
            for key in range(-(-count // 20))
        ]
        for i, request in enumerate(requests):
            for sample in range(20):
                seeds[i, sample] = client.seed_of(request, sample, (7, 0))
        failures: dict[tuple[int, int], str] = {}
        try:
            rollouts = client.sample(requests, seed=7, step=0)
            counts: dict[str, int] = {}
        except sampling.IncompleteError as error:
            rollouts, failures, counts = error.rollouts, error.failures, error.counts
        names = {place: hostile.name_of(seed) for place, seed in seeds.items()}
    seconds = time.monotonic() - started
    wrong = _wrong(rollouts, failures, names)
    if sum(counts.values()) != len(failures):
        wrong.append(f"{counts} do not add up to {len(failures)} failures")
    time.sleep(0.2)
    if threading.active_count() > threads:
        wrong.append(f"{threading.active_count() - threads} threads are left")
    if _open_files() > files:
        wrong.append(f"{_open_files() - files} files or sockets are left open")
    drawn = dict(collections.Counter(names.values()))
    return Outcome(len(names), len(rollouts), dict(counts), drawn, wrong, seconds)


def _wrong(rollouts: Any, failures: dict, names: dict) -> list[str]:
    """Return what should not be."""
    wrong = []
    had = list(zip(rollouts.request.tolist(), rollouts.sample.tolist(), strict=True))
    if len(set(had)) != len(had) or set(had) & set(failures):
        wrong.append("a sample is there twice")
    if {*had, *failures} != set(names):
        wrong.append("a sample is lost")
    for row, place in enumerate(had):
        name, length = names[place], int(rollouts.length[row])
        tokens = rollouts.tokens[row, :length].tolist()
        if name not in GOOD:
            wrong.append(f"{name!r} was taken for an answer")
        elif tokens != TOKENS:
            wrong.append(f"{name!r} became {tokens}")
    for place, reason in failures.items():
        if names[place] in GOOD:
            wrong.append(f"{names[place]!r} failed: {reason}")
        if len(reason) > 600:
            wrong.append(f"{names[place]!r} has a reason of {len(reason)} characters")
    return wrong


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def main() -> None:
    """Soak and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=2000)
    args = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = soak(args.answers)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    kinds = sorted(found.counts.items(), key=lambda item: -item[1])
    lines = [
        "# Samples of a hostile server",
        "",
        f"`python benchmarks/hostile_server.py --answers {args.answers}`:"
        f" {len(ANSWERS)} kinds of answers, {len(GOOD)} of them right in the end. Of"
        f" {found.answers:,} samples {found.had:,} were had and"
        f" {sum(found.counts.values()):,} refused and counted, in {found.seconds:.0f}"
        f" s; peak memory grew by {grown / 1024:.0f} MiB, imports included.",
        "",
        "| failure, as counted | samples |",
        "|---|---:|",
        *(f"| {kind} | {count} |" for kind, count in kinds),
        "",
        *(f"WRONG: {text}" for text in found.wrong),
        "" if found.wrong else "Nothing was lost, taken wrongly or left behind.",
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n")
    raise SystemExit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
