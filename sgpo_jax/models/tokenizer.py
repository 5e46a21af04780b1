"""Tokenizers small enough to need no files."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

Prompt = str | Sequence[tuple[str, str]]
"""A question of the user, or a conversation: pairs of role and content."""


def plain_text(prompt: Prompt) -> str:
    r"""Return the text of a prompt where there is no chat template.

    Turns of a conversation are separated by an empty line, their roles left out.

    Example:
      >>> plain_text((("system", "Be brief."), ("user", "4+3=")))
      'Be brief.\n\n4+3='
    """
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(content for _, content in prompt)


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    EOS ends a response; it is part of the response and of the loss.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        ...

    @property
    def eos_id(self) -> int:
        """Id of the end-of-sequence token."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a response, `eos_id` first; most have no other."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without any special token."""
        ...

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt, in the chat template if there is one."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        ...


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """One token per character of a fixed alphabet, with EOS as id 0.

    >>> tokenizer = CharTokenizer("0123456789+=")
    >>> tokenizer.encode("4+8=")
    [5, 11, 9, 12]
    >>> tokenizer.decode([2, 3, 0])
    '12'
    """

    alphabet: str

    def __post_init__(self):
        if len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError(f"alphabet repeats a character: {self.alphabet!r}")

    @property
    def vocab_size(self) -> int:
        """Number of ids, EOS included."""
        return len(self.alphabet) + 1

    @property
    def eos_id(self) -> int:
        """Id of the end-of-sequence token."""
        return 0

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end-of-sequence token only."""
        return (self.eos_id,)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of the plain text: there is no template."""
        return self.encode(plain_text(prompt))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; raises ValueError on an unknown character."""
        ids = [self.alphabet.find(character) + 1 for character in text]
        if 0 in ids:
            unknown = sorted({c for c, i in zip(text, ids, strict=True) if i == 0})
            raise ValueError(
                f"characters {unknown} of {text[:80]!r} are not in the alphabet;"
                " use the byte tokenizer for arbitrary text"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, EOS left out."""
        return "".join(self.alphabet[i - 1] for i in ids if i)


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """The 256 bytes of UTF-8, with EOS as id 256.

    >>> ByteTokenizer().encode("é=")
    [195, 169, 61]
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, EOS included."""
        return 257

    @property
    def eos_id(self) -> int:
        """Id of the end-of-sequence token."""
        return 256

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end-of-sequence token only."""
        return (self.eos_id,)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of the plain text: there is no template."""
        return self.encode(plain_text(prompt))

    def encode(self, text: str) -> list[int]:
        """Return the UTF-8 bytes; a lone surrogate becomes a question mark."""
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")
