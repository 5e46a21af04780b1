"""Every parser of the package: what it reads, how that is mutated."""

import gzip
import json
from collections.abc import Mapping

from sgpo_jax import methods, training
from sgpo_jax.data import parsing

from . import data_files, harness, mutations, published, run_files, words
from .harness import Target

TARGETS: Mapping[str, Target] = {
    "data.jsonl": Target(
        lambda _: [data_files.lines()],
        mutations.of_json_lines,
        data_files.questions,
        file="rows.jsonl",
    ),
    "data.json": Target(
        lambda _: [json.dumps(data_files.ROWS).encode()],
        mutations.of_text_of_json,
        data_files.questions,
        file="rows.json",
    ),
    "data.parquet": Target(
        lambda _: [
            data_files.parquet(data_files.ROWS),
            data_files.parquet(data_files.ROWS[:3]),
        ],
        mutations.of_bytes,
        data_files.questions,
        file="rows.parquet",
    ),
    "data.jsonl.gz": Target(
        lambda _: [gzip.compress(data_files.lines(), mtime=0)],
        mutations.of_bytes,
        data_files.questions,
        file="rows.jsonl.gz",
    ),
    "data source": Target(
        lambda _: data_files.SOURCES,
        words.of_text,
        lambda text: repr(parsing.parse_source(text)),
        file="",
    ),
    "saved queries": Target(
        data_files.saved_seeds, mutations.of_json_lines, data_files.read_saved
    ),
    "config.json": Target(
        run_files.config_seeds,
        mutations.of_text_of_json,
        run_files.read_settings,
        sealed=True,
    ),
    "config.json, checksum right": Target(
        run_files.unsealed(run_files.config_seeds),
        mutations.of_text_of_json,
        run_files.read_settings,
    ),
    "plan.json": Target(
        run_files.plan_seeds, mutations.of_text_of_json, run_files.read_plan
    ),
    "profile.parquet": Target(
        lambda folder: [harness.read_back(folder / "profile", run_files.known().save)],
        mutations.of_bytes,
        run_files.profile_parsed,
        sealed=True,
    ),
    "completions.parquet": Target(
        run_files.completion_seeds,
        mutations.of_bytes,
        run_files.read_kept,
        sealed=True,
        file="completions.parquet",
    ),
    "metrics.jsonl": Target(
        run_files.metrics_seeds, run_files.whole_lines, run_files.read_log, sealed=True
    ),
    "metrics.jsonl, without checksums": Target(
        run_files.unsealed_metrics, mutations.of_json_lines, run_files.read_log
    ),
    "eval.json": Target(
        run_files.evaluation_seeds,
        mutations.of_text_of_json,
        lambda path: training.Evaluation.load(path).to_json(),
        sealed=True,
    ),
    "eval.json, checksum right": Target(
        run_files.unsealed(run_files.evaluation_seeds),
        mutations.of_text_of_json,
        lambda path: training.Evaluation.load(path).to_json(),
    ),
    "method.json": Target(
        lambda _: [
            json.dumps(methods.to_json(methods.named(name))).encode()
            for name in ("sgpo", "grpo", "dapo", "tracked", "flowrl")
        ],
        mutations.of_text_of_json,
        run_files.read_method,
    ),
    "checkpoint manifest": Target(
        run_files.manifest_seeds, mutations.of_text_of_json, run_files.read_manifest
    ),
    "model config.json": Target(
        published.model_file("config.json"),
        mutations.of_text_of_json,
        published.read_model,
    ),
    "tokenizer.json": Target(
        published.model_file("tokenizer.json"),
        mutations.of_text_of_json,
        published.in_model("tokenizer.json", published.read_tokenizer),
    ),
    "tokenizer_config.json": Target(
        published.model_file("tokenizer_config.json"),
        mutations.of_text_of_json,
        published.in_model("tokenizer_config.json", published.read_tokenizer),
    ),
    "safetensors": Target(
        published.model_file("model.safetensors"),
        mutations.of_bytes,
        published.read_tensors,
    ),
    "gguf": Target(published.gguf_seeds, mutations.of_bytes, published.read_gguf),
    "adapter_config.json": Target(
        published.adapter_seeds, mutations.of_text_of_json, published.read_adapters
    ),
    "server answer": Target(
        lambda _: [json.dumps(x).encode() for x in (words.ANSWER, words.LLAMA)],
        mutations.of_text_of_json,
        words.read_answer,
    ),
    "reward": Target(lambda _: words.SPECS, words.of_text, words.read_spec, file=""),
    "command line": Target(
        lambda _: [words.OPTIONS],
        lambda words, chance, _: mutations.of_words(words, chance),
        words.read_options,
        file="",
    ),
}
