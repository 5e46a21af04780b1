"""Numbers in sentences are those of the files of results."""

import json
import re

import pytest

from sgpo_jax import ledger

from .pages import ROOT

RESULTS = ROOT / "benchmarks" / "results"
POOL, THIN, FREE = "large-pool", "grpo_thin", "sgpo, profile for free"
LIVE = "grpo_token, dead groups left out"


@pytest.fixture
def savings():
    """Times less compute than GRPO at 90 % of its gain, by method."""
    found = json.loads((RESULTS / "headline.json").read_text())
    testbed = found["testbeds"]["strategies"]
    # Shares of the gain: 50, 75, 90 and 100 %.
    return {name: points[2]["value"] for name, points in testbed["savings"].items()}


def number(page: str, pattern: str) -> float:
    """The number in brackets of a pattern, in the text of a page on one line."""
    text = " ".join((ROOT / page).read_text().split())
    (found,) = re.findall(pattern, text)
    return float(found)


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("README.md", r"without signal out saves ([\d.]+) times, thinning more"),
        ("docs/results.md", r"dead groups out ([\d.]+) times less compute at 90 %"),
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
        ("README.md", r"out of reach, ([\d.]+) times", POOL, THIN),
        ("README.md", r"pays there \(([\d.]+) times\)", POOL, FREE),
        ("docs/results.md", r"rule needs ([\d.]+) times less", POOL, FREE),
        ("docs/results.md", r"; ([\d.]+) on `strategies`, no", "strategies", FREE),
        ("docs/results.md", r"left\*\* makes ([\d.]+),", "strategies", THIN),
        ("docs/results.md", r"left\*\* makes [\d.]+, ([\d.]+)", POOL, THIN),
        ("docs/results.md", r", ([\d.]+) on `worked-steps`\. It", "worked-steps", LIVE),
        ("docs/results.md", r"and ([\d.]+) of it", "worked-steps", THIN),
    ],
)
def test_savings_of_other_testbeds(page, pattern, testbed, method):
    found = json.loads((RESULTS / "headline.json").read_text())["testbeds"]
    saved = found[testbed]["savings"][method][2]["value"]
    assert number(page, pattern) == round(saved, 1)


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
