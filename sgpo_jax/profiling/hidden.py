"""Pooled hidden states of a policy on its prompts: features of a query."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sgpo_jax.data import Query
from sgpo_jax.models import DecoderConfig, Params, Tokenizer, apply, causal


def hidden_states(
    params: Params,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    queries: Sequence[Query],
    *,
    batch: int = 64,
) -> Float[np.ndarray, "Q F"]:
    r"""Mean and last hidden state of each prompt after the final norm, F = 2 D.

    .. math:: f = \big[\tfrac1T \sum_t h_t,\; h_T\big]

    One forward pass of the prompt, without a token sampled: about 1 / (N x response
    length) of what profiling costs. A state does not depend on the other prompts of a
    batch.

    Args:
      params: of the policy.
      config: shape of the policy.
      tokenizer: of the policy.
      queries: whose prompts are read.
      batch: prompts at a time.
    """
    prompts = [tokenizer.encode_prompt(query.turns) for query in queries]
    found = np.zeros((len(prompts), 2 * config.embed_dim), np.float32)
    # Prompts of a length together, and few lengths: a program is compiled for each.
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        longest = max(len(prompts[row]) for row in rows)
        width = max(16, 1 << (longest - 1).bit_length())
        tokens = np.zeros((batch, width), np.int32)
        length = np.ones(batch, np.int32)
        for place, row in enumerate(rows):
            tokens[place, : len(prompts[row])] = prompts[row]
            length[place] = len(prompts[row])
        pooled = _pooled(params, config, jnp.asarray(tokens), jnp.asarray(length))
        found[rows] = np.asarray(pooled)[: len(rows)]
    return found


@functools.partial(jax.jit, static_argnums=1)
def _pooled(
    params: Params,
    config: DecoderConfig,
    tokens: Int[Array, "N L"],
    length: Int[Array, " N"],
) -> Float[Array, "N F"]:
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    positions = jnp.broadcast_to(places[None], tokens.shape)
    # Padding lies behind every token of the prompt, so causal attention never reads it.
    hidden, _ = apply(params, config, tokens, positions, causal)
    hidden = hidden.astype(jnp.float32)
    inside = (places[None] < length[:, None]).astype(jnp.float32)
    mean = (hidden * inside[..., None]).sum(1) / length[:, None].astype(jnp.float32)
    last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]
    return jnp.concatenate([mean, last], axis=-1)
