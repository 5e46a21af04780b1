"""Results of one set of questions, rules or rewards are not taken for another's."""

import dataclasses
import json
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import cli, methods, rewards
from sgpo_jax.artefacts import DamagedError
from sgpo_jax.data import Query
from sgpo_jax.pipeline import RunFolder, UserError, initial, open_run
from sgpo_jax.pipeline import folder as folders
from sgpo_jax.pipeline.manifest import (
    Manifest,
    check_questions,
    differences,
    record_questions,
)
from sgpo_jax.testing import tiny_experiment

pytestmark = pytest.mark.slow

QUERIES = tuple(
    Query(id=f"q{n}", prompt=f"{n}+1=", reference=str(n + 1)) for n in range(4)
)


def changed(**fields):
    """The queries with other fields of the third."""
    return (*QUERIES[:2], dataclasses.replace(QUERIES[2], **fields), QUERIES[3])


@pytest.fixture
def folder(tmp_path):
    """A run folder whose profile has been begun."""
    run = RunFolder(tmp_path)
    record_questions(run, QUERIES, QUERIES[:1])
    run.chunks.mkdir()
    return run


def test_the_same_questions_are_accepted(folder):
    check_questions(folder, tuple(dataclasses.replace(q) for q in QUERIES), QUERIES[:1])


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (changed(reference="8"), QUERIES[:1], "training .* differ in references;"),
        (changed(prompt="9+9="), QUERIES[:1], "training .* differ in prompts;"),
        (changed(id="new"), QUERIES[:1], "training .* differ in ids;"),
        (changed(verifier="integer"), QUERIES[:1], "training .* differ in verifiers;"),
        (changed(metadata={"a": 1}), QUERIES[:1], "training .* differ in metadata;"),
        (QUERIES[:3], QUERIES[:1], r"number of questions \(4 and 3\)"),
        (QUERIES[::-1], QUERIES[:1], "training .* differ in ids, prompts"),
        (QUERIES, QUERIES[1:2], "held-out .* differ in ids, prompts"),
    ],
)
def test_other_questions_are_refused(folder, train, held_out, message):
    with pytest.raises(UserError, match=message):
        check_questions(folder, train, held_out)
    shutil.rmtree(folder.chunks)
    check_questions(folder, train, held_out)  # there is no result of them yet


def test_a_verifier_that_was_changed_is_refused(tmp_path):
    source, run = tmp_path / "my_reward.py", RunFolder(tmp_path / "run")
    source.write_text("def good(completion, reference): return 1.0\n")
    name = f"0.5*exact + 0.5*{source}:good"
    queries = tuple(dataclasses.replace(query, verifier=name) for query in QUERIES)
    record_questions(run, queries, ())
    run.chunks.mkdir()
    check_questions(run, queries, ())
    source.write_text("def good(completion, reference): return 0.0\n")
    with pytest.raises(UserError, match=r"source of these verifiers .*my_reward\.py"):
        check_questions(run, queries, ())


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"training": 1}', "null", "\x00"])
def test_a_damaged_manifest_is_one_line(folder, text):
    folder.manifest.write_text(text)
    with pytest.raises(DamagedError, match=r"manifest\.json is .*; delete it"):
        check_questions(folder, QUERIES, ())


def test_verifiers_of_modules_are_known_by_their_source():
    names = ["sgpo_jax.theory:rates", "trl:sgpo_jax.theory:rates", "gsm8k"]
    found = rewards.sources([*names, "nowhere.at_all:reward"])
    assert len(found["sgpo_jax.theory:rates"]) == 16
    assert found[names[0]] == found[names[1]]
    assert found["gsm8k"] == found["nowhere.at_all:reward"] == ""


def test_another_file_of_the_same_name_gets_another_initial_policy(tmp_path):
    path = tmp_path / "questions.jsonl"

    def key(answer):
        rows = [{"question": f"{n}+1=", "answer": str(n + answer)} for n in range(20)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = tiny_experiment(str(tmp_path / "run"), data=str(path))
        return initial.cache_key(open_run(config, rewards.Worker()))

    assert key(1) == key(1)
    assert key(1) != key(2)


def run(command, out, *more):
    return cli.run_command([command, "--out", str(out), *more])


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_folder_of_other_answers_is_refused_before_anything(copied, capsys):
    path = copied / "manifest.json"
    content = json.loads(path.read_text())
    content["training"]["references"] = "0" * 32
    del content["checksum"]
    path.write_text(json.dumps(content))
    before = {each: each.stat().st_mtime_ns for each in copied.rglob("*")}
    assert run("run", copied) == 2
    assert "the training questions differ in references" in capsys.readouterr().err
    after = {each: each.stat().st_mtime_ns for each in copied.rglob("*")}
    assert {p: t for p, t in after.items() if p != copied} == {
        p: t for p, t in before.items() if p != copied
    }


def test_a_policy_that_was_taught_on_other_questions_is_refused(copied, capsys):
    path = copied / "manifest.json"
    content = json.loads(path.read_text())
    content["initial policy"]["held-out"]["prompts"] = "0" * 32
    del content["checksum"]
    path.write_text(json.dumps(content))
    assert run("sft", copied) == 2
    assert "fine-tuned on other questions: held-out: prompts" in capsys.readouterr().err


def test_a_kill_after_a_plan_was_written_is_not_taken_for_an_edit(copied, monkeypatch):
    shutil.rmtree(copied / "methods" / "sgpo")
    rule, record = "--methods.sgpo.prompts.allocate.maximum", Manifest.record

    def killed(self, part, made_from):
        if part == "plan of sgpo":
            raise KeyboardInterrupt
        record(self, part, made_from)

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "record", killed)
        assert run("plan", copied, rule, "4") == 130
    again = (copied / "plans" / "sgpo.json").read_text()
    assert run("plan", copied) == 0
    assert (copied / "plans" / "sgpo.json").read_text() == again


def test_other_rules_plan_again_but_not_over_an_edited_plan(copied, capsys):
    shutil.rmtree(copied / "methods" / "sgpo")
    plan, rule = (
        copied / "plans" / "sgpo.json",
        "--methods.sgpo.prompts.allocate.maximum",
    )
    first = plan.read_text()
    assert run("plan", copied, rule, "4") == 0
    again = plan.read_text()
    assert again != first
    assert run("plan", copied) == 0
    assert plan.read_text() == again
    plan.write_text(again.replace('"trivial": 0', '"trivial":  0'))
    edited = plan.read_text()
    assert edited != again
    assert run("plan", copied) == 0  # people may edit it
    assert run("plan", copied, rule, "3") == 2
    assert (
        "was edited, and what it was made from has changed" in capsys.readouterr().err
    )
    assert plan.read_text() == edited


def test_the_initial_policy_is_read_and_hashed_once(copied, monkeypatch):
    """For all methods and evaluations of a run."""
    counts = {"read": 0, "hash": 0}
    read, hashed = initial._read, initial.fingerprint

    def counted_read(*args):
        counts["read"] += 1
        return read(*args)

    def counted_hash(*args):
        counts["hash"] += 1
        return hashed(*args)

    monkeypatch.setattr(initial, "_read", counted_read)
    monkeypatch.setattr(initial, "fingerprint", counted_hash)
    assert run("run", copied) == 0
    assert counts == {"read": 0, "hash": 0}  # everything is there
    for label in ("sgpo", "grpo_token"):
        shutil.rmtree(copied / "methods" / label)
        (copied / "eval" / f"{label}.json").unlink()
    assert run("run", copied) == 0
    assert counts == {"read": 1, "hash": 1}


def test_a_host_holds_one_leaf_of_what_is_hashed():
    """Of parameters in shards, an array would keep what was fetched."""
    mesh = jax.sharding.Mesh(jax.devices(), "fsdp")
    shards = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    leaves = {str(n): jax.device_put(np.full((512, 512), n), shards) for n in range(8)}
    size = leaves["0"].nbytes
    expected = initial.fingerprint(jax.tree.map(jnp.array, leaves))  # compiles, imports

    def peak(function, *args):
        tracemalloc.start()
        try:
            return function(*args), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    another = jax.device_put(np.ones((512, 512)), shards)
    if peak(np.asarray, another)[1] < size:
        pytest.skip("this jax fetches where tracemalloc does not see it")
    initial.fingerprint({"another": jax.device_put(np.ones((512, 512)), shards)})
    found, most = peak(initial.fingerprint, leaves)
    assert found == expected
    assert size < most < 1.5 * size


def test_differences_name_fields_of_parts():
    old = {"policy": "a", "prompts": {"maximum": 8, "minimum": 2}}
    new = {"policy": "a", "prompts": {"maximum": 4, "minimum": 2}}
    assert differences(old, new) == "prompts: maximum (8, now 4)"


def test_entries_are_added_one_by_one(tmp_path):
    manifest = Manifest(tmp_path / "manifest.json")
    manifest.record("profile", {"policy": "a"})
    manifest.record("plan of sgpo", {"profile": "b"})
    assert manifest.made_from("profile") == {"policy": "a"}
    assert manifest.made_from("plan of grpo") is None


def test_a_setting_that_there_is_none_of_is_damage(tmp_path):
    """A damaged name would leave its setting at the default."""
    config = tiny_experiment(str(tmp_path))
    folders.open_folder(config)
    flat = json.loads((tmp_path / "config.json").read_text())
    flat.pop("checksum")
    flat["model.headim"] = flat.pop("model.head_dim")
    (tmp_path / "config.json").write_text(json.dumps(flat))
    with pytest.raises(ValueError, match=r"no setting 'model\.headim'"):
        folders.read_experiment(tmp_path)


def test_a_method_that_failed_before_its_first_checkpoint_may_be_corrected(tmp_path):
    """Its folder is begun again; one that was trained stays as it is."""

    def opened(minibatches, write=True):
        method = dataclasses.replace(methods.named("rloo"), minibatches=minibatches)
        config = tiny_experiment(str(tmp_path / "run"), methods={"mine": method})
        return folders.open_folder(config, write=write).method("mine")

    checkpoints = opened(1) / "checkpoints"
    (checkpoints / "0").mkdir(parents=True)
    opened(2, write=False)
    assert checkpoints.exists()
    assert not opened(2).exists()
    (checkpoints / "0").mkdir(parents=True)
    (checkpoints / "2").mkdir()
    with pytest.raises(UserError, match=r"minibatches: 2 before, 1 now.*or delete"):
        opened(1)
    assert (checkpoints / "2").exists()
