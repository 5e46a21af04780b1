"""Scoring in a process that can be killed."""

import collections
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from sgpo_jax.data import Query

from . import wire


@runtime_checkable
class Scorer(Protocol):
    """Anything that turns completions into rewards, NaN where there is none."""

    def score(
        self, completions: Sequence[str], queries: Sequence[Query]
    ) -> Float64[np.ndarray, " n"]:
        """Return one reward for each pair of completion and query."""
        ...


@dataclasses.dataclass(frozen=True)
class Problem:
    """One completion without a reward.

    Attributes:
      kind: none, nan, type, exception, timeout or crash.
      query: id of the query.
      completion: its first 80 characters.
      detail: what happened.
    """

    kind: str
    query: str
    completion: str
    detail: str


@dataclasses.dataclass
class Problems:
    """What could not be scored, so that it is seen and not taken for zero.

    Attributes:
      counts: unscorable completions by kind.
      examples: the first three of each kind.
    """

    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    examples: list[Problem] = dataclasses.field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Count a problem and keep it if it is among the first of its kind."""
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= 3:
            self.examples.append(problem)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        lines = [f"{count} unscorable: {kind}" for kind, count in self.counts.items()]
        lines += [
            f"  {it.kind}, query {it.query}: {it.detail} on {it.completion!r}"
            for it in self.examples
        ]
        return "\n".join(lines)


class Worker:
    """Scores completions in processes of its own, under a deadline and a memory limit.

    A verifier that hangs, crashes or takes too much memory costs its own completion
    and nothing else: the scorer is killed, replaced, and goes on with the next one.
    Verifiers are imported once, in a process that only forks; keep threads and devices
    out of their import. The limits are for accidents. They are NO sandbox: code that
    a model wrote belongs into an external one.

    Args:
      deadline: seconds a single completion may take.
      batch_deadline: seconds a batch may take, plus one completion's; what is left then
        is unscorable. Others of a run wait for the slowest batch.
      memory_gib: address space of a scorer.
      startup: seconds that importing the verifiers may take.
      poll: called while a batch is scored; what it raises ends the batch.

    Attributes:
      problems: a `Problems`, collected over the life of the worker.
      queue: completions of the last batch that waited for their score, the mean over
        the time it took.

    Example:
      >>> query = Query(id="q", prompt="4+3=", reference="7")
      >>> with Worker() as worker:
      ...     worker.score(["7", "8"], [query, query])
      array([1., 0.])
    """

    def __init__(
        self,
        *,
        deadline: float = 5.0,
        batch_deadline: float = 300.0,
        memory_gib: float = 2.0,
        startup: float = 120.0,
        poll: Callable[[], None] = lambda: None,
    ):
        if min(deadline, batch_deadline, memory_gib, startup) <= 0:
            raise ValueError(
                "deadline, batch_deadline, memory_gib and startup must be positive, got"
                f" {deadline}, {batch_deadline}, {memory_gib} and {startup}"
            )
        self._batch_deadline = batch_deadline
        self._limits = (float(deadline), float(startup), int(memory_gib * 2**30))
        self._poll = poll
        self._supervisor: _Supervisor | None = None
        self.problems = Problems()
        self.queue = 0.0

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. The next `score` starts new ones."""
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None

    def score(
        self, completions: Sequence[str], queries: Sequence[Query]
    ) -> Float64[np.ndarray, " n"]:
        """Score each completion with the verifier of its query.

        Args:
          completions: what the policy answered.
          queries: the query of each completion, so one query may come many times.

        Returns:
          One reward for each completion. NaN means unscorable: the verifier returned
          None, NaN, an infinity or text, raised, took too long, or died. `problems`
          says which.

        Raises:
          ValueError: if the lengths differ or a verifier does not exist.
          RuntimeError: if the verifiers cannot be imported within `startup`.
        """
        if len(completions) != len(queries):
            raise ValueError(
                f"{len(completions)} completions for {len(queries)} queries"
            )
        if not queries:
            return np.zeros(0)
        try:
            outcomes = self._exchange(completions, queries)
        except BaseException:
            # Half a batch may still be on its way, after an interrupt for instance.
            self.close()
            raise
        values = np.full(len(queries), np.nan)
        for i, (value, kind, detail) in enumerate(outcomes):
            if value is None:
                text = completions[i][:80]
                self.problems.add(Problem(kind, queries[i].id, text, detail))
            else:
                values[i] = value
        return values

    def _exchange(self, completions: Sequence[str], queries: Sequence[Query]) -> list:
        if self._supervisor is None or self._supervisor.dead():
            self.close()
            self._supervisor = _Supervisor()
        items = [
            (q.verifier, q.prompt, text, q.reference, dict(q.metadata))
            for text, q in zip(completions, queries, strict=True)
        ]
        self._supervisor.send({"limits": self._limits, "items": items})
        outcomes = []
        # Imports are no part of it: the first reply starts the clock.
        due = None
        waiting = _Waiting(len(items))
        while len(outcomes) < len(items):
            self._poll()
            if due is not None and time.monotonic() > due:
                self.close()
                detail = f"the batch took longer than {self._batch_deadline:g} s"
                left = len(items) - len(outcomes)
                return outcomes + [(None, "timeout", detail)] * left
            reply = self._supervisor.receive()
            if "error" in reply:
                raise ValueError(reply["error"])
            outcomes += reply["outcomes"]
            self.queue = waiting.now(len(items) - len(outcomes))
            due = due or time.monotonic() + self._batch_deadline
        return outcomes


class _Waiting:
    """The mean of a number over time, told whenever it changes."""

    def __init__(self, number: int):
        self._begun = self._last = time.monotonic()
        self._number, self._area = number, 0.0

    def now(self, number: int) -> float:
        """Take the number as it is from now on; return the mean so far."""
        now = time.monotonic()
        self._area += self._number * (now - self._last)
        self._last, self._number = now, number
        return self._area / max(now - self._begun, 1e-9)


class _Supervisor:
    """The process of `supervisor.py` and the two pipes to it."""

    def __init__(self):
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        # The verifiers of the caller must be found; "" is the working directory.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        module = "sgpo_jax.rewards.supervisor"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(requests), str(replies)],
            env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=(requests, replies),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in the terminal is for the trainer, which then closes the pipes.
            start_new_session=True,
        )
        os.close(requests)
        os.close(replies)

    def dead(self) -> bool:
        return self._process.poll() is not None

    def send(self, message: object) -> None:
        try:
            wire.send(self._requests, message)
        except BrokenPipeError:
            raise self._death() from None

    def receive(self) -> dict:
        try:
            return wire.receive(self._replies)
        except EOFError:
            raise self._death() from None

    def _death(self) -> RuntimeError:
        return RuntimeError(
            f"the scoring process ended with status {self._process.wait()}: "
            "a verifier's import took longer than `startup` or crashed"
        )

    def close(self) -> None:
        os.close(self._requests)
        os.close(self._replies)
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
