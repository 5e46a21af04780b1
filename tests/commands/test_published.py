"""Options that a published policy overrides; no fine-tuning unless requested."""

import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import cli, models, rewards
from sgpo_jax.commands import options
from sgpo_jax.config import ModelConfig, PromptConfig, SftConfig, SplitConfig
from sgpo_jax.models import pretrained, text_files
from sgpo_jax.pipeline import open_folder, open_run, stages
from sgpo_jax.testing import tiny_experiment
from tests.models.test_pieces import byte_level

TEMPLATES = {"short": "{{ messages[0].content }}{{ tone }}>", "long": "Q: {{ tone }}"}


@pytest.fixture
def folder(tmp_path):
    tokenizer = dataclasses.replace(byte_level(["<end>"]), templates=TEMPLATES)
    config = models.DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=1,
        embed_dim=8,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        mlp_dim=8,
    )
    params = models.init(config, key=jax.random.key(0))
    pretrained.save(tmp_path / "base", params, config, dtype="float32")
    text_files.save_folder(tokenizer, tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.num-layers", "2"], "--model.num-layers has no effect: hf:x has its"),
        (["--model.embed_dim=8"], "--model.embed-dim has no effect"),
        (["--sft.noise", "0.5"], "--sft.noise has no effect"),
        (["--model.prompt.variables", "tone"], "must be NAME=VALUE, got 'tone'"),
        (
            ["--model.prompt.no-chat", "--model.prompt.template", "x"],
            "plain text has no system prompt, template and variables",
        ),
    ],
)
def test_options_without_effect_are_refused(args, message, tmp_path, capsys):
    out = tmp_path / "run"
    given = ["run", "--model.source", "hf:x", "--out", str(out), *args]
    assert cli.run_command(given) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("args", "steps", "demonstrated"),
    [
        ([], 900, 0.25),
        (["--model.source", "hf:x"], 0, 0.0),
        (["--model.source=hf:x"], 0, 0.0),
        (["--model.source", "hf:x", "--sft.steps", "7"], 7, 0.25),
        (["--model.source", "hf:x", "--split.demonstrated", "0.5"], 0, 0.5),
        (["--preset", "smollm2"], 10, 0.4),
    ],
)
def test_a_published_policy_is_fine_tuned_if_asked(args, steps, demonstrated, tmp_path):
    config = options.experiment("run", [*args, "--out", str(tmp_path / "run")])
    assert config.sft.steps == steps
    assert config.split.demonstrated == demonstrated


def test_a_dry_run_says_that_there_is_no_warm_up(folder, tmp_path, capsys):
    args = ["run", "--dry-run", "--model.source", f"hf:{folder}", "--cache", ""]
    args += ["--out", str(tmp_path / "run"), "--model.prompt.template", "short"]
    code = cli.run_command([*args, "--model.prompt.variables", "tone=dry"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "as it is, without supervised fine-tuning" in " ".join(captured.err.split())
    assert "sft.steps = 0" in captured.out


def test_messages_about_templates_name_options_that_exist(folder, tmp_path, capsys):
    args = ["run", "--model.source", f"hf:{folder}", "--cache", ""]
    args += ["--out", str(tmp_path / "run")]
    assert cli.run_command(args) == 2
    err = capsys.readouterr().err
    assert "short" in err and "long" in err
    given = {field.name for field in dataclasses.fields(PromptConfig)}
    for word in ("prompt.template", "prompt.no-chat"):
        assert word in err
        assert word.removeprefix("prompt.").removeprefix("no-") in given


def test_without_a_warm_up_the_published_policy_is_the_initial_one(folder, tmp_path):
    config = tiny_experiment(
        str(tmp_path / "run"),
        model=ModelConfig(
            source=f"hf:{folder}",
            prompt=PromptConfig(template="short", variables=('tone="?"',)),
        ),
        split=SplitConfig(demonstrated=0.0),
        sft=SftConfig(steps=0),
    )
    run = open_run(config, rewards.Worker())
    assert run.tokenizer.encode_prompt("2") == run.tokenizer.encode("2?>")
    open_folder(config)
    params = stages.initial_policy(run).params
    wanted = models.load(str(folder), template="short").params
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
