"""Options of methods on the command line."""

import pytest

from sgpo_jax.commands import options
from sgpo_jax.methods import KL


def experiment(tmp_path, *args):
    return options.experiment("run", ["--out", str(tmp_path), *args])


def test_methods_and_their_fields(tmp_path):
    config = experiment(
        tmp_path,
        *("--methods", "grpo_token", "examples.own_method.own:mine"),
        *("--methods.grpo-token.kl.coef", "0.5"),
        "--methods.grpo_token.prompts.group-size=4",
        *("--methods.mine.minibatches", "2"),
    )
    assert list(config.methods) == ["grpo_token", "mine"]
    assert config.methods["grpo_token"].kl == KL(coef=0.5)
    assert config.methods["grpo_token"].prompts.group_size == 4
    assert config.methods["mine"].minibatches == 2
    # A method from outside keeps its author's step size.
    assert config.methods["mine"].optimizer.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--methods", "gpro"], "unknown method 'gpro'"),
        (["--methods", "grpo", "grpo"], "two methods are called 'grpo'"),
        (["--methods"], "needs at least one value"),
        (["--methods.dapo.averaging", "0.9"], "no method 'dapo' here"),
        (
            ["--methods.grpo_thin.averaging", "1.5"],
            "averaging must be a number",
        ),
        (["--methods.grpo_thin.kl.coef", "nan"], "coef must be a number from"),
        (["--methods.grpo_thin.objective", "x"], "set one of its fields"),
        (["--methods.grpo_thin.optimizer.rate", "1"], "has no 'rate'; it has learning"),
        (["--methods.grpo_thin"], "needs a value"),
    ],
)
def test_mistakes_are_one_line(tmp_path, args, message):
    with pytest.raises(ValueError, match=message):
        experiment(tmp_path, *args)


@pytest.mark.parametrize(
    "words",
    [
        ["--methods." + "x" * 9000, "1"],
        ["--methods.sgpo." + "x" * 9000, "1"],
        ["--methods.sgpo.optimizer.learning-rate", "x" * 9000],
        ["--preset", "x" * 9000],
        ["--seed", "x" * 9000],
        ["--" + "x" * 9000, "1"],
    ],
)
def test_an_error_quotes_an_argument_of_any_length_in_short(words):
    with pytest.raises(ValueError, match=r"xxx") as raised:
        options.experiment("run", words)
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "x"], "--seed must be a whole number, got 'x': --seed INT"),
        (["--train.steps", "many"], "--train.steps must be a whole number, got 'many'"),
        (["--sampler.temperature", "hot"], "--sampler.temperature must be a number"),
        (["--train.rollouts", "0"], "--train.rollouts must be a whole number from 1"),
        (["--train.stps", "3"], "unknown options: --train.stps, 3 Perhaps you"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named_with_what_it_takes(words, message):
    with pytest.raises(ValueError) as raised:
        options.experiment("run", words)
    assert str(raised.value).startswith(message)
