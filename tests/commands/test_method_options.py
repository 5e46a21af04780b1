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
            ["--methods.tracked.averaging", "1.5"],
            "averaging must be a number",
        ),
        (["--methods.tracked.kl.coef", "nan"], "coef must be a number from"),
        (["--methods.tracked.objective", "x"], "set one of its fields"),
        (["--methods.tracked.optimizer.rate", "1"], "has no 'rate'; it has learning"),
        (["--methods.tracked"], "needs a value"),
    ],
)
def test_mistakes_are_one_line(tmp_path, args, message):
    with pytest.raises(ValueError, match=message):
        experiment(tmp_path, *args)
