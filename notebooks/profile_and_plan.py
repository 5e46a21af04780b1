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
# # From questions to a profile to a plan
#
# Which questions can a policy learn from, how many rollouts is each worth, and what
# will training cost? A profile answers before anything is trained, and whatever trains.
#
# With GSM8K and a server of your own (vLLM, SGLang, llama.cpp) set two variables first:
#
# ```
# GSM8K=~/gsm8k SERVER=http://localhost:8000/v1 jupyter lab
# ```
#
# A third, `OPTIONS`, holds further options of `sgpo profile`: `--model NAME`,
# `--tokenizer hf:OWNER/NAME` for a chat template, fewer questions.
#
# Without them the questions are built-in arithmetic and the policy is that of the
# preset `quick`, warmed up here: half a minute on two cores.

# %%
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq

from sgpo_jax import planning
from sgpo_jax.planning import figures
from sgpo_jax.profiling import (
    Fitted,
    Posterior,
    Profile,
    Sequential,
    calibration,
)

folder = pathlib.Path(tempfile.mkdtemp()) / "profile"
gsm8k, server = os.environ.get("GSM8K"), os.environ.get("SERVER")


def sgpo(*options):
    """Run the command line, as in a terminal."""
    command = [sys.executable, "-c", "from sgpo_jax.cli import main; main()"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


# %% [markdown]
# ## Profile
#
# Eight samples of every question, scored by its verifier. A fleet does it without
# weights on this machine; an interrupted profile resumes.

# %%
if gsm8k and server:
    options = ["--server", server, "--data", f"gsm8k:{gsm8k}"]
    options += shlex.split(os.environ.get("OPTIONS", "--max-questions 400"))
else:
    options = ["--preset", "quick"]
print(sgpo("profile", *options, "--out", str(folder)))
profile = Profile.load(folder / "profile.parquet")

# %% [markdown]
# One row per question. Those between never and always are what group-relative methods
# learn from: a group whose rewards are all equal has advantage 0.

# %%
profile.plot()
belief = Posterior.of(profile)
rate = profile.success_rate
for name, mask in (
    ("never solved", rate == 0),
    ("solved now and then", (rate > 0) & (rate < 1)),
    ("always solved", rate == 1),
):
    rows = np.flatnonzero(mask)
    print(f"{name}: {len(rows)} questions")
    for row in rows[:2]:
        text = " ".join(profile.prompts[row].split())
        print(f"  {profile.successes[row]} of {profile.samples[row]}: {text[:90]}")

# %% [markdown]
# ## What eight samples do not say
#
# 0 of 8 is not 0. The prior is fitted to all questions (a Beta distribution with point
# masses at 0 and 1), the posterior has an interval for each, and samples that were held
# out of the fit show whether it can be believed.

# %%
prior = Fitted()(profile)
print(f"prior: {prior.never:.0%} never, {prior.always:.0%} always,", end=" ")
print(f"the rest Beta({prior.alpha:.2f}, {prior.beta:.2f})")
low, high = belief.interval(0.9)
n = int(profile.samples.max())
for k in (0, 1, n // 2, n):
    row = np.flatnonzero((profile.successes == k) & (profile.samples == n))[:1]
    if row.size:
        print(f"{k} of {n}: mean {belief.mean[row][0]:.3f}, 90 % in", end=" ")
        print(f"[{low[row][0]:.3f}, {high[row][0]:.3f}]")
print(calibration(profile))
axes = calibration(profile).plot()

# %% [markdown]
# ## Plan
#
# The rule of sGPO: leave the trivial out, keep a tenth of the unsolved, give a question
# about 1 / success rate rollouts, begin with the easy ones. The prediction is part of
# the plan: rollouts, dead groups, compute against GRPO.

# %%
plan = planning.make_plan(belief)
setting = planning.Setting(rollouts=128, passes=20)
plan = planning.with_prediction(plan, planning.predict(plan, belief, setting=setting))
print(plan)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
figures.plot_sizes(profile, plan, left)
axes = plan.plot(right)

# %% [markdown]
# ## Every allocator on the same profile
#
# Small groups are cheap and often dead; large ones find rare successes. `saving` counts
# the profile itself. The same from a terminal: `sgpo plan --profile FOLDER --compare`.

# %%
found = planning.compare(belief, setting=setting)
print(found)
axes = found.plot()

# %% [markdown]
# ## Where more samples would pay
#
# Sequential profiling spends further samples where a decision is open, and says what it
# expects of them before they are paid for: the number of decisions that become right.

# %%
rule = Sequential(first=8, batch=8, most=32)
more, gain = rule(belief, prior, budget=len(profile))
print(f"{int(more.sum())} samples of {int((more > 0).sum())} questions,", end=" ")
print(f"{gain:.1f} more decisions right; success rates so far:")
values, counts = np.unique(rate[more > 0].round(3), return_counts=True)
print(dict(zip(values.tolist(), counts.tolist(), strict=True)))

# %% [markdown]
# ## Out, to another framework
#
# `pass_rate`, `group_size` and `phase` beside the question, as TRL, verl, prime-rl or
# `datasets` read it. Pass rates of others come in the same way:
# `sgpo profile --import FILE --column pass_rate --out FOLDER`.

# %%
plan.save(folder / "plan.json")
to = folder / "trl.parquet"
print(sgpo("profile", "--export", "trl", "--out", str(folder), "--to", str(to)))
pq.read_table(to).slice(0, 3).to_pylist()
