"""The part of faults.py about runs of several processes."""

import pathlib
import shutil
import time

import fault_runs as runs
from faults import EXACT, Rows, go_on, reference, short

HEARTBEAT = 10
LIMITS = [
    *("--distributed.heartbeat-timeout", str(HEARTBEAT)),
    *("--distributed.barrier-timeout", "320"),  # more than scoring a batch may take
]


def hurt(work, out, number, victim, processes, when):
    """Send a signal to one process of a run at a moment; return the job, ended."""
    shutil.rmtree(out, ignore_errors=True)
    if when in (training, evaluating):  # what comes before is there already
        shutil.copytree(reference(work, processes), out)
        shutil.rmtree(out / "eval")
        (out / "report.md").unlink()
        if when is training:
            shutil.rmtree(out / "methods")
    job = runs.start(out, *LIMITS, processes=processes, cache=work / "cache")
    assert runs.until(lambda: when(out), job), job.said()
    job.send(number, victim)
    start = time.monotonic()
    # Who is stopped, or was killed, is not waited for.
    last = victim if number != runs.TERM else None
    others = [p for i, p in enumerate(job.processes) if i != last]
    while any(p.poll() is None for p in others) and time.monotonic() - start < 120:
        time.sleep(0.02)
    codes = [process.poll() for process in job.processes]
    took = time.monotonic() - start
    job.end()
    return job, codes, took


def profiling(out: pathlib.Path) -> bool:
    return runs.count(out, "profile.chunks/*.parquet") >= 1


def training(out: pathlib.Path) -> bool:
    return runs.lines(out, runs.METHODS[0]) >= 2


def fine_tuning(out: pathlib.Path) -> bool:
    return (out / "config.json").exists()


def evaluating(out: pathlib.Path) -> bool:
    return runs.count(out, "eval/*.json") >= 1


CASES = [
    ("SIGKILL", runs.KILL, 3, 4, "training", training),
    ("SIGTERM", runs.TERM, 2, 4, "training", training),
    ("SIGSTOP", runs.STOP, 1, 2, "training", training),
    ("SIGSTOP", runs.STOP, 0, 2, "training", training),
    ("SIGKILL", runs.KILL, 0, 2, "training", training),
    ("SIGTERM", runs.TERM, 0, 2, "training", training),
    ("SIGKILL", runs.KILL, 1, 2, "the profile", profiling),
    ("SIGTERM", runs.TERM, 1, 2, "final evaluation", evaluating),
    ("SIGTERM", runs.TERM, 1, 2, "fine-tuning", fine_tuning),
    ("SIGTERM", runs.TERM, 1, 2, "the profile", profiling),
    ("SIGKILL", runs.KILL, 1, 2, "training", training),
]


def processes(work: pathlib.Path, rows: Rows, seed: int) -> None:
    del seed
    for absent, present in ((1, 0), (0, 1)):
        what = f"process {absent} of 2 never starts, barrier timeout 15 s"
        if rows.has(what):
            continue
        out = work / "absent"
        limits = ["--distributed.barrier-timeout", "15", "--reward.batch-deadline", "5"]
        start = time.monotonic()
        job = runs.start(
            out, *limits, processes=2, only=[present], cache=work / "cache"
        )
        (code,) = job.wait()
        rows.add(
            what,
            what,
            f"code {code} after {time.monotonic() - start:.0f} s; says:"
            f" {short(job.line(0, 'sgpo:'))}",
            code == 42,
        )
    for name, signal, victim, count, stage, when in CASES:
        what = f"{name} to process {victim} of {count} in {stage}"
        if rows.has(what):
            continue
        out = work / "peers"
        job, codes, took = hurt(work, out, signal, victim, count, when)
        survivors = [c for i, c in enumerate(codes) if i != victim]
        if name == "SIGTERM":
            right = set(codes) == {42}
            said = ""
        else:
            right = set(survivors) <= {42, -6} and took <= HEARTBEAT * 1.5 + 5
            word = "sgpo:" if set(survivors) == {42} else "F1"
            one = next(i for i in range(count) if i != victim)
            said = f"; says: {short(job.line(one, word))}"
        seen, good = go_on(out, reference(work, count), work, count)
        rows.add(
            what,
            what,
            f"codes {codes} after {took:.1f} s{said}; {seen}",
            right and good and seen == EXACT,
        )
        shutil.rmtree(out)
