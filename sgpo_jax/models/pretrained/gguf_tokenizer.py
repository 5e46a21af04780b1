"""Tokenizers rebuilt from the metadata of GGUF files.

There are two kinds. `gpt2` files hold merges of bytes and the name of a rule that cuts
text before them; `llama` files hold SentencePiece's pieces with a score each, from
which merges follow.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sgpo_jax.models.pretrained.gguf import tokenizer_fields
from sgpo_jax.models.text import TextTokenizer, library

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "▁"  # what SentencePiece writes for a space
_ROLES = {
    "bos_token": "ggml.bos_token_id",
    "eos_token": "ggml.eos_token_id",
    "unk_token": "ggml.unknown_token_id",
    "pad_token": "ggml.padding_token_id",
}


def read_tokenizer(path: pathlib.Path) -> TextTokenizer:
    """Rebuild the tokenizer of a GGUF file.

    Raises:
      ValueError: if it is of a kind that is not known to be rebuilt exactly.
    """
    fields = tokenizer_fields(path)
    kind, cuts = fields.get("ggml.model"), fields.get("ggml.pre", "default")
    try:
        match kind:
            case "llama":
                core = _sentencepiece(fields)
            case "gpt2" if cuts in _CUTS:
                core = _byte_level(fields, _CUTS[cuts])
            case _:
                raise ValueError(
                    f"tokenizer {kind!r} with cuts {cuts!r} cannot be rebuilt, only"
                    f" 'llama', and 'gpt2' with {', '.join(_CUTS)}; load the model from"
                    " a folder with tokenizer.json instead"
                )
        tokens = fields["ggml.tokens"]
        specials = {
            role: tokens[fields[key]] for role, key in _ROLES.items() if key in fields
        }
        stops = [
            fields[f"ggml.{key}_token_id"]
            for key in ("eos", "eot", "eom")
            if f"ggml.{key}_token_id" in fields
        ]
    except (KeyError, IndexError) as error:
        raise ValueError(f"{path}: tokenizer metadata lack {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not stops:
        raise ValueError(f"{path}: no metadata name the token that ends a response")
    starts = kind == "llama" or cuts in _STARTING
    if "bos_token" in specials and fields.get("ggml.add_bos_token", starts):
        bos = specials["bos_token"]
        core.post_processor = library().processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    template = fields.get("chat_template")
    return TextTokenizer(core, tuple(dict.fromkeys(stops)), template, specials)


def _byte_level(fields: Mapping[str, Any], cuts: "_Cuts") -> Any:
    """Merges of bytes, in the order the file gives them."""
    lib = library()
    tokens = fields["ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["ggml.merges"]]
    if any(len(merge) != 2 for merge in merges):
        raise ValueError("a merge has not two parts")
    model = lib.models.BPE(
        vocab=_numbered(tokens), merges=merges, ignore_merges=cuts in _WHOLE
    )
    core = lib.Tokenizer(model)
    core.normalizer = lib.normalizers.NFC() if cuts is _QWEN2 else None
    core.pre_tokenizer = cuts(lib)
    core.decoder = lib.decoders.ByteLevel()
    _add(core, zip(tokens, fields["ggml.token_type"], strict=True))
    return core


def _sentencepiece(fields: Mapping[str, Any]) -> Any:
    """Merges of characters, those that make the piece of the highest score first."""
    lib = library()
    if fields.get("ggml.remove_extra_whitespaces") or fields.get(
        "ggml.precompiled_charsmap"
    ):
        raise ValueError("text would be normalized first, which is not rebuilt")
    types = fields["ggml.token_type"]
    tokens = [
        token.replace(_SPACE, " ") if kind == _USER_DEFINED else token
        for token, kind in zip(fields["ggml.tokens"], types, strict=True)
    ]
    of_kind = {kind: [] for kind in types}
    for token, kind in zip(tokens, types, strict=True):
        of_kind[kind].append(token)
    (unknown,) = of_kind[_UNKNOWN]
    of_bytes = of_kind.get(_BYTE, [])
    if len(of_bytes) not in (0, 256):
        raise ValueError(f"{len(of_bytes)} of 256 bytes have a token")
    model = lib.models.BPE(
        vocab=_numbered(tokens),
        merges=_merges(tokens, fields["ggml.scores"], types),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=bool(of_bytes),
    )
    core = lib.Tokenizer(model)
    prefixed = fields.get("ggml.add_space_prefix", True)
    replace = lib.normalizers.Replace(" ", _SPACE)
    decode = [
        lib.decoders.Replace(_SPACE, " "),
        lib.decoders.ByteFallback(),
        lib.decoders.Fuse(),
    ]
    if prefixed:
        prepend = lib.normalizers.Prepend(_SPACE)
        core.normalizer = lib.normalizers.Sequence([prepend, replace])
        decode.append(lib.decoders.Strip(" ", 1, 0))
    else:
        core.normalizer = replace
    core.decoder = lib.decoders.Sequence(decode)
    _add(core, zip(tokens, types, strict=True))
    return core


def _merges(
    tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]
) -> list[tuple[str, str]]:
    """Return every pair of pieces that makes a piece, the highest score first.

    SentencePiece joins the neighbours whose piece has the highest score, the leftmost
    first where two have the same. An order of merges says so for runs of one character,
    as Llama 2 and Mistral have them of spaces: the longest run first. Other pieces of
    the same score are refused.
    """
    score = {
        token: score
        for token, score, kind in zip(tokens, scores, types, strict=True)
        if kind == _NORMAL
    }

    def halves(piece: str) -> Iterator[tuple[str, str]]:
        for cut in range(1, len(piece)):
            if piece[:cut] in score and piece[cut:] in score:
                yield piece[:cut], piece[cut:]

    for token, kind in zip(tokens, types, strict=True):
        if kind == _UNUSED and any(halves(token)):
            raise ValueError(f"token {token!r} is only a step to longer ones")
        if kind == _NORMAL and len(token) > 1 and not set(token) <= score.keys():
            raise ValueError(f"characters of token {token!r} are no tokens")
    made = [piece for piece in score if any(halves(piece))]
    made.sort(key=lambda piece: (-score[piece], -len(piece)))
    for one, other in itertools.pairwise(made):
        runs = len(set(one)) == 1 == len(set(other))
        if score[one] == score[other] and not runs:
            raise ValueError(f"tokens {one!r} and {other!r} have the same score")
    return [pair for piece in made for pair in halves(piece)]


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ValueError("tokens repeat")
    return vocab


def _add(core: Any, kinds: Iterator[tuple[str, int]]) -> None:
    """Return the control tokens, and those matched before text is split."""
    control = (_CONTROL, _UNKNOWN)
    core.add_tokens(
        [
            library().AddedToken(token, special=kind in control, normalized=False)
            for token, kind in kinds
            if kind in (*control, _USER_DEFINED)
        ]
    )


_Cuts = Callable[[Any], Any]


def _cut_gpt2(lib: Any) -> Any:
    return lib.pre_tokenizers.ByteLevel(add_prefix_space=False)


def _cut_digits(lib: Any) -> Any:
    digits = lib.pre_tokenizers.Digits(individual_digits=True)
    return lib.pre_tokenizers.Sequence([digits, _cut_gpt2(lib)])


def _cut(lib: Any, *, words: str, digits: str, after: str = r"\r\n") -> Any:
    """Cut at words, at numbers, and at signs with what may follow them."""
    pattern = (
        rf"{words}|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[{after}]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    pre = lib.pre_tokenizers
    split = pre.Split(lib.Regex(pattern), behavior="isolated")
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre.Sequence([split, byte_level])


# Words of Tekken end before a capital letter.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_WORDS = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_BEFORE}\p{{L}}+"
_CASED = f"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*"
_LLAMA3 = functools.partial(_cut, words=_WORDS, digits="{1,3}")
_QWEN2 = functools.partial(_cut, words=_WORDS, digits="")
_TEKKEN = functools.partial(_cut, words=_CASED, digits="", after=r"\r\n/")
# How text is cut before merges, by the name in a file.
_CUTS: Mapping[str, _Cuts] = {
    "gpt-2": _cut_gpt2,
    "smollm": _cut_digits,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "tekken": _TEKKEN,
}
# A token that is a whole cut is taken as it is.
_WHOLE = (_LLAMA3, _TEKKEN)
# Text begins with a token of its own unless the file overrides it.
_STARTING = ("llama-bpe", "llama3", "llama-v3", "tekken")
