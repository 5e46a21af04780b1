"""Automata that watch the tokens of a response for a sequence.

A table says which state follows a state and a token, so that the decode program finds
a stop string with one look-up per slot and step, wherever tokens split the string.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


class Automaton(NamedTuple):
    """A deterministic automaton over tokens; it starts in state 0.

    Attributes:
      next: state after each state and token; the last state means found, and stays.
    """

    next: Int[Array, "states V"]

    @property
    def found(self) -> int:
        """The last state."""
        return self.next.shape[0] - 1

    def after(
        self, state: Int[Array, "*n"], token: Int[Array, "*n"]
    ) -> Int[Array, "*n"]:
        """Return the state after one more token."""
        return self.next[state, token].astype(jnp.int32)


def watch_tokens(sequence: Sequence[int], vocab_size: int) -> Automaton:
    """Return the automaton that finds a sequence of tokens (Knuth-Morris-Pratt).

    Its state is how many tokens of the sequence the response ends with.

    >>> watch_tokens([1, 1, 0], 3).next.tolist()
    [[0, 1, 0], [0, 2, 0], [3, 2, 0], [3, 3, 3]]
    """
    word = tuple(int(token) for token in sequence)
    if not word or not all(0 <= token < vocab_size for token in word):
        raise ValueError(f"{list(word)} is no sequence of tokens below {vocab_size}")
    return Automaton(jnp.asarray(_transitions([word], vocab_size)))


def watch_strings(strings: Sequence[str], pieces: Sequence[bytes]) -> Automaton:
    """Return the automaton that finds any of some strings (Aho and Corasick 1975).

    It reads the bytes of each token, so it finds a string that begins in the middle of
    one token and ends in the middle of another.

    Args:
      strings: what to look for.
      pieces: bytes of each token of the vocabulary; none for special tokens.

    >>> watch_strings(["ab"], [b"xa", b"b", b"aba"]).next.tolist()
    [[1, 0, 2], [1, 2, 2], [2, 2, 2]]
    """
    if not strings or not all(strings):
        raise ValueError(f"stop strings must not be empty, got {list(strings)}")
    table = _transitions([tuple(text.encode()) for text in strings], 256)
    length = np.array([len(piece) for piece in pieces])
    order = np.argsort(-length, kind="stable")
    text = np.frombuffer(b"".join(pieces[i] for i in order), np.uint8)
    start = np.cumsum(length[order]) - length[order]
    states = np.repeat(np.arange(len(table))[:, None], len(pieces), axis=1)
    for place in range(int(length.max(initial=0))):
        going = int(np.sum(length > place))  # the longest pieces come first
        byte = text[start[:going] + place]
        states[:, :going] = table[states[:, :going], byte]
    result = np.empty_like(states)
    result[:, order] = states
    return Automaton(jnp.asarray(result.astype(np.int16)))


def _transitions(words: Sequence[tuple[int, ...]], alphabet: int) -> np.ndarray:
    """Return the table of the automaton that finds any of `words`, [states, alphabet].

    A state is the longest suffix of what was read that some word begins with.
    """
    prefixes = {word[:n] for word in words for n in range(len(word))}
    prefixes = sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
    place = {prefix: state for state, prefix in enumerate(prefixes)}
    found = len(prefixes)
    table = np.zeros((found + 1, alphabet), np.int16)
    table[found] = found
    for state, prefix in enumerate(prefixes):
        for symbol in set().union(*words):
            read = (*prefix, symbol)
            suffixes = [read[n:] for n in range(len(read) + 1)]
            if any(suffix in words for suffix in suffixes):
                table[state, symbol] = found
            else:
                table[state, symbol] = next(place[s] for s in suffixes if s in place)
    return table
