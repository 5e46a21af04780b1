"""A pool of processes that score completions, seen from the trainer."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from sgpo_jax.data import Query

from . import reaping, wire
from .batch import RewardBatch
from .conventions import CONVENTIONS
from .hacking import looked_at
from .link import Link, Lost
from .problems import SOLVED, Problems, VerifierError
from .references import check_references


@runtime_checkable
class Scorer(Protocol):
    """Anything that turns completions into rewards, NaN where there is none."""

    def score(
        self, completions: Sequence[str], queries: Sequence[Query]
    ) -> Float64[np.ndarray, " n"]:
        """Return one reward for each pair of completion and query."""
        ...


class Worker:
    """A pool of scorers: killable processes under a deadline and a memory limit.

    A verifier that hangs, crashes or takes too much memory costs its own completion
    and nothing else: its process is killed and replaced. Verifiers are imported once,
    in a process that only forks; keep threads and devices out of their import.
    Functions of one's own have processes apart from built-in verifiers. Those stay for
    some batches (`supervisor.BATCHES`), so that what a function keeps, loads or leaks
    lasts that long at most; they end at once if an item changed the interpreter's
    builtins. What raises in a process of earlier batches is tried again in a fresh one.
    Processes that a function leaves behind end with the batch. The limits are for
    accidents. They are NO sandbox: code that a model wrote needs an external one.

    Args:
      deadline: seconds a single completion may take.
      batch_deadline: seconds a batch may take after its last completion was added;
        what is left then is unscorable. Others of a run wait for the slowest batch.
      memory_gib: address space of a scorer.
      startup: seconds that importing the verifiers may take.
      workers: scorers at a time; 0 for one per core.
      isolate: give each completion scored by code of one's own a fresh process (about a
        millisecond): nothing one completion does reaches another.
      environment: names of variables that verifiers see besides `reaping.ALLOWED`.
      poll: called while a batch is scored; what it raises ends the batch.

    Attributes:
      problems: a `Problems`, collected over the life of the worker.
      solved_at: reward from which a completion counts as a success.
      cross_check: name of a second verifier; empty for none.
      queue: completions of the last batch that waited for their score, the mean over
        the time it took.

    Example:
      >>> query = Query(id="q", prompt="4+3=", reference="7")
      >>> with Worker(workers=1) as worker:
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
        workers: int = 0,
        isolate: bool = False,
        environment: Sequence[str] = (),
        poll: Callable[[], None] = lambda: None,
    ):
        numbers = (deadline, batch_deadline, memory_gib, startup)
        if not all(0 < number < float("inf") for number in numbers):
            raise ValueError(
                "deadline, batch_deadline, memory_gib and startup must be positive, got"
                f" {deadline}, {batch_deadline}, {memory_gib} and {startup}"
            )
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}")
        self.batch_deadline, self.startup = float(batch_deadline), float(startup)
        limits = (float(deadline), self.batch_deadline, self.startup)
        bounds = (*limits, int(memory_gib * 2**30))
        self._hello = (bounds, workers or _cores(), isolate)
        self._environment = tuple(environment)
        self.poll = poll
        self.solved_at, self.cross_check = SOLVED, ""
        self._link: Link | None = None
        self._functions: dict[str, bytes] = {}
        self._open: dict[int, RewardBatch] = {}
        self._batches = 0
        self.problems = Problems()
        self.queue = 0.0

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and all they left behind; `score` starts new ones."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def judge(self, *, solved_at: float = SOLVED, cross_check: str = "") -> None:
        """Set what counts as a success, and a second verifier for what does.

        Args:
          solved_at: lowest reward of a success, for verifiers that give parts.
          cross_check: name of the second verifier, see `second_opinion`.

        Raises:
          ValueError: if `solved_at` is no finite number.
        """
        if not math.isfinite(solved_at):
            raise ValueError(f"solved_at must be a finite number, got {solved_at}")
        self.solved_at, self.cross_check = float(solved_at), cross_check

    def register(self, function: Callable[..., Any], convention: str = "") -> str:
        """Take a reward function as it is; return the name of its verifier.

        For closures and functions of a notebook, which the scoring processes cannot
        import: what they refer to is sent along (cloudpickle).

        Args:
          function: in one of the conventions of `conventions`.
          convention: the calling convention, if the signature is ambiguous.

        Raises:
          ValueError: if it refers to what cannot be sent.

        Example:
          >>> wanted = "7"
          >>> with Worker(workers=1) as worker:
          ...     name = worker.register(lambda text, reference: text == wanted)
          ...     query = Query(id="q", prompt="", reference="", verifier=name)
          ...     worker.score(["7", "8"], [query] * 2)
          array([1., 0.])
        """
        import cloudpickle

        if convention and convention not in CONVENTIONS:
            raise ValueError(f"convention {convention!r} is none of {CONVENTIONS}")
        label = getattr(function, "__name__", type(function).__name__)
        try:
            payload = cloudpickle.dumps((function, convention))
        except Exception as error:
            raise ValueError(
                f"reward function {label} refers to what cannot be sent to another"
                f" process ({type(error).__name__}: {error}): make that inside the"
                " function, or put the function into a file and name it"
                " my_reward.py:function"
            ) from error
        digest = hashlib.sha256(payload).hexdigest()[:12]
        name = f"function:{re.sub(r'[^A-Za-z0-9_]', '_', label)}:{digest}"
        self._functions[name] = payload
        return name

    def save_functions(self, folder: pathlib.Path) -> None:
        """Write the registered functions into a folder, a file each."""
        for name, payload in self._functions.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name.replace(':', '.')}.pickle").write_bytes(payload)

    def load_functions(self, folder: pathlib.Path) -> None:
        """Register the functions of a folder under their names.

        They are unpickled in the scoring processes only, but there they run as code:
        open run folders you trust.

        Raises:
          ValueError: if a file is not as it was written.
        """
        for path in sorted(folder.glob("function.*.pickle")):
            name, payload = path.stem.replace(".", ":"), path.read_bytes()
            if hashlib.sha256(payload).hexdigest()[:12] != name.rsplit(":", 1)[1]:
                raise ValueError(f"{path} is not as it was written; save it again")
            self._functions[name] = payload

    def check(self, queries: Sequence[Query]) -> None:
        """Import every verifier of the queries and try each on one of them.

        Raises:
          VerifierError: if one does not exist, cannot be imported, has another
            signature or raises, or cannot compare with a reference.
        """
        check_references(queries)
        first: dict[str, Query] = {}
        for query in queries:
            first.setdefault(query.verifier, query)
        if self.cross_check and queries:
            second = dataclasses.replace(queries[0], verifier=self.cross_check)
            first.setdefault(self.cross_check, second)
        kept, self.problems = self.problems, Problems()
        try:
            for name, query in first.items():
                self._try(name, query)
        finally:
            self.problems = kept

    def _try(self, name: str, query: Query) -> None:
        try:
            self.score([query.reference or "1"], [query])
        except (ValueError, RuntimeError) as error:
            raise VerifierError(str(error)) from error
        bad = [p for p in self.problems.examples if p.kind not in ("none", "nan")]
        if bad:
            raise VerifierError(
                f"verifier {name!r} fails on query {query.id} with its own reference as"
                f" completion: {bad[0].detail}{self._hidden(bad[0].detail)}. A reward"
                " is (completion, reference), (completion, query), TRL's (prompts,"
                " completions, **columns) or verl's compute_score, and trl:NAME and the"
                " like say which; columns it needs are metadata of the data"
            )

    def _hidden(self, detail: str) -> str:
        """Return that a variable which an error names is not passed on."""
        passed = reaping.environment("", self._environment)
        missing = [name for name in os.environ if name not in passed]
        for name in missing:
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", detail):
                return (
                    f" (scorers do not see the variable {name}:"
                    f" --reward.environment {name})"
                )
        return ""

    def batch(self) -> RewardBatch:
        """Begin a batch, to which completions are added as they arrive."""
        self._batches += 1
        return RewardBatch(self, self._batches)

    def score(
        self, completions: Sequence[str], queries: Sequence[Query]
    ) -> Float64[np.ndarray, " n"]:
        """Score each completion with the verifier of its query.

        Args:
          completions: what the policy answered.
          queries: the query of each completion, so one query may occur many times.

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
        with self.batch() as batch:
            for text, query in zip(completions, queries, strict=True):
                batch.add(text, query)
            return batch.results()

    def second_opinion(
        self,
        completions: Sequence[str],
        queries: Sequence[Query],
        rewards: Float64[np.ndarray, " n"],
    ) -> Float64[np.ndarray, " n"] | None:
        """Score rewarded completions by `cross_check`.

        Returns:
          A reward for each completion that `watch` looks at, NaN for the others and
          where there is none; None without a second verifier.
        """
        if not self.cross_check:
            return None
        found = np.full(len(rewards), np.nan)
        chosen = looked_at(rewards, self.solved_at)
        second = {
            query.id: dataclasses.replace(query, verifier=self.cross_check)
            for query in (queries[i] for i in chosen)
        }
        kept, self.problems = self.problems, Problems()
        try:
            found[chosen] = self.score(
                [completions[i] for i in chosen],
                [second[queries[i].id] for i in chosen],
            )
        finally:
            self.problems = kept
        return found

    def ready(self, verifiers: Sequence[str]) -> Link:
        """Return the connection, with these verifiers imported at its other end."""
        for last in (False, True):
            if self._link is None or self._link.dead():
                self.close()
                self._link = Link(self._hello, self._environment)
            try:
                self._import(self._link, verifiers)
                return self._link
            except Lost as error:
                self.close()
                if last:
                    raise RuntimeError(
                        f"the scoring process ended ({error}): a verifier's import took"
                        " longer than `startup` or crashed"
                    ) from None
        raise AssertionError

    def _import(self, link: Link, verifiers: Sequence[str]) -> None:
        missing = {
            name: self._functions.get(name)
            for name in verifiers
            if name not in link.loaded
        }
        if missing:
            link.send(wire.request(("load", missing)), self.poll)
        due = time.monotonic() + self.startup + 10.0
        while any(name not in link.loaded for name in missing):
            self.poll()
            if time.monotonic() > due:
                raise Lost(f"silent for {self.startup:g} s")
            for record in link.receive(0.1):
                self.route(link, record)

    def route(self, link: Link, record: wire.Record) -> None:
        """Pass a record to its batch."""
        if record.kind == wire.CONTROL:
            try:
                message = json.loads(record.body)
            except ValueError:
                raise Lost("a message that is not JSON") from None
            if "error" in message:
                raise VerifierError(message["error"])
            link.loaded |= message.get("loaded", {})
            batch, chunk, indices = message.get("started", (0, 0, ()))
            if batch in self._open:
                self._open[batch].started(chunk, indices)
            return
        for batch in self._open.values():
            if batch.has_chunk(record.chunk):
                batch.take(record)
                return

    def opened(self, batch: RewardBatch) -> None:
        """Note a batch that is being scored."""
        self._open[batch.number] = batch

    def ended(self, batch: RewardBatch) -> None:
        """Forget a batch."""
        self._open.pop(batch.number, None)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
