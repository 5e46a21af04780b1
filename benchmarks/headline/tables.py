"""Tables of README.md and docs/results.md, filled from the files of results.

    python -m benchmarks.headline.tables

A table stands under a comment that names it, <!-- table NAME -->; what is under the
comment, to the next blank line, is replaced. Nothing is run.
"""

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import page, testbeds
from .analysis import FREE_SUFFIX, LIVE_SUFFIX, ORACLE_SUFFIX, SHARES
from .schedule import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
HALF, MOST = SHARES.index(0.5), page.MOST
GAIN = "at 50 and 90 % of GRPO's gain"
FREE = "... the profile at hand"

Rows = Sequence[tuple[str, str]]
"""What a row is called and the method it is about, as the file has it."""

EARNS: Rows = (
    ("the same updates, dead groups left out", "grpo_token" + LIVE_SUFFIX),
    ("thinned without bias (`grpo_thin`)", "grpo_thin"),
    (
        "the bound: the same, no dead group ever sampled",
        "grpo_thin" + ORACLE_SUFFIX,
    ),
    (
        "`screened_thin`: four rollouts first, four more where they differ",
        "screened_thin",
    ),
    ("`grpo_16`: groups of 16", "grpo_16"),
    ("`pods`", "pods"),
    ("`dapo`", "dapo"),
    ("`filtered_thin`: thinned, the profile as a filter", "filtered_thin"),
    (FREE, "filtered_thin" + FREE_SUFFIX),
    ("thinned, drawn by a belief without a profile", "drawn_flat"),
    ("the same, belief started from a profile", "drawn"),
    (FREE, "drawn" + FREE_SUFFIX),
    ("`tracked_flat`: a baseline per question, without a profile", "tracked_flat"),
    ("`tracked`: the same, started from a profile", "tracked"),
    (FREE, "tracked" + FREE_SUFFIX),
    ("`sgpo`: the paper's rule", "sgpo"),
    (FREE, "sgpo" + FREE_SUFFIX),
    ("`mopps`", "mopps"),
    ("`greso`", "greso"),
)
FURTHER: Rows = (
    ("`grpo_token`", "grpo_token"),
    ("`dapo_thin`: `dapo`, thinned", "dapo_thin"),
    ("`grpo_16`, dead groups left out", "grpo_16" + LIVE_SUFFIX),
    ("`grpo_16_thin`: groups of 16, thinned", "grpo_16_thin"),
    ("`grpo`, as published, with its KL penalty", "grpo"),
    ("`grpo_2`: groups of 2", "grpo_2"),
    ("... dead groups left out", "grpo_2" + LIVE_SUFFIX),
    ("`dr_grpo`", "dr_grpo"),
    ("`spo`", "spo"),
    (FREE, "spo" + FREE_SUFFIX),
    ("`cppo`", "cppo"),
    ("`krpo`", "krpo"),
    ("`gspo`", "gspo"),
    ("`pilot_commit`", "pilot_commit"),
)
INGREDIENTS: Rows = (
    ("`sgpo`, the profile at hand", "sgpo" + FREE_SUFFIX),
    ("without an order (`sgpo_mixed`)", "sgpo_mixed" + FREE_SUFFIX),
    ("groups of 8 (`sgpo_eights`)", "sgpo_eights" + FREE_SUFFIX),
    ("sizes by the posterior (`sgpo_posterior`)", "sgpo_posterior" + FREE_SUFFIX),
    ("a fifth replayed (`sgpo_replay`)", "sgpo_replay" + FREE_SUFFIX),
    ("a tenth of the trivial kept (`sgpo_kept`)", "sgpo_kept" + FREE_SUFFIX),
)
TUNED = (
    *("grpo_token", "grpo_token" + LIVE_SUFFIX),
    *("grpo_thin", "grpo_thin" + ORACLE_SUFFIX, "dapo", "dapo_thin"),
    *("sgpo", "sgpo" + FREE_SUFFIX, "grpo_16"),
)
IDEAS: Rows = (
    ("GRPO at twice the step size (`grpo_fast`)", "grpo_fast"),
    ("`grpo_thin`", "grpo_thin"),
    ("... at twice the step size (`thin_fast`)", "thin_fast"),
    ("a batch that grows, GRPO (`grpo_grown`)", "grpo_grown"),
    ("... thinned (`thin_grown`)", "thin_grown"),
    ("... at twice the step size (`thin_grown_fast`)", "thin_grown_fast"),
    ("... drawn by a belief (`drawn_grown`)", "drawn_grown"),
    ("averaged parameters (`thin_averaged`)", "thin_averaged, averaged parameters"),
    ("... of `thin_fast`", "thin_fast, averaged parameters"),
    ("drawn by a belief, variance (`drawn_flat`)", "drawn_flat"),
    ("... expected signal of a group (`signal_flat`)", "signal_flat"),
    ("... optimism (`optimism_flat`)", "optimism_flat"),
    ("with a profile, expected signal (`signal`)", "signal"),
    ("... optimism (`optimism`)", "optimism"),
    ("... a sample counts a quarter (`weak`)", "weak"),
    ("... of 2 samples a question (`drawn_2`)", "drawn_2"),
    ("... of 4 samples a question (`drawn_4`)", "drawn_4"),
    ("the plan first, then all (`staged_thin`)", "staged_thin"),
    ("... at twice the step size (`staged_fast`)", "staged_fast"),
    ("the plan, thinned (`sgpo_thin`)", "sgpo_thin"),
    ("phases until they converge (`sgpo_converged`)", "sgpo_converged"),
    ("trained on the profile's rollouts (`offline_thin`)", "offline_thin"),
)
LITTLE: Rows = (
    ("dead groups left out", "grpo_token" + LIVE_SUFFIX),
    ("`grpo_thin`", "grpo_thin"),
    ("thinned, drawn by a belief", "drawn_flat"),
    ("the same, started from a profile", "drawn"),
    ("`tracked`", "tracked"),
    ("`sgpo`", "sgpo"),
)
SHORT: Rows = (
    ("groups without signal left out", "grpo_token" + LIVE_SUFFIX),
    ("responses thinned (`grpo_thin`)", "grpo_thin"),
    ("sGPO's profile and plan (`sgpo`)", "sgpo"),
)


@functools.cache
def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def times(interval: Mapping[str, float | None]) -> str:
    """A saving with its interval, or that it was not reached."""
    return page.times(interval) if interval["value"] else "not reached"


def head(name: str) -> list[str]:
    return [f"`{testbed}`" for testbed in read(name)["testbeds"]]


def cells(name: str, method: str, cell: Callable[[Mapping[str, Any]], Any]) -> list:
    """A cell of each testbed; '-' where the method has not been run."""
    found = read(name)["testbeds"].values()
    return [cell(x) if method in x["savings"] else "-" for x in found]


def saved(method: str, place: int = MOST) -> Callable[[Mapping[str, Any]], str]:
    return lambda testbed: times(testbed["savings"][method][place])


def both(method: str) -> Callable[[Mapping[str, Any]], str]:
    """Half of the gain without an interval, 90 % with it."""

    def cell(testbed: Mapping[str, Any]) -> str:
        half = times(testbed["savings"][method][HALF]).partition(" [")[0]
        return f"{half}, {times(testbed['savings'][method][MOST])}"

    return cell


def in_the_end(method: str) -> Callable[[Mapping[str, Any]], str]:
    """Success after training, of the runs that a saving was derived from."""
    run = method
    for suffix in (FREE_SUFFIX, LIVE_SUFFIX, ORACLE_SUFFIX):
        run = run.removesuffix(suffix)
    return lambda testbed: f"{testbed['final'][run]:.3f}"


def earns() -> str:
    name = "headline.json"
    seeds = [str(len(x["seeds"])) for x in read(name)["testbeds"].values()]
    rows = [["seeds", *seeds]]
    rows += [[label, *cells(name, method, saved(method))] for label, method in EARNS]
    return page.table(["GRPO's total compute over the method's", *head(name)], rows)


def further(methods: Rows) -> str:
    """Further methods, where there are any: not on `many-visits`."""
    name, rows = "headline.json", []
    for label, method in methods:
        reached, end = both(method), in_the_end(method)
        row = cells(name, method, lambda x, r=reached, e=end: f"{r(x)}; {e(x)}")
        rows.append([label, *row[:-1]])
    return page.table([f"{GAIN}; success in the end", *head(name)[:-1]], rows)


def repaid() -> str:
    found = read("headline.json")
    by_testbed = {
        testbed: {
            name: ", ".join(runs)
            for name, *runs in page.repaid_rows(
                result,
                [run for run in found["runs"] if run["testbed"] == testbed],
                found["baseline"],
            )
        }
        for testbed, result in found["testbeds"].items()
    }
    names = dict.fromkeys(name for x in by_testbed.values() for name in x)
    return page.table(
        ["at 50, 75, 90 and 100 % of GRPO's gain", *head("headline.json")],
        [[f"`{n}`", *(x.get(n, "-") for x in by_testbed.values())] for n in names],
    )


def searched(method: str) -> str:
    """Area of the default and of the best trial of a sweep."""
    path = RESULTS / "tuning" / method / "report.md"
    if not path.exists():
        return "-"
    said = r"area ([\d.]+); the default, trial 0, has ([\d.]+)\."
    ((best, default),) = re.findall(said, path.read_text())
    return f"{default} to {best}"


def tuned() -> str:
    rows = []
    for place, (testbed, x) in enumerate(
        read("headline_tuned.json")["testbeds"].items()
    ):
        for method in TUNED:
            if method in x["savings"]:
                compared = [
                    x["savings"],
                    *(y["savings"] for y in x["against"].values()),
                ]
                spent = x["final_flops"][method] / 1e9
                rows.append(
                    [
                        f"`{testbed}`: {method}",
                        "-" if place else searched(method),
                        *(times(y[method][MOST]) for y in compared),
                        f"{in_the_end(method)(x)}, {spent:.0f}",
                    ]
                )
    heads = ["", "area in the sweep, default to best"]
    heads += ["tuned GRPO's compute over the method's", "that of GRPO, groups of 16"]
    heads += ["that of tuned DAPO", "success in the end, GFLOP"]
    return page.table(heads, rows)


def ideas() -> str:
    found = next(iter(read("headline_ideas.json")["testbeds"].values()))
    rows = []
    for label, method in IDEAS:
        free = method + FREE_SUFFIX
        at_hand = both(free)(found) if free in found["savings"] else "-"
        rows.append([label, both(method)(found), at_hand, in_the_end(method)(found)])
    heads = [GAIN, "total compute", "the profile at hand", "success in the end"]
    return page.table(heads, rows)


def theory() -> str:
    """Predicted from the noise of gradients, and measured."""
    found = read("headline.json")["testbeds"]["strategies"]["savings"]
    rows = []
    for x in read("gradient_noise.json")["policies"]["initial"]:
        name, label = x["method"], f"`{x['method']}`"
        if name == "grpo_token" + LIVE_SUFFIX:
            label = "dead groups left out"
        if name + FREE_SUFFIX in found:
            name, label = name + FREE_SUFFIX, f"{label}, profile for free"
        if name in found and name != "grpo_token":
            measured = found[name][HALF]["value"]
            rows.append([label, f"{x['predicted']:.2f}", f"{measured:.2f}"])
    heads = ["saving at 50 % of the gain on `strategies`", "predicted", "measured"]
    return page.table(heads, rows)


def little() -> str:
    name = "headline_little.json"
    gains = [x["gain"] for x in read(name)["testbeds"].values()]
    rows = [
        ["success of GRPO, before and after", *(f"{a:.3f}, {b:.3f}" for a, b in gains)]
    ]
    rows += [[label, *cells(name, method, saved(method))] for label, method in LITTLE]
    return page.table(
        ["GRPO's total compute over the method's, at 90 %", *head(name)], rows
    )


def first_table(name: str) -> str:
    """The first table of a page of results, as it is."""
    text = (RESULTS / name).read_text()
    return text[text.index("\n| ") + 1 :].split("\n\n")[0].rstrip()


def short() -> str:
    """README's: the testbeds in a line each."""
    name, rows = "headline.json", []
    for label, method in SHORT:
        row = cells(name, method, lambda x, m=method: x["savings"][m][MOST]["value"])
        rows.append([label, *(f"{x:.1f}" if x else "not reached" for x in row)])
    return page.table(["GRPO's compute over that with", *head(name)], rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "testbeds": lambda: page.table(
        testbeds.COLUMNS, testbeds.rows(read("testbeds.json"))
    ),
    "earns": earns,
    "repaid": repaid,
    "tuned": tuned,
    "further": lambda: further(FURTHER),
    "ingredients": lambda: further(INGREDIENTS),
    "ideas": ideas,
    "theory": theory,
    "little": little,
    "smollm2": lambda: first_table("smollm2_seeds.md"),
    "gsm8k": lambda: first_table("gsm8k_smollm2_seeds.md"),
    "short": short,
}


def filled(text: str) -> str:
    """A page with the tables that it names.

    Raises:
      KeyError: it names one that is none of `TABLES`.
    """
    return re.sub(
        r"(<!-- table (\w+) -->\n)(?:.+\n)*",
        lambda found: f"{found[1]}{TABLES[found[2]]()}\n",
        text,
    )


def main() -> int:
    for path in PAGES:
        path.write_text(filled(path.read_text()))
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
