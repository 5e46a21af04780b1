"""The bytes that each token of a vocabulary writes."""

import json
import re
from typing import Any

from sgpo_jax.models.text import TextTokenizer
from sgpo_jax.models.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer


def token_pieces(tokenizer: Tokenizer) -> tuple[bytes, ...]:
    """Return the bytes of each token; none for special tokens.

    The text of a response is their concatenation, save that SentencePiece drops a space
    at its very beginning.

    Raises:
      ValueError: if the decoder of the tokenizer is unknown.

    >>> token_pieces(CharTokenizer("ab"))
    (b'', b'a', b'b')
    """
    if isinstance(tokenizer, CharTokenizer):
        return (b"", *(letter.encode() for letter in tokenizer.alphabet))
    if isinstance(tokenizer, ByteTokenizer):
        return (*(bytes([value]) for value in range(256)), b"")
    if isinstance(tokenizer, TextTokenizer):
        return _of_library(tokenizer.core)
    raise ValueError(f"cannot read the bytes of the tokens of {type(tokenizer)}")


def _of_library(core: Any) -> tuple[bytes, ...]:
    vocabulary = core.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values()) + 1)
    added = core.get_added_tokens_decoder()
    steps = _steps(json.loads(core.to_str())["decoder"])
    if "ByteLevel" in steps:
        spell = _spell_byte_level
    elif "ByteFallback" in steps or "Metaspace" in steps:
        spell = _spell_sentencepiece
    else:
        raise ValueError(
            f"cannot read the bytes of tokens that are decoded by {sorted(steps)}:"
            " stop strings need a byte-level or SentencePiece tokenizer"
        )
    for token, i in vocabulary.items():
        if i not in added:
            pieces[i] = spell(token)
        elif not added[i].special:
            pieces[i] = added[i].content.encode()
    return tuple(pieces)


def _steps(decoder: dict[str, Any] | None) -> set[str]:
    """Return the names of a decoder's steps."""
    if decoder is None:
        return set()
    if decoder["type"] == "Sequence":
        return set().union(*(_steps(step) for step in decoder["decoders"]))
    return {decoder["type"]}


def _byte_of_letter() -> dict[str, int]:
    """Return GPT-2's table of printable letters for bytes.

    Printable bytes of Latin-1 are their own letters, the others the letters from
    U+0100 on, in order.
    """
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [value for value in range(256) if value not in shown]
    table = {chr(value): value for value in shown}
    return table | {chr(256 + n): value for n, value in enumerate(hidden)}


_BYTES = _byte_of_letter()


def _spell_byte_level(token: str) -> bytes:
    if not set(token) <= _BYTES.keys():
        return token.encode()
    return bytes(_BYTES[letter] for letter in token)


def _spell_sentencepiece(token: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()
