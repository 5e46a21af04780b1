"""A random Llama of Tunix, and token ids as its text: for benchmarks beside it.

Imported by an interpreter that has Tunix and may not have this package.
"""


class Numbers:
    """Token ids as text; Tunix puts BOS before a prompt."""

    def encode(self, text, **_):
        return [int(word) for word in text.split()]

    def decode(self, ids, **_):
        return " ".join(str(int(i)) for i in ids)

    def bos_id(self):
        return 1

    def eos_id(self):
        return 2

    def pad_id(self):
        return 0


def llama(*, layers, width, heads, mlp, vocab, norm_eps):
    """Return the model with matrices drawn at random."""
    import jax
    from flax import nnx
    from tunix.models.llama3 import model

    config = model.ModelConfig(
        num_layers=layers, vocab_size=vocab, embed_dim=width, hidden_dim=mlp,
        num_heads=heads, head_dim=width // heads, num_kv_heads=heads,
        rope_theta=10_000, norm_eps=norm_eps,
    )  # fmt: skip
    made = model.Llama3(config, rngs=nnx.Rngs(0))
    # Its MLPs start at zero, waiting for a checkpoint.
    leaves, tree = jax.tree.flatten(nnx.state(made, nnx.Param))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        0.02 * jax.random.normal(key, x.shape, x.dtype) if x.ndim > 1 else x
        for key, x in zip(keys, leaves, strict=True)
    ]
    nnx.update(made, jax.tree.unflatten(tree, leaves))
    return made
