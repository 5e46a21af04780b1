"""An advantage, a loss and a prompt sampler of one's own, and the method of them."""

import jax.numpy as jnp
import numpy as np

from sgpo_jax import advantages, methods


def shrunk(groups):
    """Centered rewards, less for large groups."""
    centered = advantages.centered(groups.rewards, groups.id, num_groups=groups.count)
    return centered / (1 + groups.size)


@methods.needing("reference")
def tethered(responses):
    """Policy gradient with a quadratic tether to the initial policy."""
    gap = responses.log_prob - responses.reference_log_prob
    gap = jnp.where(responses.mask, gap, 0)
    return -responses.advantage[:, None] * responses.log_prob + 0.1 * gap**2


def least_visited(pool, *, budget, progress, seed):
    """The prompts that were visited least, in groups of four."""
    del progress
    tie = np.random.default_rng(seed).random(pool.count)
    rows = np.lexsort((tie, pool.history.visits))[: -(-budget // 4)]
    return methods.Draw(rows, np.full(len(rows), 4))


def mine():
    """A method of these parts."""
    return methods.Method(
        prompts=least_visited,
        advantage=shrunk,
        objective=tethered,
        optimizer=methods.AdamW(learning_rate=1e-3),
    )
