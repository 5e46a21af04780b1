"""Hurt small real runs in every way we know, and see what becomes of them.

    python benchmarks/faults.py kills     # SIGKILL at 20 random moments
    python benchmarks/faults.py disk      # full, read-only, damaged checkpoints
    python benchmarks/faults.py mistakes  # exit codes of user errors
    python benchmarks/faults.py processes # two and four processes: stop, die, stall
    python benchmarks/faults.py pairs     # two commands at once on one folder, 50 times
    python benchmarks/faults.py table     # writes benchmarks/results/faults.md

Each part keeps its rows and its runs under --work; called again, it goes on there.
Disks that are full or cannot be written are file systems in memory, which needs root on
Linux. A run that is said to have gone on exactly was compared with one that was never
hurt: profile, plan, metrics, ledgers, evaluations; parameters, optimizer, schedule of
every checkpoint, bit for bit; only seconds are left out. Codes: 0 done, 1 a fault, 2 a
mistake, 42 run me again, -6 aborted by jax (134 in a shell, also to be run again), -9
and None the process that was killed or stood still. Libraries may print tracebacks of
their own beside the message. Rows marked (earlier) are of an earlier state of the code.
"""

import argparse
import contextlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import fault_runs as runs

RESULTS = pathlib.Path(__file__).parent / "results" / "faults.md"
EXACT = "goes on exactly"
RETRY = (42, 134)
PAIRS = 50


class Rows:
    """The rows of a part: what was done, what was seen, whether that is right."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._rows = json.loads(path.read_text()) if path.exists() else {}

    def has(self, key: str) -> bool:
        """Tell whether a row was made by an earlier call, which was interrupted."""
        return key in self._rows

    def add(self, key: str, done: str, seen: str, good: bool) -> None:
        self._rows[key] = [done, seen, "ok" if good else "**WRONG**"]
        print(" | ".join(self._rows[key]), flush=True)
        self._path.write_text(json.dumps(self._rows, indent=1))


def reference(work: pathlib.Path, processes: int = 1) -> pathlib.Path:
    """Return a run that was never hurt."""
    out = work / f"whole{processes}"
    if not (out / "report.md").exists():
        codes = runs.start(out, processes=processes, cache=work / "cache").wait()
        assert set(codes) == {0}, codes
    return out


def go_on(out: pathlib.Path, want: pathlib.Path, work: pathlib.Path, processes=1):
    """Give the same command again; returns what was seen and whether it is right."""
    again = runs.start(out, processes=processes, cache=work / "cache")
    codes = again.wait()
    if set(codes) != {0}:
        return f"again: codes {codes}: {again.said()[-300:]}", False
    differ = runs.differences(out, want)
    return (f"differs in {', '.join(differ)}", False) if differ else (EXACT, True)


def forget_wrong(path: pathlib.Path) -> None:
    """Forget the rows that were wrong, to see them once more."""
    rows = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({k: v for k, v in rows.items() if v[2] == "ok"}))


def kills(work: pathlib.Path, rows: Rows, seed: int) -> None:
    want, rng = reference(work), random.Random(seed)
    for stage, conditions in runs.moments(rng).items():
        longest = {"saving": 0.04, "fine-tuning": 2.0, "profile": 0.3}.get(stage, 0.6)
        for number, condition in enumerate(conditions):
            pause = rng.uniform(0, longest)
            out = work / f"kill-{stage}-{number}"
            if rows.has(out.name):
                continue
            shutil.rmtree(out, ignore_errors=True)
            job = runs.start(out, cache=work / "cache")
            came = runs.until(lambda c=condition, o=out: c(o), job, 0.0005)
            time.sleep(pause)
            alive = came and job.running()
            if alive:
                job.send(runs.KILL, 0)
            job.wait()
            where = runs.stage_of(out)
            seen, good = go_on(out, want, work)
            done = f"SIGKILL in: {where}" if alive else f"{stage}: ended before SIGKILL"
            rows.add(out.name, done, seen, good and alive)
            shutil.rmtree(out)


def until_saved(out: pathlib.Path, work: pathlib.Path) -> None:
    """Run until step 4 of the last method is there, then kill."""
    job = runs.start(out, cache=work / "cache")
    last = out / "methods" / runs.METHODS[-1] / "checkpoints" / "4"
    assert runs.until(last.exists, job)
    job.send(runs.KILL, 0)
    job.wait()


def _data(step: pathlib.Path) -> pathlib.Path:
    files = (step / "arrays").rglob("d/*")
    return max(files, key=lambda p: p.stat().st_size)


def flip(step: pathlib.Path) -> None:
    content = bytearray(_data(step).read_bytes())
    content[len(content) // 2] ^= 1
    _data(step).write_bytes(content)


def truncate(step: pathlib.Path) -> None:
    _data(step).write_bytes(_data(step).read_bytes()[:-1])


def remove(step: pathlib.Path) -> None:
    (step / "plain" / "metadata").unlink()


def empty(step: pathlib.Path) -> None:
    (step.parent / "5").mkdir()


def link(step: pathlib.Path) -> None:
    (step.parent / "5").symlink_to(step, target_is_directory=True)


def junk(step: pathlib.Path) -> None:
    (step.parent / "notes").mkdir()
    (step.parent / "5").mkdir()
    (step.parent / "5" / "readme").write_text("not a checkpoint")


def all_steps(step: pathlib.Path) -> None:
    for other in step.parent.iterdir():
        if other.name.isdecimal():
            flip(other)


def metrics(step: pathlib.Path) -> None:
    path = step.parent.parent / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def chunk(step: pathlib.Path) -> None:
    out = step.parents[3]
    (out / "profile.parquet").unlink()
    path = sorted((out / "profile.chunks").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:100])


# What is done to a run that was killed after step 4, and the exit code wanted.
DAMAGE: dict[str, tuple[Callable[[pathlib.Path], None], int]] = {
    "one bit of the newest checkpoint flipped": (flip, 0),
    "a file of the newest checkpoint one byte short": (truncate, 0),
    "a file of the newest checkpoint missing": (remove, 0),
    "an empty folder named like a newer step": (empty, 0),
    "a symbolic link named like a newer step": (link, 0),
    "a folder with other files named like a newer step, another name beside": (junk, 0),
    "one bit of every checkpoint flipped": (all_steps, 0),
    "metrics.jsonl cut shorter than the checkpoint counts": (metrics, 2),
    "a chunk of the profile cut short, the profile itself gone": (chunk, 0),
}


def disk(work: pathlib.Path, rows: Rows, seed: int) -> None:
    del seed
    want, killed = reference(work), work / "killed"
    if not killed.exists():
        until_saved(killed, work)
    for what, (damage, code) in DAMAGE.items():
        if rows.has(what):
            continue
        out = work / "damaged"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(killed, out, symlinks=True)
        damage(out / "methods" / runs.METHODS[-1] / "checkpoints" / "4")
        again = runs.start(out, cache=work / "cache")
        codes = again.wait()
        said = again.line(0, "is not used")
        if code:
            rows.add(
                what,
                what,
                f"code {codes[0]}: {short(again.line(0, 'error'))}",
                codes == [2],
            )
            continue
        differ = runs.differences(out, want) if codes == [0] else ["everything"]
        seen = f"differs in {', '.join(differ)}" if differ else EXACT
        said = "" if said == "nothing" else f"; says: {short(said)}"
        rows.add(what, what, f"code {codes[0]}, {seen}{said}", not differ)
    full(work, rows, want)
    read_only(work, rows)


def short(text: str) -> str:
    """Leave out folders and rulers."""
    words = [w for w in text.split() if not w.startswith("/") and w.strip("-")]
    return " ".join(words)[:220]


@contextlib.contextmanager
def memory_disk(folder: pathlib.Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a file system in memory; gives a function that changes its options."""
    folder.mkdir(exist_ok=True)

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True)

    mount(f"size={size}")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full(work: pathlib.Path, rows: Rows, want: pathlib.Path) -> None:
    # A whole run takes about a megabyte.
    for size in ("60k", "250k", "450k", "600k"):
        if rows.has(size):
            continue
        with memory_disk(work / "mount", size) as change:
            out = work / "mount" / "run"
            job = runs.start(out, cache=work / "cache")
            code = job.wait()[0]
            where, said = runs.stage_of(out), short(job.line(0, "sgpo:"))
            trace = "Traceback" in job.said()
            beside = ", and a library its traceback" if trace else ""
            change("size=64m")
            seen, good = go_on(out, want, work)
            rows.add(
                size,
                f"disk of {size} full in: {where}; then made larger",
                f"code {code}: {said}{beside}; {seen}",
                good and code in (1, 2) and said != "nothing",
            )


def read_only(work: pathlib.Path, rows: Rows) -> None:
    with memory_disk(work / "mount", "64m") as change:
        change("ro")
        job = runs.start(work / "mount" / "run", cache=work / "cache")
        code = job.wait()[0]
        rows.add(
            "read-only",
            "folder that cannot be written, from the start",
            f"code {code}: {short(job.line(0, 'sgpo:'))}",
            code == 2,
        )


def mistakes(work: pathlib.Path, rows: Rows, seed: int) -> None:
    del seed
    out = reference(work)
    for what, more in {
        "an option that does not exist": ["--trian.steps", "3"],
        "a value of the wrong type": ["--train.steps", "many"],
        "a value out of range": ["--train.rollouts", "0"],
        "a step size at which every update overflows": [
            *(f"--methods.{runs.METHODS[0]}.optimizer.learning-rate", "1e30"),
        ],
        "a file of questions that is not there": ["--data", "nowhere.jsonl"],
        "a mesh that does not fit": ["--mesh.fsdp", "3"],
        "other settings in a folder with results": ["--profile.samples", "4"],
        "process 2 of 2": [
            *("--distributed.coordinator", "h:1", "--distributed.processes", "2"),
            *("--distributed.process", "2"),
        ],
    }.items():
        _mistake(rows, what, runs.start(out, *more, cache=work / "cache"), 2)
    for what, more in {
        "a value out of range, on two processes": ["--train.rollouts", "0"],
        "a mesh that does not fit, on two processes": ["--mesh.fsdp", "3"],
    }.items():
        out = work / "mistaken"
        job = runs.start(out, *more, processes=2, cache=work / "cache")
        _mistake(rows, what, job, 2)


def pairs(work: pathlib.Path, rows: Rows, seed: int) -> None:
    """Start two commands on one folder at once: one runs, the other is refused."""
    want, rng, out = reference(work), random.Random(seed), work / "pair"
    for number in range(PAIRS):
        key = f"pair-{number}"
        if rows.has(key):
            continue
        shutil.rmtree(out, ignore_errors=True)
        both = [runs.start(out, cache=work / "cache")]
        pause = rng.choice((0, rng.uniform(0, 2)))
        time.sleep(pause)
        both.append(runs.start(out, cache=work / "cache"))
        codes = [job.wait()[0] for job in both]
        refused = [job for job, code in zip(both, codes, strict=True) if code == 2]
        said = short(refused[0].line(0, "sgpo:")) if refused else "none was refused"
        differ = runs.differences(out, want)
        state = f"differs in {', '.join(differ)}" if differ else "the run is exact"
        good = sorted(codes) == [0, 2] and not differ and "is in use by process" in said
        done = f"a second command {pause:.2f} s after the first"
        rows.add(key, done, f"codes {codes}: {said}; {state}", good)
    shutil.rmtree(out, ignore_errors=True)


def together(found: dict[str, list[str]]) -> list[str]:
    """Return one row for all pairs: what went well, and the first that did not."""
    good = sum(verdict == "ok" for *_, verdict in found.values())
    last = next(
        (row for row in found.values() if row[2] != "ok"), [*found.values()][-1]
    )
    done = f"two commands on one folder, {len(found)} times, up to 2 s apart"
    seen = f"{good} times one runs and is exact, the other is refused; {last[1]}"
    return [done, seen, last[2]]


def _mistake(rows: Rows, what: str, job: runs.Job, wanted: int) -> None:
    codes = job.wait()
    said = short(job.line(0, "error" if wanted == 2 else "sgpo:"))
    seen = f"codes {codes}: {said}" if len(codes) > 1 else f"code {codes[0]}: {said}"
    rows.add(what, what, seen, set(codes) == {wanted} and len(said) > 20)


def main() -> None:
    import fault_peers

    parts = {
        "kills": kills,
        "disk": disk,
        "mistakes": mistakes,
        "processes": fault_peers.processes,
        "pairs": pairs,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*parts, "table"])
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/fault"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if args.part != "table":
        forget_wrong(work / f"{args.part}.json")
        parts[args.part](work, Rows(work / f"{args.part}.json"), args.seed)
        return
    text = [f"# Faults\n\n{__doc__.strip()}\n"]
    wrong = 0
    for part in parts:
        path = work / f"{part}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        wrong += sum(verdict != "ok" for *_, verdict in found.values())
        found = {"pairs": together(found)} if part == "pairs" else found
        text.append(f"## {part}: {len(found)} rows\n")
        text.append("| what was done | what was seen | |\n|---|---|---|")
        text += [
            f"| {' | '.join(x.replace('|', '/') for x in row)} |"
            for row in found.values()
        ]
        text.append("")
    RESULTS.write_text("\n".join(text).replace(f"{work}/", ""))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
