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
# # Every loss on three tokens
#
# `sgpo_jax.advantages` and `sgpo_jax.losses` are functions of arrays: no model, no
# trainer, no configuration. This notebook computes all of them on numbers small enough
# to check by hand, and shows the gradient each one sends to each token.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from sgpo_jax import advantages, losses, theory

np.set_printoptions(precision=3, suppress=True)


def table(rows, columns):
    """Print named rows of numbers."""
    width = max(map(len, rows))
    print(" " * width, *(f"{c:>9}" for c in columns))
    for name, values in rows.items():
        print(name.ljust(width), *(f"{float(v):9.3f}" for v in values))


# %% [markdown]
# ## Advantages
#
# Responses carry an integer group id, so groups of any size share one array. Here are a
# query with two answers, one with four, and one whose answers are equally good. One
# answer could not be scored: its reward is NaN, it leaves the statistics of its group,
# and its own advantage is exactly 0.

# %%
rewards = jnp.array([1.0, 0.0, 1.0, 0.0, 0.0, jnp.nan, 0.5, 0.5])
group_id = jnp.array([0, 0, 1, 1, 1, 1, 2, 2])
lengths = jnp.array([30, 10, 20, 40, 20, 20, 10, 10])
give = {"num_groups": 3}

rows = {
    name: getattr(advantages, name)(rewards, group_id, **give)
    for name in (
        "centered",
        "standardized",
        "leave_one_out",
        "mean_relative",
        "batch_standardized",
        "pass_at_k",
        "kalman",
        "kalman_averaged",
    )
}
rows["length_weighted"] = advantages.length_weighted(rewards, group_id, lengths, **give)
rows["is_live"] = advantages.is_live(rewards, group_id, **give)
table(rows, [f"group {g}" for g in group_id])

# %% [markdown]
# A tracker carries one baseline per query across steps and starts it from a profile, so
# that a single response has an advantage too.

# %%
tracker = advantages.BetaTracker()
state = tracker.init(successes=jnp.array([1, 4, 8]), samples=jnp.array([8, 8, 8]))
print("before:", tracker.mean(state))
advantage, state = advantages.tracked(rewards, group_id, state, tracker=tracker)
print("advantages:", advantage)
print("after: ", tracker.mean(state))

# %% [markdown]
# ## Losses of tokens
#
# One response of three tokens whose probabilities have moved by factors of 0.5, 1 and
# 1.5 since it was sampled. `log_ratio` makes padding inert; there is none here.

# %%
sampled = jnp.log(jnp.array([[0.4, 0.4, 0.4]]))
current = jnp.log(jnp.array([[0.2, 0.4, 0.6]]))
mask = jnp.ones((1, 3), bool)


def on_tokens(loss):
    """A loss as a function of current log-probabilities and the advantage."""

    def function(log_prob, advantage):
        return loss(losses.log_ratio(log_prob, sampled, mask), advantage)

    return function


def on_sequence(loss):
    """The same for losses that need to know where a response ends."""
    return on_tokens(lambda log_ratio, advantage: loss(log_ratio, advantage, mask))


wide = {"low": 0.2, "high": 0.28}
LOSSES = {
    "policy_gradient": losses.policy_gradient,
    "clipped_surrogate": on_tokens(losses.clipped_surrogate),
    "  dual=1.2": on_tokens(functools.partial(losses.clipped_surrogate, dual=1.2)),
    "cispo (high=1.2)": on_tokens(functools.partial(losses.cispo, high=1.2)),
    "sapo": on_tokens(losses.sapo),
    "dppo_tv (bound=0.1)": lambda x, a: losses.dppo_tv(x, sampled, a, bound=0.1),
    "sequence_clipped": on_sequence(
        functools.partial(losses.sequence_clipped_surrogate, **wide)
    ),
    "token_level_sequence": on_sequence(
        functools.partial(losses.token_level_sequence_surrogate, **wide)
    ),
    "luspo": on_sequence(functools.partial(losses.luspo, **wide)),
    "gmpo": on_sequence(losses.gmpo),
    "k1": lambda x, a: losses.k1(x, sampled),
    "k2": lambda x, a: losses.k2(x, sampled),
    "k3": lambda x, a: losses.k3(x, sampled),
}


def mean_loss(loss, advantage, log_prob):
    per_token = loss(log_prob, jnp.array([advantage]))
    return losses.aggregate(per_token, mask, aggregation=losses.PerSequence()).mean()


ratios = [f"r = {r:.1f}" for r in jnp.exp(current - sampled)[0]]
for advantage in (1.0, -1.0):
    print(f"advantage {advantage:+.0f}: loss of each token")
    table({k: f(current, jnp.array([advantage]))[0] for k, f in LOSSES.items()}, ratios)
    print()

# %% [markdown]
# What moves the policy is the gradient. Below is that of the mean over the three tokens
# with respect to each token's log-probability. Where a clip binds it is 0; CISPO never
# cuts it; SAPO lets it fade; ratios of the whole response give all tokens the same.

# %%
for advantage in (1.0, -1.0):
    print(f"advantage {advantage:+.0f}: gradient for each token")
    gradient = {
        name: jax.grad(functools.partial(mean_loss, loss, advantage))(current)[0]
        for name, loss in LOSSES.items()
    }
    table(gradient, ratios)
    print()

# %% [markdown]
# The same as curves: one token, its ratio from 0 to 3.

# %%
log_r = jnp.linspace(-2.5, 1.1, 400)[:, None]
CURVES = {
    "clipped_surrogate": losses.clipped_surrogate,
    "dual=2": functools.partial(losses.clipped_surrogate, dual=2.0),
    "cispo (high=2)": functools.partial(losses.cispo, high=2.0),
    "sapo": losses.sapo,
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, advantage in zip(axes, (1.0, -1.0), strict=True):
    signs = jnp.full(400, advantage)
    for name, loss in CURVES.items():
        slope = jax.grad(lambda x, f=loss, a=signs: f(x, a).sum())(log_r)
        axis.plot(np.exp(log_r[:, 0]), -slope[:, 0], label=name)
    axis.set(xlabel="ratio", title=f"advantage {advantage:+.0f}")
axes[0].set_ylabel("push on the log-probability")
axes[0].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## What counts how much
#
# Two queries, one with a single short answer and one with three answers. `aggregate`
# returns a sum and its denominator, so micro-batches add up exactly.

# %%
per_token = jnp.array([[1.0, 0, 0], [2.0, 2, 2], [3.0, 3, 0], [6.0, 0, 0]])
present = jnp.array([[1, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
query = jnp.array([0, 1, 1, 1])
for by in (
    losses.PerToken(),
    losses.PerSequence(),
    losses.PerGroup(),
    losses.PerPrompt(),
    losses.Constant(3),
):
    weighted = losses.aggregate(
        per_token, present, aggregation=by, group_id=query, num_groups=2
    )
    print(
        f"{by!s:20} {float(weighted.total):6.3f} / {float(weighted.weight):.0f}", end=""
    )
    print(f" = {float(weighted.mean()):.3f}")

# %% [markdown]
# ## Objectives on whole responses
#
# Three responses of one query: log-ratios against the reference and rewards. `vargrad`
# is half of `rebel` when `eta = 1 / beta`, in value and in gradient.

# %%
delta = jnp.array([0.5, -0.2, 0.1])
score = jnp.array([1.0, 0.0, 1.0])
one = jnp.zeros(3, jnp.int32)
log_z = jnp.full(3, 1.0)
OBJECTIVES = {
    "rebel": lambda d: losses.rebel(d, score, one, num_groups=1, eta=2.0),
    "vargrad": lambda d: losses.vargrad(d, score, one, num_groups=1, beta=0.5),
    "trajectory_balance": lambda d: losses.trajectory_balance(
        d, score, log_z, beta=0.5
    ),
    "flow_balance": lambda d: losses.flow_balance(d, score, log_z, 0 * d, beta=2.0),
    "dro": lambda d: losses.dro(d, score - score.mean(), beta=0.5),
    "a_star_po": lambda d: losses.a_star_po(
        d, score, losses.optimal_value(jnp.full(3, 2 / 3)), beta=0.5
    ),
}
columns = ["R = 1", "R = 0", "R = 1"]
table({k: f(delta) for k, f in OBJECTIVES.items()}, columns)
print("\ngradient of the mean")
table({k: jax.grad(lambda d, f=f: f(d).mean())(delta) for k, f in OBJECTIVES.items()},
      columns)  # fmt: skip

# %% [markdown]
# ## What theory says about group sizes
#
# The advantage a success receives, per response generated, is largest at a group size
# of about 1/p. Profiles of 8 samples find that size only roughly.

# %%
sizes = np.arange(2, 33)
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for p in (1 / 16, 1 / 8, 1 / 4, 1 / 2):
    value = theory.success_advantage(p, sizes)
    line = axes[0].plot(sizes, value / value.max(), label=f"p = 1/{1 / p:.0f}")[0]
    axes[0].axvline(theory.best_group_size(p, sizes), color=line.get_color(), ls=":")
axes[0].set(xlabel="group size", ylabel="J(p, G) / best", xscale="log")
axes[0].legend(frameon=False, fontsize=8)
p = np.linspace(0, 1, 201)
for samples in (4, 8, 16, 64):
    axes[1].plot(p, theory.misbucketing(p, samples), label=f"N = {samples}")
axes[1].set(xlabel="true success rate", ylabel="P(wrong group size)")
axes[1].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# And what a plan costs. The counts are those of a published profile of 17,870
# queries: 46,622 rollouts a pass instead of 285,920 at a fixed group size of 16, plus
# 142,960 for the profile.

# %%
rollouts = theory.rollouts_per_pass(
    np.array([2, 4, 8]), np.array([3_564, 1_499, 2_517]), unsolved=0.1 * 9_544
)
passes = np.array([1, 2, 3, 5])
costs = {"profile": 8 * 17_870, "passes": passes}
for size in (16, 8):
    compute = theory.compute_ratio(size * 17_870, rollouts, **costs)
    generation = theory.compute_ratio(size * 17_870, rollouts, training=0.0, **costs)
    print(
        f"against G = {size}, passes {passes}: compute {compute}, rollouts {generation}"
    )
