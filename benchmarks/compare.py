"""Total compute at equal held-out accuracy, over seeds or over step sizes.

    python benchmarks/compare.py seeds --out runs/compare --seeds 0 1 2
    python benchmarks/compare.py rates --out runs/rates --rates 1.5e-4 3e-4 6e-4

Each run is the main job in a folder of its own under --out; a run that is there is
read, not done again. Further options go to `sgpo run` as they are. Writes a Markdown
table to benchmarks/results/.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sgpo_jax import cli, report
from sgpo_jax.pipeline.folder import read_json
from sgpo_jax.training import Evaluation, read_metrics

RESULTS = pathlib.Path(__file__).parent / "results"


def run(out: pathlib.Path, options: list[str]) -> pathlib.Path:
    if not (out / "report.md").exists():
        code = cli.run_command(["run", "--out", str(out), *options])
        if code:
            sys.exit(code)
    return out


def curve(folder: pathlib.Path, method: str) -> report.Curve:
    lines = read_metrics(folder / "methods" / method / "metrics.jsonl")
    return report.Curve.from_metrics(lines)


def evaluation(folder: pathlib.Path, name: str) -> Evaluation:
    return Evaluation.load(folder / "eval" / f"{name}.json")


def pooled(found: Sequence[Evaluation]) -> Evaluation:
    """Evaluation over the questions of several runs."""
    rates = tuple(rate for one in found for rate in one.rates)
    return dataclasses.replace(found[0], rates=rates)


def gained(before: Evaluation, after: Evaluation) -> str:
    gain, low, high = after.change_from(before)
    return f"{after.mean:.3f} ({gain:+.3f}, {low:+.3f} to {high:+.3f})"


def table(columns: list[str], rows: list[list[str]]) -> str:
    head = "| " + " | ".join(columns) + " |\n|---" + "|---:" * (len(columns) - 1) + "|"
    return "\n".join([head, *("| " + " | ".join(row) + " |" for row in rows)])


def times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio else "not reached"


def seeds(args: argparse.Namespace, options: list[str]) -> str:
    folders = {
        seed: run(args.out / f"seed{seed}", ["--seed", str(seed), *options])
        for seed in args.seeds
    }
    baseline, *others = read_json(next(iter(folders.values())) / "config.json")[
        "methods"
    ]
    names = ("initial", baseline, *others)
    found = {
        f"{seed}": [evaluation(folder, name) for name in names]
        for seed, folder in folders.items()
    }
    no_gain = [
        seed for seed, one in found.items() if one[1].change_from(one[0]).sign < 1
    ]
    found["all"] = [pooled(one) for one in zip(*found.values(), strict=True)]
    accuracy = [
        [seed, f"{initial.mean:.3f}", *(gained(initial, after) for after in trained)]
        for seed, (initial, *trained) in found.items()
    ]
    curves = {
        seed: {name: curve(folder, name) for name in (baseline, *others)}
        for seed, folder in folders.items()
    }
    costs = [
        [f"{seed}", *(f"{one.flops[-1] / 1e12:.2f}" for one in each.values())]
        for seed, each in curves.items()
    ]
    return "\n\n".join(
        [
            f"Held-out success at temperature 1 after training (baseline: {baseline});"
            " in brackets the gain and its 95 % interval over pairs of equal questions."
            " The last row is over the questions of all seeds.",
            table(["seed", *names], accuracy),
            "Total compute in TFLOP, profiling included.",
            table(["seed", baseline, *others], costs),
            *_at_equal_accuracy(curves, baseline, others, no_gain),
        ]
    )


def _at_equal_accuracy(
    curves: Mapping[int, Mapping[str, report.Curve]],
    baseline: str,
    others: list[str],
    no_gain: list[str],
) -> Iterator[str]:
    if no_gain:
        yield (
            f"Compute at equal accuracy is not compared: {baseline} did not gain beyond"
            f" noise with seed {' and '.join(no_gain)}."
        )
        return
    rows = []
    for name in others:
        points = [
            report.compare(each[baseline], each[name]) for each in curves.values()
        ]
        if not all(points):
            yield f"The curve of {baseline} never rose with some seed: train longer."
            return
        for i, share in enumerate(report.SHARES):
            ratios = np.array([one[i].ratio for one in points])
            repeated = np.array([one[i].ratio_repeated for one in points])
            rows.append(
                [
                    f"{name} at {share:.0%}",
                    *(map(times, ratios)),
                    times(np.median(ratios)),
                    times(np.median(repeated)),
                ]
            )
    yield (
        f"Total compute of {baseline} over that of the method, profiling included,"
        f" where the smoothed curves reach a share of {baseline}'s gain. The last"
        f" column is the median against {baseline} with the prompt encoded for"
        " every response, as it is usually run. A method that does not get there"
        " counts as 0 in the median."
    )
    seeds = (f"seed {seed}" for seed in curves)
    yield table(["method", *seeds, "median", "median, prompts repeated"], rows)


def _rates(rate: str) -> list[str]:
    labels = ("grpo_token", "sgpo", "tracked")
    return [
        text
        for label in labels
        for text in (f"--methods.{label}.optimizer.learning-rate", rate)
    ]


def rates(args: argparse.Namespace, options: list[str]) -> str:
    rows = []
    for rate in args.rates:
        folder = run(
            args.out / f"rate{rate}",
            [
                *_rates(rate),
                *options,
            ],
        )
        for name in read_json(folder / "config.json")["methods"]:
            found = curve(folder, name)
            smooth = found.smooth()
            half = found.cost_of(smooth[0] + 0.1) / 1e9
            rows.append(
                [
                    name,
                    rate,
                    f"{smooth.max():.3f}",
                    f"{smooth[-1]:.3f}",
                    f"{half:.0f}" if np.isfinite(half) else "not reached",
                    f"{found.flops[-1] / 1e9:.0f}",
                ]
            )
    columns = ["method", "step size", "best", "last", "GFLOP to +0.10", "GFLOP in all"]
    return table(columns, sorted(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["seeds", "rates"])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", nargs="+", default=["1.5e-4", "3e-4", "6e-4"])
    parser.add_argument("--name", help="name of the result file")
    args, options = parser.parse_known_args()
    text = {"seeds": seeds, "rates": rates}[args.what](args, options)
    command = f"`python benchmarks/compare.py {' '.join(sys.argv[1:])}`"
    path = RESULTS / f"{args.name or 'compare_' + args.what}.md"
    path.write_text(f"{command}\n\n{text}\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
