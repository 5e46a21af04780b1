"""A step of GRPO beside TRL's and Tunix's trainer, in one run.

    python benchmarks/step_peers.py --trl PYTHON --tunix PYTHON

PYTHON is the interpreter of an environment that has the peer: `pip install trl
torch==2.13.0 transformers requests`, and `pip install google-tunix==0.1.7 jax==0.10.2
flax==0.12.8 transformers==5.12.1`. A random Llama of 4 layers, width 256, 4 heads and
vocabulary 1,024 in float32 trains with AdamW on the share of even tokens in its
responses, whose lengths are fixed:

* `short`: 4 prompts of 64 tokens, 8 responses of 64 each, no KL penalty;
* `long`: 2 prompts of 512 tokens, 8 responses of 64 each, KL penalty of 0.04.

Every contender samples, scores and trains in a process of its own, after a step that
compiles; contenders take turns, `--rounds` times. CPU-seconds count all its processes,
scorers included. Prints a line of JSON per process; writes medians, ratios and peak
memory to benchmarks/results/step_peers.md.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

RESULTS = pathlib.Path(__file__).parent / "results"
LAYERS, WIDTH, HEADS, MLP, VOCAB = 4, 256, 4, 704, 1024
CASES = {  # prompts, responses of each, their lengths, coefficient of the KL penalty
    "short": (4, 8, 64, 64, 0.0),
    "long": (2, 8, 512, 64, 0.04),
}
RATE, STEPS = 1e-4, 5


def even(words):
    """Share of even numbers among words."""
    return sum(int(word) % 2 == 0 for word in words) / max(len(words), 1)


def prompts_of(count, length):
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        " ".join(map(str, rng.integers(3, VOCAB, length).tolist()))
        for _ in range(count)
    ]


class Numbers:
    """Token ids as text; no token ends a response."""

    vocab_size, eos_id, stop_ids = VOCAB, 2, ()

    def __repr__(self):
        return "Numbers()"

    def encode(self, text, **_):
        return [int(word) for word in text.split()]

    def encode_prompt(self, prompt):
        return self.encode(prompt if isinstance(prompt, str) else prompt[0][1])

    def decode(self, ids, **_):
        return " ".join(str(int(i)) for i in ids)


def ours(prompts, group, length, new, beta, clock):
    from sgpo_jax import methods, models
    from sgpo_jax.config import PackConfig
    from sgpo_jax.trainer import Trainer

    config = models.DecoderConfig(
        vocab_size=VOCAB, num_layers=LAYERS, embed_dim=WIDTH, num_heads=HEADS,
        num_kv_heads=HEADS, head_dim=WIDTH // HEADS, mlp_dim=MLP, tie_embeddings=False,
    )  # fmt: skip
    method = methods.Method(
        prompts=methods.Shuffled(group_size=group),
        kl=methods.KL(coef=beta) if beta else None,
        optimizer=methods.AdamW(learning_rate=RATE),
    )
    rows = [{"prompt": text, "answer": "2"} for text in prompts_of(prompts, length)]
    trainer = Trainer(
        models.initialize(config, Numbers(), seed=0),
        method,
        rows,
        reward=lambda completion, reference: even(completion.split()),
        rollouts=prompts * group,
        max_response=new,
        pack=PackConfig(
            row_length=-(-(length + group * new) // 128) * 128,
            rows=(prompts,),
            shortest_response=new,
        ),
        show=False,
    )
    with trainer:
        steps = trainer.steps(STEPS + 1)
        for _ in range(STEPS + 1):
            with clock:
                metrics = next(steps)
            assert metrics["trained"] == prompts * group
            assert metrics["completions/mean_length"] == new


def trl(prompts, group, length, new, beta, clock):
    import datasets
    import tokenizers
    import torch
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    datasets.disable_progress_bars()
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{str(i): i for i in range(3, VOCAB)}}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="3"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        padding_side="left",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=MLP,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, pad_token_id=0,
            num_key_value_heads=HEADS, tie_word_embeddings=False, bos_token_id=1,
            eos_token_id=2,
        )
    )  # fmt: skip
    folder = tempfile.mkdtemp()
    if beta:  # it reads the reference from the folder of the policy
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = transformers.LlamaForCausalLM.from_pretrained(folder)

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            clock.__enter__()

        def on_step_end(self, *_, **__):
            clock.__exit__()

    def reward(completions, **_):
        found = [text.split() for text in completions]
        assert all(len(text) >= new - 3 for text in found)  # special tokens are cut
        return [even(text) for text in found]

    config = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=prompts * group,
        num_generations=group, max_completion_length=new, max_steps=STEPS + 1,
        beta=beta, learning_rate=RATE, temperature=1.0, top_k=0, top_p=1.0,
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True,
        shuffle_dataset=False, seed=0, generation_kwargs={"min_new_tokens": new},
    )  # fmt: skip
    data = {"prompt": prompts_of(prompts, length) * (STEPS + 1)}
    GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_dict(data),
        processing_class=tokenizer,
        callbacks=[Clock()],
    ).train()


def tunix(prompts, group, length, new, beta, clock):
    import jax
    import numpy as np
    import optax
    import tunix_peer
    from jax.sharding import Mesh
    from tunix.rl import rl_cluster
    from tunix.rl.grpo import grpo_learner
    from tunix.rl.rollout import base_rollout

    make = functools.partial(
        tunix_peer.llama,
        layers=LAYERS, width=WIDTH, heads=HEADS, mlp=MLP, vocab=VOCAB, norm_eps=1e-6,
    )  # fmt: skip
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    role = rl_cluster.Role
    cluster = rl_cluster.RLCluster(
        actor=make(),
        reference=make() if beta else None,
        tokenizer=tunix_peer.Numbers(),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh={r: mesh for r in (role.ACTOR, role.REFERENCE, role.ROLLOUT)},
            rollout_engine="vanilla",
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optax.adamw(RATE), eval_every_n_steps=10**9,
                max_steps=STEPS + 1, mini_batch_size=prompts,
                train_micro_batch_size=prompts,
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=new, max_prompt_length=length, top_p=1.0,
                kv_cache_size=length + new, temperature=1.0, eos_tokens=[-1],
            ),
        ),
    )  # fmt: skip
    update = cluster.update_actor

    def timed(*args, **kwargs):
        found = update(*args, **kwargs)
        clock.__exit__()
        clock.__enter__()  # a step ends where its update does
        return found

    cluster.update_actor = timed

    def reward(prompts, completions, **_):
        found = [text.split() for text in completions]
        assert all(len(text) == new for text in found)
        return [even(text) for text in found]

    learner = grpo_learner.GRPOLearner(
        rl_cluster=cluster,
        algo_config=grpo_learner.GRPOConfig(
            beta=beta, num_generations=group, num_iterations=1
        ),
        reward_fns=reward,
    )
    texts = prompts_of(prompts, length - 1)
    clock.__enter__()
    learner.train([{"prompts": np.array(texts)} for _ in range(STEPS + 1)])


CONTENDERS = {"ours": ours, "trl": trl, "tunix": tunix}
PACKAGES = {"ours": "jax", "trl": "trl", "tunix": "google-tunix"}


class Clock:
    """CPU-seconds of this process and its descendants, and those of the wall."""

    def __init__(self):
        self.steps = []

    def __enter__(self):
        self._began = cpu_seconds(), time.perf_counter()

    def __exit__(self, *_):
        cpu, wall = self._began
        self.steps.append((cpu_seconds() - cpu, time.perf_counter() - wall))


def cpu_seconds():
    """Return the CPU-seconds of this process and of those it has started."""
    parents, spent = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])
            spent[int(entry.name)] = sum(map(int, fields[11:15]))
    total, own = 0, {os.getpid()}
    while own:
        total += sum(spent.get(pid, 0) for pid in own)
        own = {pid for pid, parent in parents.items() if parent in own}
    return total / os.sysconf("SC_CLK_TCK")


def one(contender, case):
    """Measure one contender in this process."""
    clock = Clock()
    CONTENDERS[contender](*CASES[case], clock)
    first, *steps = clock.steps[: STEPS + 1]
    assert len(steps) == STEPS, clock.steps
    line = {
        "case": case,
        "contender": contender,
        "cpu_s": round(statistics.median(cpu for cpu, _ in steps), 3),
        "wall_s": round(statistics.median(wall for _, wall in steps), 3),
        "first_cpu_s": round(first[0], 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "version": importlib.metadata.version(PACKAGES[contender]),
    }
    print(json.dumps(line), flush=True)


def page(lines, rounds):
    """Medians over the rounds, and ratios to ours."""
    versions = {PACKAGES[x["contender"]]: x["version"] for x in lines}
    text = [
        "# A step of GRPO beside TRL and Tunix",
        "",
        "`python benchmarks/step_peers.py`: shapes and contenders are described there.",
        "CPU-seconds of a step after the first, medians of steps and rounds; sampling,",
        "rewards and update. Each process has the machine's two cores, which may be",
        "shared with other work: ratios are of one run, taken in turns.",
        f"Rounds: {rounds}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "",
        "| shape | contender | CPU-s | against ours | first step, CPU-s | peak MiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for case in dict.fromkeys(line["case"] for line in lines):
        found = {}
        for line in lines:
            if line["case"] == case:
                found.setdefault(line["contender"], []).append(line)
        median = {
            name: {
                key: statistics.median(line[key] for line in some)
                for key in ("cpu_s", "first_cpu_s", "peak_rss_mib")
            }
            for name, some in found.items()
        }
        for name, row in median.items():
            ratio = row["cpu_s"] / median["ours"]["cpu_s"]
            text.append(
                f"| {case} | {name} | {row['cpu_s']:.2f} | {ratio:.2f}x |"
                f" {row['first_cpu_s']:.0f} | {row['peak_rss_mib']:.0f} |"
            )
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trl", default=sys.executable)
    parser.add_argument("--tunix", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "step_peers.md")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    args = parser.parse_args()
    if args.one:
        return one(*args.one)
    python = {"ours": sys.executable, "trl": args.trl, "tunix": args.tunix}
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    lines = []
    for case in args.cases:
        for _ in range(args.rounds):
            for contender in args.contenders:
                command = [python[contender], __file__, "--one", contender, case]
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True
                )
                if done.returncode:
                    sys.exit(f"{contender} on {case}:\n{done.stderr[-2000:]}")
                lines.append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(json.dumps(lines[-1]), flush=True)
    args.out.write_text(page(lines, args.rounds))
    return None


if __name__ == "__main__":
    main()
