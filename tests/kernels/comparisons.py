"""How outputs and gradients are compared."""

import jax
import jax.numpy as jnp

from sgpo_jax.kernels.shared_prefix_attention.reads import dense


def value_and_grads(attention):
    """A jitted function returning o, dq, dk, dv by name."""

    @jax.jit
    def run(q, k, v, dout, layout):
        out, vjp = jax.vjp(lambda *x: attention(*x, layout), q, k, v)
        return dict(zip(("o", "dq", "dk", "dv"), (out, *vjp(dout)), strict=True))

    return run


def assert_relative(actual, expected, bound):
    """Assert errors relative to the norm, or to 10, about that of our inputs.

    The gradient of a key that is read by itself only is 0, but as a difference of
    products of inputs, whose rounding is left.
    """
    for name, value in expected.items():
        error = jnp.linalg.norm(actual[name] - value)
        assert error <= bound * jnp.maximum(jnp.linalg.norm(value), 10.0), name


def dense_bfloat16(q, k, v, layout, *, scale):
    """Dense attention as one writes it in bfloat16: scores are rounded too."""
    rows, length, heads, width = q.shape
    mask = dense(layout)[:, None, None]
    q = q.reshape(rows, length, k.shape[2], -1, width)
    logits = jnp.einsum("nqkgc,njkc->nkgqj", q, k) * jnp.bfloat16(scale)
    p = jax.nn.softmax(jnp.where(mask, logits, -1e30).astype(jnp.float32))
    p = jnp.where(mask, p, 0.0).astype(jnp.bfloat16)
    return jnp.einsum("nkgqj,njkc->nqkgc", p, v).reshape(rows, length, heads, width)


def assert_no_worse(ours, theirs, exact):
    """Assert that our error is at most theirs, plus the noise of small samples."""
    for name, value in exact.items():
        assert ours[name].dtype == jnp.bfloat16
        error, bound = (
            jnp.linalg.norm(x[name].astype(jnp.float32) - value) for x in (ours, theirs)
        )
        assert error <= 1.05 * bound, name
