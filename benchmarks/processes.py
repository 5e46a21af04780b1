"""A run on several processes beside the same run on one: what is equal, what is not.

    python benchmarks/processes.py default --counts 1 4 --work runs/processes
    python benchmarks/processes.py lora --counts 1 2

Each run has a folder of its own; one that is finished is read, not done again. With
`--policy`, all start from the initial policy that the first count made; otherwise each
makes its own. Writes a section of benchmarks/results/processes.md.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np

from sgpo_jax.pipeline.folder import read_json
from sgpo_jax.profiling import Profile
from sgpo_jax.training import read_metrics

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "processes.md"
RUNS = {
    "default": [],
    "short": ["--train.steps", "60", "--method.names", "grpo", "tracked"],
    "lora": [
        *("--preset", "quick", "--model.lora-rank", "4", "--warmup.steps", "60"),
        *("--train.steps", "20", "--method.names", "tracked"),
    ],
}
CLOCKS = ("step_time_sec", "compiles", "time/", "tokens_per_sec/", "goodput", "mfu/")
SHAPES = ("sampler/occupancy",)  # of each process's own part of the lanes


def run(out: pathlib.Path, count: int, options: list[str]) -> None:
    if (out / "report.md").exists():
        return
    launcher = str(ROOT / "launch" / "local_multiprocess.py")
    command = [sys.executable, launcher, str(count), "--", "run", *options]
    started = time.perf_counter()
    code = subprocess.run([*command, "--out", str(out)], check=False).returncode
    if code:
        sys.exit(code)
    (out / "seconds").write_text(f"{time.perf_counter() - started:.0f}")


def compare(first: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Return rows of a table: what, on the first, on the other, how far apart."""
    rows = []
    a, b = (Profile.load(x / "profile.parquet") for x in (first, other))
    for name in Profile.COUNTS:
        x, y = getattr(a, name), getattr(b, name)
        differ = int((x != y).sum())
        rows.append(f"profile: {name} | {x.sum()} | {y.sum()} | {differ} of {len(a)}")
    same = "equal" if a.fingerprint() == b.fingerprint() else "differ"
    rows.append(
        f"profile: fingerprint | {a.fingerprint()} | {b.fingerprint()} | {same}"
    )
    plans = [read_json(x / "plan.json") for x in (first, other)]
    same = "equal" if plans[0]["phases"] == plans[1]["phases"] else "differ"
    rows.append(f"plan: phases | {len(plans[0]['phases'])} | | {same}")
    for folder in sorted((first / "methods").iterdir()):
        found = [
            read_metrics(x / "methods" / folder.name / "metrics.jsonl")
            for x in (first, other)
        ]
        assert len(found[0]) == len(found[1])
        rows.append(f"{folder.name}: steps until | | | {_agree(*found)}")
    for path in sorted((first / "eval").glob("*.json")):
        x, y = (read_json(run / "eval" / path.name) for run in (first, other))
        interval = f"{x['low']:.3f} to {x['high']:.3f}"
        rows.append(
            f"{path.stem}: held-out success | {x['mean']:.4f} ({interval}) |"
            f" {y['mean']:.4f} | {abs(x['mean'] - y['mean']):.4f}"
        )
    return rows


def _agree(ours: list[dict], theirs: list[dict]) -> str:
    """Say at which step rewards first differ, and how far all else is until then."""
    worst, where = 0.0, ""
    for x, y in zip(ours, theirs, strict=True):
        if x.get("reward") != y.get("reward"):
            return (
                f"a reward differs: {x['step']}; before, at most {worst:.0e} ({where})"
            )
        for name in x.keys() - {"ledger", *SHAPES}:
            if name.startswith(CLOCKS) or not np.isfinite(x[name]):
                continue
            gap = abs(x[name] - y[name]) / max(abs(x[name]), 1e-3)
            if gap > worst:
                worst, where = gap, f"{name} at {x['step']}"
    return f"no reward differs; all else by at most {worst:.0e} ({where})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--counts", type=int, nargs=2, default=[1, 2])
    parser.add_argument("--policy", action="store_true")
    work = pathlib.Path("runs/processes")
    parser.add_argument("--work", type=pathlib.Path, default=work)
    args = parser.parse_args()
    name = f"{args.run}{' from one policy' if args.policy else ''}"
    folders = []
    for count in args.counts:
        out = args.work.resolve() / f"{name.replace(' ', '-')}-{count}"
        if args.policy and folders and not out.exists():
            out.mkdir(parents=True)
            shutil.copytree(folders[0] / "policy", out / "policy")
            shutil.copy(folders[0] / "config.json", out)
        run(out, count, RUNS[args.run])
        folders.append(out)
    first, other = args.counts
    seconds = [(x / "seconds").read_text() for x in folders]
    text = [
        f"## {name}: {' '.join(RUNS[args.run]) or 'sgpo run as it is'}\n",
        f"| | {first} process | {other} processes | differs |\n|---|---|---|---|",
        *(f"| {row} |" for row in compare(*folders)),
        f"| seconds, two shared cores | {seconds[0]} | {seconds[1]} | |\n",
    ]
    head = f"# Processes\n\n{__doc__.strip()}\n\n"
    old = RESULTS.read_text() if RESULTS.exists() else head
    body = old.removeprefix(head)
    sections = [f"## {part}" for part in body.split("## ")[1:]]
    kept = [part for part in sections if not part.startswith(f"## {name}:")]
    RESULTS.write_text(head + "\n".join([*(k.strip() + "\n" for k in kept), *text]))
    print("\n".join(text))


if __name__ == "__main__":
    main()
