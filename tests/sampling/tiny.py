"""A decoder small enough to know everything about, and what its samples must be."""

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import models, sampling

CONFIG = models.DecoderConfig(
    vocab_size=12,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=24,
    tie_embeddings=False,
)
STOP = 3
RESPONSE = 6


def make_engine(**changes) -> sampling.Engine:
    settings = {
        "lanes": 3,
        "slots": 2,
        "max_prompt": 7,
        "max_response": RESPONSE,
        "stop_tokens": (STOP,),
        "staged": 4,
        "prefill_prompts": 2,
    }
    return sampling.Engine(CONFIG, **{**settings, **changes})


def make_requests(rng, counts, longest=7) -> list[sampling.Request]:
    return [
        sampling.Request(
            key=1000 + i,
            prompt=rng.integers(
                0, CONFIG.vocab_size, rng.integers(1, longest + 1)
            ).tolist(),
            samples=int(n),
        )
        for i, n in enumerate(counts)
    ]


@jax.jit
def forward(params, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = models.apply(params, CONFIG, tokens, positions, models.causal)
    return hidden @ models.unembedding(params, CONFIG)


def predictions(params, requests, rollouts, capacity=64) -> np.ndarray:
    """Return the training forward's logits of every response token, [R, T, V]."""
    whole = np.zeros((capacity, 7 + RESPONSE), np.int32)
    first = []
    for row, (i, response) in enumerate(
        zip(rollouts.request, rollouts.tokens, strict=True)
    ):
        prompt = np.asarray(requests[i].prompt)
        whole[row, : len(prompt)] = prompt
        whole[row, len(prompt) : len(prompt) + RESPONSE] = response
        first.append(len(prompt) - 1)
    logits = np.asarray(forward(params, whole))
    return np.stack([logits[r, n : n + RESPONSE] for r, n in enumerate(first)])


def noise(seed, step, rollouts, requests) -> np.ndarray:
    """Return the Gumbel noise of every response token, from the definition."""

    def one(query, sample, age):
        key = jax.random.fold_in(jax.random.key(seed), step)
        for number in (query, sample, age):
            key = jax.random.fold_in(key, number)
        return jax.random.gumbel(key, (CONFIG.vocab_size,))

    keys = np.array([requests[i].key for i in rollouts.request], np.uint32)
    ages = jnp.arange(RESPONSE)
    over_ages = jax.vmap(one, (None, None, 0))
    return np.asarray(jax.vmap(over_ages, (0, 0, None))(keys, rollouts.sample, ages))


def by_sample(rollouts, requests):
    keys = [int(requests[i].key) for i in rollouts.request]
    return dict(
        zip(
            zip(keys, rollouts.sample.tolist(), strict=True),
            rollouts.tokens,
            strict=True,
        )
    )
