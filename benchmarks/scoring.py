"""Cost of scoring: CPU per completion, use of cores, overlap, and a soak of attacks.

python benchmarks/scoring.py --soak 20000 --out benchmarks/results/scoring.md \\
    --before benchmarks/results/scoring_before.json
"""

import argparse
import collections
import functools
import inspect
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

from sgpo_jax.data import Query
from sgpo_jax.rewards import Worker, gsm8k
from sgpo_jax.rewards.supervisor import BATCHES

BATCH, LARGE = 256, 1024


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


def _cpu() -> float:
    """CPU seconds so far of this process and of all that it started and that ended."""
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(who) for who in whose]
    return sum(use.ru_utime + use.ru_stime for use in used)


def _pool(texts: list[str], query: Query, rounds: int) -> float:
    begun = _cpu()
    with Worker() as worker:
        for _ in range(5 + rounds):
            worker.score(texts, [query] * len(texts))
    return _cpu() - begun


def overhead(
    name: str, function, *, rounds: int = 150, batch: int = BATCH
) -> tuple[float, float]:
    """Return microseconds of CPU per completion: called directly, and by the pool."""
    texts = ["48 + 24 = 72 clips.\n#### 72", "so it is 71"] * (batch // 2)
    query = Query(id="q", prompt="", reference="72", verifier=name)
    start = _pool(texts, query, 0)
    begun = time.process_time()
    for _ in range(rounds):
        for text in texts:
            function(text, "72")
    direct = (time.process_time() - begun) / (rounds * batch)
    pool = (_pool(texts, query, rounds) - start) / (rounds * batch)
    return direct * 1e6, pool * 1e6


def waiting(workers: int) -> float:
    """Return seconds for 64 completions of a verifier that takes 100 ms."""
    query = Query(id="q", prompt="", reference="", verifier=f"{_here()}:slow")
    with _worker(workers) as worker:
        worker.score([""] * workers, [query] * workers)
        begun = time.perf_counter()
        worker.score([""] * 64, [query] * 64)
        return time.perf_counter() - begun


def overlapped(workers: int) -> tuple[float, float]:
    """Return seconds waited after the last sample: all at once, and fed as they end."""
    query = Query(id="q", prompt="", reference="", verifier=f"{_here()}:slow")
    waits = []
    with _worker(workers) as worker:
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
    from sgpo_jax.rewards import reaping
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


def _worker(workers: int) -> Worker:
    """Return a pool; versions of the library before it have one scorer."""
    if "workers" not in inspect.signature(Worker).parameters:
        return Worker()
    return Worker(workers=workers)


@functools.cache
def _here() -> str:
    """Write a module as people have them, which imports little; return its name."""
    folder = tempfile.mkdtemp()
    (pathlib.Path(folder) / "my_reward.py").write_text(OWN)
    sys.path.append(folder)
    return "my_reward"


def fork_cost(count: int = 50) -> float:
    """Return microseconds of CPU that a fork of this interpreter costs."""
    code = (
        "import os\n"
        f"for _ in range({count}):\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "    os.wait()"
    )
    costs = []
    for program in ("pass", code):
        begun = _cpu()
        subprocess.run([sys.executable, "-c", program], check=True)
        costs.append(_cpu() - begun)
    return (costs[1] - costs[0]) / count * 1e6


def measure() -> dict[str, float | list[float]]:
    """Return all figures by name."""
    cores = len(os.sched_getaffinity(0))
    figures: dict[str, float | list[float]] = {"cores": cores, "fork": fork_cost()}
    figures["built in"] = list(overhead("gsm8k", gsm8k))
    own = f"{_here()}:plain"
    figures["own"] = list(overhead(own, plain))
    figures["own, large"] = list(overhead(own, plain, batch=LARGE, rounds=75))
    for workers in (1, cores, 8):
        figures[f"{workers} scorers"] = waiting(workers)
    if hasattr(Worker, "batch"):
        figures["overlap"] = list(overlapped(cores))
    figures["10 MB"] = list(long_text())
    return figures


def render(now: dict, before: dict | None) -> str:
    """Return the figures as Markdown, those of another version beside them."""
    cores = now["cores"]
    both = [now] if before is None else [before, now]
    heads = ["now"] if before is None else ["before", "now"]

    def table(title: str, rows: dict[str, list[str]]) -> list[str]:
        lines = [
            f"| {title} | {' | '.join(heads)} |",
            "|---" + "|---:" * len(both) + "|",
        ]
        return lines + [f"| {k} | {' | '.join(v)} |" for k, v in rows.items()] + [""]

    rows = {}
    for name, label in (
        ("built in", "gsm8k, built in"),
        ("own", "a function of one's own"),
        ("own, large", f"the same in batches of {LARGE:,}"),
    ):
        known = [x.get(name) for x in both]
        rows[f"{label}: called directly"] = [f"{x[0]:.1f}" if x else "" for x in known]
        rows[f"{label}: by the pool, beyond that"] = [
            f"{x[1] - x[0]:.1f}" if x else "" for x in known
        ]
    slow = {
        f"{n} scorers": [f"{x[f'{n} scorers']:.2f}" for x in both]
        for n in (1, cores, 8)
    }
    wait, fed = now["overlap"]
    seconds, memory = now["10 MB"]
    return "\n".join(
        [
            f"Measured on {cores} cores by `python benchmarks/scoring.py`. Before is"
            " one scorer and a fork per batch. A bare fork costs"
            f" {now['fork'] / 1000:.1f} ms of CPU on this machine; processes that run"
            f" code of one's own are replaced after {BATCHES} batches.",
            "",
            *table(f"microseconds of CPU per completion, batches of {BATCH}", rows),
            *table("seconds for 64 completions that take 100 ms each", slow),
            f"32 completions at 100 ms, one sampled every 150 ms, {cores} scorers: the"
            f" wait after the last sample is {wait:.2f} s scored at once, {fed:.2f} s"
            " fed as they end.",
            "",
            f"A completion of 10 MB costs the trainer {seconds:.3f} s of CPU and"
            f" {memory:.0f} MiB more at its peak.",
        ]
    )


def main() -> None:
    """Measure, and write what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--soak", type=int, default=0, help="completions of a soak")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown to write")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures, and end")
    parser.add_argument(
        "--before", type=pathlib.Path, help="figures of another version"
    )
    options = parser.parse_args()
    if options.json:
        options.json.write_text(json.dumps(measure(), indent=1) + "\n")
        return
    before = json.loads(options.before.read_text()) if options.before else None
    text = render(measure(), before)
    if options.soak:
        text += f"\n\nSoak (`--soak {options.soak}`): {soak(options.soak)}."
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
