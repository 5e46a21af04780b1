"""Stopping criteria of responses, and the thinking budget."""

import dataclasses
import enum
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sgpo_jax.sampling.automaton import Automaton, watch_strings, watch_tokens


class Finish(enum.IntEnum):
    """Finish reason of a response."""

    LENGTH = 0
    """Its budget was used up."""
    TOKEN = 1
    """It sampled a stop token."""
    STRING = 2
    """Its text came to contain a stop string."""

    @property
    def words(self) -> str:
        """The reason in words."""
        return ("its budget", "a stop token", "a stop string")[self]


@dataclasses.dataclass(frozen=True)
class StopStrings:
    r"""Strings that end a response, wherever tokens split them.

    The response keeps the token that completes the string, for it was sampled and has a
    log-probability; `cut` takes the string (unless it is kept), and what the last token
    says after it, from the text.

    Attributes:
      strings: what ends a response.
      pieces: bytes of each token of the vocabulary; none for special tokens. The text
        of a response must be their concatenation.
      keep: whether the text keeps the string that ended it.

    >>> StopStrings(("\n\n",), (b"4", b"\n")).cut("4\n\n")
    '4'
    >>> StopStrings(("</a>",), (b"4", b"</a>!"), keep=True).cut("4</a>!")
    '4</a>'
    """

    strings: tuple[str, ...]
    pieces: tuple[bytes, ...] = dataclasses.field(repr=False)
    _: dataclasses.KW_ONLY
    keep: bool = False

    def cut(self, text: str) -> str:
        """Return the text up to the first stop string, or all of it."""
        found = [(text.find(s), len(s)) for s in self.strings if s in text]
        if not found:
            return text
        start, length = min(found)
        return text[: start + length if self.keep else start]

    def automaton(self, vocab_size: int) -> Automaton:
        """Return what finds the strings in tokens of a decoder's vocabulary."""
        known = len(self.pieces)
        if known > vocab_size:
            raise ValueError(
                f"stop strings know {known} tokens, the decoder only {vocab_size}"
            )
        # Embedding tables may have more rows than the tokenizer has tokens.
        return watch_strings(
            self.strings, [*self.pieces, *[b""] * (vocab_size - known)]
        )


class Ending(NamedTuple):
    """Stopping criteria as tables of the decode program.

    Attributes:
      tokens: stop tokens.
      strings: finds stop strings; None without.
      thought: finds the end of thinking; None if there is no thinking.
      forced: the tokens that end thinking; None likewise.
    """

    tokens: Int[Array, " E"]
    strings: Automaton | None
    thought: Automaton | None
    forced: Int[Array, " K"] | None

    @classmethod
    def make(
        cls,
        stop_tokens: Sequence[int],
        stop_strings: StopStrings | None,
        end_of_thinking: Sequence[int],
        vocab_size: int,
    ) -> "Ending":
        """Build the tables."""
        thought, forced = None, None
        if end_of_thinking:
            thought = watch_tokens(end_of_thinking, vocab_size)
            forced = jnp.asarray(end_of_thinking, jnp.int32)
        strings = None
        if stop_strings is not None:
            strings = stop_strings.automaton(vocab_size)
        return cls(jnp.asarray(stop_tokens, jnp.int32), strings, thought, forced)

    def force(
        self,
        thought: Int[Array, "A S"],
        age: Int[Array, "A S"],
        budget: Int[Array, "A S"],
    ) -> Int[Array, "A S"] | None:
        """Return the token each slot must take, -1 where it may choose.

        Once `budget` tokens are thought, the rest of the sequence that ends thinking is
        forced, from wherever the response already is in it.
        """
        if self.forced is None:
            return None
        count = len(self.forced)
        token = self.forced[jnp.minimum(thought, count - 1)]
        return jnp.where((thought < count) & (age >= budget), token, -1)

    def finish(
        self, tokens: Int[np.ndarray, "R T"], length: Int[np.ndarray, " R"]
    ) -> Int[np.ndarray, " R"]:
        """Return why each response ended, as `Finish`."""
        last = tokens[np.arange(len(tokens)), length - 1]
        reason = np.full(len(tokens), Finish.LENGTH)
        if self.strings is not None:
            table = np.asarray(self.strings.next)
            state = np.zeros(len(tokens), np.int64)
            for column in range(tokens.shape[1]):
                inside = column < length
                state = np.where(inside, table[state, tokens[:, column]], state)
            reason[state == self.strings.found] = Finish.STRING
        reason[np.isin(last, np.asarray(self.tokens))] = Finish.TOKEN
        return reason


def is_one_of(token: Int[Array, "A S"], tokens: Int[Array, " E"]) -> Bool[Array, "A S"]:
    """Return whether each token is among `tokens`."""
    return jnp.any(token[:, :, None] == tokens[None, None], axis=2)
