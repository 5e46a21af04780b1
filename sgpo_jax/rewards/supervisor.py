"""The process between a `Worker` and the processes that score.

It imports the verifiers once and forks scorers, so that one that hangs or dies is
replaced in a millisecond, however long the imports took. It never runs a verifier and
never waits for anybody: items are read ahead and handed out in chunks of some
milliseconds, results are sent up as they arrive. Scorers stay warm. Those that run code
of one's own run nothing else, and are replaced after `BATCHES` batches, when a process
of theirs outlives a batch, and when something fails that may be left of an earlier one:
that item is tried again in a fresh process. Run by `Worker` as
`python -m sgpo_jax.rewards.supervisor DESCRIPTOR` of a connected socket.
"""

import collections
import faulthandler
import gc
import mmap
import os
import selectors
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from . import reaping, wire
from .chunks import Batches, Chunk, CompletionColumns
from .conventions import RewardFunction
from .names import find
from .scorer import ScoringLimits, running, work

HEARTBEAT = 1.0  # seconds between signs of life while there is work
BATCHES = 16
"""Batches after which a process that runs code of one's own is replaced."""


class Outgoing:
    """A socket that is written to without waiting."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        self.connection = connection
        self.waiting: collections.deque[memoryview] = collections.deque()
        self.events = selectors.EVENT_READ

    def send(self, data: bytes) -> None:
        """Send what fits now and keep the rest."""
        self.waiting.append(memoryview(data))
        self.flush()

    def flush(self) -> None:
        """Continue with the buffer."""
        try:
            while self.waiting:
                sent = self.connection.send(self.waiting[0])
                self.waiting[0] = self.waiting[0][sent:]
                if not self.waiting[0]:
                    self.waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.waiting.clear()  # the reader is gone, as its end of file shows


class _Scorer:
    """A forked process, for trusted functions or others, and what it is doing."""

    def __init__(
        self, pid: int, connection: socket.socket, progress: mmap.mmap, trusted: bool
    ):
        self.pid, self.out, self.progress = pid, Outgoing(connection), progress
        self.trusted = trusted
        self.chunk: Chunk | None = None
        self.due = 0.0
        self.reader = wire.Reader(b"")
        self.batch, self.batches = 0, 0  # the last one, and how many with it
        self.outdated = False

    def batches_with(self, chunk: Chunk) -> int:
        """Return of how many batches it has run code, with that of a chunk."""
        return self.batches + (chunk.batch != self.batch)


class Supervisor:
    """Hands items to scorers until each has an outcome."""

    def __init__(self, connection: socket.socket):
        self._trainer = Outgoing(connection)
        self._requests = wire.Requests()
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ, None)
        self._verifiers: dict[str, RewardFunction] = {}
        self._scorers: dict[int, _Scorer] = {}
        self._numbers = 0
        self._told = time.monotonic()

    def serve(self) -> None:
        """Score until the other end of the connection is closed."""
        try:
            while True:
                self._dispatch()
                self._wait()
        except EOFError:
            pass
        finally:
            for scorer in list(self._scorers.values()):
                self._end(scorer)
            reaping.sweep(())

    def _wait(self) -> None:
        now = time.monotonic()
        due = [s.due - now for s in self._scorers.values() if s.chunk]
        timeout = min([HEARTBEAT, *due]) if due else None
        for scorer in [None, *self._scorers.values()]:
            out = self._trainer if scorer is None else scorer.out
            events = selectors.EVENT_READ
            if out.waiting:
                events |= selectors.EVENT_WRITE
            if events != out.events:
                self._selector.modify(out.connection, events, scorer)
                out.events = events
        ready = self._selector.select(None if timeout is None else max(timeout, 0.0))
        for key, events in ready:
            scorer = key.data
            if scorer is not None and scorer.pid not in self._scorers:
                continue
            out = self._trainer if scorer is None else scorer.out
            if events & selectors.EVENT_WRITE:
                out.flush()
            if events & selectors.EVENT_READ:
                self._hear() if scorer is None else self._read(scorer)
        now = time.monotonic()
        for scorer in [s for s in self._scorers.values() if s.chunk and s.due <= now]:
            self._late(scorer)
        if due and now - self._told > HEARTBEAT:
            self._tell(wire.control({"alive": True}))

    def _tell(self, *records: wire.Record) -> None:
        self._told = time.monotonic()
        self._trainer.send(b"".join(wire.pack(self._tag, r) for r in records))

    def _hear(self) -> None:
        try:
            data = self._trainer.connection.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:  # the trainer closed it before it read all
            raise EOFError from None
        if not data:
            raise EOFError
        for kind, *fields in self._requests.feed(data):
            getattr(self, f"_on_{kind}")(*fields)

    def _on_hello(self, tag: bytes, limits: tuple, workers: int, isolate: bool) -> None:
        self._tag, self._limits, self._workers = tag, ScoringLimits(*limits), workers
        self._isolate = isolate
        self._batches = Batches(workers, isolate)

    def _on_load(self, wanted: Mapping[str, bytes | None]) -> None:
        # Ends the process from a thread without the interpreter lock, so an import
        # that hangs in C ends too. The worker then sees the connection close.
        faulthandler.dump_traceback_later(self._limits.startup, exit=True)
        loaded, name = {}, ""
        try:
            for name, payload in wanted.items():
                loaded[name] = find(name, payload)
        except ValueError as error:
            self._tell(wire.control({"error": str(error)}))
            return
        # SystemExit included: a script that ends itself is a wrong verifier.
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            error = f"verifier {name!r} cannot be imported: {text}"
            self._tell(wire.control({"error": error}))
            return
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._verifiers |= loaded
        # Scorers of before do not know the new ones.
        for scorer in list(self._scorers.values()):
            if scorer.chunk is None:
                self._end(scorer)
            else:
                scorer.outdated = True
        gc.collect()
        gc.freeze()
        self._tell(
            wire.control({"loaded": {n: c.convention for n, c in loaded.items()}})
        )

    def _on_items(self, batch: int, queries: dict, items: dict, suspects: dict) -> None:
        self._batches.add(batch, queries, items, suspects, self._verifiers)

    def _on_close(self, batch: int) -> None:
        self._batches.close(batch)
        if self._batches.over(batch):
            self._tidy()

    def _on_cancel(self, batch: int) -> None:
        self._batches.drop(batch)
        for scorer in list(self._scorers.values()):
            if scorer.chunk and scorer.chunk.batch == batch:
                self._retire(scorer)
        self._tidy()

    def _dispatch(self) -> None:
        """Give chunks to free scorers, and fork more where there are too few."""
        if not self._verifiers:
            return
        while True:
            busy = sum(1 for s in self._scorers.values() if s.chunk)
            if busy >= self._workers:
                return
            chunk = self._batches.take(busy)
            if chunk is None:
                return
            self._start(chunk)

    def _start(self, chunk: Chunk) -> None:
        call = self._verifiers[chunk.name]
        scorer = self._free(chunk, call.trusted) or self._fork(call.trusted)
        self._numbers += 1
        chunk.number = self._numbers % (1 << 32)
        scorer.chunk, scorer.reader = chunk, wire.Reader(os.urandom(wire.TAG))
        scorer.batches, scorer.batch = scorer.batches_with(chunk), chunk.batch
        used = scorer.batches > 1 and not call.trusted
        self._extend(scorer, call)
        indices = chunk.items.indices
        if indices[-1] - indices[0] + 1 == len(indices):
            indices = [indices[0], -len(indices)]  # that many that follow one another
        self._tell(wire.control({"started": [chunk.batch, chunk.number, indices]}))
        body = (chunk.number, chunk.name, self._batches.queries(chunk))
        body = (scorer.reader.tag, used, *body, *chunk.items.columns()[1:])
        scorer.out.send(wire.request(body))

    def _free(self, chunk: Chunk, trusted: bool) -> _Scorer | None:
        """Return a free scorer for a chunk, and end those that have served their time.

        What failed once is for a process that has run no other batch.
        """
        most = 1 if chunk.again else BATCHES
        for scorer in list(self._scorers.values()):
            if scorer.chunk is None and scorer.trusted == trusted:
                if trusted or scorer.batches_with(chunk) <= most:
                    return scorer
                self._retire(scorer)
        return None

    def _extend(self, scorer: _Scorer, call: RewardFunction) -> None:
        scorer.due = time.monotonic() + self._limit(call)

    def _limit(self, call: RewardFunction) -> float:
        return self._limits.batch if call.whole_batch else self._limits.deadline

    def _fork(self, trusted: bool) -> _Scorer:
        ours, theirs = socket.socketpair()
        progress = mmap.mmap(-1, mmap.PAGESIZE)
        pid = os.fork()
        if pid == 0:
            self._trainer.connection.close()
            self._selector.close()
            for scorer in self._scorers.values():
                scorer.out.connection.close()
            ours.close()
            work(theirs, progress, self._verifiers, self._limits.memory)
        theirs.close()
        scorer = self._scorers[pid] = _Scorer(pid, ours, progress, trusted)
        self._selector.register(ours, selectors.EVENT_READ, scorer)
        return scorer

    def _read(self, scorer: _Scorer) -> None:
        try:
            data = scorer.out.connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._died(scorer)
            return
        chunk = scorer.chunk
        if chunk is None:
            self._end(scorer)  # not requested
            return
        records = []
        why = None
        try:
            for record in scorer.reader.feed(data):
                self._accept(chunk, record)
                if record.kind == wire.RESULTS:
                    records.append(record)
        except wire.ForgedError as error:
            why = str(error)
        if records:
            self._extend(scorer, self._verifiers[chunk.name])
            self._tell(*records)
        if why is not None:
            self._died(scorer, why)
        elif chunk.done:
            self._through(scorer, chunk)

    def _accept(self, chunk: Chunk, record: wire.Record) -> None:
        """Handle a message of a scorer, if it is valid in this state."""
        left = len(chunk.items) - chunk.next
        if record.chunk != chunk.number or record.item != chunk.next or chunk.done:
            raise wire.ForgedError("a result that was not requested")
        if record.kind == wire.RESULTS:
            count = len(wire.results(record.body).kinds)
            if count > left:
                raise wire.ForgedError("more results than were requested")
            chunk.next += count
            self._batches.resolved(chunk.batch, count)
        elif record.kind == wire.DONE and not left and len(record.body) == 8:
            chunk.done, (chunk.seconds,) = True, wire.SECONDS.unpack(record.body)
        else:
            raise wire.ForgedError("a result of no known kind")

    def _through(self, scorer: _Scorer, chunk: Chunk) -> None:
        self._batches.learn(chunk)
        scorer.chunk = None
        if scorer.outdated or (self._isolate and not scorer.trusted):
            self._retire(scorer)
        if self._batches.over(chunk.batch):
            self._tidy()

    def _tidy(self) -> None:
        """End the processes that code of a batch has left behind."""
        own = [s for s in self._scorers.values() if not s.trusted]
        for scorer in own:
            if scorer.chunk is None and reaping.has_children(scorer.pid):
                self._end(scorer)
        if own:
            reaping.sweep(self._scorers)

    def _retire(self, scorer: _Scorer) -> None:
        self._end(scorer)
        reaping.sweep(self._scorers)

    def _died(self, scorer: _Scorer, why: str = "") -> None:
        status = self._end(scorer)
        reaping.sweep(self._scorers)
        self._again(scorer, "crash", why or reaping.cause_of_death(status))

    def _late(self, scorer: _Scorer) -> None:
        # Another process may have stopped an innocent one.
        stopped = reaping.state(scorer.pid) in ("T", "t")
        self._end(scorer)
        reaping.sweep(self._scorers)
        if stopped:
            self._again(scorer, "crash", "the process was stopped")
            return
        if scorer.chunk is not None:
            limit = self._limit(self._verifiers[scorer.chunk.name])
            self._again(scorer, "timeout", f"after {limit:g} s")

    def _again(self, scorer: _Scorer, kind: str, detail: str) -> None:
        """Take up the items of a dead scorer; the one it worked on may be to blame."""
        chunk, scorer.chunk = scorer.chunk, None
        if chunk is None:
            return
        left = chunk.rest()
        # Results of the last moment may be lost with the scorer: those items go again.
        number, item = running(scorer.progress)
        place = item - chunk.next if number == chunk.number else 0
        place = place if 0 <= place < len(left) else 0
        if self._verifiers[chunk.name].whole_batch:
            blamed, others = left, CompletionColumns()
        else:
            blamed = left.part(place, place + 1)
            others = left.part(0, place) + left.part(place + 1, len(left))
        if kind == "crash" and not chunk.again:
            self._batches.put_back(chunk, others, alone=blamed)
            return
        outcome = wire.KINDS.index(kind)
        first = chunk.next + (len(blamed) == 1) * place
        self._batches.put_back(chunk, others, alone=CompletionColumns())
        for start in range(0, len(blamed), wire.MOST):
            count = min(wire.MOST, len(blamed) - start)
            body = wire.pack_results([0.0] * count, [outcome] * count, [detail] * count)
            record = wire.Record(chunk.number, first + start, wire.RESULTS, body)
            self._batches.resolved(chunk.batch, count)
            self._tell(record)

    def _end(self, scorer: _Scorer) -> int:
        self._selector.unregister(scorer.out.connection)
        scorer.out.connection.close()
        del self._scorers[scorer.pid]
        return reaping.end(scorer.pid)


def main(descriptor: int) -> None:
    """Serve the connected socket `descriptor`."""
    reaping.adopt_orphans()
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    supervisor: Any = Supervisor(connection)
    supervisor.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
