"""A whole model on CPU: shared against repeated prefixes, forward and backward.

    python benchmarks/attention_model.py [--shapes 512x4 2048x4] [--peer PYTHON SCRIPT]

Decoder of the Qwen2 shape (4 layers, hidden 512, 8 heads, vocabulary 32,000, float32),
one prompt of P tokens, G responses of 128. Logits are made at the positions that
predict response tokens only. Every run has a process of its own, so that its peak
memory is its own. CPU-seconds are compared, since wall time depends on other load, and
everything runs on one core, so that no thread counts as work while it waits.

`--peer` runs a script that measures the `prefix-grouper` package on the same shapes,
with `--prefix P --resp 128 --group G --threads 1`, and prints one line of JSON.

Writes benchmarks/results/attention_model.md.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import models
from sgpo_jax.kernels import shared_prefix_attention
from sgpo_jax.kernels.shared_prefix_attention import from_lengths

RESPONSE = 128
CONFIG = models.DecoderConfig(
    vocab_size=32_000,
    num_layers=4,
    embed_dim=512,
    num_heads=8,
    num_kv_heads=8,
    head_dim=64,
    mlp_dim=1408,
    tie_embeddings=False,
)


def loss(params, tokens, layout, advantage):
    """Surrogate with a ratio of one, whose gradient is that of advantage * log p."""

    def attend(layer, q, k, v, carry):
        del layer
        return shared_prefix_attention(q, k, v, layout, implementation="xla"), carry

    hidden, _ = models.apply(params, CONFIG, tokens, layout.position, attend)
    rows, index = advantage["where"]
    source = hidden[rows, layout.parent[rows, index]]
    logits = source @ models.unembedding(params, CONFIG)
    chosen = jnp.take_along_axis(logits, tokens[rows, index][:, None], 1)[:, 0]
    log_p = chosen - jax.nn.logsumexp(logits, axis=1)
    return -jnp.mean(jnp.exp(log_p - jax.lax.stop_gradient(log_p)) * advantage["value"])


def batch(mode, prefix, group):
    """Tokens, layout and response positions, one row per response if repeated."""
    generator = np.random.default_rng(0)
    prompt = generator.integers(3, CONFIG.vocab_size, prefix)
    responses = generator.integers(3, CONFIG.vocab_size, (group, RESPONSE))
    if mode == "shared":
        tokens = np.concatenate([prompt, responses.ravel()])[None]
        lengths = [[(prefix, [RESPONSE] * group)]]
        rows = np.zeros(group * RESPONSE, np.int32)
        index = prefix + np.arange(group * RESPONSE)
    else:
        tokens = np.concatenate([np.tile(prompt, (group, 1)), responses], axis=1)
        lengths = [[(prefix, [RESPONSE])]] * group
        rows, index = np.divmod(np.arange(group * RESPONSE), RESPONSE)
        index = prefix + index
    layout = from_lengths(lengths, length=tokens.shape[1])
    value = np.repeat(generator.normal(size=group), RESPONSE).astype(np.float32)
    return tokens.astype(np.int32), layout, {"where": (rows, index), "value": value}


def measure(mode, prefix, group, repeats):
    """CPU-seconds of the median run, and peak memory in MiB, of this process."""
    params = models.init(CONFIG, key=jax.random.key(0))
    step = jax.jit(jax.value_and_grad(loss))
    data = batch(mode, prefix, group)
    jax.block_until_ready(step(params, *data))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(step(params, *data))
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": float(np.median(times)), "peak_mib": peak}


def flops(prefix, sequences, response):
    """Multiplications of the layers on a prefix once and responses, forward."""
    tokens = prefix + sequences * response
    d, f = CONFIG.embed_dim, CONFIG.mlp_dim
    pairs = prefix**2 / 2 + sequences * (response * prefix + response**2 / 2)
    per_layer = tokens * (4 * d * d + 3 * d * f) + 2 * pairs * d
    head = sequences * response * d * CONFIG.vocab_size
    return CONFIG.num_layers * per_layer + head


def limit(prefix, group):
    """Speed-up that the count of multiplications allows."""
    return group * flops(prefix, 1, RESPONSE) / flops(prefix, group, RESPONSE)


def in_process(*command):
    root = str(pathlib.Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(shapes, peer, repeats):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # inherited by every run
    header = "P | G | repeated CPU-s | shared CPU-s | speed-up | limit | share"
    theirs = "repeated CPU-s | prefix-grouper CPU-s | speed-up | MiB | MiB"
    lines = [
        "# A whole model on CPU: shared against repeated prefixes",
        "",
        "Qwen2 shape: 4 layers, hidden 512, 8 heads, vocabulary 32,000, float32;",
        "one prompt, R 128, forward and backward. Median CPU-seconds of",
        f"{repeats}, after one to compile or warm up, all on one core.",
        "`python benchmarks/attention_model.py`.",
        "The repeated baseline is the same model on one row per response, with the",
        "same attention, which leaves out what lies above the diagonal. Limit: ratio",
        "of multiplications. MiB: peak memory of the process, repeated and shared. The",
        "last five columns are the package prefix-grouper on torch, with its own",
        "baseline, in the same run.",
        "",
        f"| {header} | MiB | MiB | {theirs} |",
        "|" + "---|" * 14,
    ]
    for shape in shapes:
        prefix, group = map(int, shape.split("x"))
        ours = {
            mode: in_process(
                sys.executable, __file__, "--measure", mode, shape, str(repeats)
            )
            for mode in ("repeated", "shared")
        }
        ratio = ours["repeated"]["cpu_s"] / ours["shared"]["cpu_s"]
        bound = limit(prefix, group)
        row = [
            prefix,
            group,
            f"{ours['repeated']['cpu_s']:.1f}",
            f"{ours['shared']['cpu_s']:.1f}",
            f"{ratio:.2f}",
            f"{bound:.2f}",
            f"{ratio / bound:.0%}",
            *(f"{ours[mode]['peak_mib']:.0f}" for mode in ("repeated", "shared")),
        ]
        if peer:
            sizes = f"--prefix {prefix} --resp {RESPONSE} --group {group}".split()
            how = f"--reps {repeats} --check 0 --threads 1".split()
            both = in_process(*peer, *sizes, *how)
            seconds = [both[mode]["cpu_s_median"] for mode in ("repeat", "pg")]
            row += [*(f"{s:.1f}" for s in seconds), f"{seconds[0] / seconds[1]:.2f}"]
            row += [both[mode]["rss_peak_mib"] for mode in ("repeat", "pg")]
        else:
            row += [""] * 5
        lines.append("| " + " | ".join(map(str, row)) + " |")
        print(lines[-1], flush=True)
        path = pathlib.Path(__file__).parent / "results" / "attention_model.md"
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["512x4", "2048x4"])
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCRIPT"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        mode, shape, repeats = options.measure
        print(json.dumps(measure(mode, *map(int, shape.split("x")), int(repeats))))
    else:
        main(options.shapes, options.peer, options.repeats)
