"""The command; see the package's first lines."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from sgpo_jax.hosts import RESTART
from sgpo_jax.methods import label_of

from . import __doc__ as DESCRIPTION
from . import page
from .collect import collect
from .schedule import ROOT, Pool, plan

RESULTS = ROOT / "benchmarks" / "results" / "headline.json"
CONTROLS = "benchmarks.headline.controls"
METHODS = (
    *("grpo_token", "grpo_thin", f"{CONTROLS}:drawn_flat", f"{CONTROLS}:drawn"),
    *("tracked_flat", "tracked", "dapo", "sgpo", "grpo"),
)


def parse(argv: list[str]) -> argparse.Namespace:
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.headline",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--testbeds", nargs="+", default=["strategies"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument(
        "--own",
        nargs=2,
        action="append",
        default=[],
        metavar=("LABEL", "OPTIONS"),
        help="options of `sgpo run` for one method, such as pods '--train.steps 90'",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--baseline", default="grpo_token", help="label of a method")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs" / "headline")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=0, help="of each; 0: jax's own")
    parser.add_argument("--limit", type=float, default=0, help="seconds; 0: none")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only make the page")
    args = parser.parse_args(argv[:split])
    args.options = argv[split + 1 :]
    labels = [label_of(name) for name in args.methods]
    if args.baseline not in labels:
        parser.error(f"--baseline {args.baseline} is none of --methods: {labels}")
    if len(set(labels)) < len(labels):
        parser.error(f"two of --methods have one label: {labels}")
    args.own = {label: shlex.split(said) for label, said in args.own}
    if not args.own.keys() <= set(labels):
        parser.error(f"--own names {list(args.own)}, --methods are {labels}")
    return args


def main(argv: list[str]) -> int:
    args = parse(argv)
    code = 0 if args.report else run(args, argv)
    if args.out.exists():
        page.write(json.loads(args.out.read_text()), args.out)
        print(args.out.with_suffix(".md"))
    return code


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Do what is missing; returns 0, 42 if some was stopped, or what it failed with."""
    runs = plan(
        args.work.resolve(),
        args.testbeds,
        args.methods,
        args.seeds,
        args.options,
        own=args.own,
    )
    pool, worst = Pool(jobs=args.jobs, threads=args.threads, limit=args.limit), 0
    for one, code in pool(runs):
        said = {0: "done", RESTART: "stopped"}.get(code, f"failed with {code}")
        print(f"{one.folder}: {said}", flush=True)
        worst = code if worst in (0, RESTART) and code else worst
    found = collect(runs, args.baseline, replicates=args.replicates)
    if not found["runs"]:
        return worst
    made = {
        "command": shlex.join(["python", "-m", "benchmarks.headline", *argv]),
        "jax": importlib.metadata.version("jax"),
        "cores": os.cpu_count(),
        "replicates": args.replicates,
    }
    for result in found["testbeds"].values():
        result["made"] = made
    if args.out.exists():
        found = merge(json.loads(args.out.read_text()), found)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(as_text(found))
    return worst


def as_text(found: Mapping[str, Any]) -> str:
    """JSON with a line per run.

    >>> json.loads(as_text({"runs": [{"a": [1, 2]}], "b": {}}))
    {'b': {}, 'runs': [{'a': [1, 2]}]}
    """
    rest = json.dumps({k: v for k, v in found.items() if k != "runs"}, indent=1)
    runs = [json.dumps(run, separators=(",", ":")) for run in found["runs"]]
    opening = rest.removesuffix("\n}")
    return opening + ',\n "runs": [\n' + ",\n".join(runs) + "\n ]\n}\n"


def merge(before: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the testbeds of an earlier command that this one has nothing new of."""
    kept = before["testbeds"].keys() - found["testbeds"].keys()
    if kept and before["baseline"] != found["baseline"]:
        raise ValueError(
            f"the file compares {', '.join(sorted(kept))} with {before['baseline']},"
            f" not {found['baseline']}: give another --out"
        )
    runs = [run for run in before["runs"] if run["testbed"] in kept]
    unfinished = [x for x in before["unfinished"] if x.partition("/")[0] in kept]
    return {
        **found,
        "runs": [*runs, *found["runs"]],
        "unfinished": [*unfinished, *found["unfinished"]],
        "testbeds": {**before["testbeds"], **found["testbeds"]},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
