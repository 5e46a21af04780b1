"""Sweeps of a trainer whose best step size is known, and one of the real one."""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sgpo_jax import report, sweep
from sgpo_jax.hosts import Stopped
from sgpo_jax.pipeline import Display, UserError
from sgpo_jax.sweep import objective, study, summary

optuna = pytest.importorskip("optuna")

RATE = "methods.mine.optimizer.learning-rate"
SETTINGS = {RATE: "3e-05", "train.rollouts": "64"}
TRAINER = pathlib.Path(__file__).with_name("trainer.py")
STEPS, ROLLOUTS = 30, 64


def make(folder, **changes) -> sweep.Sweep:
    searched = [f"{RATE}=log:1e-5:1e-1", "train.rollouts=32,64,128"]
    made = sweep.Sweep(
        folder=folder,
        space=sweep.parse(searched, SETTINGS),
        options=("--seed", "7"),
        default=SETTINGS,
        label="mine",
        steps=STEPS,
        rollouts=ROLLOUTS,
        eval_every=5,
        shared=("policy",),
        trials=12,
        jobs=2,
        sampler="tpe",
        seed=7,
        command=(sys.executable, str(TRAINER)),
    )
    return dataclasses.replace(made, **changes)


def run(made: sweep.Sweep, **options):
    found = made.open()
    made.run(found, display=Display(quiet=True), poll=0.01, **options)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("sweep") / "whole")
    return made, run(made)


def test_it_finds_what_is_better_than_the_default(whole):
    made, found = whole
    default, best = found.trials[0], found.best_trial
    assert len(found.trials) == made.trials
    assert default.params[RATE] == 3e-5
    assert best.value > default.value + 0.1
    # The optimum is 1e-3, and a factor of 10 beside it earns 1/e.
    assert 1e-4 < best.params[RATE] < 1e-2


def test_trials_spend_equal_compute(whole):
    """As the default does, to within an evaluation; pruned ones spend less."""
    made, found = whole
    budget = made.total_compute(found)
    assert budget == STEPS * ROLLOUTS
    spent = {
        one.number: made.lines(one.number)[-1]["step"]
        * ROLLOUTS
        // 2
        * 2 ** int(one.params["train.rollouts"])
        for one in found.trials
        if "same as" not in one.user_attrs
    }
    assert any(one.state.name == "PRUNED" for one in found.trials)
    for one in found.trials:
        tenths = max(one.intermediate_values)
        assert (tenths == objective.TENTHS) == (one.state.name == "COMPLETE")
        if one.state.name == "COMPLETE" and one.number in spent:
            # It runs on until the signal arrives.
            assert budget <= spent[one.number] < 1.5 * budget


def test_the_objective_is_that_of_the_metrics(whole):
    made, found = whole
    curve = report.Curve.from_metrics(made.lines(0))
    assert found.trials[0].value == pytest.approx(
        objective.area(curve, float(STEPS * ROLLOUTS))
    )


def test_the_policy_is_made_once(whole):
    made, _ = whole
    inodes = {path.stat().st_ino for path in made.folder.glob("trials/*/policy/*")}
    assert len(inodes) == 1


def test_checkpoints_of_the_best_trial_are_kept(whole):
    made, found = whole
    kept = list(made.folder.glob("trials/*/methods/mine/checkpoints"))
    assert [path.parents[2].name for path in kept] == [f"{found.best_trial.number:03d}"]


def test_the_report_has_a_command_to_copy_with_another_seed(whole):
    made, found = whole
    text = summary.write(made, found, "sgpo sweep ...").read_text()
    assert (made.folder / "sweep.png").stat().st_size > 10_000
    assert "looks better than it is" in text and "PED-ANOVA" in text
    line = next(x for x in text.splitlines() if x.startswith("sgpo run"))
    words = shlex.split(line)
    assert words.count("--seed") == 1 and words[words.index("--seed") + 1] == "0"
    assert f"--{RATE}={found.best_trial.params[RATE]:.4g}" in words
    steps = int(words[words.index("--train.steps") + 1])
    assert steps == made.lines(found.best_trial.number)[-1]["step"]
    assert str(made.folder) not in line


def test_a_best_value_at_the_end_of_its_range_is_named(whole, tmp_path):
    """The optimum, 1e-3, lies beyond what is searched here; there it is inside."""
    made, found = whole
    assert not any(
        one.startswith(RATE)
        for one in summary.at_the_ends(made.space, found.best_trial.params)
    )
    searched = [f"{RATE}=log:1e-5:1e-4", "train.rollouts=32,64,128"]
    short = make(tmp_path / "short", space=sweep.parse(searched, SETTINGS))
    beyond = run(short)
    ends = summary.at_the_ends(short.space, beyond.best_trial.params)
    text = summary.write(short, beyond, "sgpo sweep ...").read_text()
    assert any(one.startswith(RATE) for one in ends)
    assert f"at the end of what was searched: {', '.join(ends)}." in text


@pytest.mark.parametrize(
    "values, ends",
    [
        ({"lr": 1e-4, "size": 1, "rule": 0}, ["lr 0.0001"]),
        ({"lr": 1e-2, "size": 2, "rule": 1}, ["lr 0.01", "size 16"]),
        ({"lr": 1e-3, "size": 0, "rule": 1}, ["size 4"]),
        ({"lr": 1.2e-4, "size": 1, "rule": 0}, []),
    ],
)
def test_ends_are_of_ordered_ranges(values, ends):
    space = (
        sweep.Interval(name="lr", low=1e-4, high=1e-2, log=True),
        sweep.Choices(name="size", values=("4", "8", "16"), ordered=True),
        sweep.Choices(name="rule", values=("a", "b"), ordered=False),
    )
    assert summary.at_the_ends(space, values) == ends


def test_a_sweep_that_was_killed_goes_on_as_if_it_was_not(whole, tmp_path):
    """Stopped in its third trial, its journal cut in the middle of a line."""
    made = make(tmp_path / "killed", jobs=1, trials=6)
    expected = run(make(tmp_path / "straight", jobs=1, trials=6))
    with pytest.raises(Stopped):
        run(made, asked=lambda: "SIGTERM" if made.lines(2) else "")
    journal = made.folder / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code":5,"worker')
    (made.folder / "journal.log.lock").symlink_to(journal)
    found = run(made)
    assert [one.params for one in found.trials] == [
        one.params for one in expected.trials
    ]
    assert [one.intermediate_values for one in found.trials] == [
        one.intermediate_values for one in expected.trials
    ]


def test_more_trials_may_be_asked_for_and_nothing_else(whole, tmp_path):
    made = make(tmp_path / "more", trials=2)
    run(made)
    before = made.lines(1)
    found = run(dataclasses.replace(made, trials=3))
    assert len(found.trials) == 3 and made.lines(1) == before
    for change in ({"objective": "final"}, {"options": ("--seed", "8")}):
        with pytest.raises(UserError, match="holds a sweep with another"):
            dataclasses.replace(made, **change).open()


def test_values_that_were_tried_are_not_run_again(tmp_path):
    """With two settings in all, the third trial is one of them."""
    space = sweep.parse(["train.rollouts=64,128"], SETTINGS)
    options = ("--seed", "7", f"--{RATE}=1e-3")
    made = make(tmp_path / "few", space=space, options=options, trials=5, jobs=1)
    found = run(made)
    assert len(found.trials) == 5
    ran = [one for one in found.trials if "same as" not in one.user_attrs]
    assert len(ran) == len({one.params["train.rollouts"] for one in found.trials}) == 2
    assert len(list(made.folder.glob("trials/*"))) == 2


def test_a_trial_that_fails_is_not_the_end_and_the_default_is(tmp_path):
    space = sweep.parse([f"{RATE}=log:1e-5:9"], SETTINGS)
    made = make(tmp_path / "some", space=space, sampler="random")
    failed = [one for one in run(made).trials if "exit code" in one.user_attrs]
    assert 0 < len(failed) < made.trials - 1
    for one in failed:
        assert one.params[RATE] > 0.1 and one.state.name == "PRUNED"
        assert one.value == pytest.approx(0.2)
    made = make(
        tmp_path / "all", space=space, default={**SETTINGS, RATE: "0.5"}, trials=2
    )
    with pytest.raises(sweep.TrialError, match="diverged"):
        run(made)


def test_a_trial_that_was_stopped_by_others_goes_on(tmp_path):
    """As by a scheduler, which sends SIGTERM to the trial and not to the sweep."""
    made = make(tmp_path / "sweep", trials=1)
    made.folder.mkdir()
    (made.folder / "stop").touch()
    found = run(made)
    assert not (made.folder / "stop").exists()
    assert found.trials[0].state.name == "COMPLETE"
    assert [line["step"] for line in made.lines(0)] == list(range(STEPS + 1))


def test_several_failures_in_a_row_end_it(tmp_path):
    searched = ["methods.mine.optimizer.learning-rate=1e-3,2e-3,no,none,not"]
    space = sweep.parse(searched, {RATE: "1e-3"})
    made = make(
        tmp_path / "sweep",
        space=space,
        default={RATE: "1e-3"},
        trials=30,
        sampler="random",
    )
    with pytest.raises(sweep.TrialError, match="3 trials in a row failed"):
        run(made)


def curve(flops, success) -> report.Curve:
    x = np.array(flops, float)
    return report.Curve(
        steps=x,
        flops=x,
        repeated=x,
        success=np.array(success, float),
        low=None,
        high=None,
    )


def test_a_profile_that_was_paid_for_counts_against_a_run():
    """The curve begins where the profile ends; before, nothing is learned."""
    free = objective.area(curve([0, 10], [0.2, 0.6]), 10.0)
    paid = objective.area(curve([5, 15], [0.2, 0.6]), 10.0)
    assert free == pytest.approx(0.4)
    assert paid == pytest.approx((5 * 0.2 + 5 * 0.3) / 10)
    # Half of the rise is over where the budget ends; three evaluations averaged.
    assert objective.final(curve([5, 15], [0.2, 0.6]), 10.0) == pytest.approx(
        (0.2 + (0.2 + 0.6 + 0.6) / 3) / 2
    )


def test_only_what_is_spent_is_compared():
    lines = [
        {
            "step": step,
            "total_flops": 10.0 * step,
            "total_flops_repeated": 10.0 * step,
            "eval/success": 0.5,
            "eval/low": 0.0,
            "eval/high": 1.0,
        }
        for step in range(4)
    ]
    assert len(objective.values("area", lines, 100.0, ended=False)) == 3
    assert objective.values("area", lines, 100.0, ended=True) == pytest.approx(
        [0.5] * objective.TENTHS
    )
    assert objective.values("area", [{"step": 0}], 100.0, ended=False) == []


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("a=log:1e-5:1e-3", "0.0001"),
        ("a=-2:2", "0.5"),
        ("a=1:9", "3"),
        ("a=log:1:64", "8"),
        ("a=4,8,16", "8"),
        ("a=mean,batch,none", "batch"),
    ],
)
def test_a_value_survives_all_of_its_forms(text, default):
    (one,) = sweep.parse([text], {"a": default})
    value = one.value(default)
    assert one.value_at(one.position(value)) == pytest.approx(value)
    assert one.value(one.text(value)) == pytest.approx(value)
    assert one.position(one.value_at(0.0)) == 0 and one.position(one.value_at(1.0)) == 1
    study_ = optuna.create_study()
    for _ in range(5):
        drawn = one.suggest(study_.ask())
        assert 0 <= one.position(drawn) <= 1
        assert one.text(drawn)


def test_equal_steps_are_equal_ratios_on_a_log_scale():
    (one,) = sweep.parse(["a=log:1e-5:1e-3"], {"a": "1e-4"})
    assert one.value_at(0.5) == pytest.approx(1e-4)


def test_a_sampler_asks_by_seed_and_number(tmp_path):
    """So that a sweep that goes on asks as one that was not stopped."""
    space = sweep.parse([f"{RATE}=log:1e-5:1e-1"], SETTINGS)

    def first(seed):
        found = optuna.create_study()
        return [
            study.ask(found, space, sampler="random", seed=seed).params[RATE]
            for _ in range(3)
        ]

    assert first(1) == first(1) != first(2)
    assert len(set(first(1))) == 3


@pytest.mark.slow
def test_real_trials_survive_a_kill_of_the_sweep(tmp_path):
    """SIGKILL while a trial trains: its process ends too, and the command goes on."""
    from tests.pipeline.test_run import ROOT, SMALL

    out = tmp_path / "sweep"
    call = "import sys; from sgpo_jax.cli import main; main(sys.argv[1:])"
    args = ["sweep", "--out", str(out), "--trials", "2", "--search"]
    args += ["methods.grpo_token.optimizer.learning-rate=log:1e-5:1e-2", "--", *SMALL]
    args += ["--methods", "grpo_token", "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-c", call, *args]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    lock = out / "trials" / "000" / "lock.json"
    while not lock.exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    child = int(
        subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, check=True
        ).stdout.split()[0]
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        for _ in range(100):
            os.kill(child, 0)
            time.sleep(0.05)
        raise AssertionError("the trial's process goes on by itself")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sgpo run --out runs/tuned-0 --seed 0" in done.stdout
    assert len(list((out / "trials").iterdir())) == 2
