"""`sgpo sample`, from the initial policy of a run and from a server."""

import dataclasses
import zlib

import jax
import numpy as np
import pytest

from sgpo_jax import cli, models, rewards, sampling, training
from sgpo_jax.pipeline import Setup, open_folder, stages
from sgpo_jax.presets import PRESETS
from tests.sampling.test_server import answer, serve


def sample(capsys, *args):
    code = cli.run_command(["sample", *args])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_server_is_asked_and_its_tokens_shown(capsys):
    report = {"content": [{"id": 7, "logprob": -0.25}, {"id": 9, "logprob": -1.0}]}
    with serve(lambda *_: answer(" Paris", logprobs=report)) as (url, seen, _):
        code, out, _ = sample(
            capsys, "The capital is", "--server", url, "--samples", "2", "--top-k", "5"
        )
    assert code == 0
    assert out.count(" Paris") == 2
    assert "'7' -0.25 '9' -1.00" in out
    assert "log-probability -1.25, 2 tokens" in out
    assert [body["prompt"] for body in seen] == ["The capital is"] * 2
    assert seen[0]["top_k"] == 5


def test_the_initial_policy_of_a_run_answers(capsys, tmp_path):
    config = dataclasses.replace(PRESETS["quick"](), out=str(tmp_path), cache="")
    run = open_folder(config)
    setup = Setup(config=config, worker=rewards.Worker())
    params = models.init(setup.decoder, key=jax.random.key(config.seed))
    checkpoints = training.Checkpoints(run.policy, keep=1)
    checkpoints.save(0, params, {"fingerprint": stages.fingerprint(params)})
    checkpoints.close()
    args = ("1+1=", "--out", str(tmp_path), "--samples", "3", "--seed", "5")
    code, out, err = sample(capsys, *args)
    assert code == 0, err
    assert "sample 3/3" in err
    assert "tokens/s" in err
    # The engine, asked directly.
    tokenizer = setup.tokenizer
    engine = sampling.Engine(
        setup.decoder,
        lanes=1,
        slots=3,
        max_prompt=4,
        max_response=config.sampler.max_response,
        stop_tokens=tokenizer.stop_ids,
    )
    request = sampling.Request(zlib.crc32(b"1+1="), tokenizer.encode("1+1="), 3)
    rollouts = engine.sample(params, [request], seed=5, step=0)
    for row, length in zip(rollouts.tokens, rollouts.length, strict=True):
        assert f"  > {tokenizer.decode(row[:length].tolist())}\n" in out
    for total in np.sum(rollouts.log_prob_at_one, axis=1):
        assert f"log-probability {total:.2f}" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x", "--samples", "0"], "samples must be at least 1"),
        (["x", "--top-k", "3", "--temperature", "0"], "choose one of"),
        (["--server", "http://localhost:1/v1"], "give the server a prompt"),
        (["x", "--out", "/nonexistent"], "/nonexistent is no run folder"),
        (["x", "--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, capsys):
    code, _, err = sample(capsys, *args)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
