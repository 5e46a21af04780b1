"""The command; see the package's first lines."""

import argparse
import dataclasses
import json
import os
import pathlib
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from . import __doc__ as DESCRIPTION
from .harness import BYTES, SECONDS, Counts, run
from .targets import TARGETS

RESULTS = pathlib.Path(__file__).parent.parent / "results" / "fuzz.json"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=DESCRIPTION
    )
    parser.add_argument("--mutations", type=int, default=10_000, help="per target")
    parser.add_argument(
        "--only", nargs="*", default=list(TARGETS), choices=list(TARGETS)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    return parser.parse_args()


def page(results: dict[str, dict]) -> str:
    """Return the results as Markdown."""
    head = ("mutations", "refused", "accepted", "unchanged", "tracebacks", "hangs")
    head += ("crashes", "silent", "long_lines")
    lines = [
        "# Damage and hostile input, parser by parser",
        "",
        "`python -m benchmarks.fuzz`: mutations of sound inputs (bits, cuts, splices,",
        "hostile values in place of JSON values), each parsed under"
        f" {SECONDS} s and {BYTES >> 30} GB.",
        "Refused is one line that says what is wrong; accepted is another sound input;",
        "silent is a file of a run that was accepted with another content than was",
        "written; a long line is a refusal of more than 2,500 characters. A traceback,",
        "a hang, a crash, a silent change and a long line are faults.",
        "",
        f"| parser | {' | '.join(head).replace('_', ' ')} | slowest | memory |",
        "|---" * (len(head) + 3) + "|",
    ]
    for name, found in results.items():
        cells = " | ".join(f"{found[key]:,}" for key in head)
        limits = f"{found['slowest']:.2f} s | {found['peak_mb']:.0f} MB"
        lines.append(f"| {name} | {cells} | {limits} |")
    total = {key: sum(x[key] for x in results.values()) for key in head}
    cells = " | ".join(f"{total[key]:,}" for key in head)
    lines.append(f"| all | {cells} | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = parse()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.only:
        begin = time.perf_counter()
        found: Counts = run(name, TARGETS[name], args.mutations, seed=args.seed)
        found.examples = found.examples[:5]
        results[name] = dataclasses.asdict(found)
        results = {name: results[name] for name in TARGETS if name in results}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(page(results))
        print(
            f"{name}: {found.mutations} mutations, {found.faults} faults,"
            f" {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
        for example in found.examples:
            print(f"  {example}", flush=True)


if __name__ == "__main__":
    main()
