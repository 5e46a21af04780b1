"""Objectives to train and to test on: random functions, formulas, tables of runs."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

FEATURES = 48
PROBES = 256


@dataclasses.dataclass(frozen=True)
class Batch:
    """Sequences of trials on random functions.

    Attributes:
      x: positions of the trials, [B, T, D].
      y: their objectives, noise included, [B, T].
      best: the best of many positions, noise left out, [B, D].
      names: bucket of each option, [B, D].
    """

    x: np.ndarray
    y: np.ndarray
    best: np.ndarray
    names: np.ndarray


Batched = Callable[[np.ndarray], np.ndarray]
"""Functions of positions [B, M, D], one each: [B, M]."""


def random_functions(rng: np.random.Generator, batch: int, dims: int) -> Batched:
    """Smooth functions, bowls, cliffs, saturation, and sums of them; some dims idle."""
    scale = np.exp(rng.normal(np.log(0.4), 0.6, (batch, 1, dims)))
    scale = scale * np.where(rng.random((batch, 1, dims)) < 0.2, 10, 1)
    heavy = np.sqrt(5 / rng.chisquare(5, (batch, FEATURES, 1)))  # Matérn 5/2
    omega = rng.standard_normal((batch, FEATURES, dims)) * heavy / scale
    phase = rng.uniform(0, 2 * np.pi, (batch, 1, FEATURES))
    gains = rng.standard_normal((batch, 1, FEATURES)) * (2 / FEATURES) ** 0.5
    center = rng.uniform(-0.1, 1.1, (batch, 1, dims))
    mixing = np.eye(dims) + 0.5 * rng.standard_normal((batch, dims, dims))
    bowl = np.exp(rng.normal(0, 1, (batch, 1, dims)))
    edge, axis = rng.uniform(0.3, 1.0, (batch, 1)), rng.integers(dims, size=batch)
    width = np.exp(rng.normal(np.log(0.05), 0.7, (batch, 1)))
    slope = rng.standard_normal((batch, 1, dims))
    bend = np.exp(rng.normal(1, 1, (batch, 1, dims)))
    used = (rng.random((batch, 4)) < 0.5) * np.exp(rng.normal(0, 0.5, (batch, 4)))
    used[:, 0] = np.maximum(used[:, 0], 0.2)
    weights = used * np.array([1.0, 2.0, 2.0, 1.0])

    def functions(x: np.ndarray) -> np.ndarray:
        waves = np.cos(x @ omega.swapaxes(1, 2) + phase)
        bowls = -np.sqrt(1e-3 + (((x - center) @ mixing) ** 2 * bowl).sum(-1))
        along = np.take_along_axis(x, axis[:, None, None], -1)[..., 0]
        cliffs = -1 / (1 + np.exp(np.clip((edge - along) / width, -30, 30)))
        logs = (slope * np.log1p(bend * x) / np.log1p(bend)).sum(-1)
        parts = np.stack([(waves * gains).sum(-1), bowls, cliffs, logs], -1)
        return np.einsum("bmk,bk->bm", parts, weights)

    return functions


def sequences(
    rng: np.random.Generator,
    functions: Batched,
    batch: int,
    dims: int,
    *,
    trials: int,
    names: np.ndarray | None = None,
) -> Batch:
    """Trials at random, near the best so far, and now and then near the optimum."""
    levels = rng.integers(2, 7, (batch, 1, dims))
    discrete = rng.random((batch, 1, dims)) < 0.3

    def snapped(x: np.ndarray) -> np.ndarray:
        return np.where(discrete, np.round(x * (levels - 1)) / (levels - 1), x)

    probes = snapped(rng.random((batch, PROBES, dims)))
    found = functions(probes)
    mean, spread = found.mean(1, keepdims=True), found.std(1, keepdims=True) + 1e-6
    best = np.take_along_axis(probes, found.argmax(1)[:, None, None], 1)[:, 0]
    noise = 10 ** rng.uniform(-2.5, -0.5, (batch, 1))
    local = rng.uniform(0, 0.8, batch)
    x, y = np.zeros((batch, trials, dims)), np.zeros((batch, trials))
    for t in range(trials):
        at = rng.random((batch, dims))
        if t > 2:
            so_far = x[np.arange(batch), y[:, :t].argmax(1)]
            near = np.where(rng.random((batch, 1)) < 0.15, best, so_far)
            near = near + 0.15 * rng.standard_normal((batch, dims))
            at = np.where((rng.random(batch) < local)[:, None], near, at)
        x[:, t] = snapped(np.clip(at, 0, 1)[:, None])[:, 0]
        value = (functions(x[:, t : t + 1]) - mean) / spread
        y[:, t] = (value + noise * rng.standard_normal((batch, 1)))[:, 0]
    if names is None:
        names = rng.random((batch, 16)).argsort(1)[:, :dims]
    return Batch(x=x, y=y, best=best, names=names)


def table_function(table: Mapping[tuple[float, ...], float]):
    """A function of a position [D] that reads the nearest entry of a table of runs."""
    axes = [sorted({key[i] for key in table}) for i in range(len(next(iter(table))))]

    def function(x: np.ndarray) -> float:
        places = [round(p * (len(a) - 1)) for p, a in zip(x, axes, strict=True)]
        return table[tuple(a[i] for a, i in zip(axes, places, strict=True))]

    return function


def branin(x: np.ndarray) -> float:
    """Branin, three optima."""
    u, v = 15 * x[0] - 5, 15 * x[1]
    first = v - 5.1 / (4 * np.pi**2) * u**2 + 5 / np.pi * u - 6
    return -float(first**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(u) + 10)


def hartmann(x: np.ndarray) -> float:
    """Hartmann in three dimensions."""
    a = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
    p = [[0.3689, 0.117, 0.2673], [0.4699, 0.4387, 0.747]]
    p += [[0.1091, 0.8732, 0.5547], [0.0381, 0.5743, 0.8828]]
    return float(
        np.array([1, 1.2, 3, 3.2]) @ np.exp(-(a * (x - np.array(p)) ** 2).sum(1))
    )


def ackley(x: np.ndarray) -> float:
    """Ackley in three dimensions, its optimum off the centre."""
    z = 8 * (x - np.array([0.31, 0.62, 0.44]))
    smooth = -20 * np.exp(-0.2 * np.sqrt((z**2).mean()))
    return -float(smooth - np.exp(np.cos(2 * np.pi * z).mean()) + 20 + np.e)


def rosenbrock(x: np.ndarray) -> float:
    """Rosenbrock in two dimensions, log-scaled: a bent valley."""
    u, v = 4 * x[0] - 2, 4 * x[1] - 1
    return -float(np.log1p((1 - u) ** 2 + 100 * (v - u**2) ** 2))


def step_size(x: np.ndarray) -> float:
    """Success by step size, batch and an idle option: slow, good, then divergence."""
    best = 0.55 + 0.2 * (x[1] - 0.5)
    rise = 1 / (1 + np.exp(-(x[0] - 0.25) / 0.1))
    fall = 1 / (1 + np.exp((x[0] - best - 0.1) / 0.03))
    return float(0.2 + 0.5 * rise * fall - 0.05 * (x[1] - 0.4) ** 2)


FORMULAS: Mapping[str, tuple[Callable[[np.ndarray], float], int]] = {
    "Branin": (branin, 2),
    "Hartmann": (hartmann, 3),
    "Ackley": (ackley, 3),
    "Rosenbrock": (rosenbrock, 2),
    "step size with a cliff": (step_size, 3),
}
"""Functions on the unit cube that no training has seen, and their dimensions."""
