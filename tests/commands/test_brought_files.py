"""Files as verl, TRL and the hub's GSM8K have them: loaded, paid, and trained on."""

import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_jax import cli, data, models, testing
from sgpo_jax.models import pretrained, text_files
from sgpo_jax.models.text import TextTokenizer
from sgpo_jax.profiling import Profile, read_completions
from sgpo_jax.rewards import Worker
from sgpo_jax.trainer import Trainer

from ..data.conftest import gsm8k_folder

CASES = pathlib.Path(__file__).parents[1] / "data" / "cases"
REAL = gsm8k_folder()
BROUGHT = {
    "verl": f"{CASES}/verl.parquet",
    "trl": f"{CASES}/trl_conv.parquet,answer=solution",
    "hub": f"gsm8k:{CASES}/gsm8k_hf",
}
if REAL is not None:
    BROUGHT["gsm8k"] = f"gsm8k:{REAL}"


@pytest.mark.parametrize("name", BROUGHT)
def test_answers_of_brought_files_are_worth_one(name):
    train, held_out = data.load(BROUGHT[name], held_out=4, verbose=False)
    asked = [*train[:20], *held_out[:4]]
    with Worker(workers=1) as worker:
        worker.check(asked)
        right = worker.score([query.reference for query in asked], asked)
        wrong = worker.score(["no idea"] * len(asked), asked)
    np.testing.assert_array_equal(right, np.ones(len(asked)))
    np.testing.assert_array_equal(wrong, np.zeros(len(asked)))


# A reward as users of TRL have it: conversational, one call for the whole batch.
DIGITS = """
def digits(prompts, completions, solution, **kwargs):
    said = [completion[0]["content"] for completion in completions]
    assert all(turns[0]["role"] == "system" for turns in prompts)
    return [
        sum(c in s for c in text) / max(len(text), 1)
        for text, s in zip(said, solution, strict=True)
    ]
"""
TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}>"
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A published policy of seconds: it can say digits and read nothing else."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["<end>", "?", *"0123456789"])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    core.decoder = tokenizers.decoders.Fuse()
    core.add_special_tokens(["<end>"])
    tokenizer = TextTokenizer(core, (0,), TEMPLATE, {"eos_token": "<end>"})
    config = dataclasses.replace(testing.TINY, vocab_size=tokenizer.vocab_size)
    folder = tmp_path_factory.mktemp("policy")
    params = models.init(config, key=jax.random.key(0))
    pretrained.save(folder, params, config, dtype="float32")
    text_files.save_folder(tokenizer, folder)
    return folder


@dataclasses.dataclass(frozen=True)
class Brought:
    """A file, the answers it has, and what a completion is worth by other code."""

    source: str
    answers: dict[str, str]
    reward: str = ""

    def worth(self, completion, reference):
        if self.reward:
            hits = sum(c in reference for c in completion)
            return hits / max(len(completion), 1)
        numbers = re.findall(r"\d+", completion)
        return float(bool(numbers) and int(numbers[-1]) == int(reference))


def _verl_row(number):
    question = f"{number}+3 modulo 10? Answer after ####."
    return {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": f"{(number + 3) % 10}"},
        "extra_info": {"split": "train", "index": number, "answer": "so ####"},
    }


def _brought(name, folder):
    if name == "verl":
        rows = [_verl_row(n) for n in range(24)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
        answers = {
            row["prompt"][0]["content"]: row["reward_model"]["ground_truth"]
            for row in rows
        }
        return Brought(str(folder / "train.parquet"), answers)
    if name == "trl":
        rows = pq.read_table(CASES / "trl_conv.parquet").to_pylist()
        answers = {row["prompt"][-1]["content"]: row["solution"] for row in rows}
        path = folder / "my_reward.py"
        path.write_text(DIGITS)
        source = f"{CASES}/trl_conv.parquet,answer=solution"
        return Brought(source, answers, reward=f"{path}:digits")
    if REAL is None:
        pytest.skip("GSM8K is absent; set SGPO_GSM8K")
    lines = [
        json.loads(line)
        for name in ("train.jsonl", "test.jsonl")
        for line in (REAL / name).read_text().splitlines()
    ]
    answers = {
        row["question"]: row["answer"].rpartition("#### ")[2].replace(",", "")
        for row in lines
    }
    return Brought(f"gsm8k:{REAL}", answers)


def _check_completions(rows, brought):
    """Each is of a question of the file, and paid what it is worth."""
    assert {row["part"] for row in rows} == {"train", "evaluation"}
    for row in rows:
        assert brought.answers[row["prompt"]] == row["reference"]
        worth = brought.worth(row["completion"], row["reference"])
        assert row["reward"] == pytest.approx(worth)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["verl", "trl", "gsm8k"])
def test_brought_files_from_the_command_line(name, policy, tmp_path, capsys):
    brought = _brought(name, tmp_path)
    verifier = f",verifier={brought.reward}" if brought.reward else ""
    out = tmp_path / "run"
    command = f"""run --data {brought.source}{verifier} --out {out} --cache ""
        --model.source hf:{policy} --methods grpo_token tracked --train.steps 2
        --train.rollouts 64 --train.eval-every 1 --sampler.max-response 2
        --split.max-train 8 --split.max-held-out 4 --log.completions 64
        --profile.samples 4 --eval.samples 2 --eval.final-samples 2"""
    arguments = ["" if word == '""' else word for word in command.split()]
    assert cli.run_command(arguments) == 0, capsys.readouterr().err
    for method in ("grpo_token", "tracked"):
        rows = read_completions(out / "methods" / method / "completions").to_pylist()
        _check_completions(rows, brought)
        assert {row["step"] for row in rows} == {0, 1, 2}
    if name != "gsm8k":
        assert len({row["reward"] for row in rows}) > 1
    report = (out / "report.md").read_text()
    # The level of a question of GSM8K is its number of steps; other files have none.
    heading = r"level \d.*\| mean" if name == "gsm8k" else "success"
    assert re.search(rf"\| family \| questions \| {heading} \| reward \|", report)
    assert "a reward of at least 1" in " ".join(report.split())


@pytest.mark.slow
def test_a_profile_can_cover_every_question(policy, tmp_path, capsys):
    brought = _brought("verl", tmp_path)
    out = tmp_path / "run"
    command = f"""profile --data {brought.source} --out {out} --model.source hf:{policy}
        --split.held-out 0 --split.demonstrated 0 --profile.samples 2
        --sampler.max-response 2"""
    assert cli.run_command([*command.split(), "--cache", ""]) == 0
    assert "0 held-out questions" in " ".join(capsys.readouterr().err.split())
    known = Profile.load(out / "profile.parquet")
    assert len(known.ids) == len(brought.answers) == 24
    assert known.samples.tolist() == [2] * 24


@pytest.mark.slow
@pytest.mark.parametrize("name", ["verl", "trl", "gsm8k"])
def test_brought_files_from_python(name, policy, tmp_path):
    brought = _brought(name, tmp_path)
    reward = None
    if brought.reward:
        scope = {}
        exec(DIGITS, scope)
        reward = scope["digits"]
    train, held_out = data.load(brought.source, held_out=4, verbose=False)
    with Trainer(
        models.load(f"hf:{policy}"),
        "grpo_token",
        train[:8],
        held_out=held_out[:4],
        reward=reward,
        rollouts=32,
        max_response=2,
        eval_every=1,
        eval_samples=2,
        completions=32,
        show=False,
    ) as trainer:
        assert [line["step"] for line in trainer.steps(2)] == [1, 2]
        _check_completions(trainer.completions.to_pylist(), brought)
        found = trainer.evaluate(samples=2)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.unscorable == 0
