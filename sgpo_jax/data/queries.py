"""The question every source gives and every later stage reads."""

import collections
import dataclasses
import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

Turn = tuple[str, str]
"""Role and content of one message of a conversation."""

Prompt = str | tuple[Turn, ...]
"""Text of a question, or a conversation."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One question whose answer a program can check.

    Attributes:
      id: unique and stable over runs; `content_id` makes one from the text.
      prompt: the question. Of a conversation, the turns behind the system's as plain
        text; held-out sets are made by it.
      reference: the right answer.
      verifier: which scorer checks a completion: the name of a built-in one
        ("exact", "integer", "gsm8k", "reasoning_gym") or "package.module:function".
      family: source or generator of the question.
      level: difficulty knob of the generator, from 1; None where there is none.
      metadata: what the verifier needs besides the reference, as plain JSON.
      messages: the conversation, pairs of role and content; empty for a single turn
        of the user, which is `prompt`.

    Example:
      >>> query = Query(id="q1", prompt="4+3=", reference="7")
      >>> query.verifier, query.level
      ('exact', None)
    """

    id: str
    prompt: str
    reference: str
    verifier: str = "exact"
    family: str = ""
    level: int | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    messages: tuple[Turn, ...] = ()

    @property
    def turns(self) -> Prompt:
        """Input of `Tokenizer.encode_prompt`: the conversation, else the prompt.

        Example:
          >>> Query(id="q1", prompt="4+3=", reference="7").turns
          '4+3='
        """
        return self.messages or self.prompt


def queries_of(count: int, columns: Mapping[str, Iterable[Any]]) -> list[Query]:
    """Queries from columns, several times faster than one by one.

    Args:
      count: of the queries.
      columns: values of every field, by its name.

    Example:
      >>> fields = {name: [""] for name in ("id", "prompt", "reference", "family")}
      >>> fields |= {"verifier": ["exact"], "level": [None], "messages": [()]}
      >>> queries_of(1, {**fields, "metadata": [{}]})[0].verifier
      'exact'
    """
    made = list(map(object.__new__, itertools.repeat(Query, count)))
    for name, put in _SLOTS.items():
        # Runs the loop without the interpreter's.
        collections.deque(map(put, made, columns[name]), maxlen=0)
    return made


# What a frozen dataclass sets its fields by.
_SLOTS = {
    field.name: getattr(Query, field.name).__set__
    for field in dataclasses.fields(Query)
}


def normalize(prompt: str) -> str:
    """Text under which two spellings of one question are equal.

    Compatibility characters are unified (Unicode NFKC), case is folded and every
    white space is dropped. Two different questions may collide here; that only sends
    both to the same side of a split.

    Example:
      >>> normalize("Find  the GCD") == normalize("find the gcd ")
      True
    """
    if prompt.isascii():
        # The same, several times faster.
        return "".join(prompt.lower().split())
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return "".join(text.split())


def content_id(*parts: str) -> str:
    """Return 16 hexadecimal digits that depend on the parts and nothing else.

    Example:
      >>> content_id("addition", "4+3=") == content_id("addition", "4+3=")
      True
      >>> content_id("ab", "c") == content_id("a", "bc")
      False
    """
    return hashlib.sha256(b"".join(map(_framed, parts))).hexdigest()[:16]


def content_ids(first: str, rest: Iterable[str]) -> list[str]:
    """Return `content_id(first, text)` for each text.

    Example:
      >>> content_ids("gcd", ["4, 6"]) == [content_id("gcd", "4, 6")]
      True
    """
    begun, found = hashlib.sha256(_framed(first)), []
    for text in rest:
        digest = begun.copy()  # half the cost of a new one
        digest.update(_framed(text))
        found.append(digest.hexdigest()[:16])
    return found


def _framed(part: str) -> bytes:
    # Text from files may hold lone surrogates; strict UTF-8 refuses them.
    text = part.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "big") + text
