"""What a reader of the pages has, in a folder: a clone, files of their own, a model."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import jax
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax import config, data, presets
from sgpo_jax.testing import tiny_experiment
from sgpo_jax.training import TrainConfig

from .pages import ROOT

CLONE = ("benchmarks", "docs", "examples", "launch", "notebooks", "pyproject.toml")
SUMS = [(a, b) for a in range(6) for b in range(6)]


def small(preset: config.Experiment) -> config.Experiment:
    """A preset with sizes of seconds; shapes of rows and responses are its own."""
    tiny = tiny_experiment(preset.out)
    published = preset.model.source
    return dataclasses.replace(
        preset,
        cache="",
        data=tiny.data,
        split=config.SplitConfig(),
        model=dataclasses.replace(preset.model, source="hf:FOLDER")
        if published
        else tiny.model,
        sft=dataclasses.replace(
            preset.sft,
            steps=min(preset.sft.steps, 60),
            batch_size=64,
            demonstrations=2000,
        ),
        sampler=dataclasses.replace(preset.sampler, lanes=8),
        pack=dataclasses.replace(preset.pack, rows=(8,)),
        profile=dataclasses.replace(preset.profile, chunk=16),
        train=TrainConfig(steps=2, rollouts=16, eval_every=2),
        eval=config.EvalConfig(samples=1, final_samples=1),
    )


def small_presets() -> dict[str, Callable[[], config.Experiment]]:
    """Every preset and the options' defaults, small."""

    def smaller(made: Callable[[], config.Experiment]):
        return lambda: small(made())

    # Without a name: what commands with --data begin from.
    every = {"": config.Experiment, **presets.PRESETS}
    return {name: smaller(made) for name, made in every.items()}


MAIN = "from sgpo_jax.cli import main\nmain()\n"
"""How processes that commands start begin, as they are written."""
SMALL_MAIN = f"from tests.docs import reader\nreader.shrink()\n{MAIN}"
"""The same with small presets."""


def shrink() -> None:
    """Make the presets of this process small."""
    presets.PRESETS.update(small_presets())  # type: ignore[attr-defined]


def settle(folder: pathlib.Path) -> None:
    """Put into a folder what commands of pages name in capitals, and files beside."""
    for name in CLONE:
        (folder / name).symlink_to(ROOT / name)
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "algorithms.py").write_text(
        "from sgpo_jax import methods\n\n\ndef mine():\n    return methods.Method()\n"
    )
    reward = (
        "def score(completion, reference):\n    return float(len(completion) % 2)\n"
    )
    (folder / "my_lab" / "rewards.py").write_text(reward)
    (folder / "my_reward.py").write_text(reward)
    rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a, b in SUMS]
    # Under other names too, which pages give.
    renamed = [{"question": row["prompt"], "solution": row["answer"]} for row in rows]
    both = [one | other for one, other in zip(rows, renamed, strict=True)]
    write_lines(folder / "questions.jsonl", both)
    pq.write_table(pa.Table.from_pylist(rows[:24]), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[24:]), folder / "test.parquet")
    (folder / "shards").mkdir()
    nested = [
        {"question": row["prompt"], "reward_model": {"ground_truth": row["answer"]}}
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(nested), folder / "shards" / "0.parquet")
    rates = [row | {"pass_rate": n % 5 / 4} for n, row in enumerate(rows)]
    write_lines(folder / "rates.jsonl", rates)
    # FOLDER is one of GSM8K and one of a model.
    (folder / "FOLDER").mkdir()
    worked = [
        {"question": f"What is {a} + {b}?", "answer": f"{a} + {b}\n#### {a + b}"}
        for a, b in SUMS
    ]
    write_lines(folder / "FOLDER" / "train.jsonl", worked[:24])
    write_lines(folder / "FOLDER" / "test.jsonl", worked[24:])
    publish(folder / "FOLDER")
    for name in ("FOLDER_OR_HUB_ID", "OWNER/NAME"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder / "FOLDER")
    publish_gguf(folder / "FILE")
    (folder / "DATA").mkdir()
    # In the alphabet of the small run, which is profiled.
    alike = data.load(f"{tiny_experiment('').data},seed=9", held_out=0, verbose=False)
    new = [{"prompt": one.prompt, "answer": one.reference} for one in alike[0]]
    write_lines(folder / "DATA" / "questions.jsonl", new)
    (folder / "LATER").symlink_to(folder / "F")  # where it is made


def write_lines(path: pathlib.Path, rows) -> None:
    """Write a JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


SHAPE = {
    "num_layers": 1,
    "embed_dim": 16,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 8,
    "mlp_dim": 16,
}


def publish(folder: pathlib.Path) -> None:
    """Write a small model as published ones are."""
    from sgpo_jax import models
    from sgpo_jax.models import pretrained, text_files
    from tests.models.test_pieces import byte_level

    tokenizer = byte_level(["<end>"])
    shape = models.DecoderConfig(vocab_size=tokenizer.vocab_size, **SHAPE)
    params = models.init(shape, key=jax.random.key(0))
    pretrained.save(folder, params, shape, dtype="float32")
    text_files.save_folder(tokenizer, folder)


def publish_gguf(path: pathlib.Path) -> None:
    """Write a small model as llama.cpp has it."""
    from sgpo_jax import models
    from tests.models import test_gguf, test_gguf_tokenizer

    tokens, merges = test_gguf_tokenizer.learn("gpt-2")
    pieces = [(token, 1) for token in tokens] + [("<end>", 3)]
    fields = {
        "tokenizer_pre": "gpt-2",
        "token_merges": [" ".join(merge) for merge in merges],
        "eos_token_id": len(tokens),
    }
    shape = models.DecoderConfig(vocab_size=len(pieces), qk_norm=True, **SHAPE)
    params = models.init(shape, key=jax.random.key(0))
    test_gguf.write(
        path,
        "qwen3",
        test_gguf.tensors("qwen3", params, shape),
        shape,
        lambda writer: test_gguf_tokenizer.add(writer, "gpt2", pieces, fields.items()),
    )
