"""Spread of difficulty of the testbeds, as profiles of their initial policies have it.

    python -m benchmarks.headline.testbeds --work runs/headline

Reads the profile of seed 0 of each testbed, WORK/TESTBED/initial/seed0, as `python -m
benchmarks.headline` leaves it, and success from the JSON of the runs. Writes
benchmarks/results/testbeds.md, .json and .png; `--report` makes the page from the JSON.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax.profiling import Profile

from .page import mean_curves, table
from .schedule import ROOT

RESULTS = ROOT / "benchmarks" / "results"
FILES = ("headline.json", "headline_little.json")


def spread(profile: Profile) -> dict[str, Any]:
    """Questions by how many of their samples were solved, and lengths in tokens."""
    solved = profile.successes / np.maximum(profile.samples, 1)
    samples = int(profile.samples.max())
    bins = np.clip(np.round(solved * samples).astype(int), 0, samples)
    return {
        "questions": len(profile),
        "samples": samples,
        "solved": np.bincount(bins, minlength=samples + 1).tolist(),
        "prompt_tokens": float(profile.prompt_tokens.mean()),
        "response_tokens": float(profile.tokens.sum() / profile.samples.sum()),
    }


def learned(results: pathlib.Path = RESULTS) -> dict[str, dict[str, list[float]]]:
    """Success of the baseline before and after training: mean and greedy."""
    found = {}
    for name in FILES:
        content = json.loads((results / name).read_text())
        for testbed in content["testbeds"]:
            runs = [
                run
                for run in content["runs"]
                if (run["testbed"], run["method"]) == (testbed, content["baseline"])
            ]
            rollouts = np.mean([x["ledger"]["generation"]["rollouts"] for x in runs])
            curve = mean_curves(runs)[content["baseline"]].success
            greedy = np.mean([run["eval/greedy"] for run in runs], axis=0)
            found[testbed] = {
                "success": [float(curve[0]), float(curve[-1])],
                "greedy": [float(greedy[0]), float(greedy[-1])],
                "rollouts": float(rollouts),
            }
    return found


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table, a testbed each."""
    cells = []
    for testbed, x in found.items():
        never, always = x["solved"][0], x["solved"][-1]
        shares = (never, x["questions"] - never - always, always)
        success, greedy = x["success"], x["greedy"]
        cells.append(
            [
                f"`{testbed}`",
                f"{x['questions']:,}",
                *(f"{share / x['questions']:.0%}" for share in shares),
                f"{x['prompt_tokens']:.0f}, {x['response_tokens']:.0f}",
                f"{x['rollouts'] / x['questions']:.0f}",
                f"{success[0]:.3f}, {success[1]:.3f}",
                f"{greedy[0]:.3f}, {greedy[1]:.3f}",
            ]
        )
    return cells


COLUMNS = (
    *("testbed", "training questions", "never solved", "now and then", "always"),
    *("tokens: prompt, response", "rollouts a question"),
    *("GRPO before, after: success", "greedy"),
)


def write(found: Mapping[str, Any], path: pathlib.Path) -> None:
    """Write page and figure beside the JSON."""
    figure, axes = plt.subplots(1, len(found), figsize=(2.3 * len(found), 2.4))
    for axis, (testbed, x) in zip(np.atleast_1d(axes), found.items(), strict=True):
        axis.bar(range(x["samples"] + 1), np.array(x["solved"]) / x["questions"])
        axis.set(title=testbed, ylim=(0, 0.8), xlabel=f"solved of {x['samples']}")
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_ylabel("share of questions")
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)
    parts = [
        "# Testbeds: spread of difficulty",
        "`python -m benchmarks.headline.testbeds --work runs/headline`",
        "Profiles of the initial policies, seed 0; success of `grpo_token`, mean over"
        " seeds, from [runs](headline.md) and [more](headline_little.md).",
        f"![Questions by samples solved]({path.stem}.png)",
        table(COLUMNS, rows(found)),
    ]
    path.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs" / "headline")
    parser.add_argument("--report", action="store_true", help="only make the page")
    args = parser.parse_args(argv)
    path = RESULTS / "testbeds.json"
    if not args.report:
        found = {}
        for testbed, success in learned().items():
            profile = args.work / testbed / "initial" / "seed0" / "profile.parquet"
            if not profile.exists():
                parser.error(
                    f"no profile of {testbed} in {profile}: python -m"
                    f" benchmarks.headline --testbeds {testbed} makes it"
                )
            found[testbed] = {**spread(Profile.load(profile)), **success}
        path.write_text(json.dumps(found, indent=1) + "\n")
    write(json.loads(path.read_text()), path)
    print(path.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
