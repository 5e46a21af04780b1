"""Runs mutations of a target in a process of its own, under limits, and counts."""

import dataclasses
import gc
import json
import multiprocessing
import pathlib
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

SECONDS = 10
BYTES = 1 << 30


class Hang(BaseException):
    """A parser took longer than it may."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser, sound inputs for it, and how they are mutated.

    Attributes:
      seeds: makes sound inputs in a folder.
      mutate: a mutation of a sound input.
      parse: reads the input at a path (or the input itself) and returns what it
        understood, comparable.
      sealed: whether any other content than a sound input's must be refused.
      file: name that the input is written to; empty for none.
      refusals: exceptions that are refusals, if their message is one line.
    """

    seeds: Callable[[pathlib.Path], Sequence[Any]]
    mutate: Callable[[Any, random.Random, Sequence[Any]], Any]
    parse: Callable[[Any], Any]
    sealed: bool = False
    file: str = "input"
    refusals: tuple[type[BaseException], ...] = (ValueError, OSError)


@dataclasses.dataclass
class Counts:
    """What became of the mutations of a target."""

    mutations: int = 0
    refused: int = 0
    accepted: int = 0
    unchanged: int = 0
    tracebacks: int = 0
    hangs: int = 0
    crashes: int = 0
    silent: int = 0
    long_lines: int = 0
    slowest: float = 0.0
    peak_mb: float = 0.0
    examples: list[str] = dataclasses.field(default_factory=list)

    @property
    def faults(self) -> int:
        """Mutations that ended as none may."""
        bad = self.tracebacks + self.hangs + self.crashes + self.silent
        return bad + self.long_lines


def run(name: str, target: Target, count: int, *, seed: int = 0) -> Counts:
    """Run mutations `0 .. count` of a target; a process that dies is one fault."""
    total, start = Counts(), 0
    context = multiprocessing.get_context("fork")
    while start < count:
        here, there = context.Pipe(duplex=False)
        job = context.Process(
            target=_work, args=(name, target, start, count, seed, there)
        )
        job.start()
        there.close()
        current = start
        try:
            while True:
                current, counts = here.recv()
                _add(total, counts)
        except EOFError:
            pass
        job.join()
        here.close()
        if not total.mutations and current == start and job.exitcode == 1:
            raise RuntimeError(f"the sound inputs of {name} do not parse; see above")
        if current < count:
            total.crashes += 1
            total.mutations += 1
            total.examples.append(f"mutation {current}: exit code {job.exitcode}")
        start = current + 1
    return total


def _add(total: Counts, more: dict[str, Any]) -> None:
    for key, value in more.items():
        old = getattr(total, key)
        best = key in ("slowest", "peak_mb")
        setattr(total, key, max(old, value) if best else old + value)


def _work(
    name: str, target: Target, start: int, count: int, seed: int, pipe: Any
) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        counts = in_process(
            name, target, range(start, count), seed, pathlib.Path(folder), pipe
        )
    pipe.send((count, dataclasses.asdict(counts)))


def in_process(
    name: str,
    target: Target,
    numbers: Sequence[int],
    seed: int,
    folder: pathlib.Path,
    pipe: Any = None,
) -> Counts:
    """Run mutations in this process; limits hold if a pipe is given."""
    counts = Counts()
    seeds = list(target.seeds(folder))
    path = folder / (target.file or "input")
    sound = [_show(target.parse(_placed(path, target, data))) for data in seeds]
    if pipe is not None:
        _limit()
    base = _peak()
    for number in numbers:
        chance = random.Random(f"{name} {seed} {number}")
        data = target.mutate(chance.choice(seeds), chance, seeds)
        if pipe is not None:  # what dies here is known by its number
            pipe.send((number, dataclasses.asdict(counts)))
            counts = Counts()
        _one(target, path, data, sound, counts, f"mutation {number}")
    counts.peak_mb = (_peak() - base) / 1024
    return counts


def _one(
    target: Target,
    path: pathlib.Path,
    data: Any,
    sound: Sequence[str],
    counts: Counts,
    label: str,
) -> None:
    counts.mutations += 1
    begin = time.perf_counter()
    try:
        given = _placed(path, target, data)
        signal.signal(signal.SIGALRM, _hang)
        signal.alarm(SECONDS)
        try:
            found = _show(target.parse(given))
        finally:
            signal.alarm(0)
    except Hang:
        counts.hangs += 1
        counts.examples.append(f"{label}: over {SECONDS} s")
        return
    except target.refusals as error:
        text = str(error)
        if len(text) > 2500 or text.count("\n") > 30:  # a syntax may follow
            counts.long_lines += 1
            counts.examples.append(f"{label}: {len(text)} characters: {text[:80]}")
        counts.refused += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        counts.tracebacks += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        where_ours = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "sgpo_jax" in frame.filename
        ]
        where = where_ours[-1] if where_ours else where
        counts.examples.append(
            f"{label}: {type(error).__name__} in {pathlib.Path(where.filename).name}:"
            f"{where.lineno}: {str(error)[:100]}"
        )
        if isinstance(error, MemoryError):
            gc.collect()
    else:
        if found in sound:
            counts.unchanged += 1
        elif target.sealed:
            counts.silent += 1
            counts.examples.append(f"{label}: accepted {found[:100]}")
        else:
            counts.accepted += 1
    counts.slowest = max(counts.slowest, time.perf_counter() - begin)


def read_back(path: pathlib.Path, write: Any) -> bytes:
    """Return what a function writes to a path."""
    write(path)
    content = path.read_bytes()
    path.unlink()
    return content


def _placed(path: pathlib.Path, target: Target, data: Any) -> Any:
    if not target.file:
        return data
    path.write_bytes(data)
    return path


def _show(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return repr(value)


def _hang(*_: Any) -> None:
    raise Hang


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _limit() -> None:
    status = pathlib.Path("/proc/self/statm").read_text().split()
    now = int(status[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, now + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
