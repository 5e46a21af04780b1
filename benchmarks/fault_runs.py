"""Small real runs to be hurt, and what must be equal afterwards; for faults.py."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sgpo_jax.profiling import Profile
from sgpo_jax.training import read_metrics

ROOT = pathlib.Path(__file__).parent.parent
METHODS = ("tracked",)
STEPS = 6
SMALL = [
    *("--data", "procedural:families=bits+reversal,levels=1+2+3,count=12"),
    *("--model.num-layers", "1", "--model.embed-dim", "32", "--model.num-heads", "2"),
    *("--model.num-kv-heads", "2", "--model.head-dim", "16", "--model.mlp-dim", "64"),
    *("--sft.steps", "60", "--sft.batch-size", "64"),
    *("--sft.demonstrations", "2000", "--sampler.lanes", "8"),
    *("--pack.row-length", "64", "--pack.rows", "8", "--profile.chunk", "16"),
    *("--methods", *METHODS, "--train.steps", str(STEPS)),
    *("--train.rollouts", "32", "--train.eval-every", "2"),
    *("--eval.samples", "2", "--eval.final-samples", "4"),
]
COMMAND = [sys.executable, "-c", "from sgpo_jax.cli import main; main()"]


@dataclasses.dataclass
class Job:
    """The processes of one run; `codes` and `said` after `wait`."""

    processes: list[subprocess.Popen]
    logs: list[pathlib.Path]
    codes: list[int | None] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def send(self, number: int, to: int) -> None:
        self.processes[to].send_signal(number)

    def wait(self, timeout: float = 400.0) -> list[int | None]:
        """Return exit codes; None for a process that had to be killed."""
        start = time.monotonic()
        while self.running() and time.monotonic() - start < timeout:
            time.sleep(0.02)
        self.seconds = time.monotonic() - start
        self.codes = [process.poll() for process in self.processes]
        self.end()
        return self.codes

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def said(self, process: int = 0) -> str:
        return self.logs[process].read_text(errors="replace")

    def line(self, process: int, word: str) -> str:
        """Return the last line of a process that holds a word, and how it goes on."""
        lines = self.said(process).splitlines()
        found = [number for number, line in enumerate(lines) if word in line]
        return " ".join(lines[found[-1] : found[-1] + 4]) if found else "nothing"


def start(
    out: pathlib.Path,
    *more: str,
    processes: int = 1,
    only: Sequence[int] | None = None,
    cache: pathlib.Path,
) -> Job:
    """Start a run on some processes, or only some of them."""
    folder = cache.parent / "logs"  # not beside a run whose disk may be full
    folder.mkdir(parents=True, exist_ok=True)
    args = ["run", "--out", str(out), "--cache", str(cache), *SMALL, *more]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    }
    found, logs = [], []
    for index in range(processes) if only is None else only:
        where = []
        if processes > 1:
            where = [
                *("--distributed.coordinator", address),
                *("--distributed.processes", str(processes)),
                *("--distributed.process", str(index)),
            ]
        log = folder / f"{out.name}.{index}.{time.time_ns()}.log"
        with log.open("w") as file:
            found.append(
                subprocess.Popen(
                    [*COMMAND, *args, *where],
                    env=env,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
        logs.append(log)
    return Job(found, logs)


def until(condition: Callable[[], bool], job: Job, pause: float = 0.002) -> bool:
    """Wait; returns False if the run ended first."""
    while not condition():
        if not job.running():
            return condition()
        time.sleep(pause)
    return True


def count(folder: pathlib.Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def lines(out: pathlib.Path, method: str) -> int:
    return len(read_metrics(out / "methods" / method / "metrics.jsonl"))


def moments(rng: random.Random) -> dict[str, list[Callable[[pathlib.Path], bool]]]:
    """Return conditions on a run's folder, by the stage that they are in."""

    def saving(method: str, nth: int) -> Callable[[pathlib.Path], bool]:
        seen: set[str] = set()

        def now(out: pathlib.Path) -> bool:
            folder = out / "methods" / method / "checkpoints"
            found = {p.name for p in folder.glob("*.orbax-checkpoint-tmp*")}
            seen.update(found)
            return len(seen) >= nth and bool(found)

        return now

    def trained(out: pathlib.Path) -> bool:
        found = read_metrics(out / "methods" / METHODS[-1] / "metrics.jsonl")
        return bool(found) and found[-1]["step"] == STEPS

    return {
        "fine-tuning": [lambda out: (out / "config.json").exists()] * 2,
        "profile": [
            lambda out, n=n: (
                (out / "policy" / "0").exists()
                and count(out, "profile.chunks/*.parquet") >= n
            )
            for n in rng.sample(range(4), 3)
        ],
        "training": [
            lambda out, m=m, n=n: lines(out, m) >= n
            for m, n in [(rng.choice(METHODS), 1 + i) for i in range(4)]
        ],
        "saving": [
            saving(m, 1 + n % 4)
            for m, n in [(rng.choice(METHODS), i) for i in range(6)]
        ],
        "evaluation": [
            trained,
            *(lambda out, n=n: count(out, "eval/*.json") >= n for n in (1, 1)),
        ],
        "report": [lambda out: count(out, "eval/*.json") > len(METHODS)] * 2,
    }


def arrays(folder: pathlib.Path) -> dict[int, Any]:
    """Return what every checkpoint of a folder holds, on the host."""
    found = {}
    with ocp.CheckpointManager(folder.resolve()) as manager:
        for step in manager.all_steps():
            metadata = ocp.StandardCheckpointer().metadata(
                folder / f"{step}" / "arrays"
            )
            like = jax.tree.map(
                lambda m: np.zeros(m.shape, m.dtype), metadata.item_metadata.tree
            )
            args = ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like), plain=ocp.args.JsonRestore()
            )
            found[step] = dict(manager.restore(step, args=args))
    return found


CLOCKS = ("seconds", "step_time_sec", "compiles", "time/", "tokens_per_sec/", "goodput")
# A checksum is that of a file with its times.
CLOCKS += ("queue/score", "checksum")


def timeless(value: Any) -> Any:
    """Drop what depends on the clock."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not str(k).startswith(CLOCKS)}
        return {k: timeless(v) for k, v in kept.items()}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def differences(got: pathlib.Path, want: pathlib.Path) -> list[str]:
    """Return what of a run's results is not, bit for bit, that of another."""
    loaded = [Profile.load(x / "profile.parquet") for x in (got, want)]
    profiles = [(x.fingerprint(), timeless(x.cost)) for x in loaded]
    found = [] if profiles[0] == profiles[1] else ["profile"]
    for folder in ("plans", "eval"):
        a, b = (
            {p.name: timeless(json.loads(p.read_text())) for p in x.glob("*.json")}
            for x in (got / folder, want / folder)
        )
        found += [f"{folder}/{x}" for x in sorted({*a, *b}) if a.get(x) != b.get(x)]
    for method in METHODS:
        found += method_differences(got / "methods" / method, want / "methods" / method)
    if not (got / "report.md").stat().st_size:
        found.append("report")
    return found


def method_differences(got: pathlib.Path, want: pathlib.Path) -> list[str]:
    """Return what differs in the results of one method."""
    found, name = [], got.name
    a, b = (timeless(read_metrics(x / "metrics.jsonl")) for x in (got, want))
    if a != b:
        found.append(f"metrics and ledger of {name}")
    a, b = (arrays(x / "checkpoints") for x in (got, want))
    if max(a) != max(b) or max(a) != STEPS:
        return [*found, f"last step of {name}"]
    for step in set(a) & set(b):
        same = jax.tree.map(
            lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(),
            a[step]["arrays"],
            b[step]["arrays"],
        )
        if not all(jax.tree.leaves(same)):
            found.append(f"parameters of {name} at {step}")
        if timeless(a[step]["plain"]) != timeless(b[step]["plain"]):
            found.append(f"ledger of {name} at {step}")
    return found


def stage_of(out: pathlib.Path) -> str:
    """Say where a run is, from what its folder holds."""
    if any(out.glob("methods/*/checkpoints/*.orbax-checkpoint-tmp*")):
        (path,) = list(out.glob("methods/*/checkpoints/*.orbax-checkpoint-tmp*"))[:1]
        return f"writing step {path.name.split('.')[0]} of {path.parent.parent.name}"
    evaluated = count(out, "eval/*.json")
    if evaluated > len(METHODS):
        return "report"
    if evaluated:
        return f"final evaluation {evaluated + 1} of {len(METHODS) + 1}"
    if lines(out, METHODS[-1]) > STEPS:
        return f"final evaluation 1 of {len(METHODS) + 1}"
    for method in reversed(METHODS):
        if (out / "methods" / method).exists():
            return f"{method}, {lines(out, method)} lines written"
    if (out / "profile.parquet").exists():
        return "plan, or begin of training"
    chunks = count(out, "profile.chunks/*.parquet")
    if chunks or (out / "policy" / "0").exists():
        return f"profile, {chunks} chunks written"
    return "fine-tuning" if out.exists() else "start"


KILL, STOP, TERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM
