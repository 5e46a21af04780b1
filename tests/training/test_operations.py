"""What operators see: traces hold the steps asked for, trackers get the numbers."""

import datetime
import sys
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from sgpo_jax.ledger import Entry
from sgpo_jax.training import Trace, Trackers, parse_steps
from sgpo_jax.training.operations import rates
from sgpo_jax.training.trackers import GoodputLog


def test_a_trace_holds_the_steps_asked_for(tmp_path):
    trace = Trace(tmp_path, parse_steps("2:3", most=5))
    for step in range(1, 6):
        with trace.step(step):
            jnp.ones(3).sum().block_until_ready()
    (path,) = tmp_path.rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
    steps = {
        value
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        for name, value in event.stats
        if name == "step_num"
    }
    assert steps == {2, 3}


def test_a_run_that_goes_on_in_the_middle_traces_the_rest(tmp_path):
    trace = Trace(tmp_path, range(2, 4))
    with trace.step(3):
        pass
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_a_fault_in_a_traced_step_ends_the_trace(tmp_path):
    trace = Trace(tmp_path, range(1, 3))
    with pytest.raises(KeyError), trace.step(1):
        raise KeyError
    jax.profiler.start_trace(str(tmp_path / "other"))  # refused if one is running
    jax.profiler.stop_trace()


@pytest.mark.parametrize("text", ["3", "a:b", "0:2", "4:3", "2:99"])
def test_impossible_steps_are_refused(text):
    with pytest.raises(ValueError, match="profile_steps"):
        parse_steps(text, most=10)


def test_utilisation_is_left_out_where_the_peak_is_unknown():
    cost = Entry(flops=1e12, tokens=100, seconds=2.0)
    known = rates(sampling=cost, training=cost, devices=4, kind="TPU v6 lite")
    assert known["mfu/train"] == pytest.approx(1 / (2 * 4 * 918))
    assert set(rates(sampling=cost, training=Entry(), devices=1, kind="cpu")) == {
        "tokens_per_sec/sample"
    }


def test_trackers_get_numbers_and_are_finished(tmp_path, monkeypatch):
    seen = []
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()
    fake.init = lambda **options: seen.append(options)
    fake.log = lambda numbers, step: seen.append((step, numbers))
    fake.finish = lambda: seen.append("finished")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trackers = Trackers(
        ("wandb",), project="p", run="r", folder=tmp_path, config={"seed": 1}
    )
    trackers.write(3, {"reward": 0.5, "ledger": {"x": 1}})
    trackers.close()
    options, line, end = seen
    assert options == {
        "project": "p",
        "name": "r",
        "config": {"seed": 1},
        "dir": str(tmp_path),
    }
    assert line == (3, {"reward": 0.5})
    assert end == "finished"


def test_goodput_is_told_when_each_step_began():
    told = []

    class Recorder:
        def record_job_start_time(self):
            told.append("start")

        def record_step_start_time(self, step, began):
            now = datetime.datetime.now(datetime.UTC)
            told.append((step, (now - began).total_seconds()))

        def record_job_end_time(self):
            told.append("end")

    log = GoodputLog("p", "r", recorder=Recorder())
    log.log({"eval/success": 0.5}, step=0)  # an evaluation before the first step
    log.log({"step_time_sec": 20.0}, step=1)
    log.log({"step_time_sec": 20.0, "time/save": 5.0}, step=2)
    log.finish()
    start, (one, first), (two, second), end = told
    assert (start, one, two, end) == ("start", 1, 2, "end")
    assert 20 <= first < 21
    assert 25 <= second < 26


def test_the_recorder_of_goodput_writes_entries_that_its_calculator_knows():
    source = pytest.importorskip("ml_goodput_measurement.src.goodput")

    class Cloud:
        entries: ClassVar = []

        def write_cloud_logging_entry(self, entry):
            self.entries.append(entry)

    recorder = source.GoodputRecorder("r", "p", True, Cloud())
    log = GoodputLog("p", "r", recorder=recorder)
    log.log({"step_time_sec": 20.0}, step=1)
    log.finish()
    steps = [e["step_count"] for e in Cloud.entries if "step_count" in e]
    assert steps == [1]
    assert len(Cloud.entries) == 3


def test_an_absent_tracker_is_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="pip install no_such_tracker"):
        Trackers(("no_such_tracker",), project="", run="", folder=tmp_path, config={})
