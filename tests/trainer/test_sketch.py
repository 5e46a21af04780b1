"""The program of the design, from questions to a plan, with sizes for a test."""

import pytest

import sgpo_jax
from sgpo_jax import Trainer, advantages, cli, data, methods, models

pytestmark = pytest.mark.slow

ROWS = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(24)]


def shrunk(group):
    centered = advantages.centered(group.rewards, group.id, num_groups=group.count)
    return centered / (1 + group.size)


def reward(completion, reference):
    return float(reference[0] in completion)


def test_the_program_runs_as_it_stands(tmp_path, capsys):
    train, test = data.load(ROWS, held_out=6)
    policy = models.load("tiny")
    method = methods.Method(
        advantage=shrunk,
        objective=methods.SequenceClipped(low=3e-4, high=4e-4),
        kl=methods.KL(coef=1e-3),
        optimizer=methods.AdamW(learning_rate=1e-3),
    )
    trainer = Trainer(policy, method, train, reward=reward, rollouts=32, max_response=4)
    seen = [metrics["reward"] for metrics in trainer.steps(3)]
    assert len(seen) == 3 and max(seen) > 0
    found = trainer.evaluate(test)
    assert 0 <= found.mean <= 1 and 0 <= found.greedy <= 1
    trainer.save(tmp_path / "mine")
    # The remedy of the command line: it goes on for as many steps as are wanted.
    more = ["train", "--out", str(tmp_path / "mine"), "--train.steps", "4"]
    assert cli.run_command(more) == 0
    with Trainer.open(tmp_path / "mine", show=False) as opened:
        assert opened.step == 4
    models.save(trainer.policy, tmp_path / "out")
    again = models.load(f"hf:{tmp_path / 'out'}")
    assert again.config.num_layers == policy.config.num_layers
    assert (tmp_path / "out" / "model.safetensors").exists()

    profile = sgpo_jax.profile(policy, train, reward=reward, samples=4, max_response=4)
    assert len(profile) == len(train) and "success rate" in str(profile)
    plan = sgpo_jax.plan(profile)
    assert "phase" in str(plan)
    for name, value in (("profile", profile), ("plan", plan)):
        path = tmp_path / f"{name}.png"
        value.plot().figure.savefig(path)
        assert path.stat().st_size > 5_000
    trainer.close()  # or `with Trainer(...)`: its scoring processes end with it
