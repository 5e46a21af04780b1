"""Pools of success rates: simulated, and as two published histograms say."""

import numpy as np

# Queries by group size that sGPO's rule gives them at 8 samples: unsolved, 8, 4, 2,
# trivial. Of an independent implementation's profiles.
PUBLISHED = {
    "SciKnowEval": (9544, 2517, 1499, 3564, 746),
    "reverse-text": (159, 326, 288, 227, 0),
}
_ENDS = ((0.0, 0.02), (0.02, 0.125), (0.125, 0.25), (0.25, 0.75), (0.75, 1.0))


def mixture(count, rng):
    """Two fifths never solved, a fifth always, the rest Beta(1, 1.5)."""
    kind = rng.choice(3, size=count, p=[0.4, 0.2, 0.4])
    return np.choose(kind, [np.zeros(count), np.ones(count), rng.beta(1, 1.5, count)])


def published(name):
    """Rates spread evenly inside a histogram's bins; nine in ten unsolved are 0."""
    shares = np.array(PUBLISHED[name]) / sum(PUBLISHED[name])

    def draw(count, rng):
        kind = rng.choice(5, size=count, p=shares)
        low, high = np.array(_ENDS)[kind].T
        rate = rng.uniform(low, high)
        return np.where((kind == 0) & (rng.random(count) < 0.9), 0.0, rate)

    return draw


POOLS = {"mixture": mixture, **{name: published(name) for name in PUBLISHED}}
