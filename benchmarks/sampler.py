"""What the sampler costs, in CPU-seconds (steadier than wall time on a busy machine).

    python benchmarks/sampler.py small            # the default run's calls, some grids
    python benchmarks/sampler.py ragged           # decode steps against their bound
    python benchmarks/sampler.py memory           # groups of 8 and of 64
    python benchmarks/sampler.py distinct shared  # the shapes the peers were timed at

Prints one line of JSON per measurement. `distinct` is 64 prompts of 64 tokens with one
sample each, `shared` is 8 prompts of 512 tokens with 8 samples each; both sample 64
tokens from a random Llama of 8 layers, width 512, 8 heads, vocabulary 32000.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

from sgpo_jax import models, sampling

SMALL = models.DecoderConfig(vocab_size=50)
PEER = models.DecoderConfig(
    vocab_size=32_000,
    num_layers=8,
    embed_dim=512,
    num_heads=8,
    num_kv_heads=8,
    head_dim=64,
    mlp_dim=1408,
    tie_embeddings=False,
)
TINY = models.DecoderConfig(vocab_size=5, num_layers=1, embed_dim=16, mlp_dim=16)


def make_requests(rng, samples, lengths, vocab, budgets=None):
    return [
        sampling.Request(
            key=i,
            prompt=rng.integers(0, vocab, int(length)).tolist(),
            samples=int(n),
            budget=None if budgets is None else int(budgets[i]),
        )
        for i, (n, length) in enumerate(zip(samples, lengths, strict=True))
    ]


def measure(name, engine, params, requests, repeats=5):
    """Time calls after the first, which compiles."""
    began = time.process_time()
    engine.sample(params, requests, seed=0, step=0)
    first = time.process_time() - began
    cpu, stats = [], None
    for step in range(1, repeats + 1):
        began = time.process_time()
        stats = engine.sample(params, requests, seed=0, step=step).stats
        cpu.append(time.process_time() - began)
    seconds = statistics.median(cpu)
    line = {
        "case": name,
        "lanes": engine.lanes,
        "slots": engine.slots,
        "banks": engine.banks,
        "samples": sum(r.samples for r in requests),
        "tokens": stats.decode_tokens,
        "cpu_ms": round(1e3 * seconds, 1),
        "tokens_per_cpu_s": round(stats.decode_tokens / seconds),
        "steps": stats.decode_steps,
        "bound": -(-stats.decode_tokens // (engine.lanes * engine.slots)),
        "occupancy": round(stats.occupancy, 3),
        "prefill": f"{stats.prefill_tokens} of {stats.prefill_padded}",
        "first_call_cpu_s": round(first, 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(line), flush=True)


def small():
    """Groups of 1 to 16, single samples, and a profile; responses of about 5 tokens."""
    params = models.init(SMALL, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 17, 4096)
    groups = rng.integers(1, 17, 31)
    work = {
        "groups of 1 to 16": groups,
        "256 x 1": np.ones(256, int),
        "512 x 8": np.full(512, 8),
    }
    for lanes, slots, banks in ((64, 4, 2), (64, 4, 4), (32, 4, 4)):
        engine = sampling.Engine(
            SMALL,
            lanes=lanes,
            slots=slots,
            banks=banks,
            max_prompt=17,
            max_response=10,
            stop_tokens=tuple(range(10)),
        )
        for name, samples in work.items():
            requests = make_requests(rng, samples, lengths[: len(samples)], 50)
            measure(name, engine, params, requests)


def ragged():
    """Heavy-tailed lengths, mean a quarter of the longest; 64 slots."""
    params = models.init(TINY, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    longest = 256
    budgets = np.clip(np.round(rng.lognormal(3.7, 0.9, 2048)), 1, longest).astype(int)
    static = budgets.reshape(-1, 64).max(axis=1).sum()
    print(json.dumps({"mean": budgets.mean(), "longest": longest}), flush=True)
    print(json.dumps({"static batches of 64": int(static)}), flush=True)
    for slots, banks in ((1, 1), (4, 4)):
        engine = sampling.Engine(
            TINY,
            lanes=64 // slots,
            slots=slots,
            banks=banks,
            max_prompt=4,
            max_response=longest,
            stop_tokens=(),
        )
        requests = make_requests(rng, np.ones(2048), np.full(2048, 4), 5, budgets)
        # In the order given, then with the lengths known beforehand.
        plain = [
            sampling.Request(r.key, r.prompt, 1, budget=r.budget, expected_length=1.0)
            for r in requests
        ]
        measure("ragged, as they come", engine, params, plain, repeats=1)
        measure("ragged, longest first", engine, params, requests, repeats=1)


def group(samples):
    """512 samples in groups on 32 slots, with a cache of some size."""
    params = models.init(SMALL, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    count = 512 // samples
    engine = sampling.Engine(
        SMALL,
        lanes=8,
        slots=4,
        max_prompt=65,
        max_response=256,
        stop_tokens=(),
        staged=64,
    )
    requests = make_requests(
        rng, np.full(count, samples), np.full(count, 65), 50, np.full(count, 32)
    )
    measure(f"{count} groups of {samples}", engine, params, requests, repeats=1)


def memory():
    """Peak memory at two group sizes, a fresh process each."""
    for name in ("group8", "group64"):
        subprocess.run([sys.executable, __file__, name], check=True)


def peer(name, prompts, length, samples, **grid):
    params = models.init(PEER, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    engine = sampling.Engine(
        PEER,
        max_prompt=length,
        max_response=64,
        stop_tokens=(),
        staged=prompts,
        **grid,
    )
    counts = np.full(prompts, samples)
    requests = make_requests(rng, counts, np.full(prompts, length), 32_000)
    measure(name, engine, params, requests, repeats=1)


CASES = {
    "small": small,
    "ragged": ragged,
    "memory": memory,
    "distinct": lambda: peer(
        "distinct", 64, 64, 1, lanes=64, slots=1, banks=1, prefill_prompts=16
    ),
    "shared": lambda: peer(
        "shared", 8, 512, 8, lanes=8, slots=8, banks=1, prefill_prompts=2
    ),
}


if __name__ == "__main__":
    parts = {"group8": lambda: group(8), "group64": lambda: group(64)}
    for case in sys.argv[1:] or list(CASES):
        (CASES | parts)[case]()
