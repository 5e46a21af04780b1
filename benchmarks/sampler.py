"""What the sampler costs, in CPU-seconds (steadier than wall time on a busy machine).

    python benchmarks/sampler.py small            # the default run's calls, some grids
    python benchmarks/sampler.py ragged orders    # decode steps against their bound
    python benchmarks/sampler.py memory           # groups of 8 and of 64
    taskset -c 0 python benchmarks/sampler.py trace  # where a step of `distinct` goes
    python benchmarks/sampler.py distinct shared  # the shapes the peers were timed at

Prints one line of JSON per measurement. `distinct` is 64 prompts of 64 tokens with one
sample each, `shared` is 8 prompts of 512 tokens with 8 samples each; both sample 64
tokens from a random Llama of 8 layers, width 512, 8 heads, vocabulary 32000.
"""

import collections
import dataclasses
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
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
        "prefixes_per_lane": engine.prefixes_per_lane,
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
    for lanes, slots, prefixes_per_lane in ((64, 4, 2), (64, 4, 4), (32, 4, 4)):
        engine = sampling.Engine(
            SMALL,
            lanes=lanes,
            slots=slots,
            prefixes_per_lane=prefixes_per_lane,
            max_prompt=17,
            max_response=10,
            stop_tokens=tuple(range(10)),
        )
        for name, samples in work.items():
            requests = make_requests(rng, samples, lengths[: len(samples)], 50)
            measure(name, engine, params, requests)


def steps(name, params, requests, order, *, config=TINY, slots=4, longest=256, stop=()):
    """Print the decode steps of one call on 64 slots beside their bound."""
    engine = sampling.Engine(
        config,
        lanes=64 // slots,
        slots=slots,
        max_prompt=max(len(r.prompt) for r in requests),
        max_response=longest,
        stop_tokens=stop,
        order=order,
        steps=16,
    )
    ended = [(0, 0)]
    rollouts = engine.sample(
        params,
        requests,
        seed=0,
        step=0,
        on_progress=lambda now: ended.append((now.ended, now.tokens)),
    )
    stats = rollouts.stats
    half = next(i for i, (n, _) in enumerate(ended) if 2 * n >= len(rollouts))
    bound = stats.decode_tokens / 64
    line = {
        "case": name,
        "grid": f"{64 // slots} x {slots}",
        "order": repr(order),
        "tokens": stats.decode_tokens,
        "bound": round(bound),
        "steps": stats.decode_steps,
        "over the bound": f"{stats.decode_steps / bound - 1:.1%}",
        "half ended by step": min(16 * half, stats.decode_steps),
    }
    print(json.dumps(line), flush=True)
    return rollouts


def static(name, lengths):
    """Print the steps of batches of 64 that each last as long as their longest."""
    padded = np.resize(lengths, -(-len(lengths) // 64) * 64).reshape(-1, 64)
    bound = lengths.sum() / 64
    line = {
        "case": name,
        "order": "static batches of 64",
        "mean": round(float(lengths.mean()), 1),
        "longest": int(lengths.max()),
        "steps": int(padded.max(axis=1).sum()),
        "over the bound": f"{padded.max(axis=1).sum() / bound - 1:.1%}",
    }
    print(json.dumps(line), flush=True)


def ragged():
    """Heavy-tailed lengths, mean a quarter of the longest, that nobody can foresee."""
    params = models.init(TINY, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    budgets = np.clip(np.round(rng.lognormal(3.7, 0.9, 2048)), 1, 256).astype(int)
    requests = make_requests(rng, np.ones(2048), np.full(2048, 4), 5, budgets)
    static("ragged", budgets)
    for slots in (1, 4):
        orders = (sampling.AsGiven(), sampling.LongestFirst(), sampling.ShortestFirst())
        for order in orders:
            steps("ragged", params, requests, order, slots=slots)


def chain(means):
    """Return a decoder of which token i + 1 repeats for `means[i]` steps, then 0.

    Its layers add nothing, so that what follows depends on the last token alone, and
    lengths are geometric.
    """
    size = len(means) + 1
    config = models.DecoderConfig(
        vocab_size=size, num_layers=1, embed_dim=size, num_heads=1, num_kv_heads=1,
        head_dim=2, mlp_dim=2, tie_embeddings=False,
    )  # fmt: skip
    params = models.init(config, key=jax.random.key(0))
    params = jax.tree.map(np.zeros_like, params)
    unembedding = np.full((size, size), -30.0, np.float32)
    unembedding[1:, 0] = np.log(1 / means) / size**0.5
    rows = np.arange(1, size)
    unembedding[rows, rows] = np.log(1 - 1 / means) / size**0.5
    params |= {
        "embedding": np.eye(size, dtype=np.float32),
        "final_norm": np.ones(size, np.float32),
        "unembedding": unembedding,
    }
    return config, params


def orders():
    """What it is worth to know lengths: 192 queries, 8 samples each, a real stop token.

    A query's samples are geometric, their means heavy-tailed, rising with the prompt's
    length but for noise. The same tokens are drawn under every order.
    """
    rng = np.random.default_rng(0)
    means = np.round(np.clip(np.exp(rng.normal(3.7, 0.9, 24)), 2, 256))
    config, params = chain(means)
    kind = rng.integers(0, 24, 192)
    noise = np.exp(rng.normal(0, 0.3, 192))
    size = np.clip(np.round(means[kind] ** 0.5 * noise * 2), 1, 40).astype(int)
    untold = [
        sampling.Request(key=i, prompt=[int(k) + 1] * n, samples=8)
        for i, (k, n) in enumerate(zip(kind, size.tolist(), strict=True))
    ]
    told = [
        dataclasses.replace(r, expected_length=float(means[k]))
        for r, k in zip(untold, kind, strict=True)
    ]
    learned = sampling.EstimatedLengths()
    cases = (
        ("nobody tells", untold, sampling.AsGiven()),
        ("nobody tells", untold, sampling.LongestFirst(learned)),
        ("nobody tells", untold, sampling.ShortestFirst(learned)),
        ("mean lengths told", told, sampling.LongestFirst()),
        ("mean lengths told", told, sampling.LongestFirst(learned)),
        ("mean lengths told", told, sampling.ShortestFirst()),
    )
    for i, (name, requests, order) in enumerate(cases):
        rollouts = steps(name, params, requests, order, config=config, stop=(0,))
        if i == 0:
            static(name, rollouts.length)


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


def peer_call(prompts, length, samples, **grid):
    """Return the engine, the parameters and the requests of one peers' shape."""
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
    return engine, params, requests


DISTINCT = dict(lanes=64, slots=1, prefixes_per_lane=1, prefill_prompts=16)


def peer(name, prompts, length, samples, **grid):
    measure(name, *peer_call(prompts, length, samples, **grid), repeats=1)


def trace():
    """Print the operations that a decode step of `distinct` spends its time on.

    Names are XLA's, milliseconds those of one call over its 64 steps; pin the process
    to one core, or they overlap.
    """
    engine, params, requests = peer_call(64, 64, 1, **DISTINCT)
    engine.sample(params, requests, seed=0, step=0)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            engine.sample(params, requests, seed=0, step=1)
        (path,) = pathlib.Path(folder).glob("**/*.xplane.pb")
        events = [
            (event.name, event.duration_ns / 1e6)
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes
            for row in plane.lines
            # The decode program's own thread; the client's runs what comes before.
            if row.name.startswith("tf_XLAEigen")
            for event in row.events
        ]
    spent, calls = collections.Counter(), collections.Counter()
    for name, milliseconds in events:
        spent[name] += milliseconds
        calls[name] += 1
    for name, milliseconds in spent.most_common(25):
        line = {"ms of a step": round(milliseconds / 64, 2), "calls": calls[name]}
        print(json.dumps({"operation": name, **line}), flush=True)


CASES = {
    "small": small,
    "ragged": ragged,
    "orders": orders,
    "memory": memory,
    "trace": trace,
    "distinct": lambda: peer("distinct", 64, 64, 1, **DISTINCT),
    "shared": lambda: peer(
        "shared", 8, 512, 8, lanes=8, slots=8, prefixes_per_lane=1, prefill_prompts=2
    ),
}


if __name__ == "__main__":
    parts = {"group8": lambda: group(8), "group64": lambda: group(64)}
    for case in sys.argv[1:] or list(CASES):
        (CASES | parts)[case]()
