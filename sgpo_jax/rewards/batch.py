"""A batch of completions on its way through the scorers."""

import collections
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from sgpo_jax.data import Query

from . import wire
from .link import Link, Lost
from .names import terms
from .problems import Problem

if TYPE_CHECKING:
    from .worker import Worker

_FLUSH = 64  # items that are kept back at most before they are sent
_FIELDS = tuple(field.name for field in dataclasses.fields(Query))
_LOST = wire.KINDS.index("crash")


class Batch:
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
        self._items: list[tuple[int, str, str, list[int] | None]] = []
        self._whose: list[tuple[str, Query, Sequence[tuple[float, int]]]] = []
        self._terms: dict[str, list[tuple[float, str]]] = {}
        self._queries: dict[int, tuple[int, Query]] = {}
        self._outcomes: list[tuple[float, int, str] | None] = []
        self._sent = 0
        self._told: set[int] = set()
        self._left = 0
        self._running: set[int] = set()
        self._losses: collections.Counter[int] = collections.Counter()
        self._link: Link | None = None
        self.parts: Mapping[str, np.ndarray] = {}

    def __enter__(self) -> "Batch":
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
        known = self._queries.get(id(query))
        if known is None:
            known = self._queries[id(query)] = (len(self._queries), query)
        name = query.verifier
        if name not in self._terms:
            self._terms[name] = terms(name)
        slots = []
        for weight, part in self._terms[name]:
            slots.append((weight, len(self._items)))
            self._items.append((known[0], part, text, tokens))
            self._outcomes.append(None)
        self._whose.append((text[:80], query, slots))
        self._left += len(slots)
        if len(self._items) - self._sent >= _FLUSH and self._link is not None:
            self.send()
        return len(self._whose) - 1

    def send(self) -> None:
        """Send what was added so far, and take what the scorers are through with.

        Raises:
          ValueError: if a verifier does not exist.
          RuntimeError: if the verifiers cannot be imported in time.
        """
        self._attempt(self._send_new)

    def _send_new(self) -> None:
        worker = self._worker
        names = {part for found in self._terms.values() for _, part in found}
        link = worker.ready(sorted(names))
        worker.opened(self)
        again = link is not self._link
        if again:
            self._link, self._told = link, set()
        places = range(0 if again else self._sent, len(self._items))
        wanted = [i for i in places if self._outcomes[i] is None]
        queries = {}
        for number, query in self._queries.values():
            if number not in self._told:
                queries[number] = self._encoded(query)
        items = []
        for i in wanted:
            query, name, text, tokens = self._items[i]
            batch = link.loaded[name].startswith("trl")
            suspect = self._losses[i] > 0
            items.append((i, name, query, text, tokens if batch else None, suspect))
        if items:
            message = ("items", self.number, queries, items)
            link.send(wire.request(message), worker.poll)
        self._told |= queries.keys()
        self._sent = len(self._items)
        for record in link.receive(0.0):
            worker.route(link, record)

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
        for _ in range(1 + 2 * len(self._items)):
            try:
                act()
                return
            except Lost as error:
                self._lost(str(error))
        raise RuntimeError("the scoring process cannot be kept alive")

    def _lost(self, reason: str) -> None:
        """Blame what was being scored, once all of it, then one item at a time."""
        self._worker.close()
        for i in self._running:
            self._losses[i] += 1
            if self._losses[i] >= 2 and self._outcomes[i] is None:
                detail = f"the scoring processes were lost twice over it: {reason}"
                self._settle(i, (0.0, _LOST, detail))
        self._running = set()

    def started(self, indices: Sequence[int]) -> None:
        """Note items that a scorer has begun with."""
        self._running.update(i for i in indices if 0 <= i < len(self._outcomes))

    def take(self, record: wire.Record) -> None:
        """Keep the outcome of an item."""
        known = 0 <= record.item < len(self._outcomes)
        if not known or self._outcomes[record.item] is not None:
            raise Lost("a result that was not asked for")
        self._running.discard(record.item)
        self._settle(record.item, (record.value, record.kind, record.detail))

    def _settle(self, index: int, outcome: tuple[float, int, str]) -> None:
        self._outcomes[index] = outcome
        self._left -= 1

    def results(self) -> Float64[np.ndarray, " n"]:
        """Wait for the rewards of all completions, in the order they were added.

        Returns:
          One reward for each; NaN for what could not be scored, see `Worker.problems`.
        """
        if self._items:
            self._attempt(self._finish_sending)  # takes what came meanwhile
            due = time.monotonic() + self._worker.batch_deadline
            waiting = Waiting(self.waiting())
            while self._left:
                if not self._await(due, waiting):
                    self._give_up()
                elif self._left:  # with another supervisor
                    self._attempt(self._finish_sending)
            self._worker.queue = waiting.now(0)
        self._worker.ended(self)
        return self._values()

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
        return self._left * len(self._whose) / len(self._items)

    def _give_up(self) -> None:
        detail = f"the batch took longer than {self._worker.batch_deadline:g} s"
        for i, outcome in enumerate(self._outcomes):
            if outcome is None:
                self._settle(i, (0.0, wire.KINDS.index("timeout"), detail))
        try:
            if self._link is not None:
                message = ("cancel", self.number)
                self._link.send(wire.request(message), self._worker.poll)
        except Lost:
            self._worker.close()

    def _values(self) -> Float64[np.ndarray, " n"]:
        values = np.zeros(len(self._whose))
        parts: dict[str, np.ndarray] = {}
        problems = self._worker.problems
        for i, (text, query, slots) in enumerate(self._whose):
            for weight, slot in slots:
                value, kind, detail = self._outcomes[slot] or (0.0, _LOST, "lost")
                if kind:
                    problems.add(Problem(wire.KINDS[kind], query.id, text, detail))
                    value = float("nan")
                if len(slots) > 1:
                    name = self._items[slot][1]
                    column = parts.setdefault(name, np.full(len(values), np.nan))
                    column[i] = value
                values[i] += weight * value
        problems.scored += int(np.isfinite(values).sum())
        self.parts = parts
        return values


class Waiting:
    """The mean of a number over time, told whenever it changes."""

    def __init__(self, number: float):
        self._begun = self._last = time.monotonic()
        self._number, self._area = number, 0.0

    def now(self, number: float) -> float:
        """Take the number as it is from now on; return the mean so far."""
        now = time.monotonic()
        self._area += self._number * (now - self._last)
        self._last, self._number = now, number
        return self._area / max(now - self._begun, 1e-9)
