"""The sampler beside Tunix's Sampler and transformers' generate, in one run.

    python benchmarks/sampler_peers.py --tunix PYTHON --transformers PYTHON

PYTHON is the interpreter of an environment that has the peer: `pip install
google-tunix==0.1.7 jax==0.10.2 flax==0.12.8 transformers==5.12.1`, and `pip install
torch==2.13.0 transformers==5.23.0`. A random Llama of 8 layers, width 512, 8 heads and
vocabulary 32000 in float32 samples 64 tokens at temperature 1:

* `distinct`: 64 prompts of 64 tokens, one sample each;
* `shared`: 8 prompts of 512 tokens, 8 samples each.

Every contender is a process of its own that compiles, then makes two calls; they take
turns, one at a time, `--rounds` times. Prints a line of JSON per process, then the
medians of tokens per CPU-second and the ratio to the better peer.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

LAYERS, WIDTH, HEADS, MLP, VOCAB, NEW = 8, 512, 8, 1408, 32_000, 64
CASES = {"distinct": (64, 64, 1), "shared": (8, 512, 8)}  # prompts, length, samples


def ours(prompts, length, samples):
    import jax
    import numpy as np

    from sgpo_jax import models, sampling

    config = models.DecoderConfig(
        vocab_size=VOCAB, num_layers=LAYERS, embed_dim=WIDTH, num_heads=HEADS,
        num_kv_heads=HEADS, head_dim=WIDTH // HEADS, mlp_dim=MLP, tie_embeddings=False,
    )  # fmt: skip
    params = models.init(config, key=jax.random.key(0))
    engine = sampling.Engine(
        config,
        lanes=prompts,
        slots=samples,
        prefixes_per_lane=1,
        max_prompt=length,
        max_response=NEW,
        stop_tokens=(),
        staged=prompts,
        prefill_prompts=max(1, 1024 // length),
    )
    rng = np.random.default_rng(0)
    requests = [
        sampling.Request(i, rng.integers(3, VOCAB, length).tolist(), samples)
        for i in range(prompts)
    ]

    def call(step):
        rollouts = engine.sample(params, requests, seed=0, step=step)
        return int(rollouts.length.sum())

    return call


def tunix(prompts, length, samples):
    import numpy as np
    import tunix_peer
    from tunix.generate.sampler import CacheConfig, Sampler

    model = tunix_peer.llama(
        layers=LAYERS, width=WIDTH, heads=HEADS, mlp=MLP, vocab=VOCAB, norm_eps=1e-5
    )
    cache = CacheConfig(
        cache_size=length + NEW, num_layers=LAYERS, num_kv_heads=HEADS,
        head_dim=WIDTH // HEADS,
    )  # fmt: skip
    sampler = Sampler(model, tunix_peer.Numbers(), cache)
    rng = np.random.default_rng(0)
    texts = [
        " ".join(map(str, rng.integers(3, VOCAB, length - 1))) for _ in range(prompts)
    ]
    texts = [text for text in texts for _ in range(samples)]

    def call(step):
        output = sampler(
            texts, max_generation_steps=NEW, max_prompt_length=length, temperature=1.0,
            top_p=1.0, eos_tokens=[-1], seed=step,
        )  # fmt: skip
        return sum(len(row) for row in output.tokens)

    return call


def transformers(prompts, length, samples):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(2)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=MLP, pad_token_id=0,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(3, VOCAB, (prompts, length))

    def call(step):
        torch.manual_seed(step)
        with torch.no_grad():
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
                top_p=1.0, temperature=1.0, min_new_tokens=NEW, max_new_tokens=NEW,
                num_return_sequences=samples,
            )  # fmt: skip
        return output[:, length:].numel()

    return call


CONTENDERS = {"ours": ours, "tunix": tunix, "transformers": transformers}


def one(contender, case):
    """Measure one contender in this process."""
    prompts, _, samples = CASES[case]
    call = CONTENDERS[contender](*CASES[case])
    call(0)
    results = []
    for step in (1, 2):
        began, clock = time.process_time(), time.perf_counter()
        tokens = call(step)
        assert tokens == prompts * samples * NEW, tokens
        results.append((time.process_time() - began, time.perf_counter() - clock))
    line = {
        "case": case,
        "contender": contender,
        "tokens_per_cpu_s": [round(tokens / cpu, 1) for cpu, _ in results],
        "wall_s": [round(wall, 2) for _, wall in results],
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tunix", default=sys.executable)
    parser.add_argument("--transformers", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    if args.one:
        return one(*args.one)
    python = {
        "ours": sys.executable,
        "tunix": args.tunix,
        "transformers": args.transformers,
    }
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for case in args.cases or CASES:
        speeds = {name: [] for name in python}
        for _ in range(args.rounds):
            for name, interpreter in python.items():
                command = [interpreter, __file__, "--one", name, case]
                done = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, text=True
                )
                if done.returncode:
                    print(json.dumps({"case": case, "failed": name}), flush=True)
                    continue
                line = done.stdout.splitlines()[-1]
                print(line, flush=True)
                speeds[name] += json.loads(line)["tokens_per_cpu_s"]
        medians = {n: statistics.median(s) for n, s in speeds.items() if s}
        better = max(speed for name, speed in medians.items() if name != "ours")
        ratio = round(medians["ours"] / better, 2)
        print(json.dumps({"case": case, **medians, "to_better_peer": ratio}))


if __name__ == "__main__":
    main()
