"""Numbers in sentences are those of the files of results."""

import json
import re

import numpy as np
import pytest

from benchmarks.headline import tables, testbeds
from benchmarks.headline.analysis import costs
from benchmarks.headline.page import mean_curves
from sgpo_jax import ledger, presets

from .pages import ROOT, blocks

RESULTS = ROOT / "benchmarks" / "results"
POOL, MAIN, STEPS = "large-pool", "strategies", "worked-steps"
THIN, FREE = "grpo_thin", "sgpo, profile for free"
LIVE = "grpo_token, dead groups left out"
BOUND = "grpo_thin, no dead group sampled"


@pytest.fixture
def savings():
    """Times less compute than GRPO at 90 % of its gain, by method."""
    found = json.loads((RESULTS / "headline.json").read_text())
    testbed = found["testbeds"]["strategies"]
    # Shares of the gain: 50, 75, 90 and 100 %.
    return {name: points[2]["value"] for name, points in testbed["savings"].items()}


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_files(path):
    """`python -m benchmarks.headline.tables` would change nothing."""
    assert tables.filled(path.read_text()) == path.read_text()


def test_every_table_stands_on_a_page():
    named = [
        name
        for path in tables.PAGES
        for name in re.findall(r"^<!-- table (\w+) -->$", path.read_text(), re.M)
    ]
    assert sorted(named) == sorted(tables.TABLES)


def test_cells_are_of_the_method_and_share_that_they_name():
    """By hand, from the file."""
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"][POOL]
    table = {
        row[0]: row[2]
        for line in tables.earns().splitlines()
        if " | " in line
        for row in [line.strip("| ").split(" | ")]
    }
    one = found["savings"]["pods"][2]
    assert one["value"] and table["`pods`"] == (
        f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
    )
    assert found["savings"]["tracked_flat"][2]["value"] == 0
    assert table["`tracked_flat`: a baseline per question, without a profile"] == (
        "not reached"
    )
    further = tables.further(tables.FURTHER).splitlines()
    (row,) = [x for x in further if x.startswith("| `grpo_16`, dead")]
    live = found["savings"]["grpo_16, dead groups left out"]
    assert f"| {live[0]['value']:.2f}, {live[2]['value']:.2f} [" in row
    assert f"; {found['final']['grpo_16']:.3f} |" in row


def number(page: str, pattern: str) -> float:
    """The number in brackets of a pattern, in the text of a page on one line."""
    text = " ".join((ROOT / page).read_text().split())
    (found,) = re.findall(pattern, text)
    return float(found)


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("docs/results.md", r"out is exact and saves ([\d.]+),"),
        ("docs/decisions.md", r"same gradient for ([\d.]+) times less compute at 90 %"),
    ],
)
def test_what_leaving_dead_groups_out_saves(page, pattern, savings):
    exact = savings[LIVE]
    assert number(page, pattern) == round(exact, 1)
    assert savings["grpo_thin"] > exact


@pytest.mark.parametrize(
    ("page", "pattern", "testbed", "method"),
    [
        ("docs/results.md", r"The best, ([\d.]+) times", "many-visits", "drawn"),
        ("docs/results.md", r"it saves ([\d.]+) times on `str", "strategies", "sgpo"),
        ("docs/results.md", r"at hand ([\d.]+) there and", "strategies", FREE),
        ("docs/results.md", r"`dapo` ([\d.]+), `greso`", "strategies", "dapo"),
        ("docs/results.md", r"`greso` ([\d.]+), `mopps`", "strategies", "greso"),
        ("docs/results.md", r"`mopps` ([\d.]+)\. The", "strategies", "mopps"),
        ("docs/results.md", r"little can be saved: ([\d.]+) is", "worked-steps", BOUND),
    ],
)
def test_savings_of_other_testbeds(page, pattern, testbed, method):
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    saved = found[testbed]["savings"][method][2]["value"]
    assert number(page, pattern) == round(saved, 1)


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"is exact and saves ([\d., and]+) times at 90 %", LIVE),
        (r"what is left makes it ([\d., and]+);", THIN),
        (r"learned in training ([\d., and]+)\. \*", "drawn_flat"),
        (r"same thinned updates ([\d., and]+) times cheaper", BOUND),
    ],
)
def test_savings_over_the_testbeds(pattern, method):
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    (shown,) = re.findall(pattern, text)
    saved = [x["savings"][method][2]["value"] for x in found.values()]
    assert re.findall(r"[\d.]+", shown) == [f"{x:.1f}" for x in saved]


@pytest.mark.parametrize(
    ("pattern", "before", "after"),
    [
        (r"earns another ([\d., and]+) times", LIVE, THIN),
        (r"runs resolve \(([\d., ]+)\)", THIN, "drawn_flat"),
        (r"at par \(([\d., ]+)\)", "drawn_flat", "drawn, profile for free"),
    ],
)
def test_what_each_ingredient_earns(pattern, before, after):
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    (shown,) = re.findall(pattern, text)
    for number, testbed in zip(
        re.findall(r"[\d.]+", shown), found.values(), strict=True
    ):
        (link,) = [
            x
            for x in testbed["ingredients"]
            if (x["before"], x["after"]) == (before, after)
        ]
        assert number == f"{link['savings'][2]['value']:.2f}"


def test_screened_groups_and_the_filter():
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    screened = found[POOL]["savings"]["screened_thin"][2]["value"]
    page = "docs/results.md"
    assert number(page, r"par with thinning \(([\d.]+) against") == round(screened, 2)
    thin = found[POOL]["savings"][THIN][2]["value"]
    assert number(page, r"against ([\d.]+) on `large-pool`\)") == round(thin, 2)
    steps = found["worked-steps"]
    screened = steps["savings"]["screened_thin"][2]["value"]
    assert number(page, r"and `worked-steps` \(([\d.]+)\); where") == round(screened, 2)
    dapo = steps["savings"]["dapo_thin"][2]["value"]
    assert number(page, r"without a profile \(([\d.]+)\), groups") == round(dapo, 2)
    pairs = steps["savings"]["grpo_2, dead groups left out"][2]["value"]
    assert number(page, r"dead ones too \(([\d.]+)\)") == round(pairs, 2)
    more = 1 / steps["savings"]["grpo_16"][2]["value"]
    assert number(page, r"groups of 16 need ([\d.]+) times more") == round(more, 1)
    end = number(page, r"`greso` ends highest \(([\d.]+)\)")
    assert (
        end
        == round(max(steps["final"].values()), 3)
        == round(steps["final"]["greso"], 3)
    )
    with_profile, without = (
        steps["savings"][name][2]["value"] for name in ("tracked", "tracked_flat")
    )
    assert 0 == without < with_profile < 1  # "charged, and never without one"
    many = found["many-visits"]["savings"]
    assert many["filtered_thin, profile for free"][2]["value"] == 0  # "never reached"
    filtered, thin = many["filtered_thin, profile for free"], many[THIN]
    (link,) = [
        x
        for x in found["many-visits"]["ingredients"]
        if x["after"] == "filtered_thin, profile for free"
    ]
    half = link["savings"][0]
    assert half["low"] < 1 < half["high"]  # "at par until half of the gain"
    assert filtered[1]["value"] < thin[1]["value"]  # "then stays below"
    factors = json.loads((RESULTS / "break_even.json").read_text())["check"]
    (paid,) = [
        x for x in factors["many-visits"]["factors"] if x["after"] == "filtered_thin"
    ]
    assert number(page, r"promised ([\d.]+) times") == round(paid["predicted"], 1)


def test_tuned_methods():
    """All were searched alike."""
    reports = list((RESULTS / "tuning").glob("*/report.md"))
    assert len(reports) >= 5
    for report in reports:
        assert re.search(r"^24 trials .* 95 GFLOP each", report.read_text(), re.M)


@pytest.mark.parametrize(
    ("pattern", "testbed", "against", "method"),
    [
        (r"groups out saves ([\d.]+) times of tuned", MAIN, "", LIVE),
        (r"on `strategies`, thinning ([\d.]+), DAPO", MAIN, "", THIN),
        (r"thinning [\d.]+, DAPO ([\d.]+), and", MAIN, "", "dapo"),
        (r"and DAPO thinned ([\d.]+); on", MAIN, "", "dapo_thin"),
        (r"on `large-pool` thinning saves ([\d.]+) times, on", POOL, "", THIN),
        (r"on `large-pool` \(([\d.]+) times less\) and", POOL, "dapo", THIN),
        (r"\([\d.]+\), not on `strategies` \(([\d.]+)\)", MAIN, "dapo", THIN),
        (r"needs ([\d.]+) to [\d.]+ times less compute on `str", MAIN, "grpo_16", THIN),
        (r"needs [\d.]+ to ([\d.]+) times less compute on `str", MAIN, "grpo_16", LIVE),
        (r"and ([\d.]+) to [\d.]+ times less on `large", POOL, "grpo_16", THIN),
        (r"and [\d.]+ to ([\d.]+) times less on `large", POOL, "grpo_16", LIVE),
        (r"profile: ([\d.]+) and [\d.]+ times by tuned", MAIN, "grpo_16", LIVE),
        (r"profile: [\d.]+ and ([\d.]+) times by tuned", POOL, "grpo_16", LIVE),
        (r"out, ([\d.]+) and [\d.]+ by thinned GRPO\. T", MAIN, "grpo_16", THIN),
        (r"out, [\d.]+ and ([\d.]+) by thinned GRPO\. T", POOL, "grpo_16", THIN),
        (r"worth ([\d.]+) and [\d.]+ times of that", MAIN, "grpo_16", "grpo_token"),
        (r"worth [\d.]+ and ([\d.]+) times of that", POOL, "grpo_16", "grpo_token"),
        (r"`large-pool`: ([\d.]+) times by thinning", POOL, "", THIN),
        (r"by thinning, ([\d.]+) by leaving its dead", POOL, "", LIVE),
        (r"it is not: ([\d.]+) by leaving its dead", MAIN, "", LIVE),
        (r"which is exact, ([\d.]+) by thinning", MAIN, "", THIN),
        (r"updates ([\d.]+) times cheaper there", MAIN, "", BOUND),
        (r"`large-pool`: ([\d.]+) times less by thinned", POOL, "dapo", THIN),
        (r"it is not: ([\d.]+) times less by thinned", MAIN, "dapo", THIN),
        (r"thinned GRPO, ([\d.]+) by DAPO thinned", MAIN, "dapo", "dapo_thin"),
        (r"by DAPO thinned, and ([\d.]+) is the bound", MAIN, "dapo", BOUND),
        (r"charged \(([\d.]+)\) and behind", MAIN, "", "sgpo"),
        (r"when it is free \(([\d.]+)\)", MAIN, "", FREE),
        (r"groups are dead, ([\d.]+) times less thinned", STEPS, "grpo_16", THIN),
        (r"less thinned, ([\d.]+) if no dead group", STEPS, "grpo_16", BOUND),
        (r"3.0 times, on `worked-steps` ([\d.]+)\. Half", STEPS, "", THIN),
        (r"and `worked-steps` \(([\d.]+)\), not on", STEPS, "dapo", THIN),
        (r"On `worked-steps` it is ([\d.]+) by thinning, and", STEPS, "grpo_16", THIN),
        (r"by thinning, and ([\d.]+) is the bound\. \*", STEPS, "grpo_16", BOUND),
        (r"On `worked-steps` it is ([\d.]+) by thinning, bet", STEPS, "", THIN),
        (r"On `worked-steps` ([\d.]+) times less is enough", STEPS, "dapo", THIN),
    ],
)
def test_sentences_on_tuned_methods(pattern, testbed, against, method):
    found = json.loads((RESULTS / "headline_tuned.json").read_text())["testbeds"]
    result = found[testbed]
    saved = (result["against"][against] if against else result)["savings"][method][2]
    shown = number("docs/results.md", pattern)
    digits = len(f"{shown}".partition(".")[2])
    assert shown == round(saved["value"], digits)


def test_three_times_less_than_groups_of_16():
    """What README and the page claim, tuned and without a profile."""
    found = json.loads((RESULTS / "headline_tuned.json").read_text())["testbeds"]
    assert list(found) == [MAIN, POOL, STEPS]
    saved = {name: x["against"]["grpo_16"]["savings"] for name, x in found.items()}
    for testbed in (MAIN, POOL):
        assert all(saved[testbed][name][2]["value"] > 3 for name in (THIN, LIVE))
        assert saved[testbed][LIVE][2]["low"] > 3
    readme = " ".join((ROOT / "README.md").read_text().split())
    (shown,) = re.findall(r", ([\d. and]+) times less on `worked-steps`", readme)
    expected = [f"{saved[STEPS][name][2]['value']:.1f}" for name in (LIVE, THIN)]
    assert shown == " and ".join(expected)


def test_tuned_options_do_not_carry_over_to_longer_responses():
    tuned = json.loads((RESULTS / "headline_tuned.json").read_text())["testbeds"]
    default = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    final = {name: f"{x:.3f}" for name, x in tuned[STEPS]["final"].items()}
    assert (
        f"end at {final['grpo_token']} and {final['dapo']}, GRPO at its defaults at"
        f" {default[STEPS]['final']['grpo_token']:.3f}:"
    ) in text
    assert f"Thinned GRPO ends at {final[THIN]}." in text


def test_sentences_on_step_sizes():
    found = json.loads((RESULTS / "headline_ideas.json").read_text())["testbeds"]
    whole = json.loads((RESULTS / "headline.json").read_text())["testbeds"]

    def saved(testbed, name, place):
        value = found[testbed]["savings"][name][place]["value"]
        return f"{value:.2f}" if value else "not reached"

    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    rule = f"{whole[MAIN]['savings'][FREE][0]['value']:.2f}"
    for sentence in (
        f"gain is {rule} on `strategies` and {saved(POOL, FREE, 0)} on `large-",
        f"without a profile {saved(MAIN, 'thin_fast', 0)} and"
        f" {saved(POOL, 'thin_fast', 0)} (",
        f"GRPO saves {saved(MAIN, 'thin_fast', 0)} times at half of the gain and"
        f" {saved(MAIN, 'thin_fast', 2)} at 90 % on `strategies`, GRPO itself"
        f" {saved(MAIN, 'grpo_fast', 0)} and {saved(MAIN, 'grpo_fast', 2)}.",
        f"in the end ({saved(POOL, 'thin_fast', 2)}, {saved(POOL, 'grpo_fast', 2)})",
        f"of the gain ({saved(MAIN, 'thin_grown', 0)} thinned)",
        f"GRPO gains {saved(MAIN, 'grpo_grown', 0)} and"
        f" {saved(MAIN, 'grpo_grown', 2)} by",
        f"they save {saved(POOL, 'thin_fast, averaged parameters', 2)} where the raw"
        f" ones save {saved(POOL, 'thin_fast', 2)}",
        f"saves {saved(MAIN, 'offline_thin', 0)} times at half of the gain and"
        f" {saved(MAIN, 'offline_thin', 2)} at 90 %, less than on its own"
        f" ({saved(MAIN, THIN, 0)}, {saved(MAIN, THIN, 2)})",
    ):
        assert sentence in text, sentence


def test_against_groups_of_16():
    """Of all of their gain, from the mean curves: both methods with defaults."""
    found = json.loads((RESULTS / "headline.json").read_text())
    page = "docs/results.md"
    for testbed, pattern in (
        (MAIN, r"thinned GRPO needs ([\d.]+) times less on `strategies`"),
        (POOL, r"and ([\d.]+) times less on `large-pool` for all of its gain"),
    ):
        runs = [x for x in found["runs"] if x["testbed"] == testbed]
        spent = costs(mean_curves(runs), "grpo_16")
        assert number(page, pattern) == round(spent["grpo_16"][3] / spent[THIN][3], 1)


def test_runs_that_share_a_profile():
    table = {name.strip("`"): cells for name, *cells in rows_of("What a profile earns")}
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    first, last = re.findall(r"(\d+) to (\d+) runs would repay it", text)[0]
    assert (
        table["sgpo"][0].startswith(f"{first}, ") and f", {last}, " in table["sgpo"][0]
    )
    assert (
        f"seven runs repay it on one testbed and {table['sgpo'][1].partition(',')[0]}"
        in (" ".join((ROOT / "docs" / "start" / "why.md").read_text().split()))
    )


def test_testbeds():
    found = json.loads((RESULTS / "testbeds.json").read_text())
    fresh = testbeds.learned(RESULTS)
    for testbed, shown in found.items():
        assert {name: shown[name] for name in fresh[testbed]} == fresh[testbed]


def test_the_default_run():
    """Rows of the page are rows of the command's tables; the preset claims the same."""
    page = (ROOT / "docs" / "results.md").read_text().replace("**", "")
    made = (RESULTS / "compare_seeds.md").read_text()
    for method, name in (("grpo_thin", "thinned"), ("sgpo", "sGPO")):
        for share in (75, 90):
            (row,) = re.findall(
                rf"^\| {method} at {share}% \| (.*) \| \S+ \|$", made, re.M
            )
            assert f"| {name}, at {share} % | {row} |" in page
    first = tables.first_table("compare_seeds.md")
    rows = [
        re.sub(r" \(.*?\)", "", line).split(" | ")  # without gains
        for line in first.splitlines()
        if re.match(r"\| \d ", line)
    ]
    columns = [
        [cell.strip(" |") for cell in column] for column in zip(*rows, strict=True)
    ][1:]
    names = ("initial policy", "GRPO, groups of 8", "GRPO, thinned")
    for name, column in zip((*names, "sGPO, the paper's rule"), columns, strict=True):
        assert f"| {name} | {' | '.join(column)} |" in page
        claimed = ", ".join(f"{float(x) + 1e-9:.2f}" for x in column)
        assert claimed in " ".join((presets.default.__doc__ or "").split())


def test_ingredients_of_the_rule_on_long_responses():
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"][STEPS]
    names = ("sgpo", "sgpo_mixed", "sgpo_eights")
    saved = [found["savings"][f"{name}, profile for free"] for name in names]
    assert all(x[2]["value"] == 0 for x in saved)
    rule, mixed, eights = (f"{x[0]['value']:.2f}" for x in saved)
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"({rule}; without an order {mixed}, with groups of 8 {eights})" in text
    end = found["final"]
    assert min(end["sgpo_replay"], end["sgpo_kept"]) > end["sgpo"]


def test_gsm8k_with_a_published_model():
    """What the page says of it is what its tables say, seed 1 before seed 0."""
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    text = (RESULTS / "gsm8k_smollm2_seeds.md").read_text()

    def row(begin):
        (line,) = re.findall(rf"^\| {begin}.*$", text, re.M)
        return [
            [float(x) for x in re.findall(r"[-+]?[\d.]+", cell)]
            for cell in line.split("|")[2:-1]
        ]

    gain = row("all ")[1][1]
    assert f"Over both seeds GRPO gains {100 * gain:.1f} points, beyond noise" in page
    never = [cell[1] for cell in row("training questions")]
    assert (
        "solved {:.0f} of the 160 training questions (seed 1) and {:.0f}".format(*never)
        in page
    )
    dead = [100 * x for (x,) in row("groups of grpo_token")]
    assert "and {:.0f} and {:.0f} % of GRPO's groups".format(*dead) in page
    spent = re.findall(r"^\| [01] \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    grpo, thin, tracked = np.array(spent, float).T
    live = np.array(row("TFLOP of grpo_token")).ravel()
    assert "groups out saves {:.1f} and {:.1f} times".format(*(grpo / live)) in page
    assert "thinning {:.1f} and {:.1f}; thinned".format(*(grpo / thin)) in page
    assert {f"{x:.1f}" for x in tracked / grpo} == {"1.4"}
    assert "takes 1.4 times GRPO's compute" in page


def test_differences_of_the_default_run():
    """Over the same questions, as its report has them."""
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    report = (RESULTS / "default" / "report.md").read_text()
    for name, how, said in (
        ("grpo_thin", "not told apart from", "told apart from GRPO with seed 0"),
        ("sgpo", "below", "sGPO is below it"),
    ):
        pattern = rf"^{name}: .*That is {how} grpo_token: (.*? to \S+)\. "
        (found,) = re.findall(pattern, report, re.M)
        assert f"{said}: {found}." in page


def rows_of(heading):
    """Cells of the tables of a section of the page of results."""
    text = (ROOT / "docs" / "results.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_presets_claim_what_is_measured():
    seen = 0
    for name in ("headline.json", "headline_little.json"):
        found = json.loads((RESULTS / name).read_text())["testbeds"]
        for testbed, result in found.items():
            low, high = result["gain"]
            text = " ".join((presets.PRESETS[testbed].__doc__ or "").split())
            assert f"grpo_token from {low:.3f} to {high:.3f}" in text
            seen += 1
    assert seen == 6


def test_how_well_the_model_predicts_the_runs():
    found = json.loads((RESULTS / "break_even.json").read_text())["check"]
    rows = [x for testbed in found.values() for x in testbed["factors"]]
    error = np.abs(
        [np.log(x["predicted"] / x["measured"]) for x in rows if x["measured"]]
    )
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    (shown,) = re.findall(
        r"within a factor of ([\d.]+) on average and ([\d.]+) at worst", text
    )
    assert shown == (f"{np.exp(error.mean()):.2f}", f"{np.exp(error.max()):.2f}")


def test_what_the_profile_costs_a_belief():
    """Its price, over the same method without it."""
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    (shown,) = re.findall(r"needs ([\d., and]+) times more", text)
    shown = re.findall(r"[\d.]+", shown)
    for said, testbed in zip(shown, found.values(), strict=True):
        (link,) = [x for x in testbed["ingredients"] if x["after"] == "drawn"]
        assert said == f"{1 / link['savings'][2]['value']:.1f}"
    assert number(
        "docs/decisions.md", r"gain at ([\d.]+) times the compute of"
    ) == float(shown[0])


def test_what_a_profile_costs_and_earns(savings):
    """It earned nothing on the testbed: the same without one was cheaper."""
    assert savings["tracked"] < savings["tracked_flat"]
    assert savings["drawn"] < savings["drawn_flat"]
    found = json.loads((RESULTS / "headline.json").read_text())
    runs = {
        run["method"]: run["ledger"]
        for run in found["runs"]
        if run["testbed"] == "strategies"
    }
    profile = runs["tracked"]["profiling"]["flops"]
    whole = sum(runs["grpo_token"][phase]["flops"] for phase in ledger.PHASES)
    assert 0.15 < profile / whole < 0.25  # "a fifth of a run"


def test_measurements_of_methods_are_those_of_the_file():
    pytest.importorskip("jupytext")
    import method_pages

    found = json.loads((RESULTS / "zoo.json").read_text())["methods"]
    table = (RESULTS / "zoo.md").read_text()
    for measured in found:
        name, mean = measured["name"], f"{measured['mean']:.3f}"
        assert re.search(rf"^\| {name} \| {mean} \|", table, re.MULTILINE)
        if name != "initial":
            text = " ".join(method_pages.entry(name))
            assert f"to {mean}," in text and f"drawing:: method_{name}" in text
            curve = measured["curve"]
            assert curve["rollouts"][-1] == measured["rollouts"]
            assert len(curve["success"]) == len(curve["rollouts"])


@pytest.mark.parametrize(
    ("row", "page"),
    [
        ("a program that trains", "README.md"),
        ("a loss", "docs/howto/loss.md"),
        ("an advantage", "docs/howto/advantage.md"),
    ],
)
def test_lines_of_code_are_those_of_the_pages(row, page):
    first = re.sub(r'"""[^"]*"""', "", blocks(ROOT / page, "python")[0])
    lines = [line for line in first.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith(("import ", "from "))]
    written = number("docs/decisions.md", rf"\| {row} \| [^|]* \| ([\d.]+) \(")
    assert written == len(code)
