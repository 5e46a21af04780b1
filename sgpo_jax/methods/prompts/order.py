"""Pseudorandom permutations that are computed where they are read."""

import functools

import numpy as np

from sgpo_jax import streams

_DRAWN = 1 << 16
_ROUNDS = 12


def shuffled(
    count: int, start: int, stop: int, *, seeds: tuple[int, ...]
) -> np.ndarray:
    """Part of a random permutation of `range(count)`: the places `start` to `stop`.

    Up to 65,536 items the permutation is drawn, all being equally likely, and kept.
    Beyond, a format-preserving cipher computes single places, so that time and
    memory depend on these alone: a Feistel network on the bits of `count`, repeated on
    what falls outside the range (Black and Rogaway, Ciphers with arbitrary finite
    domains, 2002).

    >>> shuffled(5, 1, 4, seeds=(0,)).tolist()
    [4, 3, 0]
    >>> shuffled(10**9, 0, 3, seeds=(0,)).tolist()
    [563345337, 795980351, 809454136]

    Args:
      count: items.
      start: first place.
      stop: place after the last; cut to `count`.
      seeds: identify the permutation.
    """
    if count <= _DRAWN:
        return _drawn(count, seeds)[start:stop]
    return encrypt(np.arange(start, min(stop, count)), count, seeds=seeds)


@functools.lru_cache(maxsize=4)
def _drawn(count: int, seeds: tuple[int, ...]) -> np.ndarray:
    order = streams.generator(*seeds).permutation(count)
    order.flags.writeable = False
    return order


def encrypt(places: np.ndarray, count: int, *, seeds: tuple[int, ...]) -> np.ndarray:
    """Image of each place under a keyed permutation of `range(count)`.

    >>> sorted(encrypt(np.arange(7), 7, seeds=(1, 2)).tolist())
    [0, 1, 2, 3, 4, 5, 6]

    Args:
      places: in `range(count)`, [N].
      count: size of the range.
      seeds: the key.
    """
    bits = max(int(count - 1).bit_length(), 2)
    keys = streams.cipher_keys(seeds, _ROUNDS)
    found = _feistel(places.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(found >= count)
    while len(outside):  # at most half the values of so many bits are outside
        found[outside] = _feistel(found[outside], bits, keys)
        outside = outside[found[outside] >= count]
    return found.astype(np.int64)


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """Permutation of the values of some bits: each half is masked by the other."""
    low = np.uint64(bits // 2)
    sizes = low, np.uint64(bits) - low
    halves = [values & _mask(sizes[0]), values >> low]
    for number, key in enumerate(keys):
        changed = number % 2
        halves[changed] ^= _mixed(halves[1 - changed] + key) & _mask(sizes[changed])
    return halves[0] | (halves[1] << low)


def _mask(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
