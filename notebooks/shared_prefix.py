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
# # One prompt, many responses: shared-prefix attention
#
# A group of responses shares its prompt. Packed as `[prompt r1 r2 ... | padding]`, the
# prompt goes through the model once, and attention lets every response read the prompt
# and itself. One integer per token says so; any mixture of group sizes and lengths is
# one shape, and one compiled program.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from sgpo_jax.kernels.shared_prefix_attention import (
    attention_fn,
    pack,
    shared_prefix_attention,
    unpack,
)

# %% [markdown]
# ## Packing
#
# Two groups in one row. `position` restarts after the prompt for every response, and
# `parent` names the token whose output predicts each token: the last token of the
# prompt predicts the first one of *every* response. Token j is read by those from j to
# `end[j]`: all of its group if it is of the prompt, else the rest of its response.

# %%
groups = [([5, 6, 7, 8], [[1, 2], [3], [4, 4, 4]]), ([9, 9], [[1], [2, 2]])]
tokens, layout = pack([groups], length=18)
for name, values in [
    ("token", tokens),
    ("end", layout.end),
    ("position", layout.position),
    ("predicted by", layout.parent),
]:
    print(f"{name:>12}", *(f"{int(v):3d}" for v in values[0]))

# %% [markdown]
# ## Who reads whom
#
# The gradient of token i's output with respect to the values shows which keys it reads.

# %%
q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 18, 1, 4))


def output(v):
    return shared_prefix_attention(q, k, v, layout)[0, :, 0].sum(-1)


reads = jax.jacobian(output)(v)[:, 0, :, 0].sum(-1) != 0

figure, axes = plt.subplots(figsize=(4, 4))
axes.imshow(reads, cmap="Greys")
axes.set(xlabel="key", ylabel="query", title="Two groups and padding in one row")
plt.show()

# %% [markdown]
# ## In a model that was not written for it
#
# Flax's attention modules take an `attention_fn` and hand it the mask they were given.
# Ours takes the layout there: that is all it needs. Where a model's attention is
# written into it, a subclass of that attention does: `tests/kernels/test_tunix.py` has
# the twenty lines for the Qwen2 of google-tunix.

# %%
model = nnx.MultiHeadAttention(
    num_heads=2,
    in_features=8,
    decode=False,
    rngs=nnx.Rngs(0),
    attention_fn=attention_fn,
)
embedded = jax.random.normal(jax.random.key(1), (1, 18, 8))
outputs = model(embedded, mask=layout)

# %% [markdown]
# The same module with Flax's own attention, on the second response of the first group
# and its prompt alone, gives the same numbers.

# %%
lengths = [[(len(prompt), [len(r) for r in rs]) for prompt, rs in groups]]
prompt, responses = unpack(np.asarray(embedded), lengths)[0][0]
sequence = jnp.concatenate([prompt, responses[1]])[None]
plain = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
alone = plain(sequence, mask=nnx.make_causal_mask(jnp.ones(sequence.shape[:2])))

_, found = unpack(np.asarray(outputs), lengths)[0][0]
difference = np.abs(found[1] - alone[0, len(prompt) :]).max()
print(f"largest difference: {difference:.1e}")
assert difference < 1e-6

# %% [markdown]
# ## What it saves
#
# The dense count of pairs grows with the group; the shared one pays the prompt once.

# %%
sizes = np.arange(1, 17)
for prefix, response in [(128, 128), (1024, 128), (4096, 512)]:
    pairs = prefix**2 / 2
    member = response * prefix + response**2 / 2
    plt.plot(
        sizes,
        sizes * (pairs + member) / (pairs + sizes * member),
        label=f"prompt {prefix}, response {response}",
    )
plt.xlabel("responses per prompt")
plt.ylabel("fewer pairs of query and key")
plt.legend()
plt.show()
