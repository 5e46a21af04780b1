"""`sgpo run --sampler.server`: every stage by servers, which may change in between."""

import json

import pytest

from sgpo_jax import cli, methods, models
from sgpo_jax.config import EvalConfig, SftConfig, SplitConfig
from sgpo_jax.pipeline import open_folder
from sgpo_jax.profiling import Profile
from sgpo_jax.testing import tiny_experiment
from sgpo_jax.training import TrainConfig, read_metrics
from tests.fleet.server import Fault, PolicyServer


@pytest.fixture
def folder(tmp_path):
    method = methods.named("sgpo").replace(correction=methods.Truncated())
    config = tiny_experiment(
        str(tmp_path / "run"),
        data="procedural:families=bits,levels=1+2,count=8",
        split=SplitConfig(held_out=4.0),
        sft=SftConfig(steps=60, batch_size=64, demonstrations=2000),
        train=TrainConfig(steps=2, rollouts=16, eval_every=2),
        eval=EvalConfig(samples=1, final_samples=1),
        methods={"sgpo": method},
    )
    open_folder(config)
    return tmp_path / "run"


@pytest.mark.slow
def test_all_of_a_run_is_sampled_by_servers(folder, capsys):
    """A failed profile resumes, by another server at another address."""
    any_policy = models.load("tiny:layers=1,width=32,mlp=32")
    first, second = (PolicyServer(any_policy, "", max_response=8) for _ in range(2))
    given = [*("--out", str(folder)), *("--sampler.refresh", "sglang")]
    given += ["--sampler.client.attempts", "1"]

    def fail(path, body):
        if len(first.asked) == 40:
            raise Fault(500, "out of memory")

    first.fail = fail
    with first.serve() as url:
        code = cli.run_command(["profile", *given, "--sampler.server", url])
    error = " ".join(capsys.readouterr().err.split())
    assert code == 1
    assert "HTTP 500" in error and "the same command resumes" in error
    with second.serve() as url:
        assert cli.run_command(["run", *given, "--sampler.server", url]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "samples everything, given the weights before" in said
    known = Profile.load(folder / "profile.parquet")
    assert known.drawn.sum() == 8 * len(known)
    assert "served" in known.source
    lines = read_metrics(folder / "methods" / "sgpo")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(line["sampler_gap"] < 2e-4 for line in lines[1:])
    assert json.loads((folder / "eval" / "sgpo.json").read_text())["greedy"] is not None
    held_out = 4 * (3 + 2 * 2)  # in training: once at 0, once at 2, and at the end
    assert len(second.asked) >= 2 * 16 + 8 + held_out - 4
    assert len({call[1]["weight_version"] for call in second.calls}) >= 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--sampler.server", "localhost"), "must begin with http"),
        (("--sampler.refresh", "sglang"), "give sampler.server"),
        (
            ("--sampler.server", "http://a/v1", "--sampler.refresh", "sglang"),
            "methods.grpo.correction.high",
        ),
        (
            ("--sampler.server", "http://a/v1", "--sampler.client.token", "NO_SUCH"),
            "environment has no NO_SUCH",
        ),
    ],
)
def test_what_servers_cannot_do_is_a_usage_error(tmp_path, capsys, given, words):
    more = ["--methods", "grpo", "--out", str(tmp_path / "run"), *given]
    assert cli.run_command(["run", *more]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
