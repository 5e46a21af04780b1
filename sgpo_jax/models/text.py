"""Tokenizers of published models, and how a conversation becomes tokens."""

import array
import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgpo_jax.models.chat import Message, render
from sgpo_jax.models.tokenizer import Prompt, plain_text

_UNCHOSEN = (
    "the model's chat templates are {0}: choose one with prompt.template, or plain text"
    " with prompt.no-chat"
)


@dataclasses.dataclass(frozen=True, eq=False)
class TextTokenizer:
    """Tokenizer of a `tokenizer.json`, with the configuration beside it.

    Attributes:
      core: the `tokenizers.Tokenizer`.
      stop_ids: tokens that end a response, the one training writes first.
      chat_template: turns messages into text; None if the model has none.
      specials: text of the special tokens by role ("bos_token", ...), which templates
        may use.
      system: the system prompt before a question; if empty, the template's own.
      templates: further chat templates by name, to be chosen with `prompted`.
      variables: what else the template may read, such as `enable_thinking`.
      rows: rows of the decoder's embedding, if the vocabulary may be larger.
    """

    core: Any
    stop_ids: tuple[int, ...]
    chat_template: str | None
    specials: Mapping[str, str]
    system: str = ""
    templates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rows: int | None = None

    @property
    def vocab_size(self) -> int:
        """Number of ids the decoder can read, special ones included."""
        return self._vocab_size

    @functools.cached_property
    def _vocab_size(self) -> int:
        ids = max(self.core.get_vocab(with_added_tokens=True).values()) + 1
        return ids if self.rows is None else min(ids, self.rows)

    @property
    def eos_id(self) -> int:
        """Id of the token that ends a response."""
        return self.stop_ids[0]

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; control tokens spelled in it are plain text."""
        ids = self._plain.encode(_clean(text), add_special_tokens=False).ids
        return self._checked(ids)

    def _checked(self, ids: list[int]) -> list[int]:
        """Refuse tokens without a row in the embedding, as Gemma 3 1B has one of."""
        if self.rows is not None and max(ids, default=0) >= self.rows:
            beyond = max(ids)
            raise ValueError(
                f"token {self.core.id_to_token(beyond)!r} has id {beyond}, and the"
                f" decoder's embedding {self.rows} rows: leave it out of the text and"
                " the template"
            )
        return ids

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt.

        With a chat template, its turns; a text is one turn of the user, and a
        conversation that opens with a system turn keeps it in place of `system`.
        Without one, the plain text, behind the token that the model's texts begin
        with, if they do. Each prompt is encoded once, and its ids kept in four bytes
        each.
        """
        key = prompt if isinstance(prompt, str) else tuple(map(tuple, prompt))
        if (known := self._encoded.get(key)) is None:
            known = self._encoded[key] = array.array("i", self._encode_prompt(prompt))
        return known.tolist()

    @functools.cached_property
    def _encoded(self) -> dict[Any, "array.array[int]"]:
        return {}

    def _encode_prompt(self, prompt: Prompt) -> list[int]:
        if self.chat_template is None and self.templates:
            raise ValueError(_UNCHOSEN.format(", ".join(self.templates)))
        if self.chat_template is None:
            text = _clean(plain_text(prompt))
            ids = self._plain.encode(text, add_special_tokens=True).ids
            return self._checked(ids)
        return self.encode_chat(self._turns(prompt))

    def _turns(self, prompt: Prompt) -> list[Message]:
        turns = [("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if self.system and turns[0][0] != "system":
            turns.insert(0, ("system", self.system))
        return [{"role": role, "content": content} for role, content in turns]

    def prompted(
        self,
        *,
        chat: bool = True,
        system: str = "",
        template: str = "",
        variables: Mapping[str, Any] | None = None,
    ) -> "TextTokenizer":
        """Return the tokenizer with another way to write questions.

        Args:
          chat: as a turn of the user, if there is a template; else as plain text, which
            base models continue.
          system: the system prompt before it.
          template: name of the chat template, for models with several.
          variables: what else the template may read.

        Raises:
          ValueError: if there is no such template, or it fails, or it leaves the system
            prompt out.
        """
        given = {**self.variables, **(variables or {})}
        if not chat:
            if system or template or variables:
                raise ValueError(
                    "plain text has no system prompt, template and variables: drop"
                    " them, or prompt.no-chat (chat=False)"
                )
            return dataclasses.replace(
                self, chat_template=None, system="", templates={}, variables={}
            )
        chosen = self._choose(template)
        changed = dataclasses.replace(
            self, chat_template=chosen, system=system, variables=given
        )
        if not (system or template or variables):
            return changed
        if chosen is None:
            raise ValueError(
                "the model has no chat template: leave prompt.system, prompt.template"
                " and prompt.variables empty, and put it in the questions"
            )
        changed._check_template(variables or {})
        return changed

    def _choose(self, name: str) -> str | None:
        """Return the template of a name, the default one without."""
        default = self.chat_template if name in ("", "default") else None
        chosen = self.templates.get(name, default)
        if chosen is None and (name or self.templates):
            names = ", ".join(self.templates) or "none by name"
            raise ValueError(_UNCHOSEN.format(names))
        return chosen

    def _check_template(self, variables: Mapping[str, Any]) -> None:
        """Refuse a template that fails, or ignores the system prompt."""
        assert self.chat_template is not None
        remedy = "leave prompt.system empty, and put it in the questions"
        try:
            shown = render(self.chat_template, self._turns("?"), variables=self._names)
        except ValueError as error:
            if not self.system:
                raise
            raise ValueError(f"with a system prompt {error}; {remedy}") from error
        if self.system.strip() not in shown:
            raise ValueError(
                f"the chat template leaves the system prompt out; {remedy}"
            )
        for name in variables:
            if not re.search(rf"\b{re.escape(name)}\b", self.chat_template):
                raise ValueError(
                    f"the chat template does not read {name!r}: drop it from"
                    " prompt.variables"
                )

    @property
    def _names(self) -> dict[str, Any]:
        """Variables of the chat template besides the messages."""
        return {**self.specials, **self.variables}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        return self.core.decode(list(ids), skip_special_tokens=True)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation up to where the assistant begins.

        Control tokens are the template's only. Those spelled in a message, or begun
        at its end, are broken in two by a mark while the template renders. Text without
        marks is encoded as transformers does it; otherwise each piece between the
        template's control tokens is, mark removed, as `encode` does.

        Raises:
          ValueError: if there is no template, or it fails.
        """
        if self.chat_template is None:
            if self.templates:
                raise ValueError(_UNCHOSEN.format(", ".join(self.templates)))
            raise ValueError("the model has no chat template")
        texts = [str(message["content"]) for message in messages]
        mark = "\ue000"
        while any(mark in text for text in texts):
            mark += "\ue000"
        marked = [
            {**message, "content": self._break(text, mark)}
            for message, text in zip(messages, texts, strict=True)
        ]
        text = render(self.chat_template, marked, variables=self._names)
        parts = self._control.split(text)
        if mark not in text:
            ids = self._parsing.encode(_clean(text), add_special_tokens=False).ids
            written = [self.core.token_to_id(part) for part in parts[1::2]]
            # Normalization may have made a control token of other characters.
            if [i for i in ids if i in self._control_ids] == written:
                return self._checked(ids)
        ids = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self.core.token_to_id(part))
            elif part:
                ids += self.encode(part.replace(mark, ""))
        return self._checked(ids)

    def _break(self, text: str, mark: str) -> str:
        """Put the mark into control tokens, whole or begun at the end, of a message."""
        text = self._control.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        # A template may drop white space at the end, and continue with another message.
        end = len(text.rstrip())
        begun = [
            size
            for token in self._specials
            for size in range(1, len(token))
            if text.endswith(token[:size], 0, end)
        ]
        if not begun:
            return text
        start = end - max(begun)
        return text[: start + 1] + mark + text[start + 1 :]

    @functools.cached_property
    def _parsing(self) -> Any:
        """A copy that parses control tokens: the setting is the tokenizer's own."""
        return library().Tokenizer.from_str(self.core.to_str())

    @functools.cached_property
    def _plain(self) -> Any:
        """A copy to which control tokens are text."""
        content = json.loads(self.core.to_str())
        for token in content["added_tokens"]:
            token["special"] = token["content"] in self._specials
        core = library().Tokenizer.from_str(json.dumps(content))
        core.encode_special_tokens = True
        return core

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        """Control tokens and their ids, the longest first.

        Those marked as special, and what the template writes without such a mark, as
        Qwen3's does with tags of thoughts and tools. Other added tokens only write
        text: runs of white space, tags of HTML.
        """
        template = self.chat_template or ""
        tokens = {
            token.content: i
            for i, token in self.core.get_added_tokens_decoder().items()
            if token.special or (token.content.strip() and token.content in template)
        }
        return dict(sorted(tokens.items(), key=lambda item: -len(item[0])))

    @functools.cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self._specials.values())

    @functools.cached_property
    def _control(self) -> re.Pattern[str]:
        if not self._specials:
            return re.compile("((?!))")
        return re.compile(f"({'|'.join(map(re.escape, self._specials))})")


def _clean(text: str) -> str:
    """Replace lone surrogates, which the library refuses less politely."""
    return text.encode("utf-8", "replace").decode()


def library() -> Any:
    """Return the package `tokenizers`, which only published models need."""
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "this model's tokenizer needs tokenizers: pip install 'sgpo_jax[hf]'"
        ) from error
    return tokenizers
