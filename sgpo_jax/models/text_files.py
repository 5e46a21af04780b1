"""Tokenizers of published models as files: read from a folder, written to one."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from sgpo_jax.bounds import shown
from sgpo_jax.models.text import TextTokenizer, library
from sgpo_jax.models.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

_SPECIALS = ("bos_token", "eos_token", "unk_token", "pad_token")
_LARGEST = 1 << 28
_SPARSEST = 4
"""Ids for each token: the library keeps one entry for each id up to the largest."""


def read_folder(folder: pathlib.Path, *, rows: int | None = None) -> TextTokenizer:
    """Read `tokenizer.json` and the files beside it, as transformers does.

    Truncation and padding that were saved with the tokenizer are switched off: prompts
    are encoded whole.

    Args:
      folder: with `tokenizer.json`.
      rows: of the decoder's embedding; tokens beyond are refused when they are encoded.

    Raises:
      ValueError: if a file is missing or wrong, or no token ends a response.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no tokenizer.json{_remedy(folder)}")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST >> 20} MiB")
    try:
        core = library().Tokenizer.from_file(str(path))
        core.no_truncation()
        core.no_padding()
    # The library raises bare exceptions, and panics that are no exceptions.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise ValueError(f"{path} is no tokenizer: {_line(error)}") from None
    known = core.get_vocab(with_added_tokens=True)
    last = max(known, key=known.__getitem__, default="")
    if known and known[last] >= _SPARSEST * len(known) + 2**16:
        raise ValueError(
            f"{path}: token {shown(last)} has id {known[last]}, and there are"
            f" {len(known)} tokens"
        )
    config = read_object(folder / "tokenizer_config.json")
    specials = {
        name: text
        for given in (read_object(folder / "special_tokens_map.json"), config)
        for name in _SPECIALS
        if (text := _content(given.get(name)))
    }
    template, named = _templates(folder, config)
    stops = [core.token_to_id(specials[k]) for k in ("eos_token",) if k in specials]
    for name in ("generation_config.json", "config.json"):
        given = read_object(folder / name).get("eos_token_id")
        stops += given if isinstance(given, list) else [given]
    stops = list(dict.fromkeys(stop for stop in stops if type(stop) is int))
    if not stops:
        raise ValueError(f"{folder}: no file names the token that ends a response")
    limit = core.get_vocab_size(with_added_tokens=True) if rows is None else rows
    if any(not 0 <= stop < limit for stop in stops):
        raise ValueError(
            f"{folder}: token {max(stops)} is to end a response, and there are {limit}"
        )
    return TextTokenizer(
        core, tuple(stops), template, specials, templates=named, rows=rows
    )


def _remedy(folder: pathlib.Path) -> str:
    """Return how to convert the tokenizer, if it is there in another form."""
    for name in ("tokenizer.model", "vocab.json"):
        if (folder / name).is_file():
            return (
                f", only {name}; transformers writes one:"
                " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
    return ""


def _templates(
    folder: pathlib.Path, config: Mapping[str, Any]
) -> tuple[str | None, dict[str, str]]:
    """Return the default chat template, and those with other names."""
    given = config.get("chat_template")
    named: dict[str, str] = {}
    if isinstance(given, list):
        for entry in given:
            if not isinstance(entry, dict):
                continue
            name, text = entry.get("name"), entry.get("template")
            if isinstance(name, str) and isinstance(text, str):
                named[name] = text
    elif isinstance(given, str):
        named["default"] = given
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        named[path.stem] = _text(path)
    if (folder / "chat_template.jinja").is_file():
        named["default"] = _text(folder / "chat_template.jinja")
    return named.pop("default", None), named


def save_folder(tokenizer: TextTokenizer, folder: pathlib.Path) -> None:
    """Write files that `transformers.AutoTokenizer` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.core.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **tokenizer.specials,
    }
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
        (folder / "chat_template.jinja").write_text(tokenizer.chat_template)
    others = folder / "additional_chat_templates"
    for name, text in tokenizer.templates.items():
        others.mkdir(exist_ok=True)
        (others / f"{pathlib.PurePath(name).name}.jinja").write_text(text)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def as_text_tokenizer(tokenizer: Tokenizer) -> TextTokenizer:
    """Return a tokenizer of bytes or characters in the form of `tokenizer.json`.

    Raises:
      ValueError: if it is another kind.

    Example:
      >>> as_text_tokenizer(ByteTokenizer()).encode("2+2")
      [50, 43, 50]
    """
    lib = library()
    match tokenizer:
        case TextTokenizer():
            return tokenizer
        case ByteTokenizer():
            # The letters for bytes in tokenizer.json, as in GPT-2.
            shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
            hidden = [byte for byte in range(256) if byte not in shown]
            letters = {byte: chr(byte) for byte in shown}
            letters |= {byte: chr(256 + i) for i, byte in enumerate(hidden)}
            vocab = {letters[byte]: byte for byte in range(256)}
            core = lib.Tokenizer(lib.models.BPE(vocab=vocab, merges=[]))
            core.pre_tokenizer = lib.pre_tokenizers.ByteLevel(
                add_prefix_space=False, use_regex=False
            )
            core.decoder = lib.decoders.ByteLevel()
        case CharTokenizer(alphabet=alphabet):
            vocab = {"<eos>": 0, **{c: i for i, c in enumerate(alphabet, start=1)}}
            core = lib.Tokenizer(lib.models.BPE(vocab=vocab, merges=[]))
            core.decoder = lib.decoders.Fuse()
        case _:
            raise ValueError(
                f"a {type(tokenizer).__name__} has no tokenizer.json to be saved as"
            )
    core.add_special_tokens([lib.AddedToken("<eos>", special=True)])
    end = core.token_to_id("<eos>")
    return TextTokenizer(core, (end,), None, {"eos_token": "<eos>"})


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Return the JSON object of a file; empty if there is no file.

    Raises:
      ValueError: if it is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {_line(error)}") from None
    return content if isinstance(content, dict) else {}


def _text(path: pathlib.Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST >> 20} MiB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}") from None


def _content(token: Any) -> str:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
