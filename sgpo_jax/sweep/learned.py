"""A learned optimizer: a small transformer over trials, in the manner of OptFormer.

Chen et al., arXiv 2205.13320. A trial is a token: quantized values of its options, each
with a hash of the option's name, and its quantized objective. From the trials so far
the model predicts the objective of a further one, and, option by option, where the best
setting is. Candidates are drawn from the latter and ranked by the expected improvement
of the former.

`python -m benchmarks.sweep --train` trained it. The forward pass is that of training,
on JAX, and that of a sweep, on NumPy: a sweep leaves accelerators to its trials.
"""

import functools
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sgpo_jax.sweep.proposals import Observations, snapped, untried
from sgpo_jax.sweep.space import Space

WIDTH, LAYERS, HEADS = 48, 3, 4
X_BINS, Y_BINS = 20, 24
Y_MOST = 3.0
"""Standard deviations from the mean of the trials that objectives are cut at."""
NAMES = 16
"""Buckets of hashed option names."""
DRAWN = 96
"""Candidates drawn from the model, with as many at random for every three."""
WEIGHTS = pathlib.Path(__file__).with_name("learned.npz")

Weights = Mapping[str, Any]
X_CENTERS = (np.arange(X_BINS) + 0.5) / X_BINS
Y_CENTERS = Y_MOST * (2 * (np.arange(Y_BINS) + 0.5) / Y_BINS - 1)


def initial(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random weights."""
    d = WIDTH

    def matrix(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / shape[-2] ** 0.5).astype(np.float32)

    found = {
        "x": matrix(NAMES, X_BINS, d),
        "y": matrix(Y_BINS, d),
        "ask_x": matrix(NAMES, d),
        "ask_y": matrix(1, d)[0],
        "to_x": matrix(d, X_BINS),
        "to_y": matrix(d, Y_BINS),
    }
    for i in range(LAYERS):
        found |= {
            f"{i}.qkv": matrix(d, 3 * d),
            f"{i}.out": matrix(d, d) / LAYERS,
            f"{i}.up": matrix(d, 2 * d),
            f"{i}.down": matrix(2 * d, d) / LAYERS,
            # Heads begin at several distances, from all trials to the next one.
            f"{i}.near": np.array([-2.0, 1.0, 2.5, 4.0], np.float32),
        }
    return found


def buckets(names: list[str]) -> np.ndarray:
    """Return a bucket for each option: a hash of its last word, none taken twice.

    >>> buckets(["methods.grpo.optimizer.learning-rate", "a.learning-rate"]).tolist()
    [14, 15]
    """
    found: list[int] = []
    for name in names:
        bucket = zlib.crc32(name.rpartition(".")[2].encode()) % NAMES
        while bucket in found and len(found) < NAMES:
            bucket = (bucket + 1) % NAMES
        found.append(bucket)
    return np.array(found)


def embedded(weights: Weights, x, known, names, xp):
    """Embed options, those that are known, [..., N, D] to [..., N, E]."""
    soft = xp.exp(-0.5 * ((x[..., None] - X_CENTERS.astype(np.float32)) * 16) ** 2)
    soft = soft / soft.sum(-1, keepdims=True) * known[..., None]
    # [..., N, D, B] with a table per option, [..., D, B, E].
    table = weights["x"][names]
    return xp.einsum("...ndb,...dbe->...ne", soft, table)


def one_hot_y(y, xp):
    """Quantize standardized objectives softly, [...] to [..., B]."""
    y = xp.clip(y, -Y_MOST, Y_MOST)
    soft = xp.exp(-0.5 * ((y[..., None] - Y_CENTERS.astype(np.float32)) * 4) ** 2)
    return soft / soft.sum(-1, keepdims=True)


def forward(weights: Weights, history, queries, names, xp):
    """Return the queries' states after all layers, [..., Q, E].

    Args:
      weights: of the model.
      history: positions [..., N, D] and standardized objectives [..., N] of trials,
        which see those before them.
      queries: positions [..., Q, D], which of them are known [..., Q, D], what is
        asked [..., Q, E], and how many trials each sees [..., Q].
      names: bucket of each option, [..., D].
      xp: numpy or jax.numpy.
    """
    x, y = history
    at, known, asked, seen = queries
    count = x.shape[-2]
    everything = xp.ones_like(x)
    memory = (
        embedded(weights, x, everything, names, xp) + one_hot_y(y, xp) @ weights["y"]
    )
    state = xp.concatenate(
        [memory, embedded(weights, at, known, names, xp) + asked], axis=-2
    )
    # What stands alone sees itself besides, see `attended`.
    before = xp.broadcast_to(xp.arange(count), (*seen.shape[:-1], count))
    order = xp.concatenate([before, seen], -1)
    visible = xp.arange(count) < order[..., None]
    positions, masks = (
        xp.concatenate([x, at], -2),
        xp.concatenate([everything, known], -2),
    )
    apart = (positions[..., :, None, :] - x[..., None, :, :]) ** 2
    apart = (apart * masks[..., :, None, :]).sum(-1)
    for i in range(LAYERS):
        state = state + attended(weights, i, state, count, apart, visible, xp)
        hidden = normalized(state, xp) @ weights[f"{i}.up"]
        state = state + xp.maximum(hidden, 0) @ weights[f"{i}.down"]
    return normalized(state[..., count:, :], xp)


def attended(weights: Weights, i: int, state, count: int, apart, visible, xp):
    """Attend to trials, near ones more, as each head has learned to."""
    q, k, v = xp.split(normalized(state, xp) @ weights[f"{i}.qkv"], 3, axis=-1)

    def heads(z):
        return xp.swapaxes(z.reshape(*z.shape[:-1], HEADS, WIDTH // HEADS), -3, -2)

    own = (heads(q) * heads(k)).sum(-1, keepdims=True)
    k, v_all, v = heads(k[..., :count, :]), heads(v), heads(v[..., :count, :])
    near = xp.exp(weights[f"{i}.near"])[:, None, None] * apart[..., None, :, :]
    scores = heads(q) @ xp.swapaxes(k, -1, -2) / (WIDTH // HEADS) ** 0.5 - near
    scores = xp.where(visible[..., None, :, :], scores, -1e9)
    scores = xp.concatenate([scores, own / (WIDTH // HEADS) ** 0.5], -1)
    scores = xp.exp(scores - scores.max(-1, keepdims=True))
    scores = scores / scores.sum(-1, keepdims=True)
    mixed = scores[..., :count] @ v + scores[..., count:] * v_all
    mixed = xp.swapaxes(mixed, -3, -2)
    return mixed.reshape(*mixed.shape[:-2], WIDTH) @ weights[f"{i}.out"]


def normalized(z, xp):
    """Divide by the root mean square."""
    return z / xp.sqrt((z**2).mean(-1, keepdims=True) + 1e-6)


def log_softmax(z, xp):
    """Log-probabilities of logits."""
    z = z - z.max(-1, keepdims=True)
    return z - xp.log(xp.exp(z).sum(-1, keepdims=True))


@functools.cache
def trained() -> dict[str, np.ndarray]:
    """Return the weights that the package brings."""
    with np.load(WEIGHTS) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def learned(
    space: Space,
    history: Observations,
    rng: np.random.Generator,
    *,
    weights: Weights | None = None,
) -> np.ndarray:
    """Return the candidate that the model expects the largest improvement of, [D].

    Args:
      space: the hyper-parameters.
      history: trials so far, one at least.
      rng: draws candidates.
      weights: of the model; None for those of the package.
    """
    weights = weights or trained()
    names = buckets([one.name for one in space])
    drawn = draw(weights, history, names, rng, DRAWN)
    x = np.concatenate([drawn, rng.random((DRAWN // 3, len(space)))])
    x = untried(snapped(space, x), history)
    score = np.exp(predict(weights, history, names, x)) @ np.maximum(
        Y_CENTERS - history.standardized.max(), 0
    )
    return x[int(np.argmax(score))]


def draw(
    weights: Weights,
    history: Observations,
    names: np.ndarray,
    rng: np.random.Generator,
    count: int,
) -> np.ndarray:
    """Draw settings from where the model expects the best one, [M, D]."""
    dims = len(names)
    x, known = np.zeros((count, dims), np.float32), np.zeros((count, dims), np.float32)
    for d in range(dims):
        asked = np.broadcast_to(weights["ask_x"][names[d]], (count, WIDTH))
        state = _ask(weights, history, (x, known, asked), names)
        chance = np.exp(log_softmax(state @ weights["to_x"], np))
        chosen = (chance.cumsum(-1) < rng.random((count, 1))).sum(-1)
        x[:, d] = np.clip((chosen + rng.random(count)) / X_BINS, 0, 1)
        known[:, d] = 1
    return x.astype(np.float64)


def predict(
    weights: Weights, history: Observations, names: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Return log-probabilities of objectives in standard deviations, [M, B]."""
    at = x.astype(np.float32)
    asked = np.broadcast_to(weights["ask_y"], (len(x), WIDTH))
    state = _ask(weights, history, (at, np.ones_like(at), asked), names)
    return log_softmax(state @ weights["to_y"], np)


def _ask(
    weights: Weights, history: Observations, queries, names: np.ndarray
) -> np.ndarray:
    x = history.x.astype(np.float32)
    y = history.standardized.astype(np.float32)
    seen = np.full(len(queries[0]), len(y))
    return forward(weights, (x, y), (*queries, seen), names, np)
