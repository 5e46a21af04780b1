"""The queue of runs: what is finished, what is next, and when to stop."""

import concurrent.futures
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from sgpo_jax.hosts import RESTART
from sgpo_jax.methods import label_of
from sgpo_jax.sweep.process import environment
from sgpo_jax.training import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
INITIAL = "initial"
SHARED = ("policy", "profile.chunks", "profile.parquet")
"""What methods of a testbed and seed have in common: policy and profile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One method on one testbed with one seed, or what they all begin from.

    Attributes:
      work: the folder of all runs.
      testbed: a preset of `sgpo run`.
      method: a name of the zoo or package.module:function; `INITIAL` for the initial
        policy and its profile.
      seed: root of all randomness, questions included.
      options: further options of `sgpo run`, of every run.
      own: options of `sgpo run` for this method alone, after the others. Those of
        the profile make it begin from a profile of its own.
    """

    work: pathlib.Path
    testbed: str
    method: str
    seed: int
    options: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return label_of(self.method)

    @property
    def folder(self) -> pathlib.Path:
        name = self.label
        if self.method == INITIAL:
            name += "".join(self.own)
        return self.work / self.testbed / name / f"seed{self.seed}"

    @property
    def metrics(self) -> pathlib.Path:
        return self.folder / "methods" / self.label / "metrics.jsonl"

    @property
    def initial(self) -> "Run":
        """What it begins from."""
        return dataclasses.replace(self, method=INITIAL, own=self._own(profile=True))

    def _own(self, *, profile: bool) -> tuple[str, ...]:
        """Own options of the profile, or the others; each with its values."""
        kept, keep = [], False
        for word in self.own:
            if word.startswith("--"):
                keep = word.startswith("--profile.") == profile
            if keep:
                kept.append(word)
        return tuple(kept)

    @property
    def finished(self) -> bool:
        """Whether the last step of its experiment is evaluated and logged."""
        if self.method == INITIAL:
            return (self.folder / "profile.parquet").exists()
        lines = read_metrics(self.metrics)
        if not lines:
            return False
        steps = json.loads((self.folder / "config.json").read_text())["train.steps"]
        return lines[-1]["step"] == steps

    def prepare(self) -> None:
        """Copy the initial policy and the profile into the run's folder, once."""
        if self.method == INITIAL or self.folder.exists():
            return
        source = self.initial.folder
        temporary = self.folder.with_name(f".{self.folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name in SHARED:
            copy = shutil.copytree if (source / name).is_dir() else shutil.copyfile
            copy(source / name, temporary / name)
        temporary.rename(self.folder)

    def command(self) -> list[str]:
        flags = ["--preset", self.testbed, "--seed", str(self.seed)]
        flags += ["--out", str(self.folder), *self.options]
        if self.method == INITIAL:
            flags += [*self.own, "--only-initial"]
        else:
            flags += [*self._own(profile=False), "--methods", self.method]
        return [sys.executable, "-m", "benchmarks.headline.worker", *flags]


def plan(
    work: pathlib.Path,
    testbeds: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    options: Sequence[str] = (),
    *,
    own: Mapping[str, Sequence[str]],
) -> list[Run]:
    """Runs seed by seed, so that what is done in time is a whole comparison.

    Args:
      work: the folder of all runs.
      testbeds: presets.
      methods: names.
      seeds: one comparison each.
      options: of every run.
      own: further options by label, of single methods.
    """

    def make(testbed: str, method: str, seed: int) -> Run:
        return Run(
            work=work,
            testbed=testbed,
            method=method,
            seed=seed,
            options=tuple(options),
            own=tuple(own.get(label_of(method), ())),
        )

    return [make(t, m, s) for s in seeds for t in testbeds for m in methods]


class Pool:
    """Processes at a time, stopped together when the time is up.

    What runs of a testbed and seed begin from is made by the first of them.
    """

    def __init__(self, *, jobs: int, threads: int, limit: float):
        self._jobs, self._environment = jobs, environment(threads)
        self._due = time.monotonic() + limit if limit else float("inf")
        self._locks: dict[Run, threading.Lock] = {}

    def __call__(self, runs: Sequence[Run]) -> Iterator[tuple[Run, int]]:
        """Do what is not finished; yields runs with their exit codes as they end."""
        left = [run for run in runs if not run.finished]
        self._locks = {run.initial: threading.Lock() for run in left}
        with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
            futures = {pool.submit(self._do, run): run for run in left}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()

    def _do(self, run: Run) -> int:
        with self._locks[run.initial]:
            if not run.initial.finished:
                code = self._launch(run.initial)
                if code:
                    return code
            run.prepare()
        return self._launch(run)

    def _launch(self, run: Run) -> int:
        left = self._due - time.monotonic()
        if left <= 0:
            return RESTART
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                run.command(), cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
            try:
                return process.wait(None if left == float("inf") else left)
            except subprocess.TimeoutExpired:
                process.terminate()  # saves a checkpoint, and says RESTART
                return process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
