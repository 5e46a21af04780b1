"""A batch of completions on its way through the scorers."""

import array
import collections
import dataclasses
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from sgpo_jax.data import Query

from . import wire
from .chunks import CompletionColumns
from .link import Link, Lost
from .names import terms
from .problems import Problem

if TYPE_CHECKING:
    from .worker import Worker

_FLUSH = 1024  # items that are kept back at most before they are sent
_FIELDS = tuple(field.name for field in dataclasses.fields(Query))
_LOST = wire.KINDS.index("crash")
_PENDING = 255

Indices = range | list[int]


@dataclasses.dataclass(eq=False, slots=True)
class _Asked:
    """A query of a batch.

    Attributes:
      query: it.
      number: of it in the batch.
      parts: weight and items of each of its verifiers.
      columns: the items of those verifiers.
    """

    query: Query
    number: int
    weights: list[float]
    columns: list[CompletionColumns]


class RewardBatch:
    """Completions that are scored while others are still sampled.

    `add` and `send` do not wait for results; `results` does.

    Attributes:
      number: of the batch.
      parts: after `results`, the rewards of each verifier of weighted sums, by name.

    Example:
      >>> from sgpo_jax.rewards import Worker
      >>> query = Query(id="q", prompt="4+3=", reference="7")
      >>> with Worker(workers=1) as worker, worker.batch() as batch:
      ...     places = [batch.add("7", query), batch.add("8", query)]
      ...     batch.results()
      array([1., 0.])
    """

    def __init__(self, worker: "Worker", number: int):
        self._worker, self.number = worker, number
        self._items: dict[str, CompletionColumns] = {}
        self._sent: dict[str, int] = {}
        self._asked: dict[int, _Asked] = {}
        self._told = 0  # of the queries
        self._whose: list[_Asked] = []
        self._texts: list[str] = []
        self._first: list[int] = []  # item of each completion
        self._values = array.array("d")
        self._kinds = bytearray()
        self._details: dict[int, str] = {}
        self._weighted = False
        self._left = 0
        self._unsent = 0
        self._chunks: dict[int, Indices] = {}
        self._losses: collections.Counter[int] = collections.Counter()
        self._link: Link | None = None
        self.parts: Mapping[str, np.ndarray] = {}

    def __enter__(self) -> "RewardBatch":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._worker.ended(self)
        if kind is not None:
            # Part of it may still be on its way, after an interrupt for instance.
            self._worker.close()

    def add(self, text: str, query: Query, tokens: list[int] | None = None) -> int:
        """Add a completion; return its place in the results.

        Args:
          text: the completion.
          query: what it answers.
          tokens: its token ids, for reward functions that take them.
        """
        asked = self._asked.get(id(query)) or self._ask(query)
        item = len(self._values)
        self._first.append(item)
        self._whose.append(asked)
        self._texts.append(text)
        for items in asked.columns:
            items.indices.append(item)
            items.queries.append(asked.number)
            items.texts.append(text)
            if items.tokens is not None:
                items.tokens.append(tokens)
            self._values.append(0.0)
            self._kinds.append(_PENDING)
            item += 1
        count = len(asked.columns)
        self._left += count
        self._unsent += count
        if self._unsent >= _FLUSH and self._link is not None:
            self.send()
        return len(self._whose) - 1

    def _ask(self, query: Query) -> _Asked:
        weights, columns = [], []
        for weight, name in terms(query.verifier):
            if name not in self._items:
                # Only TRL's convention is given tokens.
                self._items[name] = CompletionColumns(tokens=[])
                self._sent[name] = 0
            weights.append(weight)
            self._weighted |= weight != 1
            columns.append(self._items[name])
        asked = _Asked(query, len(self._asked), weights, columns)
        self._asked[id(query)] = asked
        return asked

    def send(self) -> None:
        """Send what was added so far, and take what the scorers are through with.

        Raises:
          ValueError: if a verifier does not exist.
          RuntimeError: if the verifiers cannot be imported in time.
        """
        self._attempt(self._send_new)

    def _send_new(self) -> None:
        worker = self._worker
        link = worker.ready(list(self._items))
        worker.opened(self)
        if link is not self._link:
            self._link, self._told = link, 0
            self._sent, self._chunks = dict.fromkeys(self._sent, 0), {}
        new: dict[str, tuple] = {}
        suspects: dict[str, tuple] = {}
        for name, items in self._items.items():
            start, self._sent[name] = self._sent[name], len(items)
            part = items.part(start, len(items))
            if not link.loaded[name].startswith("trl"):
                part.tokens = None
            if start == 0 and self._losses:
                part, doubtful = self._pending(part)
                if doubtful:
                    suspects[name] = doubtful.columns()
            if part:
                new[name] = part.columns()
        queries = {}
        for asked in itertools.islice(self._asked.values(), self._told, None):
            queries[asked.number] = self._encoded(asked.query)
        if new or suspects:
            message = ("items", self.number, queries, new, suspects)
            link.send(wire.request(message), worker.poll)
        self._told, self._unsent = len(self._asked), 0
        for record in link.receive(0.0):
            worker.route(link, record)

    def _pending(
        self, items: CompletionColumns
    ) -> tuple[CompletionColumns, CompletionColumns]:
        """Return the items without an outcome: good ones, and those once lost."""
        places = [
            place
            for place, index in enumerate(items.indices)
            if self._kinds[index] == _PENDING
        ]
        lost = [place for place in places if self._losses[items.indices[place]]]
        good = [place for place in places if not self._losses[items.indices[place]]]
        return items.pick(good), items.pick(lost)

    def _encoded(self, query: Query) -> str:
        fields = {name: getattr(query, name) for name in _FIELDS}
        if fields.get("metadata") is not None:
            fields["metadata"] = dict(fields["metadata"])
        try:
            return json.dumps(fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"query {query.id}: its metadata is not plain JSON: {error}"
            ) from error

    def _attempt(self, act) -> None:
        """Do something with the supervisor; start another one if this one is lost."""
        for _ in range(1 + 2 * len(self._kinds)):
            try:
                act()
                return
            except Lost as error:
                self._lost(str(error))
        raise RuntimeError("the scoring process cannot be kept alive")

    def _lost(self, reason: str) -> None:
        """Blame what was being scored, once all of it, then one item at a time."""
        self._worker.close()
        # An item that was put back is in several chunks, and is lost once.
        running = {i for indices in self._chunks.values() for i in indices}
        self._chunks = {}
        for i in running:
            if self._kinds[i] == _PENDING:
                self._losses[i] += 1
                if self._losses[i] >= 2:
                    detail = f"the scoring processes were lost twice over it: {reason}"
                    self._settle(i, _LOST, detail)

    def started(self, chunk: int, indices: Sequence[int]) -> None:
        """Note items that a scorer has begun with.

        Args:
          chunk: its number.
          indices: of the items, or the first and minus how many follow one another.
        """
        if len(indices) == 2 and indices[1] < 0:
            indices = range(indices[0], indices[0] - indices[1])
        if not all(0 <= i < len(self._kinds) for i in (indices[0], indices[-1])):
            raise Lost("items that were not sent")
        self._chunks[chunk] = indices if isinstance(indices, range) else list(indices)

    def take(self, record: wire.Record) -> None:
        """Keep the outcomes of items."""
        try:
            found = wire.results(record.body)
        except wire.ForgedError as error:
            raise Lost(str(error)) from None
        indices = self._chunks[record.chunk][record.item :][: len(found.kinds)]
        kinds = [self._kinds[i] for i in indices]
        if kinds != [_PENDING] * len(found.kinds):
            raise Lost("a result that was not requested")
        if isinstance(indices, range):
            self._values[indices.start : indices.stop] = found.values
            self._kinds[indices.start : indices.stop] = found.kinds
        else:
            for i, value, kind in zip(indices, found.values, found.kinds, strict=True):
                self._values[i], self._kinds[i] = value, kind
        if found.details:
            bad = (i for i, k in zip(indices, found.kinds, strict=True) if k)
            self._details |= zip(bad, found.details, strict=True)
        self._left -= len(found.kinds)

    def has_chunk(self, chunk: int) -> bool:
        """Return whether a chunk is of this batch."""
        return chunk in self._chunks

    def _settle(self, index: int, kind: int, detail: str) -> None:
        self._values[index], self._kinds[index] = 0.0, kind
        self._details[index] = detail
        self._left -= 1

    def results(self) -> Float64[np.ndarray, " n"]:
        """Wait for the rewards of all completions, in the order they were added.

        Returns:
          One reward for each; NaN for what could not be scored, see `Worker.problems`.
        """
        if self._whose:
            self._attempt(self._finish_sending)  # takes what arrived meanwhile
            due = time.monotonic() + self._worker.batch_deadline
            waiting = Waiting(self.waiting())
            while self._left:
                if not self._await(due, waiting):
                    self._give_up()
                elif self._left:  # with another supervisor
                    self._attempt(self._finish_sending)
            self._worker.queue = waiting.now(0.0)
        self._worker.ended(self)
        return self._rewards()

    def _finish_sending(self) -> None:
        self._send_new()
        assert self._link is not None
        self._link.send(wire.request(("close", self.number)), self._worker.poll)

    def _await(self, due: float, waiting: "Waiting") -> bool:
        """Wait until nothing is left or the supervisor is lost; False if too late."""
        link = self._link
        assert link is not None
        try:
            while self._left:
                self._worker.poll()
                if time.monotonic() > due:
                    return False
                for record in link.receive(min(0.1, self._worker.batch_deadline)):
                    self._worker.route(link, record)
                link.check_alive()
                waiting.now(self.waiting())
        except Lost as error:
            self._lost(str(error))
        return True

    def waiting(self) -> float:
        """Return how many rewards are not there yet; a weighted sum is one."""
        return self._left * len(self._whose) / max(len(self._kinds), 1)

    def _give_up(self) -> None:
        detail = f"the batch took longer than {self._worker.batch_deadline:g} s"
        for i, kind in enumerate(self._kinds):
            if kind == _PENDING:
                self._settle(i, wire.KINDS.index("timeout"), detail)
        try:
            if self._link is not None:
                message = ("cancel", self.number)
                self._link.send(wire.request(message), self._worker.poll)
        except Lost:
            self._worker.close()

    def _rewards(self) -> Float64[np.ndarray, " n"]:
        values, kinds = np.array(self._values), np.frombuffer(self._kinds, np.uint8)
        unscorable = np.flatnonzero(kinds)
        values[unscorable] = np.nan
        first = np.array(self._first, np.int64)
        problems, rewards = self._worker.problems, values
        whose = np.searchsorted(first, unscorable, side="right") - 1
        for item, i in zip(unscorable.tolist(), whose.tolist(), strict=True):
            kind, detail = wire.KINDS[kinds[item]], self._details.get(item, "")
            query = self._whose[i].query
            problems.add(Problem(kind, query.id, self._texts[i][:80], detail))
        if self._weighted:
            rewards, self.parts = self._sums(values)
        problems.scored += int(np.isfinite(rewards).sum())
        return rewards

    def _sums(self, values: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return weighted sums, and the rewards of each of their verifiers."""
        names = {id(items): name for name, items in self._items.items()}
        rewards, parts = np.zeros(len(self._whose)), {}
        for i, (asked, item) in enumerate(zip(self._whose, self._first, strict=True)):
            for weight, items in zip(asked.weights, asked.columns, strict=True):
                rewards[i] += weight * values[item]
                if len(asked.columns) > 1:
                    name = names[id(items)]
                    empty = np.full(len(rewards), np.nan)
                    parts.setdefault(name, empty)[i] = values[item]
                item += 1
        return rewards, parts


class Waiting:
    """Time-weighted mean of a number, updated whenever it changes."""

    def __init__(self, number: float):
        self._begun = self._last = time.monotonic()
        self._number, self._area = number, 0.0

    def now(self, number: float) -> float:
        """Take the number as it is from now on; return the mean so far."""
        now = time.monotonic()
        self._area += self._number * (now - self._last)
        self._last, self._number = now, number
        return self._area / max(now - self._begun, 1e-9)
