"""Chunks of items: how the work of a batch is divided among scorers."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .conventions import RewardFunction

# Seconds of work in a chunk; less than a fork costs is not worth another scorer.
_SHORTEST, _LONGEST = 0.01, 0.05
_FIRST = 8  # items of a verifier whose speed is unknown


@dataclasses.dataclass(eq=False, slots=True)
class CompletionColumns:
    """Completions of one verifier, by column.

    Attributes:
      indices: place of each in its batch.
      queries: number of its query in the batch.
      texts: the completions.
      tokens: their token ids, if the verifier takes them.
    """

    indices: list[int] = dataclasses.field(default_factory=list)
    queries: list[int] = dataclasses.field(default_factory=list)
    texts: list[str] = dataclasses.field(default_factory=list)
    tokens: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def columns(self) -> tuple[list[int], list[int], list[str], list[Any] | None]:
        """Return the columns, as they travel."""
        return self.indices, self.queries, self.texts, self.tokens

    def part(self, start: int, stop: int) -> "CompletionColumns":
        """Return the items from `start` to `stop`."""
        return CompletionColumns(
            self.indices[start:stop],
            self.queries[start:stop],
            self.texts[start:stop],
            None if self.tokens is None else self.tokens[start:stop],
        )

    def pick(self, places: Sequence[int]) -> "CompletionColumns":
        """Return the items at some places."""
        return CompletionColumns(
            [self.indices[i] for i in places],
            [self.queries[i] for i in places],
            [self.texts[i] for i in places],
            None if self.tokens is None else [self.tokens[i] for i in places],
        )

    def pop(self, count: int) -> "CompletionColumns":
        """Remove and return the first `count` items."""
        if count >= len(self.indices):
            taken = CompletionColumns(*self.columns())
            self.indices, self.queries, self.texts = [], [], []
            self.tokens = None if self.tokens is None else []
            return taken
        taken = self.part(0, count)
        for column in self.columns():
            if column is not None:
                del column[:count]
        return taken

    def __add__(self, other: "CompletionColumns") -> "CompletionColumns":
        return CompletionColumns(
            self.indices + other.indices,
            self.queries + other.queries,
            self.texts + other.texts,
            None if self.tokens is None else self.tokens + (other.tokens or []),
        )

    def singly(self) -> "Iterator[CompletionColumns]":
        """Yield the items one by one."""
        for place in range(len(self)):
            yield self.part(place, place + 1)


@dataclasses.dataclass(eq=False, slots=True)
class Chunk:
    """Items of one verifier that one scorer gets at once.

    Attributes:
      batch: number of their batch.
      name: their verifier.
      items: the items.
      again: whether a process has died over them.
      number: of the chunk, which its results carry.
      next: the item whose result is due.
      done: whether the scorer has finished.
      seconds: duration by the scorer's clock.
    """

    batch: int
    name: str
    items: CompletionColumns
    again: bool = False
    number: int = 0
    next: int = 0
    done: bool = False
    seconds: float = 0.0

    def rest(self) -> CompletionColumns:
        """Return the items without a result."""
        return self.items.part(self.next, len(self.items))


class Batches:
    """The items that wait, by batch and verifier.

    Args:
      workers: scorers there may be.
      isolate: whether each item of code that is not trusted gets a process of its own.
    """

    def __init__(self, workers: int, isolate: bool):
        self._workers, self._isolate = workers, isolate
        self._waiting: dict[tuple[int, str], CompletionColumns] = {}
        self._alone: collections.deque[Chunk] = collections.deque()
        self._suspects: collections.deque[Chunk] = collections.deque()
        self._queries: dict[int, dict[int, str]] = {}
        self._closed: set[int] = set()
        self._left: collections.Counter[int] = collections.Counter()
        self._calls: dict[str, RewardFunction] = {}
        self._seconds: dict[str, float] = {}

    def add(
        self,
        batch: int,
        queries: Mapping[int, str],
        items: Mapping[str, Sequence[Any]],
        suspects: Mapping[str, Sequence[Any]],
        calls: dict[str, RewardFunction],
    ) -> None:
        """Add items to a batch: columns of `CompletionColumns` by verifier.

        Those of `suspects` are last and one by one, while nothing else runs: the
        supervisor may have died over them.
        """
        self._calls = calls
        self._queries.setdefault(batch, {}).update(queries)
        for name, columns in items.items():
            self._append(batch, name, CompletionColumns(*columns))
        for name, columns in suspects.items():
            those = CompletionColumns(*columns)
            if calls[name].whole_batch:
                self._append(batch, name, those)
                continue
            self._left[batch] += len(those)
            self._suspects.extend(Chunk(batch, name, one) for one in those.singly())

    def _append(self, batch: int, name: str, items: CompletionColumns) -> None:
        self._left[batch] += len(items)
        before = self._waiting.get((batch, name))
        self._waiting[batch, name] = items if before is None else before + items

    def close(self, batch: int) -> None:
        """Note that a batch is complete."""
        if self._left[batch]:
            self._closed.add(batch)
        else:
            self._forget(batch)

    def drop(self, batch: int) -> None:
        """Forget a batch."""
        self._waiting = {k: v for k, v in self._waiting.items() if k[0] != batch}
        for queue in (self._alone, self._suspects):
            kept = [chunk for chunk in queue if chunk.batch != batch]
            queue.clear()
            queue.extend(kept)
        self._forget(batch)

    def _forget(self, batch: int) -> None:
        self._queries.pop(batch, None)
        self._left.pop(batch, None)
        self._closed.discard(batch)

    def resolved(self, batch: int, count: int) -> None:
        """Note that items of a batch have their outcome."""
        if batch in self._left:
            self._left[batch] -= count
            if self._left[batch] <= 0 and batch in self._closed:
                self._forget(batch)

    def over(self, batch: int) -> bool:
        """Return whether every item of a batch has its outcome."""
        return batch not in self._left

    def queries(self, chunk: Chunk) -> dict[int, str]:
        """Return the queries of a chunk as JSON."""
        known = self._queries.get(chunk.batch, {})
        return {query: known[query] for query in set(chunk.items.queries)}

    def take(self, busy: int) -> Chunk | None:
        """Remove and return the next chunk; None if there is nothing to do now."""
        if self._alone:
            return self._alone.popleft()
        for (batch, name), items in self._waiting.items():
            whole = self._calls[name].whole_batch
            if whole and batch not in self._closed:
                continue
            size = len(items) if whole else self._size(name, len(items))
            chunk = Chunk(batch, name, items.pop(size))
            if not items:
                del self._waiting[batch, name]
            return chunk
        return self._suspects.popleft() if self._suspects and not busy else None

    def _size(self, name: str, waiting: int) -> int:
        """Return how many items a chunk has: an even share, of bounded seconds."""
        if self._isolate and not self._calls[name].trusted:
            return 1
        share = math.ceil(waiting / self._workers)
        seconds = self._seconds.get(name)
        if seconds is None:
            return min(share, _FIRST)
        least, most = (max(1, int(s / seconds)) for s in (_SHORTEST, _LONGEST))
        return min(max(share, least), most)

    def learn(self, chunk: Chunk) -> None:
        """Note how long a chunk took."""
        took = chunk.seconds / len(chunk.items)
        if not 0 <= took < math.inf:
            return
        before = self._seconds.get(chunk.name, took)
        self._seconds[chunk.name] = max(0.5 * (before + took), 1e-6)

    def put_back(
        self, chunk: Chunk, items: CompletionColumns, alone: CompletionColumns
    ) -> None:
        """Take back items without an outcome; `alone` get a chunk of their own."""
        if chunk.batch not in self._left:
            return
        if alone:
            self._alone.append(Chunk(chunk.batch, chunk.name, alone, again=True))
        if items:
            key = chunk.batch, chunk.name
            waiting = self._waiting.get(key)
            self._waiting[key] = items if waiting is None else items + waiting
