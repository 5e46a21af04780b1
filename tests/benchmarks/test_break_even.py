"""The map of break-even: its file is what the model says, and measurements are read."""

import json

import numpy as np
import pytest

from benchmarks.break_even import model, page
from benchmarks.break_even.__main__ import RESULTS
from benchmarks.break_even.measured import Measured, errors
from sgpo_jax import theory


@pytest.fixture(scope="module")
def found():
    return json.loads((RESULTS / "break_even.json").read_text())


def test_the_file_is_what_the_model_says(found, monkeypatch):
    monkeypatch.setattr(model, "SAMPLES", (8,))
    monkeypatch.setattr(model, "DRIFTS", (0.1,))
    rows = model.tabulate()
    kept = [x for x in found["table"] if x["samples"] == 8 and x["drift"] == 0.1]
    assert len(rows) == 15
    for row, known in zip(rows, kept, strict=True):
        assert row["after"] == pytest.approx(known["after"], abs=2e-3)
        assert row["most"] == pytest.approx(known["most"], abs=2e-3)


def test_the_page_is_made_from_the_file(found, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "draw", lambda *_: None)
    page.write(found, tmp_path / "break_even.json")
    text = (tmp_path / "break_even.md").read_text()
    assert text == (RESULTS / "break_even.md").read_text()


def run(method, *, no_signal, training):
    """A run of 10 groups of 8 over 10 questions whose success rises evenly."""
    return {
        "testbed": "t",
        "method": method,
        "seed": 0,
        "flops": [0.0, 50.0, 100.0],
        "eval/success": [0.0, 0.4, 0.8],
        "no_signal": no_signal,
        "ledger": {
            "generation": {"flops": 40.0, "rollouts": 80},
            "training": {"flops": training, "rollouts": 80},
        },
    }


def test_costs_and_visits_come_from_the_runs():
    """Half of the groups are dead: a live one costs twice the share of training."""
    headline = {
        "testbeds": {"t": {"seeds": [0], "targets": [0.2, 0.3, 0.4, 0.8]}},
        "runs": [
            run("grpo_thin", no_signal=0.5, training=60.0),
            run("grpo_token", no_signal=0.5, training=120.0),
        ],
    }
    pool = {"successes": [5, 0, 0, 0, 5, 0, 0, 0, 0], "prompt": 2.0}
    testbed = Measured.of("t", headline, pool)
    assert testbed.samples == 8 and len(testbed.belief) == 10
    assert testbed.visits("grpo_thin") == 1.0
    assert testbed.cost("grpo_thin").training == pytest.approx(3.0)
    assert testbed.cost("grpo_token").training == pytest.approx(3.0)
    # Half of the run; smoothing leaves a straight line as it is.
    assert testbed.visits_to_target("grpo_thin") == pytest.approx(0.5, abs=0.02)


def test_errors_are_logarithms_of_predicted_over_measured():
    rows = [{"predicted": 2.0, "measured": 1.0}, {"predicted": 1.0, "measured": None}]
    np.testing.assert_allclose(errors({"t": {"factors": rows}}, "factors"), [np.log(2)])


def test_a_plan_reaches_the_signal_of_every_other():
    """Else a saving would read 0 where the visits of the plan only end too early."""
    cost = theory.GroupCost()
    for dead in (0.02, 0.95):
        rate, share = model.pool(dead)
        made = model.planned(rate, share, cost, samples=8, drift=0.1)
        for other in model.others(rate, share, cost, 0.1).values():
            assert made.signal[-1] > other.signal[-1]
