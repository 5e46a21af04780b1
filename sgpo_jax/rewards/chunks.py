"""Chunks of items: how the work of a batch is divided among scorers."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from .conventions import Call

_SHORTEST, _LONGEST = 0.002, 0.05  # seconds of work in a chunk
_FIRST = 8  # items of a verifier whose speed is unknown


@dataclasses.dataclass(eq=False, slots=True)
class Task:
    """An item on its way.

    Attributes:
      batch: number of its batch.
      index: its place there.
      query: number of its query in the batch.
      text: the completion.
      tokens: its token ids, if a verifier takes them.
      tries: how often a process died over it.
    """

    batch: int
    index: int
    query: int
    text: str
    tokens: list[int] | None
    tries: int = 0


@dataclasses.dataclass(eq=False)
class Chunk:
    """Items of one verifier that one scorer gets at once.

    Attributes:
      batch: number of their batch.
      name: their verifier.
      tasks: the items.
      number: of the chunk, which its results carry.
      next: the item whose result is due.
      done: whether the scorer has finished.
      seconds: how long the scorer says that it took.
    """

    batch: int
    name: str
    tasks: list[Task]
    number: int = 0
    next: int = 0
    done: bool = False
    seconds: float = 0.0


class Batches:
    """The items that wait, by batch and verifier.

    Args:
      workers: scorers there may be.
      isolate: whether each item of code that is not trusted gets a process of its own.
    """

    def __init__(self, workers: int, isolate: bool):
        self._workers, self._isolate = workers, isolate
        self._waiting: dict[tuple[int, str], collections.deque[Task]] = {}
        self._alone: collections.deque[tuple[str, list[Task]]] = collections.deque()
        self._suspects: collections.deque[tuple[str, Task]] = collections.deque()
        self._queries: dict[int, dict[int, str]] = {}
        self._closed: set[int] = set()
        self._left: collections.Counter[int] = collections.Counter()
        self._calls: dict[str, Call] = {}
        self._seconds: dict[str, float] = {}

    def add(
        self,
        batch: int,
        queries: Mapping[int, str],
        items: Iterable[tuple[int, str, int, str, list[int] | None, bool]],
        calls: dict[str, Call],
    ) -> None:
        """Add items (index, verifier, query, text, tokens, suspect) to a batch."""
        self._calls = calls
        self._queries.setdefault(batch, {}).update(queries)
        for index, name, query, text, tokens, suspect in items:
            task = Task(batch, index, query, text, tokens)
            self._left[batch] += 1
            if suspect and not calls[name].whole_batch:
                self._suspects.append((name, task))
            else:
                self._waiting.setdefault((batch, name), collections.deque()).append(
                    task
                )

    def _queue(self, batch: int, name: str) -> collections.deque[Task]:
        return self._waiting.setdefault((batch, name), collections.deque())

    def close(self, batch: int) -> None:
        """Note that a batch is complete."""
        if self._left[batch]:
            self._closed.add(batch)
        else:
            self._forget(batch)

    def drop(self, batch: int) -> None:
        """Forget a batch."""
        self._waiting = {k: v for k, v in self._waiting.items() if k[0] != batch}
        alone = [entry for entry in self._alone if entry[1][0].batch != batch]
        suspects = [entry for entry in self._suspects if entry[1].batch != batch]
        self._alone = collections.deque(alone)
        self._suspects = collections.deque(suspects)
        self._forget(batch)

    def _forget(self, batch: int) -> None:
        self._queries.pop(batch, None)
        self._left.pop(batch, None)
        self._closed.discard(batch)

    def resolved(self, task: Task) -> None:
        """Note that an item has its outcome."""
        if task.batch in self._left:
            self._left[task.batch] -= 1
            if not self._left[task.batch] and task.batch in self._closed:
                self._forget(task.batch)

    def over(self, batch: int) -> bool:
        """Tell whether every item of a batch has its outcome."""
        return batch not in self._left

    def queries(self, chunk: Chunk) -> dict[int, str]:
        """Return the queries of a chunk as JSON."""
        known = self._queries.get(chunk.batch, {})
        return {task.query: known[task.query] for task in chunk.tasks}

    def take(self, busy: int) -> Chunk | None:
        """Remove and return the next chunk; None if there is nothing to do now.

        Items over which the supervisor may have died come last and one by one, while
        nothing else runs.
        """
        if self._alone:
            name, tasks = self._alone.popleft()
            return Chunk(tasks[0].batch, name, tasks)
        for (batch, name), tasks in list(self._waiting.items()):
            call = self._calls[name]
            if call.whole_batch and batch not in self._closed:
                continue
            size = len(tasks) if call.whole_batch else self._size(name, len(tasks))
            taken = [tasks.popleft() for _ in range(min(size, len(tasks)))]
            if not tasks:
                del self._waiting[batch, name]
            return Chunk(batch, name, taken)
        if self._suspects and not busy:
            name, task = self._suspects.popleft()
            return Chunk(task.batch, name, [task])
        return None

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
        took = chunk.seconds / len(chunk.tasks)
        if not 0 <= took < math.inf:
            return
        before = self._seconds.get(chunk.name, took)
        self._seconds[chunk.name] = max(0.5 * (before + took), 1e-6)

    def put_back(
        self, name: str, tasks: Sequence[Task], *, alone: Sequence[Task], whole: bool
    ) -> None:
        """Take back items without an outcome; `alone` get a chunk of their own."""
        tasks = [task for task in tasks if task.batch in self._left]
        alone = [task for task in alone if task.batch in self._left]
        if alone:
            self._alone.append((name, list(alone)))
        if tasks:
            queue = self._waiting.setdefault(
                (tasks[0].batch, name), collections.deque()
            )
            queue.extendleft(reversed(tasks))
