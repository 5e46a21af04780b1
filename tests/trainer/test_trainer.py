"""The front door: what a researcher writes in a notebook."""

import collections
import dataclasses
import json

import jax
import numpy as np
import pytest

import sgpo_jax
from sgpo_jax import advantages, cli, data, methods, models, profiling, training
from sgpo_jax.config import EvalConfig
from sgpo_jax.pipeline import RunFolder, open_folder
from sgpo_jax.rewards import hacking
from sgpo_jax.testing import tiny_experiment
from sgpo_jax.trainer import Trainer

pytestmark = pytest.mark.slow

ROWS = [{"prompt": f"{a}+{b}=", "answer": a + b} for a in range(6) for b in range(6)]
LIMIT = 128


def reward(completion, reference):
    """Dense: share of the characters that are ASCII."""
    del reference
    return sum(ord(c) < LIMIT for c in completion) / max(len(completion), 1)


def shrunk(group):
    centered = advantages.centered(group.rewards, group.id, num_groups=group.count)
    return centered / (1 + group.size)


METHOD = methods.Method(
    advantage=shrunk,
    kl=methods.KL(coef=1e-3),
    optimizer=methods.AdamW(learning_rate=3e-3),
)


@pytest.fixture(scope="module")
def policy():
    return models.load("tiny:layers=1,width=32,mlp=32")


@pytest.fixture(scope="module")
def questions():
    return data.load(ROWS, held_out=6, verbose=False)


def trainer_of(policy, questions, method: methods.Method | str = METHOD, **changes):
    train, test = questions
    options = {
        "reward": reward,
        "held_out": test,
        "rollouts": 32,
        "max_response": 4,
        "eval_every": 2,
        "show": False,
    }
    return Trainer(policy, method, train, **(options | changes))


@pytest.fixture(scope="module")
def trained(policy, questions):
    trainer = trainer_of(policy, questions, completions=3)
    metrics = list(trainer.steps(6))
    yield trainer, metrics
    trainer.close()


def leaves(params):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def assert_equal(one, two):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_list_of_dicts_and_a_function_are_enough(trained, tmp_path):
    """Learns; comes back as a table, a figure, completions, a Hugging Face folder."""
    trainer, metrics = trained
    assert [line["step"] for line in metrics] == list(range(1, 7))
    assert metrics[-1]["reward"] > metrics[0]["reward"] + 0.05
    table = trainer.table()
    assert table.column("step").to_pylist() == list(range(7))
    assert table.column("eval/success").null_count == 3  # odd steps
    assert training.undocumented({*table.column_names, *metrics[-1]} - {"step"}) == []
    assert len(trainer.plot().lines) == 2
    assert [len(texts) for texts in trainer.sample(["1+1=", "2+2="], samples=3)] == [
        3,
        3,
    ]
    found = trainer.evaluate(ROWS[:5], samples=2)
    assert 0 <= found.mean <= 1
    assert found.greedy is not None
    models.save(trainer.policy, tmp_path / "out")
    assert_equal(models.load(f"hf:{tmp_path / 'out'}").params, trainer.policy.params)


def test_completions_are_kept_with_question_and_reward(trained):
    trainer, metrics = trained
    rows = trainer.completions.to_pylist()
    queries = {query.id: query for query in (*trainer.queries, *trainer.held_out)}
    counts = collections.Counter((row["step"], row["part"]) for row in rows)
    evaluated = [0, 2, 4, 6]
    assert counts == {
        **{(line["step"], "train"): 3 for line in metrics},
        **{(step, "evaluation"): 3 for step in evaluated},
    }
    held_out = {query.id for query in trainer.held_out}
    for row in rows:
        query = queries[row["id"]]
        assert (row["prompt"], row["reference"]) == (query.prompt, query.reference)
        assert (row["id"] in held_out) == (row["part"] == "evaluation")
        assert row["reward"] == pytest.approx(reward(row["completion"], ""))


def test_signs_of_hacking_are_metrics_and_come_with_examples(policy, questions):
    """A reward that pays for anything at all."""

    def generous(completion, reference):
        return 1.0 + reward(completion, reference)

    with trainer_of(policy, questions, reward=generous, completions=32) as trainer:
        (line,) = trainer.steps(1)
        found = trainer.evaluate(samples=2)
        rows = [r for r in trainer.completions.to_pylist() if r["part"] == "train"]
    empty = [not row["completion"].strip() for row in rows]
    assert len(empty) == line["rollouts"]
    assert line["reward/hacking_empty"] == pytest.approx(np.mean(empty))
    assert line["reward/hacking_over_long"] > 0.5
    assert found.watch.looked_at == 12
    assert len(found.watch.examples["over_long"]) == hacking.KEPT


def test_the_ledger_counts_what_was_sampled_and_trained(trained):
    trainer, metrics = trained
    spent = trainer.ledger
    assert spent["generation"].rollouts == sum(line["rollouts"] for line in metrics)
    assert spent["training"].rollouts == sum(line["trained"] for line in metrics)


def test_steps_in_two_calls_are_the_same_steps(trained, policy, questions):
    """Also where the loop is left early."""
    with trainer_of(policy, questions, total_steps=6, completions=3) as other:
        for _ in other.steps(6):
            break
        assert other.step == 1
        list(other.steps(2))
        list(other.steps(3))
        assert_equal(other.policy.params, trained[0].policy.params)
        assert other.completions == trained[0].completions


def test_the_policy_is_a_copy(policy, questions):
    with trainer_of(policy, questions, held_out=()) as trainer:
        list(trainer.steps(1))
        before = trainer.policy
        kept = leaves(before.params)
        list(trainer.steps(1))
        assert_equal(before.params, kept)
        assert not np.array_equal(kept[0], leaves(trainer.policy.params)[0])


def test_the_command_line_goes_on_where_a_notebook_saved(
    trained, policy, questions, tmp_path
):
    """With a reward and an advantage that no module holds, to the same bits."""
    factor = 1.0

    def local(group):
        return factor * shrunk(group)

    method = dataclasses.replace(METHOD, advantage=local)
    with trainer_of(
        policy,
        questions,
        method,
        total_steps=6,
        reward=lambda c, r: reward(c, r),
        completions=3,
    ) as half:
        list(half.steps(3))
        half.save(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert cli.run_command(["run", "--out", str(tmp_path / "moved")]) == 0
    with Trainer.open(tmp_path / "moved", show=False) as opened:
        assert opened.step == 6
        assert_equal(opened.policy.params, trained[0].policy.params)
        rewards = opened.table().column("reward").to_pylist()
        assert rewards == trained[0].table().column("reward").to_pylist()
        assert opened.completions == trained[0].completions
        opened.save(tmp_path / "moved")
    folder = tmp_path / "moved" / "methods" / "trainer" / "completions"
    assert profiling.read_completions(folder) == trained[0].completions
    report = (tmp_path / "moved" / "report.md").read_text()
    assert report.startswith("# Report\n\ntrainer: held-out success")
    # One method: nothing to compare its compute with.
    assert report.count("**Held-out accuracy") == 1
    assert "Total compute at" not in report


def test_a_notebook_opens_what_the_command_line_left(tmp_path):
    """And trains on: three steps by each are the six of the command line."""
    config = tiny_experiment(
        str(tmp_path / "run"), methods={"sgpo": methods.named("sgpo")}
    )
    open_folder(config)
    assert cli.run_command(["run", "--out", config.out]) == 0
    with Trainer.open(config.out, "sgpo", show=False) as whole:
        assert whole.step == 6
        assert whole.profile is not None
        with Trainer(
            whole.initial,
            whole.method,
            whole.queries,
            held_out=whole.held_out,
            rollouts=config.train.rollouts,
            total_steps=6,
            sampler=config.sampler,
            pack=config.pack,
            eval_every=2,
            eval_samples=2,
            label="sgpo",
            show=False,
        ) as same:
            metrics = list(same.steps(6))
            assert_equal(same.policy.params, whole.policy.params)
            assert metrics[-1]["reward"] == whole.table()["reward"][-1].as_py()
            ours, theirs = same.ledger["profiling"], whole.ledger["profiling"]
            assert ours.rollouts == theirs.rollouts


def test_a_finished_run_is_made_longer(tmp_path, capsys):
    """To the bits of one that was longer from the start, its evaluation made anew."""
    named = {"grpo_token": methods.named("grpo_token").replace(averaging=0.5)}
    config = tiny_experiment(str(tmp_path / "short"), methods=named)
    open_folder(
        dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    )
    assert cli.run_command(["run", "--out", config.out]) == 0
    assert cli.run_command(["run", "--out", config.out, "--train.steps", "6"]) == 0
    whole = dataclasses.replace(config, out=str(tmp_path / "whole"))
    open_folder(whole)
    assert cli.run_command(["run", "--out", whole.out]) == 0
    with Trainer.open(config.out, show=False) as longer:
        with Trainer.open(whole.out, show=False) as straight:
            assert longer.step == straight.step == 6
            assert_equal(longer.policy.params, straight.policy.params)
        list(longer.steps(1))  # a seventh step of six
        longer.save(tmp_path / "seven")
    for policy in ("grpo_token", "grpo_token.averaged"):
        ours, theirs = (
            json.loads(RunFolder(tmp_path / name).evaluation(policy).read_text())
            for name in ("short", "whole")
        )
        assert [ours[x] for x in ("mean", "low", "greedy", "reward")] == [
            theirs[x] for x in ("mean", "low", "greedy", "reward")
        ]
    made = json.loads((tmp_path / "short" / "manifest.json").read_text())
    assert made["evaluation of grpo_token.averaged"]["steps"] == 6
    capsys.readouterr()
    assert cli.run_command(["train", "--out", str(tmp_path / "seven")]) == 0
    assert " of 6" not in capsys.readouterr().err
    assert cli.run_command(["run", "--out", config.out, "--train.steps", "4"]) == 2
    assert "results with train.steps=6, not 4" in capsys.readouterr().err


def test_a_plan_in_phases_is_not_made_longer(tmp_path, capsys):
    config = tiny_experiment(
        str(tmp_path / "run"), methods={"sgpo": methods.named("sgpo")}
    )
    folder = open_folder(config)
    folder.method("sgpo").mkdir(parents=True)
    assert cli.run_command(["run", "--out", config.out, "--train.steps", "9"]) == 2
    assert "results with train.steps=6, not 9" in capsys.readouterr().err


def test_which_of_several_methods_is_opened_must_be_said(tmp_path):
    named = {name: methods.named(name) for name in ("grpo_token", "grpo_thin")}
    config = tiny_experiment(str(tmp_path / "run"), methods=named)
    open_folder(config)
    with pytest.raises(ValueError, match=r"several methods, grpo_token, grpo_thin"):
        Trainer.open(config.out, show=False)


def test_exact_evaluations_are_the_probability_of_the_reference(tmp_path):
    """None is sampled in training; the final one, which is sampled, agrees."""
    config = tiny_experiment(
        str(tmp_path / "run"),
        methods={"grpo_token": methods.named("grpo_token")},
        eval=EvalConfig(exact=True, final_samples=64),
    )
    open_folder(config)
    assert cli.run_command(["run", "--out", config.out]) == 0
    with Trainer.open(config.out, show=False) as found:
        scorer = found.session.reference_scorer(found.held_out)
        lines = [x for x in found.table().to_pylist() if x["eval/success"] is not None]
        expected = scorer(found.policy.params)
        assert lines[-1]["eval/success"] == pytest.approx(expected.mean(), rel=1e-5)
        assert lines[-1]["eval/reward"] == lines[-1]["eval/success"]
        assert found.ledger["evaluation"].rollouts == 0
        assert len(lines) == 4
        assert found.ledger["evaluation"].flops % scorer.cost.flops == 0
        sampled = training.Evaluation.load(tmp_path / "run/eval/grpo_token.json").mean
        error = (expected * (1 - expected)).sum() ** 0.5 / 8 / len(expected)
        assert abs(sampled - expected.mean()) < 4 * error + 1e-9
        assert found.eval_exact


def test_a_profile_and_its_plan_stand_alone(policy, questions, tmp_path):
    train, _ = questions
    options = {"samples": 4, "max_response": 4, "completions": tmp_path / "c.parquet"}
    known = sgpo_jax.profile(policy, train, reward=reward, **options)
    rows = profiling.read_completions(tmp_path / "c.parquet").to_pylist()
    assert len(rows) == 4 * len(train)
    assert [row["reward"] for row in rows] == pytest.approx(
        [reward(row["completion"], "") for row in rows]
    )
    assert len(known) == len(train)
    assert (known.drawn == 4).all()
    assert known.cost["profiling"]["rollouts"] == 4 * len(train)
    assert known.reward_sum.sum() > known.successes.sum()  # dense
    known = dataclasses.replace(known, successes=np.arange(len(train)) % 4)
    made = sgpo_jax.plan(known)
    assert made.prediction is not None
    assert "phase" in str(made)


def test_a_method_that_reads_a_profile_gets_one(policy, questions):
    """Its cost is in the ledger, its rows are those of the training queries."""
    with trainer_of(policy, questions, "sgpo", reward="exact", profile=2) as trainer:
        try:
            assert trainer.profile is not None
            assert trainer.profile.ids == tuple(q.id for q in trainer.queries)
            assert trainer.ledger["profiling"].rollouts == 2 * len(trainer.queries)
        except ValueError as error:  # nothing was solved by this policy
            assert "plan" in str(error)


def test_a_profile_in_which_nothing_was_solved_is_said(policy, questions, capsys):
    """Otherwise training shows a reward of 0, and no reason."""
    options = {"reward": lambda c, r: 0.0, "profile": 2, "show": True}
    with trainer_of(policy, questions, "tracked", **options) as trainer:
        assert trainer.profile is not None
    said = " ".join(capsys.readouterr().err.split())
    assert "None of the 60 samples solved its question" in said
    assert "max_response" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"rollouts": 0},
            "rollouts must be a whole number from 1",
        ),
        ({"queries": []}, "there is no question"),
        ({"queries": data.load(ROWS[:4], verbose=False)}, "take its parts apart"),
        ({"method": "grop"}, "grop"),
        (
            {"method": methods.Method(objective=lambda r: (r.log_prob, {}))},
            "the loss fails on two responses.*one number per token",
        ),
        (
            {"method": methods.Method(objective=lambda r: r.log_prob.sum())},
            "one number per token",
        ),
        (
            {"method": methods.Method(advantage=lambda groups: groups.scores)},
            "the advantage fails on eight responses.*no attribute 'scores'",
        ),
        (
            {"method": methods.Method(advantage=lambda groups: groups.rewards.mean())},
            "one number per response",
        ),
        (
            {
                "method": "tracked",
                "profile": profiling.Profile(ids=("a",), samples=[8], successes=[4]),
            },
            "the profile has no query",
        ),
        ({"reward": "no_such_module:score"}, "no_such_module"),
        ({"reward": lambda: 1.0}, "reward"),
        ({"max_response": 0}, "max_response"),
        ({"reward": "exact", "eval_exact": True}, "without eval.exact"),
    ],
)
def test_mistakes_are_said_before_anything_is_compiled(
    policy, questions, change, words, monkeypatch
):
    monkeypatch.setattr(sgpo_jax.trainer.trainer.Session, "engine", None)
    train = change.pop("queries", questions[0])
    method = change.pop("method", METHOD)
    with pytest.raises(ValueError, match=words):
        trainer_of(policy, (train, questions[1]), method, **change)


def test_a_reward_function_needs_no_answers(policy):
    """As in TRL: a prompt and a function of the completions are enough."""

    def distinct(completions, **columns):
        assert set(columns) >= {"prompts"}
        return [len(set(text)) / max(len(text), 1) for text in completions]

    rows = [{"prompt": f"{n}!"} for n in range(4)]
    options = {"rollouts": 8, "max_response": 4, "show": False}
    with Trainer(policy, METHOD, rows, reward=distinct, **options) as trainer:
        assert [query.reference for query in trainer.queries] == [""] * 4
        (line,) = trainer.steps(1)
    assert 0 < line["reward"] <= 1
    with pytest.raises(ValueError, match=r"no column 'answer'.*answer="):
        Trainer(policy, METHOD, rows, reward="exact", **options)


def test_a_saved_method_is_not_taken_for_another(trained, tmp_path):
    trainer, _ = trained
    trainer.save(tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    content = json.loads(config.read_text())
    content["methods"]["trainer"]["minibatches"] = 2
    del content["checksum"]
    config.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"belongs to|not the method"):
        Trainer.open(tmp_path / "run", show=False)


def test_saving_never_touches_another_run(trained, policy, questions, tmp_path):
    """Other questions, another policy, a later step: the folder stays as it is."""
    trainer, _ = trained
    run = tmp_path / "run"
    trainer.save(run)

    def content():
        files = [path for path in run.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    before = content()
    other = models.load("tiny:layers=1,width=32,mlp=32", seed=5)
    fewer = (questions[0][:-1], questions[1])
    for given, words in (
        ((policy, questions), "holds step 6 of trainer, this trainer is at 0"),
        ((other, questions), "its initial policy is"),
        ((policy, fewer), "has other questions"),
    ):
        with (
            trainer_of(*given) as fresh,
            pytest.raises(ValueError, match=words),
        ):
            fresh.save(run)
        assert content() == before
    steps = sorted(p.name for p in (run / "methods/trainer/checkpoints").iterdir())
    assert steps == ["6"]


def test_held_out_questions_may_be_a_file(policy, questions, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    with trainer_of(policy, questions, held_out=path) as trainer:
        assert len(trainer.held_out) == 3
