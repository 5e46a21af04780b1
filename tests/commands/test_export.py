"""Policies of a run as folders: what transformers computes of them is what we do."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from sgpo_jax import Trainer, cli, methods, models, rewards, sampling, training
from sgpo_jax.config import ModelConfig, SftConfig
from sgpo_jax.hosts import folder_lock
from sgpo_jax.models import pretrained, text_files
from sgpo_jax.pipeline import open_folder, open_run, stages
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.testing import tiny_experiment
from tests.models.test_pieces import byte_level

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)
METHODS = {
    "raw": methods.named("grpo"),
    "mean": methods.named("grpo").replace(averaging=0.9),
}


def export(capsys, *args):
    code = cli.run_command(["export", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.err


def make(out, **changes):
    """Make a run with an initial policy and two trained ones."""
    config = tiny_experiment(str(out), methods=METHODS, **changes)
    folder = open_folder(config)
    run = open_run(config, rewards.Worker())
    fresh = run.policy.params
    # With adapters the published matrices stay what they are.
    params = {**fresh, **jax.tree.map(lambda x: x + 0.03, _part(fresh))}
    first = training.Checkpoints(folder.policy, keep=1)
    first.save(0, params, {"fingerprint": stages.fingerprint(params)})
    first.close()
    for label in METHODS:
        learner = make_learner(run, label, None, None)
        progress = learner.start(learner.programs.init(params))
        trained = {**params, **jax.tree.map(lambda x: x * 1.5, _part(params))}
        train = dataclasses.replace(progress.train, params=trained)
        path = folder.method(label) / "checkpoints"
        with_store = training.Checkpoints(path)
        store = training.ProgressStore(with_store, progress, {})
        store.save(3, dataclasses.replace(progress, train=train))
        with_store.close()
    return run, params, trained


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that is only read."""
    out = tmp_path_factory.mktemp("export") / "run"
    return out, *make(out)


def _part(params):
    return models.trainable(params)[0]


def published(folder, *, template):
    """Save a published model to train from."""
    tokenizer = dataclasses.replace(byte_level(["<end>"]), chat_template=template)
    config = models.DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        embed_dim=16,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=16,
    )
    params = models.init(config, key=jax.random.key(0))
    params = jax.tree.map(lambda x: 4 * x, params)
    pretrained.save(folder, params, config, dtype="float32")
    text_files.save_folder(tokenizer, folder)


def equal(ours, wanted):
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)


def test_every_policy_of_a_run_is_written(made, tmp_path, capsys):
    out, run, initial, trained = made
    out = ("--out", out)
    for args, wanted in (
        (("--policy", "initial"), initial),
        (("--policy", "raw"), trained),
        (("--policy", "mean"), trained),
        (("--policy", "mean", "--averaged"), initial),
    ):
        folder = tmp_path / "-".join(("to", *args))
        code, err = export(capsys, *out, *args, "--to", folder)
        assert code == 0, err
        again = models.load(str(folder))
        equal(again.params, wanted)
        assert again.tokenizer.encode("1+1=") == run.tokenizer.encode("1+1=")


@pytest.mark.parametrize("left", [["raw"], []], ids=["one method", "none"])
def test_without_a_name_it_is_the_trained_policy(left, made, tmp_path, capsys):
    """The initial one where nothing is trained."""
    out, _, initial, trained = made
    shutil.copytree(out, tmp_path / "run")
    for label in METHODS.keys() - set(left):
        shutil.rmtree(tmp_path / "run" / "methods" / label)
    code, err = export(capsys, "--out", tmp_path / "run", "--to", tmp_path / "to")
    assert code == 0, err
    assert f"{left[0] if left else 'initial'} of {tmp_path / 'run'} is in" in " ".join(
        err.split()
    )
    equal(models.load(str(tmp_path / "to")).params, trained if left else initial)


def test_a_folder_in_use_is_left_alone(made, tmp_path, capsys):
    """What is being written there would be taken for damaged, and put aside."""
    out, *_ = made
    unfinished = out / "methods" / "raw" / "checkpoints" / "9"
    unfinished.mkdir()
    args = ("--out", out, "--policy", "raw")
    with folder_lock(out):
        code, err = export(capsys, *args, "--to", tmp_path / "to")
        with pytest.raises(ValueError, match="is in use by process"):
            Trainer.open(out, "raw", show=False)
    assert (code, err.splitlines()[-1].count("is in use by process")) == (2, 1)
    assert unfinished.exists() and not (tmp_path / "to").exists()
    code, err = export(capsys, *args, "--to", tmp_path / "to")
    assert code == 0, err


def greedy(policy, prompt):
    ids = policy.tokenizer.encode_prompt(prompt)
    engine = sampling.Engine(
        policy.config,
        lanes=1,
        slots=1,
        max_prompt=len(ids),
        max_response=8,
        stop_tokens=policy.tokenizer.stop_ids,
    )
    request = sampling.Request(0, ids, 1)
    found = engine.sample(
        policy.params, [request], seed=0, step=0, strategy=sampling.Greedy()
    )
    return found.tokens[0, : found.length[0]].tolist()


@pytest.mark.filterwarnings("ignore")
def test_transformers_opens_it_and_completes_alike(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    published(tmp_path / "base", template=TEMPLATE)
    model = ModelConfig(source=f"hf:{tmp_path / 'base'}", lora_rank=2, rslora=True)
    run, _, trained = make(tmp_path / "run", model=model, sft=SftConfig(steps=0))
    policy = run.policy.with_params(trained, identity="trained")
    args = ("--out", tmp_path / "run", "--policy", "raw")
    code, err = export(capsys, *args, "--to", tmp_path / "merged")
    assert code == 0, err
    apart = (*args, "--to", tmp_path / "apart", "--adapters", "apart")
    code, err = export(capsys, *apart)
    assert code == 0, err
    described = json.loads((tmp_path / "apart/adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(tmp_path / "base")

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    theirs = [
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ]
    try:
        import peft
    except ImportError:
        pass
    else:
        both = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "apart")
        theirs.append(both.eval())
    completions = set()
    for question in ("1+1", "what is 7?", "reverse ab"):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=False,
        )
        assert ids == policy.tokenizer.encode_prompt(question)
        ours = greedy(policy, question)
        completions.add(tuple(ours))
        for one in theirs:
            with torch.no_grad():
                found = one.generate(
                    input_ids=torch.tensor([ids]), max_new_tokens=8, do_sample=False
                )
            assert found[0, len(ids) :].tolist() == ours
    assert len(completions) > 1


def test_a_run_goes_on_from_adapters_that_were_written(tmp_path, capsys):
    published(tmp_path / "base", template=None)
    model = ModelConfig(source=f"hf:{tmp_path / 'base'}", lora_rank=2, rslora=True)
    _, _, trained = make(tmp_path / "run", model=model, sft=SftConfig(steps=0))
    args = ("--out", tmp_path / "run", "--policy", "raw", "--adapters", "apart")
    code, err = export(capsys, *args, "--to", tmp_path / "apart")
    assert code == 0, err
    model = ModelConfig(source=model.source, adapters=str(tmp_path / "apart"))
    config = tiny_experiment(str(tmp_path / "next"), model=model)
    run = open_run(config, rewards.Worker())
    equal(run.policy.params["adapters"], trained["adapters"])
    assert run.policy.identity != models.load(model.source).identity
    with pytest.raises(ValueError, match="bring their own rank"):
        dataclasses.replace(model, lora_rank=3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--policy", "x"], "has no policy 'x'; it has initial, mean, raw"),
        (["--policy", "raw", "--averaged"], "raw keeps no averaged parameters"),
        ([], "several trained policies, mean, raw: choose one with --policy"),
        (["--policy", "initial", "--averaged"], "untrained; drop --averaged"),
        (["--policy", "initial", "--checkpoint", "best"], "drop --checkpoint best"),
        (["--adapters", "apart"], "no adapters to a published model"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, made, tmp_path, capsys):
    target = tmp_path / "to"
    code, err = export(capsys, "--out", made[0], "--to", target, *args)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert not target.exists()


def test_folders_that_are_no_run_or_not_empty_are_refused(made, tmp_path, capsys):
    code, err = export(capsys, "--out", tmp_path / "none", "--to", tmp_path / "to")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no run" in err
    code, err = export(capsys, "--out", tmp_path / "none")
    assert code == 2
    assert "--to" in err
    code, err = export(capsys, "--out", made[0], "--to", made[0])
    assert (code, err.count("\n")) == (2, 1)
    assert "is not empty" in err
