"""`sgpo sweep`: what is checked before a trial is started."""

import numpy as np
import pytest

from sgpo_jax import cli
from sgpo_jax.commands import options, sweep
from sgpo_jax.presets import PRESETS

pytest.importorskip("optuna")

RATE = "methods.grpo.optimizer.learning-rate"


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("rollouts=64,128", "no option is called so: train.rollouts"),
        (
            "methods.grpo.optimiser.learning-rate=0:1",
            "methods.grpo.optimizer.learning-rate",
        ),
        ("train.rollouts", "write NAME=LOW:HIGH"),
        ("train.rollouts=128", "two values or more"),
        ("train.rollouts=64,256", "the default of train.rollouts, 128, is none of"),
        ("train.rollouts=200:300", "is outside of 200 to 300: widen the interval"),
        ("train.rollouts=1.5:300", "whole numbers, as the option takes"),
        ("train.rollouts=0,128", "--train.rollouts must be a whole number from 1"),
        (f"{RATE}=log:0:1", "log needs numbers above 0"),
        (f"{RATE}=1:0.1", "the first must be the smaller one"),
        (f"{RATE}=lin:0:1", "write NAME=LOW:HIGH"),
        (f"{RATE}=0:2000", "learning_rate must be a number"),
        ("seed=0,1000", "trials are compared with it equal"),
        ("train.steps=100,300", "decided by the budget of compute"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_remedy(search, message, tmp_path, capsys):
    out = tmp_path / "sweep"
    args = ["sweep", "--out", str(out), "--search", search, "--", "--methods", "grpo"]
    assert cli.run_command(args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("sgpo: error: ")
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ([], "a sweep tunes one method, these are grpo_token, grpo_thin, sgpo"),
        (["--methods", "grpo", "--out", "x"], "--out after -- is none of a trial"),
        (["--methods", "gpro"], "gpro"),
        (["--methods", "grpo", "--train.rollouts", "x"], "train.rollouts"),
    ],
)
def test_options_of_the_run_are_checked_too(rest, message, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert cli.run_command(["sweep", "--out", str(out), "--", *rest]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_compute_of_a_trial_may_be_that_of_a_real_run(tmp_path):
    args = ["--out", str(tmp_path / "sweep"), "--budget", "3.5e21"]
    assert sweep.parse([*args, "--", "--methods", "grpo"]).budget == 3.5e21


def far(space, observations, rng):
    return np.full(len(space), 2.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpp", "unknown sampler 'gpp'; known: tpe, random, gp, learned"),
        ("nowhere:propose", "cannot import nowhere:propose"),
        ("sgpo_jax.sweep:SAMPLERS", "not a function"),
        ("sgpo_jax.sweep:parse", "it is a function of space, observations and rng"),
        (f"{__name__}:far", "must return a position in the unit cube, 3 numbers"),
    ],
)
def test_a_sampler_that_cannot_propose_is_refused(name, message, tmp_path, capsys):
    out = tmp_path / "sweep"
    args = ["--out", str(out), "--sampler", name, "--", "--methods", "grpo"]
    assert cli.run_command(["sweep", *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not out.exists()


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    from sgpo_jax.hosts import folder_lock

    with folder_lock(tmp_path):
        args = ["sweep", "--out", str(tmp_path), "--", "--methods", "grpo"]
        assert cli.run_command(args) == 2
    assert "is in use by process" in capsys.readouterr().err


def test_step_size_rollouts_and_group_are_searched_if_nothing_is_named(tmp_path):
    made = sweep.parse(["--out", str(tmp_path), "--", "--methods", "grpo"])
    assert [one.name.rpartition(".")[2] for one in made.space] == [
        "learning-rate",
        "rollouts",
        "group-size",
    ]
    assert made.options[-2:] == ("--seed", str(sweep.SEED))
    assert made.shared == ("policy", "profile.chunks", "profile.parquet")
    for one in made.space:
        assert one.position(one.value(made.default[one.name])) == pytest.approx(0.5)


def test_what_a_trial_changes_is_not_shared(tmp_path):
    args = ["--out", str(tmp_path), "--search", "profile.samples=4,8"]
    made = sweep.parse([*args, "--", "--methods", "tracked", "--seed", "3"])
    assert made.shared == ("policy",)
    assert made.options.count("--seed") == 1 and made.seed == 3
    args = ["--out", str(tmp_path), "--search", "model.num-layers=1,3"]
    assert sweep.parse([*args, "--", "--methods", "tracked"]).shared == ()


def test_options_of_a_trial_are_options_of_the_run(tmp_path):
    """Half of the rollouts, twice the steps; a method without phases may go on."""
    steps = PRESETS["default"]().train.steps
    made = sweep.parse(["--out", str(tmp_path), "--", "--methods", "grpo"])
    searched = {"train.rollouts": "64", RATE: "3e-4"}
    config = options.experiment("train", made.arguments(1, searched))
    assert config.train.steps == 2 * 2 * steps
    assert config.train.eval_every == 2 * made.eval_every
    assert config.methods["grpo"].optimizer.learning_rate == 3e-4
    assert config.out == str(made.trial_folder(1))
    first = options.experiment("train", made.arguments(0, {}))
    assert (first.train.steps, first.train.rollouts) == (steps, 128)
    phased = sweep.parse(["--out", str(tmp_path), "--", "--methods", "sgpo"])
    config = options.experiment("train", phased.arguments(1, {"train.rollouts": "64"}))
    assert config.train.steps == 2 * steps
