"""Tokenizers of published models, and how a conversation becomes tokens."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgpo_jax.models.chat import Message, render
from sgpo_jax.models.tokenizer import Prompt, plain_text

_SPECIALS = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclasses.dataclass(frozen=True, eq=False)
class TextTokenizer:
    """A `tokenizer.json`, with what its neighbours say about it.

    Attributes:
      core: the `tokenizers.Tokenizer`.
      stop_ids: tokens that end a response, the one training writes first.
      chat_template: turns messages into text; None if the model has none.
      specials: text of the special tokens by role ("bos_token", ...), which templates
        may use.
      system: what the system says before a question; if empty, what the template says.
    """

    core: Any
    stop_ids: tuple[int, ...]
    chat_template: str | None
    specials: Mapping[str, str]
    system: str = ""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return max(self.core.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def eos_id(self) -> int:
        """Id of the token that ends a response."""
        return self.stop_ids[0]

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; control tokens spelled in it are plain text."""
        return self._plain.encode(_clean(text), add_special_tokens=False).ids

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt.

        With a chat template, its turns; a text is one turn of the user, and a
        conversation that opens with a system turn keeps it in place of `system`.
        Without one, the plain text, behind the token that the model's texts begin
        with, if they do.
        """
        if self.chat_template is None:
            text = _clean(plain_text(prompt))
            return self._plain.encode(text, add_special_tokens=True).ids
        return self.encode_chat(self._turns(prompt))

    def _turns(self, prompt: Prompt) -> list[Message]:
        turns = [("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if self.system and turns[0][0] != "system":
            turns.insert(0, ("system", self.system))
        return [{"role": role, "content": content} for role, content in turns]

    def prompted(self, *, chat: bool = True, system: str = "") -> "TextTokenizer":
        """Return the tokenizer with another way to write questions.

        Args:
          chat: as a turn of the user, if there is a template; else as plain text, which
            base models continue.
          system: what a turn of the system says before.

        Raises:
          ValueError: if the template does not write what the system says.
        """
        if not chat:
            return dataclasses.replace(self, chat_template=None, system="")
        changed = dataclasses.replace(self, system=system)
        if not system:
            return changed
        remedy = "leave model.prompt.system empty, and say it in the questions"
        if self.chat_template is None:
            raise ValueError(f"the model has no chat template: {remedy}")
        try:
            shown = render(
                self.chat_template, changed._turns("?"), variables=self.specials
            )
        except ValueError as error:
            raise ValueError(f"with a system prompt {error}; {remedy}") from error
        if system.strip() not in shown:
            raise ValueError(
                f"the chat template leaves the system prompt out; {remedy}"
            )
        return changed

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        return self.core.decode(list(ids), skip_special_tokens=True)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation up to where the assistant begins.

        Control tokens come from the template only. Those spelled in a message, or begun
        at its end, are broken in two by a mark while the template renders. Text without
        marks is encoded as transformers does it; otherwise each piece between the
        template's control tokens is, mark removed, as `encode` does.

        Raises:
          ValueError: if there is no template, or it fails.
        """
        if self.chat_template is None:
            raise ValueError("the model has no chat template")
        said = [str(message["content"]) for message in messages]
        mark = "\ue000"
        while any(mark in text for text in said):
            mark += "\ue000"
        marked = [
            {**message, "content": self._break(text, mark)}
            for message, text in zip(messages, said, strict=True)
        ]
        text = render(self.chat_template, marked, variables=self.specials)
        parts = self._control.split(text)
        if mark not in text:
            ids = self._parsing.encode(_clean(text), add_special_tokens=False).ids
            written = [self.core.token_to_id(part) for part in parts[1::2]]
            # Normalization may have made a control token of other characters.
            if [i for i in ids if i in self._control_ids] == written:
                return ids
        ids = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self.core.token_to_id(part))
            elif part:
                ids += self.encode(part.replace(mark, ""))
        return ids

    def _break(self, text: str, mark: str) -> str:
        """Put the mark into control tokens, whole or begun at the end, of a message."""
        text = self._control.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        # A template may drop white space at the end, and go on with another message.
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

    @classmethod
    def from_folder(cls, folder: pathlib.Path) -> "TextTokenizer":
        """Read `tokenizer.json` and what lies beside it.

        Raises:
          ValueError: if a file is missing or wrong, or no token ends a response.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder} holds no tokenizer.json")
        try:
            core = library().Tokenizer.from_file(str(path))
        # The library raises bare exceptions.
        except Exception as error:
            raise ValueError(f"{path} is no tokenizer: {error}") from error
        config = _json(folder / "tokenizer_config.json")
        specials = {key: _content(config[key]) for key in _SPECIALS if config.get(key)}
        template = config.get("chat_template")
        if (folder / "chat_template.jinja").is_file():
            template = (folder / "chat_template.jinja").read_text()
        stops = [core.token_to_id(specials[k]) for k in ("eos_token",) if k in specials]
        for name in ("generation_config.json", "config.json"):
            given = _json(folder / name).get("eos_token_id")
            stops += given if isinstance(given, list) else [given]
        stops = list(dict.fromkeys(stop for stop in stops if isinstance(stop, int)))
        if not stops:
            raise ValueError(f"{folder}: no file says which token ends a response")
        return cls(
            core,
            tuple(stops),
            template if isinstance(template, str) else None,
            specials,
        )

    def save(self, folder: pathlib.Path) -> None:
        """Write files that `transformers.AutoTokenizer` loads."""
        folder.mkdir(parents=True, exist_ok=True)
        self.core.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self.specials,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
            (folder / "chat_template.jinja").write_text(self.chat_template)
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


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


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)
