"""Training on rollouts of servers that hold real weights, given to them over HTTP."""

import contextlib
import dataclasses

import numpy as np
import pytest

from sgpo_jax import fleet as fleet_module
from sgpo_jax import methods, models
from sgpo_jax.client_config import ClientLimits
from sgpo_jax.config import RewardConfig, SamplerConfig
from sgpo_jax.sampling import RefreshError
from sgpo_jax.trainer import Trainer
from tests.fleet.server import Fault, PolicyServer

pytestmark = pytest.mark.slow

ROWS = [{"prompt": f"{a}+{b}=", "answer": a + b} for a in range(3) for b in range(4)]
METHOD = methods.Method(
    prompts=methods.Shuffled(group_size=4),
    correction=methods.Truncated(),
    optimizer=methods.AdamW(learning_rate=3e-3),
)
EXACT = 2e-4  # nats per token: float32, in other batches


def digits(completion):
    """Dense, and about half of it by chance."""
    return sum(ord(letter) < 128 for letter in completion) / max(len(completion), 1)


@pytest.fixture(scope="module")
def policy():
    return models.load("tiny:layers=1,width=32,mlp=32")


@pytest.fixture(scope="module")
def base(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    models.save(policy, folder)
    return folder


@pytest.fixture(scope="module")
def with_adapters(base):
    return models.load(f"hf:{base}", lora_rank=4)


@contextlib.contextmanager
def fleet(policy, base, weights, *, count=1, method=METHOD, **options):
    """Give servers, and a trainer that samples from them."""
    servers = [PolicyServer(policy, base) for _ in range(count)]
    with contextlib.ExitStack() as listening:
        urls = [listening.enter_context(server.serve()) for server in servers]
        sampler = SamplerConfig(
            lanes=4,
            slots=4,
            max_response=4,
            server=",".join(urls),
            weights=str(weights) if "refresh" in options else "",
            client=ClientLimits(attempts=2, concurrency=4),
            **{"refresh": "none"} | options,
        )
        trainer = Trainer(
            policy,
            method,
            ROWS,
            reward=digits,
            rollouts=16,
            total_steps=4,
            sampler=sampler,
            scoring=RewardConfig(workers=1),
            show=False,
        )
        with trainer:
            yield servers, trainer


def loads(server):
    return [body for path, body in server.calls if "unload" not in path]


def gaps(trainer, steps):
    return [line["sampler_gap"] for line in trainer.steps(steps)]


@pytest.mark.parametrize(
    "refresh", ["sglang", pytest.param("vllm-lora", marks=pytest.mark.slow)]
)
def test_servers_sample_from_the_trained_weights(
    policy, with_adapters, base, tmp_path, refresh
):
    """Every step of a fresh copy: their log-probabilities are the trainer's own."""
    own = with_adapters if refresh == "vllm-lora" else policy
    (tmp_path / "sgpo-of-another-run").mkdir()
    with fleet(own, base, tmp_path, refresh=refresh) as ((server,), trainer):
        before = np.asarray(trainer.initial.params["embedding"]).copy()
        found = gaps(trainer, 3)
        assert max(found) < EXACT
        assert len(loads(server)) == 3
        assert len(server.asked) == 3 * 16
        assert trainer.ledger["generation"].rollouts == 48
        assert trainer.ledger["generation"].flops > 0
        after = trainer.policy.params
        moved = after["adapters"] if refresh == "vllm-lora" else after
        assert (np.asarray(after["embedding"]) != before).any() == (refresh == "sglang")
        assert any(np.abs(leaf).max() > 0 for leaf in _leaves(moved))
        # The weights of the newest step are the one folder that is left of this run.
        assert len(list(tmp_path.glob("sgpo-*"))) == 2
        assert (tmp_path / "sgpo-of-another-run").exists()
    if refresh == "vllm-lora":
        names = {body["model"] for _, body in server.asked}
        assert names == {body["lora_name"] for body in loads(server)}
        assert len(server.served) == 2  # the base and the newest


def _leaves(tree):
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_stale_rollouts_are_refreshed_when_the_method_says_so(policy, base, tmp_path):
    """And the gap shows that they are stale in between."""
    method = dataclasses.replace(METHOD, max_staleness=1)
    with fleet(policy, base, tmp_path, refresh="sglang", method=method) as (
        (server,),
        trainer,
    ):
        found = gaps(trainer, 4)
    assert len(loads(server)) == 2
    assert max(found[0], found[2]) < EXACT
    assert min(found[1], found[3]) > 5 * EXACT


def test_an_evaluation_is_of_the_policy_it_names(policy, base, tmp_path):
    """Servers of SGLang have one policy at a time."""
    with fleet(policy, base, tmp_path, refresh="sglang", count=2) as (servers, trainer):
        list(trainer.steps(1))
        trainer.evaluate(ROWS[:2], samples=2)
        assert [len(loads(server)) for server in servers] == [2, 2]
        trainer.evaluate(ROWS[:2], samples=2)
        list(trainer.steps(1))
        assert [len(loads(server)) for server in servers] == [2, 2]
        asked = [len(server.asked) for server in servers]
        assert max(asked) - min(asked) <= 4
        assert min(asked) > 0


def test_what_a_server_fails_at_is_counted_and_not_trained_on(policy, base, tmp_path):
    with fleet(policy, base, tmp_path, refresh="sglang") as ((server,), trainer):

        def fail(path, body):
            choice = body.get("sampling_params")
            if choice and choice["sampling_seed"] % 3 == 0:
                raise Fault(400, "no")

        server.fail = fail
        server.silent = lambda seed: seed % 3 == 1
        (line,) = trainer.steps(1)
        lost = round(line["unscorable"] * 16)
        assert lost < 16
        assert line["trained"] <= 16 - lost
        counts = trainer.worker.problems.counts
        failed = counts["server, HTTP 400"]
        unknown = counts["server, no log-probabilities"]
        assert failed > 0 and unknown > 0
        assert failed + unknown == lost
        # An evaluation reads no log-probabilities.
        found = trainer.evaluate(ROWS, samples=2, greedy=False)
        assert round(found.unscorable * 24) == counts["server, HTTP 400"] - failed
        assert counts["server, no log-probabilities"] == unknown
        assert np.isfinite(line["loss"])


def test_a_server_that_was_started_again_is_noticed(policy, base, tmp_path):
    """Its answers name other weights: they count as lost, and it is loaded again.

    One that loads nothing ends the run, before any is asked for samples.
    """
    method = dataclasses.replace(METHOD, max_staleness=100)
    with fleet(policy, base, tmp_path, refresh="sglang", count=2, method=method) as (
        servers,
        trainer,
    ):
        lines = []
        for line in trainer.steps(3):
            lines.append(line)
            if line["step"] == 1:
                servers[1].restart()
        assert [line["unscorable"] for line in lines] == [0, 0.5, 0]
        assert [len(loads(server)) for server in servers] == [2, 2]

        def fail(path, body):
            if "update" in path:
                raise Fault(400, '{"success": false, "message": "no such folder"}')

        servers[1].fail = fail
        asked = len(servers[0].asked)
        with pytest.raises(RefreshError, match=r"no such folder.*sampler\.weights"):
            trainer.evaluate(ROWS[:2])
        assert len(servers[0].asked) == asked


def test_without_a_refresh_servers_sample_the_initial_policy_only(
    policy, base, tmp_path
):
    with fleet(policy, base, tmp_path, method="sgpo") as ((server,), trainer):
        trainer.evaluate(ROWS[:2], samples=2, greedy=False)
        known = trainer.profile
        assert known is not None
        asked = 4 + known.drawn.sum()
        assert len(server.asked) == asked
        list(trainer.steps(1))
        trainer.evaluate(ROWS[:2], samples=2, greedy=False)
        assert len(server.asked) == asked
        assert not server.calls


def test_a_run_of_many_processes_has_no_servers_yet():
    sampler = SamplerConfig(server="http://a/v1")
    with pytest.raises(ValueError, match="run in one process"):
        fleet_module.check(sampler, {}, lora=False, processes=2)


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({"server": "localhost:8000"}, {}, "must begin with http"),
        ({"refresh": "sglang"}, {}, "give sampler.server"),
        ({"server": "http://a/v1", "thinking": 5}, {}, "drop sampler.thinking"),
        (
            {"server": "http://a/v1", "refresh": "sglang", "temperature": 0.7},
            {},
            "temperature is 0.7: set it to 1",
        ),
        (
            {"server": "http://a/v1", "refresh": "vllm-lora", "weights": "w"},
            {},
            "give model.lora_rank",
        ),
        (
            {"server": "http://a/v1", "refresh": "sglang", "weights": "w"},
            {"correction": None},
            "methods.grpo.correction.high",
        ),
        (
            {"server": "http://a/v1", "client": ClientLimits(token="NO_SUCH")},
            {},
            "environment has no NO_SUCH",
        ),
    ],
)
def test_what_servers_cannot_do_is_said_first(policy, options, changes, words):
    method = dataclasses.replace(METHOD, **changes)
    with pytest.raises(ValueError, match=words):
        Trainer(
            policy,
            method,
            ROWS,
            reward=digits,
            label="grpo",
            sampler=SamplerConfig(max_response=4, **options),
        )
