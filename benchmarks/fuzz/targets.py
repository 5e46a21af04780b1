"""The parsers of the package, with sound inputs made by the package itself."""

import contextlib
import functools
import gzip
import io
import json
import pathlib
import random
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import sgpo_jax
from sgpo_jax import artefacts, data, methods, models, planning, testing, training
from sgpo_jax.commands import options
from sgpo_jax.config import Experiment
from sgpo_jax.data import parsing, saved
from sgpo_jax.ledger import Entry
from sgpo_jax.models import pretrained, text_files
from sgpo_jax.models.pretrained import adapter_config, adapters, gguf, read, tensors
from sgpo_jax.pipeline import folder as folders
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import Curve
from sgpo_jax.rewards import names
from sgpo_jax.sampling import completions
from sgpo_jax.training import manifest

from . import mutations
from .harness import Target

ROWS = [
    {"prompt": f"What is {n}+{n}?", "answer": str(2 * n), "level": n % 3}
    for n in range(12)
]
QUIET = {"held_out": 0, "verbose": False}


def known() -> Profile:
    """A profile of twelve queries."""
    count = np.arange(12)
    return Profile(
        ids=tuple(f"q{n}" for n in range(12)),
        samples=np.full(12, 8),
        successes=count % 9,
        tokens=100 + count,
        seconds=count / 10,
        source={"policy": "abc", "seed": 0, "solved_at": 1.0},
        cost={"profiling": {"flops": 1e9, "seconds": 3.5, "rollouts": 96}},
    )


def lines() -> bytes:
    """Data as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read_back(path: pathlib.Path, write: Any) -> bytes:
    """Return what a function writes to a path."""
    write(path)
    content = path.read_bytes()
    path.unlink()
    return content


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as a Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def questions(path: pathlib.Path) -> Any:
    """Return the questions of a data file."""
    found, held = data.load(str(path), **QUIET)
    return [(q.prompt, q.reference) for q in (*found, *held)]


def config_seeds(folder: pathlib.Path) -> list[bytes]:
    """`config.json` of the default and of the tiny experiment."""
    made = [Experiment(), testing.tiny_experiment("runs/tiny")]
    path = folder / "config.json"
    write = artefacts.write_json
    return [read_back(path, lambda p, c=c: write(p, folders.flatten(c))) for c in made]


def read_settings(path: pathlib.Path) -> Any:
    """Return the settings of `config.json`, as a later command reads them."""
    flat = folders.read_json(path) | {"out": "runs/x"}
    return folders.flatten(folders.unflatten(Experiment(), flat))


def unsealed(seeds: Any) -> Any:
    """Return seeds without their checksum: damage that keeps it right."""

    def made(folder: pathlib.Path) -> list[bytes]:
        found = []
        for text in seeds(folder):
            content = json.loads(text)
            content.pop(artefacts.CHECKSUM)
            found.append(json.dumps(content).encode())
        return found

    return made


def plan_seeds(folder: pathlib.Path) -> list[bytes]:
    """A plan as sGPO makes it, and one with its prediction."""
    made = [planning.make_plan(known()), sgpo_jax.plan(known())]
    return [read_back(folder / "plan.json", plan.save) for plan in made]


def read_plan(path: pathlib.Path) -> Any:
    """Return a plan, its ids checked."""
    plan = planning.Plan.load(path, ids=known().ids)
    return [plan.hash, plan.rollouts, str(plan)]


def profile_parsed(path: pathlib.Path) -> Any:
    """Return all columns of a profile, its source and its cost."""
    found = Profile.load(path)
    return [found.to_arrow().to_pylist(), found.source, found.cost]


def metrics_seeds(folder: pathlib.Path) -> list[bytes]:
    """`metrics.jsonl` of seven steps with three evaluations."""

    def write(path: pathlib.Path) -> None:
        writer = training.MetricsWriter(path.parent)
        for step in range(7):
            line = {"reward": step / 7, "loss": -0.1, "rollouts": 32, "phase": "a"}
            if step % 3 == 0:
                line |= {"eval/success": 0.2, "eval/low": 0.1, "eval/high": 0.3}
                line |= {"total_flops": 1e9 * step, "total_flops_repeated": 2e9 * step}
                line |= {"ledger": {"training": {"flops": 1.5e9, "rollouts": 7}}}
            writer.write(step, line)
        writer.close()

    found = read_back(folder / "metrics.jsonl", write)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    return [found]


def read_log(path: pathlib.Path) -> Any:
    """Return metrics, and what the report makes of them."""
    found = training.read_metrics(path)
    if len(found) < 7:  # as `MetricsWriter.rewind` and the report do
        raise ValueError(f"{path} holds {len(found)} lines, the checkpoint counts 7")
    curve = Curve.from_metrics(found)
    return [found, curve.steps.tolist(), curve.success.tolist()]


def unsealed_metrics(folder: pathlib.Path) -> list[bytes]:
    """Metrics of lines without checksums."""
    texts = [json.loads(line) for line in metrics_seeds(folder)[0].splitlines()]
    for line in texts:
        line.pop(artefacts.LINE_CHECKSUM)
    return ["".join(json.dumps(line) + "\n" for line in texts).encode()]


def whole_lines(lines: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate JSON lines, but leave a last line that was cut by a kill alone."""
    found = mutations.of_json_lines(lines, chance, others)
    # The last line without its break is what a kill leaves: dropped by design.
    return found if found.endswith(b"\n") else found + b"\n"


def evaluation_seeds(folder: pathlib.Path) -> list[bytes]:
    """A final evaluation."""
    made = training.Evaluation(
        mean=0.5,
        low=0.4,
        high=0.6,
        greedy=0.55,
        unscorable=0.0,
        reward=0.5,
        cost=Entry(flops=1e9, rollouts=64, tokens=700, seconds=1.5),
    )
    path = folder / "eval.json"
    return [read_back(path, lambda p: artefacts.write_json(p, made.to_json()))]


@functools.cache
def policy() -> models.Policy:
    """A small policy from nothing."""
    return models.load("tiny:layers=1,width=32")


def model_folder(folder: pathlib.Path) -> pathlib.Path:
    """A published model's folder."""
    place = folder / "model"
    if not place.exists():
        models.save(policy(), place)
    return place


def model_file(name: str) -> Any:
    """Return the seeds of one file of a published model."""
    return lambda folder: [(model_folder(folder) / name).read_bytes()]


def in_model(name: str, parse: Any) -> Any:
    """Return a parser of a folder in which one file is the input."""

    def parsed(path: pathlib.Path) -> Any:
        place = model_folder(path.parent)
        target, kept = place / name, (place / name).read_bytes()
        try:
            target.write_bytes(path.read_bytes())
            return parse(place)
        finally:
            target.write_bytes(kept)

    return parsed


def read_tokenizer(place: pathlib.Path) -> Any:
    """Return what a tokenizer makes of a text."""
    found = text_files.read_folder(place)
    return [found.vocab_size, found.stop_ids, found.encode("12+7 = x")]


def read_tensors(path: pathlib.Path) -> Any:
    """Return shapes of a safetensors file, and rows of its first tensors."""
    found = tensors.SafeTensors(tensors.read_header(path), path)
    some = sorted(found.shapes)[:4]
    rows = [found.read(n, slice(0, 1)).size for n in some if found.shapes[n]]
    return [{n: list(s) for n, s in found.shapes.items()}, rows]


def read_model(path: pathlib.Path) -> Any:
    """Return the decoder of a model's `config.json`."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(content, dict):
        raise ValueError("no object")
    return repr(read.read_config(content))


def gguf_seeds(folder: pathlib.Path) -> list[bytes]:
    """A GGUF file of a tiny decoder with a tokenizer."""
    from tests.models import test_gguf

    path = folder / "model.gguf"
    params = test_gguf.draw(test_gguf.CONFIGS["qwen2"])
    test_gguf.write(path, "qwen2", test_gguf.tensors("qwen2", params))
    return [path.read_bytes()]


def read_gguf(path: pathlib.Path) -> Any:
    """Return configuration and shapes of a GGUF file, and a row of each tensor."""
    found = gguf.GgufTensors(path)
    config = read.read_config(found.config)
    checked = pretrained.load.check(found, config)
    return [repr(config), {n: list(s) for n, s in checked.shapes.items()}]


def adapter_seeds(folder: pathlib.Path) -> list[bytes]:
    """`adapter_config.json` as PEFT writes it."""
    lora = models.Lora(rank=4)
    return [adapter_config.describe(lora, policy().config, base="x").encode()]


def read_adapters(path: pathlib.Path) -> Any:
    """Return rank and scales of adapters."""
    shutil.copy(path, path.parent / adapter_config.FILE)
    return repr(adapters.read_lora(path.parent, policy().config))


ANSWER = {
    "id": "cmpl-1",
    "choices": [
        {
            "index": 0,
            "text": "12",
            "finish_reason": "stop",
            "stop_reason": 0,
            "token_ids": [2, 3, 0],
            "logprobs": {
                "tokens": ["token_id:2", "token_id:3", "token_id:0"],
                "token_logprobs": [-0.5, -0.25, -1.5],
            },
        }
    ],
    "usage": {"prompt_tokens": 4, "completion_tokens": 3},
}
LLAMA = {
    "choices": [
        {
            "text": "12",
            "finish_reason": "length",
            "logprobs": {
                "content": [
                    {"id": 2, "token": "1", "logprob": -0.5},
                    {"id": 3, "token": "2", "logprob": -0.25},
                ]
            },
        }
    ],
}


def read_answer(path: pathlib.Path) -> Any:
    """Return what the client makes of a server's answer; nothing impossible in it."""
    from sgpo_jax.sampling.exchange import RefusedError

    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RefusedError("no JSON", str(error)[:100]) from None
    if not isinstance(content, dict):
        raise RefusedError("no completion")
    tokenizer = models.CharTokenizer("0123456789")
    found = completions.parse(content, tokenizer, most_tokens=4)
    assert all(0 <= token < tokenizer.vocab_size for token in found.tokens)
    assert all(not value > 0 for value in found.log_prob)
    assert len(found.log_prob) in (0, len(found.tokens))
    return [list(found.tokens), found.text]


SPECS = (
    "exact",
    "numeric:tolerance=1e-3,percent=true,unit=km",
    "choice:letters=ABCD",
    "format:[0-9]+",
    "0.8*gsm8k + 0.2*format:a+b",
    "sgpo_jax.rewards.verifiers:exact",
    "trl:sgpo_jax.rewards.verifiers:exact",
)
SOURCES = (
    "procedural:families=bits+reversal,levels=1+2+3,count=12",
    "questions.jsonl,prompt=question,answer=solution,verifier=math",
    "gsm8k:/nonexistent",
    "tfds:gsm8k/train,prompt=question",
)


def of_text(text: str, chance: random.Random, others: Sequence[str]) -> str:
    """Mutate text as bytes."""
    made = mutations.of_bytes(text.encode(), chance, [o.encode() for o in others])
    return made.decode(errors="replace")


def read_spec(text: str) -> Any:
    """Return the terms of a verifier by name, each found."""
    if any(word in text for word in ("command", "import")):
        raise ValueError("not run here: a command line of anybody's")
    return [repr(names.find(part)) for _, part in names.terms(text)]


OPTIONS = [
    *("--out", "runs/fuzz", "--seed", "3", "--train.steps", "7"),
    *("--sampler.temperature", "0.7", "--methods.sgpo.optimizer.learning-rate", "1e-3"),
    *(
        "--pack.rows",
        "4",
        "6",
        "--reward.deadline",
        "5",
        "--methods.sgpo.averaging",
        "0.1",
    ),
    *("--split.held-out", "0.25", "--data", "procedural:families=bits"),
]


def read_options(words: list[str]) -> Any:
    """Return the experiment of a command line."""
    # Printing help ends a process; that is no fault.
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            return repr(options.experiment("run", list(words)))
        except SystemExit as error:
            if error.code:
                raise
            return "help"


def of_method(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate the JSON of a method."""
    return mutations.of_text_of_json(data, chance, others)


def read_method(path: pathlib.Path) -> Any:
    """Return a method of its canonical JSON."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {str(error)[:100]}") from None
    return repr(methods.from_json(content))


def manifest_seeds(folder: pathlib.Path) -> list[bytes]:
    """The manifest of a checkpoint's step."""
    step = folder / "step"
    (step / "arrays").mkdir(parents=True, exist_ok=True)
    (step / "arrays" / "data").write_bytes(b"0123456789")
    manifest.write(step)
    return [(step / manifest.NAME).read_bytes()]


def read_manifest(path: pathlib.Path) -> Any:
    """Return that a step is sound; refused is what has a fault."""
    step = path.parent / "step"
    (step / manifest.NAME).write_bytes(path.read_bytes())
    fault = manifest.fault(step)
    if fault is not None:
        raise ValueError(fault)
    return "sound"


def saved_seeds(folder: pathlib.Path) -> list[bytes]:
    """Queries as a saved trainer writes them."""
    queries = testing.tiny_queries(8)
    path = folder / "queries.jsonl"
    return [read_back(path, lambda p: saved.save_queries(p, queries[:6], queries[6:]))]


def read_saved(path: pathlib.Path) -> Any:
    """Return the queries of a saved trainer."""
    found = saved.Saved(path=str(path)).load()
    return [repr(found.queries), repr(found.held_out)]


TARGETS: Mapping[str, Target] = {
    "data.jsonl": Target(
        lambda _: [lines()], mutations.of_json_lines, questions, file="rows.jsonl"
    ),
    "data.json": Target(
        lambda _: [json.dumps(ROWS).encode()],
        mutations.of_text_of_json,
        questions,
        file="rows.json",
    ),
    "data.parquet": Target(
        lambda _: [parquet(ROWS), parquet(ROWS[:3])],
        mutations.of_bytes,
        questions,
        file="rows.parquet",
    ),
    "data.jsonl.gz": Target(
        lambda _: [gzip.compress(lines(), mtime=0)],
        mutations.of_bytes,
        questions,
        file="rows.jsonl.gz",
    ),
    "data source": Target(
        lambda _: SOURCES,
        of_text,
        lambda text: repr(parsing.parse_source(text)),
        file="",
    ),
    "saved queries": Target(saved_seeds, mutations.of_json_lines, read_saved),
    "config.json": Target(
        config_seeds, mutations.of_text_of_json, read_settings, sealed=True
    ),
    "config.json, checksum right": Target(
        unsealed(config_seeds), mutations.of_text_of_json, read_settings
    ),
    "plan.json": Target(plan_seeds, mutations.of_text_of_json, read_plan),
    "profile.parquet": Target(
        lambda folder: [read_back(folder / "profile", known().save)],
        mutations.of_bytes,
        profile_parsed,
        sealed=True,
    ),
    "metrics.jsonl": Target(metrics_seeds, whole_lines, read_log, sealed=True),
    "metrics.jsonl, without checksums": Target(
        unsealed_metrics, mutations.of_json_lines, read_log
    ),
    "eval.json": Target(
        evaluation_seeds,
        mutations.of_text_of_json,
        lambda path: training.Evaluation.load(path).to_json(),
        sealed=True,
    ),
    "eval.json, checksum right": Target(
        unsealed(evaluation_seeds),
        mutations.of_text_of_json,
        lambda path: training.Evaluation.load(path).to_json(),
    ),
    "method.json": Target(
        lambda _: [
            json.dumps(methods.to_json(methods.named(name))).encode()
            for name in ("sgpo", "grpo", "dapo", "tracked", "flowrl")
        ],
        of_method,
        read_method,
    ),
    "checkpoint manifest": Target(
        manifest_seeds, mutations.of_text_of_json, read_manifest
    ),
    "model config.json": Target(
        model_file("config.json"), mutations.of_text_of_json, read_model
    ),
    "tokenizer.json": Target(
        model_file("tokenizer.json"),
        mutations.of_text_of_json,
        in_model("tokenizer.json", read_tokenizer),
    ),
    "tokenizer_config.json": Target(
        model_file("tokenizer_config.json"),
        mutations.of_text_of_json,
        in_model("tokenizer_config.json", read_tokenizer),
    ),
    "safetensors": Target(
        model_file("model.safetensors"), mutations.of_bytes, read_tensors
    ),
    "gguf": Target(gguf_seeds, mutations.of_bytes, read_gguf),
    "adapter_config.json": Target(
        adapter_seeds, mutations.of_text_of_json, read_adapters
    ),
    "server answer": Target(
        lambda _: [json.dumps(x).encode() for x in (ANSWER, LLAMA)],
        mutations.of_text_of_json,
        read_answer,
    ),
    "reward": Target(lambda _: SPECS, of_text, read_spec, file=""),
    "command line": Target(
        lambda _: [OPTIONS],
        lambda words, chance, _: mutations.of_words(words, chance),
        read_options,
        file="",
    ),
}
