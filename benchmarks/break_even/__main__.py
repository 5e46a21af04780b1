"""The command; see the package's first lines."""

import argparse
import json
import pathlib

from . import __doc__ as DESCRIPTION
from . import page
from .measured import check, read_pools
from .model import tabulate

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.break_even",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=pathlib.Path, help="of benchmarks.headline")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "break_even.json")
    args = parser.parse_args()
    headline = json.loads((RESULTS / "headline.json").read_text())
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    pools = read_pools(args.work, headline) if args.work else known.get("pools", {})
    found = {
        "command": "python -m benchmarks.break_even --work runs/headline",
        "pools": pools,
        "check": check(headline, pools),
        "table": tabulate(),
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    page.write(found, args.out)
    print(args.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
