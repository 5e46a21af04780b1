"""Training of the learned optimizer of `sgpo sweep`, minutes on a core."""

import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgpo_jax.sweep import learned

from .functions import Batch, random_functions, sequences, table_function

TRIALS = 24
BATCH = 48
DIMS = ((1, 0.1), (2, 0.3), (3, 0.4), (4, 0.2))
RATE = 3e-3


def queries(batch: Batch, rng: np.random.Generator):
    """Inputs of the model, and the bins that it is to name.

    Objectives are in standard deviations of the first trials, as many as are drawn: a
    sweep knows no more of them.
    """
    count, trials, dims = batch.x.shape
    first = rng.integers(2, trials, count)
    seen_first = np.arange(trials) < first[:, None]
    mean = (batch.y * seen_first).sum(1) / first
    spread = np.sqrt((((batch.y - mean[:, None]) ** 2) * seen_first).sum(1) / first)
    y = np.clip((batch.y - mean[:, None]) / (spread[:, None] + 1e-6), -9, 9)
    steps = np.arange(1, trials)
    best = np.broadcast_to(batch.best[:, None], (count, trials - 1, dims))
    parts = [(batch.x[:, 1:], dims)] + [(best, d) for d in range(dims)]
    at = np.concatenate([part for part, _ in parts], 1)
    known = np.concatenate(
        [np.broadcast_to(np.arange(dims) < d, part.shape) for part, d in parts], 1
    )
    seen = np.broadcast_to(np.tile(steps, dims + 1), (count, (trials - 1) * (dims + 1)))
    y_bin = (y[:, 1:] / learned.Y_MOST + 1) / 2 * learned.Y_BINS
    x_bin = (best * learned.X_BINS).swapaxes(1, 2).reshape(count, -1)
    return {
        "x": batch.x,
        "y": y,
        "at": at * known,
        "known": known,
        "seen": seen,
        "names": batch.names,
        "y_bin": np.clip(y_bin, 0, learned.Y_BINS - 1).astype(int),
        "x_bin": np.clip(x_bin, 0, learned.X_BINS - 1).astype(int),
    }


def losses(weights, data):
    """Cross entropies of objectives and of the best setting's options."""
    count, trials, _ = data["x"].shape
    names = data["names"]
    asked = jnp.concatenate(
        [
            jnp.broadcast_to(weights["ask_y"], (count, trials - 1, learned.WIDTH)),
            jnp.repeat(weights["ask_x"][names], trials - 1, axis=1),
        ],
        1,
    )
    asks = data["at"], data["known"], asked, data["seen"]
    with jax.numpy_rank_promotion("allow"):  # as NumPy does
        state = learned.forward(weights, (data["x"], data["y"]), asks, names, jnp)
        y = learned.log_softmax(state[:, : trials - 1] @ weights["to_y"], jnp)
        x = learned.log_softmax(state[:, trials - 1 :] @ weights["to_x"], jnp)
    y_loss = -jnp.take_along_axis(y, data["y_bin"][..., None], -1).mean()
    x_loss = -jnp.take_along_axis(x, data["x_bin"][..., None], -1).mean()
    return y_loss + x_loss, (y_loss, x_loss)


def train(steps: int, tables: list, path: pathlib.Path, *, seed: int = 0) -> None:
    """Train on random functions, one batch in eight on tables of runs; save weights."""
    rng = np.random.default_rng(seed)
    weights = jax.tree.map(jnp.asarray, learned.initial(rng))
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 20, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    state = optimizer.init(weights)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(weights, state, data):
        (_, found), gradient = jax.value_and_grad(losses, has_aux=True)(weights, data)
        change, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, found

    began, seen = time.process_time(), []
    for step in range(steps):
        dims = int(rng.choice([d for d, _ in DIMS], p=[p for _, p in DIMS]))
        if tables and step % 8 == 0:
            batch = of_table(rng, *tables[step // 8 % len(tables)])
        else:
            made = random_functions(rng, BATCH, dims)
            batch = sequences(rng, made, BATCH, dims, trials=TRIALS)
        data = {
            k: np.float32(v) if np.asarray(v).dtype.kind in "fb" else v
            for k, v in queries(batch, rng).items()
        }
        weights, state, found = update(weights, state, data)
        seen.append([float(x) for x in found])
        if step % 50 == 49:
            mean = np.mean(seen[-50:], 0)
            spent = time.process_time() - began
            print(
                f"{step + 1}/{steps} {spent:.0f} CPU-s y {mean[0]:.3f} x {mean[1]:.3f}",
                flush=True,
            )
            np.savez(path, **{k: np.float16(v) for k, v in weights.items()})


def of_table(rng: np.random.Generator, table, names: np.ndarray) -> Batch:
    """Sequences on a table of runs, its options flipped and shuffled."""
    one, dims = table_function(table), len(names)
    flip = rng.random((BATCH, 1, dims)) < 0.25
    order = np.array([rng.permutation(dims) for _ in range(BATCH)])
    tilt = 0.3 * rng.standard_normal((BATCH, 1, dims)) * np.std(list(table.values()))

    def functions(x: np.ndarray) -> np.ndarray:
        moved = np.where(flip, 1 - x, x)
        back = np.take_along_axis(moved, order.argsort(1)[:, None], -1)
        values = [[one(row) for row in rows] for rows in back]
        return np.array(values) + (tilt * x).sum(-1)

    found = sequences(rng, functions, BATCH, dims, trials=TRIALS, names=names[order])
    return found
