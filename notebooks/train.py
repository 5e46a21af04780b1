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
# # Profile, plan, train
#
# One policy, one reward, two methods. The policy is a small byte-level decoder that has
# learned nothing yet, so that the notebook runs in minutes on two CPU cores; with
# `models.load("hf:Qwen/Qwen3-0.6B", lora_rank=16)` the rest stays as it is.

# %%
import matplotlib.pyplot as plt

import sgpo_jax
from sgpo_jax import Trainer, data, methods, models

# %% [markdown]
# ## Questions and a reward
#
# A list of dicts, a file, a folder, a `datasets` object: `data.load` says in three
# lines what it understood. The task: begin with a character whose code is below the
# number in the question, which is harder the smaller the number. A reward is a function
# of the completion and the reference.

# %%
rows = [{"prompt": f"<{n}:", "answer": n} for n in range(4, 124, 2)]
train, test = data.load(rows, held_out=12)


def reward(completion, reference):
    """1 if the first character's code is below the reference, else 0."""
    return float(ord(completion[:1] or "~") < int(reference))


# %% [markdown]
# ## An initial policy
#
# Verifiable rewards need a policy that is right now and then. A policy from nothing
# writes any byte; five steps on a dense reward favour ASCII.

# %%
adam = methods.AdamW(learning_rate=1e-3)
options = {"rollouts": 128, "max_response": 4, "seed": 1}


def ascii_share(completion, reference):
    """Share of the characters that are ASCII."""
    return sum(ord(c) < 128 for c in completion) / max(len(completion), 1)


start = methods.Method(optimizer=adam)
first = Trainer(models.load("tiny"), start, train, reward=ascii_share, **options)
for _ in first.steps(5):
    pass
policy = first.policy

# %% [markdown]
# ## Profile
#
# How often does it solve each question? `samples` completions each, once.

# %%
profile = sgpo_jax.profile(policy, train, reward=reward, samples=8, max_response=4)
print(profile)
_ = profile.plot()

# %% [markdown]
# ## Plan
#
# From the profile: trivial questions go, group sizes are near 1 / success rate, easy
# ones come first. The plan carries a prediction of what it will cost.

# %%
print(sgpo_jax.plan(profile))

# %% [markdown]
# ## Two methods, the same policy and profile
#
# `frac_no_signal` is the share of groups that teach nothing: all answers alike.

# %%
trainers = {}
both = {"reward": reward, "held_out": test, "profile": profile, **options}
for name in ("grpo_nonzero", "tracked"):
    method = methods.named(name).replace(optimizer=adam)
    trainers[name] = Trainer(policy, method, train, label=name, **both)
    for metrics in trainers[name].steps(20):
        if metrics["step"] % 5 == 0:
            print(name, {k: metrics[k] for k in ("step", "reward", "frac_no_signal")})

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
for place, (name, trainer) in zip(axes, trainers.items(), strict=True):
    trainer.plot(place)
    spent = trainer.ledger.total.flops / 1e9
    place.set_title(f"{name}: {spent:.1f} GFLOP, profiling included")

# %% [markdown]
# ## What it writes, and where it goes
#
# `evaluate` is mean and greedy success on questions it was not trained on. `save`
# leaves a run folder that `sgpo run --out runs/notebook` and `Trainer.open` go on from;
# `models.save` a Hugging Face folder.

# %%
best = trainers["tracked"]
found = best.evaluate(test)
print(f"held out: {found.mean:.2f} ({found.low:.2f} to {found.high:.2f})")
print(best.sample(["<20:", "<100:"], samples=4))
