"""Cost of scoring: CPU per completion, use of cores, overlap, and a soak of attacks.

python benchmarks/scoring.py [--out benchmarks/results/scoring.md]
python benchmarks/scoring.py --soak 20000
"""

import argparse
import collections
import functools
import os
import pathlib
import random
import resource
import tempfile
import time

from sgpo_jax.data import Query
from sgpo_jax.rewards import Worker, gsm8k, reaping

BATCH = 256


OWN = """
import time

def plain(completion, reference):
    return float(reference in completion)

def slow(completion, reference):
    time.sleep(0.1)
    return 1.0
"""


def plain(completion: str, reference: str) -> float:
    return float(reference in completion)


def _cpu(worker: Worker) -> float:
    """CPU seconds so far of this process, the supervisor and its scorers."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total, tick = own.ru_utime + own.ru_stime, os.sysconf("SC_CLK_TCK")
    pids = [worker._link.pid]
    with open(f"/proc/{pids[0]}/task/{pids[0]}/children") as file:
        pids += [int(pid) for pid in file.read().split()]
    for index, pid in enumerate(pids):
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        # The supervisor's figure includes the scorers it has waited for.
        total += sum(map(int, fields[11 : 15 if index == 0 else 13])) / tick
    return total


def overhead(name: str, function, rounds: int = 200) -> tuple[float, float]:
    """Return microseconds of CPU per completion: called directly, and by the pool."""
    texts = ["48 + 24 = 72 clips.\n#### 72", "so it is 71"] * (BATCH // 2)
    begun = time.process_time()
    for _ in range(20):
        for text in texts:
            function(text, "72")
    direct = (time.process_time() - begun) / (20 * BATCH)
    query = Query(id="q", prompt="", reference="72", verifier=name)
    with Worker() as worker:
        for _ in range(5):
            worker.score(texts, [query] * BATCH)
        begun = _cpu(worker)
        for _ in range(rounds):
            worker.score(texts, [query] * BATCH)
        pool = (_cpu(worker) - begun) / (rounds * BATCH)
    return direct * 1e6, pool * 1e6


def waiting(workers: int) -> float:
    """Return seconds for 64 completions of a verifier that takes 100 ms."""
    query = Query(id="q", prompt="", reference="", verifier=f"{_here()}:slow")
    with Worker(workers=workers) as worker:
        worker.score([""] * workers, [query] * workers)
        begun = time.perf_counter()
        worker.score([""] * 64, [query] * 64)
        return time.perf_counter() - begun


def overlapped(workers: int) -> tuple[float, float]:
    """Return seconds waited after the last sample: all at once, and fed as they end."""
    query = Query(id="q", prompt="", reference="", verifier=f"{_here()}:slow")
    waits = []
    with Worker(workers=workers) as worker:
        worker.score([""] * workers, [query] * workers)
        for fed in (False, True):
            with worker.batch() as batch:
                for _ in range(32):
                    time.sleep(0.15)  # the sampler
                    batch.add("", query)
                    if fed:
                        batch.send()
                begun = time.perf_counter()
                batch.results()
                waits.append(time.perf_counter() - begun)
    return waits[0], waits[1]


def long_text() -> tuple[float, float]:
    """Return seconds and MiB that a completion of 10 MB costs the trainer."""
    query = Query(id="q", prompt="", reference="72", verifier="gsm8k")
    with Worker() as worker:
        worker.score(["72"], [query])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        worker.score(["é" * 5_000_000], [query])
        seconds = time.process_time() - begun
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return seconds, more / 1024


def soak(count: int) -> str:
    """Score good and hostile completions; say what was lost or left behind."""
    from tests.rewards import misbehaviour, test_hostile

    draw = random.Random(0)
    bad = ["segfault", "quit", "abort", "close", "raise", "none", "exit", "recursion"]
    obey, attack = f"{misbehaviour.__name__}:obey", f"{test_hostile.__name__}:attack"
    wrong, kinds = 0, collections.Counter()
    begun = time.monotonic()
    with Worker(deadline=2.0, memory_gib=1.0) as worker:
        for _ in range(0, count, BATCH):
            items = [("right", obey, 1.0)] * BATCH
            for place in draw.sample(range(BATCH), 6):
                items[place] = (draw.choice(bad), obey, None)
            for what, value in (("poison", 1.0), ("forge", None)):
                items[draw.randrange(BATCH)] = (what, attack, value)
            if draw.random() < 0.1:
                what = draw.choice(["silent", "flood", "kill_supervisor"])
                items[draw.randrange(BATCH)] = (what, attack, None)
            queries = [
                Query(id="q", prompt="", reference="7", verifier=name)
                for _, name, _ in items
            ]
            values = worker.score([text for text, _, _ in items], queries)
            for value, (_, _, wanted) in zip(values, items, strict=True):
                wrong += value == value if wanted is None else value != wanted
        kinds = worker.problems.counts
    left = reaping._children()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{count} completions in {time.monotonic() - begun:.0f} s: {wrong} wrong or"
        f" lost, unscorable {dict(kinds)}, {len(left)} processes left, trainer"
        f" {memory:.0f} MiB at most"
    )


@functools.cache
def _here() -> str:
    """Write a file as people have them, which imports little; return its path."""
    path = pathlib.Path(tempfile.mkdtemp()) / "my_reward.py"
    path.write_text(OWN)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    if options.soak:
        print(soak(options.soak))
        return
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"Measured on {cores} cores by `python benchmarks/scoring.py`.",
        "",
        f"| verifier, batches of {BATCH} | direct, us CPU | pool, us CPU | more |",
        "| --- | --- | --- | --- |",
    ]
    for label, name, function in (
        ("gsm8k (built in)", "gsm8k", gsm8k),
        ("a function of one's own", f"{_here()}:plain", plain),
    ):
        direct, pool = overhead(name, function)
        lines.append(f"| {label} | {direct:.1f} | {pool:.1f} | {pool - direct:.1f} |")
    lines += ["", "| 64 completions at 100 ms | seconds |", "| --- | --- |"]
    lines += [f"| {n} scorers | {waiting(n):.2f} |" for n in (1, cores, 8)]
    at_once, fed = overlapped(cores)
    seconds, memory = long_text()
    lines += [
        "",
        f"32 completions at 100 ms, one sampled every 150 ms, {cores} scorers: the wait"
        f" after the last sample is {at_once:.2f} s scored at once, {fed:.2f} s fed as"
        " they end.",
        "",
        f"A completion of 10 MB costs the trainer {seconds:.3f} s of CPU and"
        f" {memory:.0f} MiB more at its peak.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
