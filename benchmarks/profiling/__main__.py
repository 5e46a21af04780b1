"""The command; see the package's first lines."""

import argparse
import json
import pathlib

from . import __doc__ as DESCRIPTION
from . import choices, predictor, rules, scale

PARTS = {"rules": rules, "choices": choices, "predictor": predictor, "scale": scale}
RESULTS = pathlib.Path(__file__).parents[1] / "results"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profiling",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--run", help="a run folder with a profile")
    parser.add_argument("--out", default=str(RESULTS))
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    path = out / "profiling.json"
    found: dict = {}
    wanted = options.parts or [
        name for name in PARTS if options.run or name != "predictor"
    ]
    for name in wanted:
        print(f"{name} ...", flush=True)
        rows = PARTS[name].run(options.run)
        # Read late: another part may have been written meanwhile.
        found = json.loads(path.read_text()) if path.exists() else {}
        found[name] = rows
        path.write_text(json.dumps(found, indent=1) + "\n")
        PARTS[name].plot(found[name], out / f"profiling_{name}.png")
    lines = ["# Profiles and plans", "", "`python -m benchmarks.profiling`", ""]
    for name, part in PARTS.items():
        if name in found:
            lines += part.markdown(found[name])
    (out / "profiling.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
