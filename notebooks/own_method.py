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
# # A method of your own
#
# A `Method` is a frozen dataclass of parts. A part is a dataclass with one method, or a
# plain function. Here are an advantage, an objective and a prompt sampler that the
# package does not have, each in a few lines, trained side by side with one that it has.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax import Trainer, advantages, methods, models

# %% [markdown]
# ## An advantage
#
# It sees the rewards of a step, [R], the group of each and the size of that group. This
# one shrinks small groups, whose mean is uncertain.


# %%
def shrunk(groups):
    """Centered rewards, times 1 - 1 / group size."""
    centered = advantages.centered(groups.rewards, groups.id, num_groups=groups.count)
    return centered * (1 - 1 / groups.size)


# %% [markdown]
# ## An objective
#
# Loss per token, [R, T]. `responses.log_ratio` is log pi - log pi_old; here it is
# squashed where PPO clips. An input that costs a pass of its own is asked for:
# `methods.needing("reference")` brings the log-probabilities of the initial policy.


# %%
@methods.needing("reference")
def squashed(responses):
    """Policy gradient of a squashed ratio, with a tether to the initial policy."""
    gap = jnp.where(
        responses.mask, responses.log_prob - responses.reference_log_prob, 0.0
    )
    return -responses.advantage[:, None] * jnp.tanh(responses.log_ratio) + 1e-3 * gap**2


# %% [markdown]
# ## A prompt sampler
#
# Which prompts, how many rollouts of each. `pool.history` is what training has seen of
# every prompt; here those visited least come first, in groups of eight.


# %%
def least_visited(pool, *, budget, progress, seed):
    """Prompts in the order of their visits, ties at random."""
    tie = np.random.default_rng(seed).random(pool.count)
    rows = np.lexsort((tie, pool.history.visits))[: -(-budget // 8)]
    return methods.Draw(rows, np.full(len(rows), 8))


# %% [markdown]
# ## Side by side
#
# The command line takes the same value: put the functions and `def mine(): return
# Method(...)` into `algos.py`, then `sgpo run --methods grpo_token algos:mine`.

# %%
adam = methods.AdamW(learning_rate=3e-3)
mine = methods.Method(
    prompts=least_visited, advantage=shrunk, objective=squashed, optimizer=adam
)
print("needs:", sorted(mine.needs))
rows = [{"prompt": f"{a}+{b}=", "answer": str(a)} for a in range(8) for b in range(8)]


def reward(completion, reference):
    """Share of ASCII characters: a policy from nothing can learn it in seconds."""
    return sum(ord(c) < 128 for c in completion) / max(len(completion), 1)


figure, axes = plt.subplots(figsize=(6.4, 3.6))
for label, method in (
    ("mine", mine),
    ("grpo_token", methods.named("grpo_token").replace(optimizer=adam)),
):
    with Trainer(
        models.load("tiny"), method, rows, reward=reward, rollouts=64, max_response=4
    ) as trainer:
        rewards = [metrics["reward"] for metrics in trainer.steps(15)]
    axes.plot(range(1, 16), rewards, label=label)
axes.set_xlabel("step")
axes.set_ylabel("mean reward of 64 rollouts")
_ = axes.legend(frameon=False)
