"""Tokenizers rebuilt from GGUF files, against the libraries they were made with."""

import dataclasses
import io
import json
import random
import re
import unicodedata

import pytest

from sgpo_jax.models import pretrained

tokenizers = pytest.importorskip("tokenizers")
gguf = pytest.importorskip("gguf")
pytest.importorskip("jinja2")

TEMPLATE = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
CONTROL = ["<|end|>", "<|user|>", "<|assistant|>"]
HOSTILE = [
    "",
    " ",
    "a",
    " a",
    "  a  b   c ",
    "\t\n\r\n\n\n\n x",
    "▁ ▁▁a",
    "don't WON'T it'S l'été",
    "1234567890 ١٢٣ １２ ²½",
    "漢字かな 한글 عربي שלום हिन्दी",
    "🙂👩‍👩‍👧 e\u0301 ﬁ Ａ\u200b\u202e\ufeff",
    "\x00\x01\x7f\x85\xa0",
    "<s></s><unk> <0x0A> <|end|>",
    "==>=> ===x",
    "a" * 99,
]


def write(path, kind, pieces, fields=(), **arrays):
    """Write a GGUF file of metadata only; pieces are (token, type)."""
    writer = gguf.GGUFWriter(path, "llama")
    add(writer, kind, pieces, fields, **arrays)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer, kind, pieces, fields=(), **arrays):
    """Add a vocabulary to a file that is written."""
    writer.add_tokenizer_model(kind)
    writer.add_token_list([token for token, _ in pieces])
    writer.add_token_types([number for _, number in pieces])
    for name, value in (*arrays.items(), *fields):
        getattr(writer, f"add_{name}")(value)


def rebuild(path):
    return pretrained.read_tokenizer(path)


# --- SentencePiece: pieces with scores -----------------------------------------------


def train(*, prefix, symbols=(), byte_fallback=True):
    sentencepiece = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    text = (
        "What is 12+345? The answer isn't  two, 漢字 and été abab aabaa ==> a",
        "aaaa bbbb abba baab  x  y   z the then there these aa aaa aaaaaaa",
    )
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 3),
        model_writer=out,
        model_type="bpe",
        vocab_size=256 + 130 + len(symbols),
        byte_fallback=byte_fallback,
        user_defined_symbols=list(symbols),
        control_symbols=["<|user|>", "<|end|>"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def convert(path, model, *, symbols, prefix, **more):
    """What a converter writes: pieces, their scores, and types by what they are."""
    pieces, scores = [], []
    for i in range(model.vocab_size()):
        piece = model.id_to_piece(i)
        kinds = (model.is_unknown, model.is_control, model.is_unused, model.is_byte)
        kind = [*(is_kind(i) for is_kind in kinds), piece in symbols, True].index(True)
        pieces.append((piece, (2, 3, 5, 6, 4, 1)[kind]))
        scores.append(model.get_score(i))
    fields = {
        "token_scores": scores,
        "add_space_prefix": prefix,
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
        "unk_token_id": model.unk_id(),
        **more,
    }
    write(path, "llama", pieces, fields.items())


def fuzz(alphabet, seed=0):
    draw = random.Random(seed)
    for _ in range(500):
        yield "".join(draw.choices(alphabet, k=draw.randrange(1, 30)))


@pytest.mark.parametrize(
    ("prefix", "symbols"),
    [
        (True, ()),
        (False, ()),
        (True, ("==>", "\n\n", "aba")),
        (False, ("==>", "\n\n", "▁▁", "ab▁a")),
    ],
)
def test_pieces_are_those_of_sentencepiece(prefix, symbols, tmp_path):
    model = train(prefix=prefix, symbols=symbols)
    path = tmp_path / "m.gguf"
    convert(path, model, symbols=symbols, prefix=prefix)
    ours = rebuild(path)
    assert ours.vocab_size == model.vocab_size()
    texts = [*HOSTILE, *fuzz("ab "), *fuzz("the2 ='▁\n漢🙂")]
    if prefix:
        # A prefix follows symbols in llama.cpp, which the files are for, and none comes
        # before them: compare up to the first one.
        found = re.compile("|".join(map(re.escape, symbols)) or "(?!)")
        first = [(text, found.search(text)) for text in texts]
        texts = [text[: at.end()] if at else text for text, at in first]
        texts = [text for text in texts if not found.match(text)]
    if any("▁" in symbol for symbol in symbols):
        # Such symbols are of spaces here, in SentencePiece of either.
        texts = [text.replace("▁", " ") for text in texts]
    assert len(texts) > 500
    for text in texts:
        ids = model.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == model.decode(ids), text


def test_runs_of_one_score_grow_from_the_left(tmp_path):
    """As Llama 2 and Mistral have them of spaces, with gaps in their lengths."""
    model = train(prefix=True)
    pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    content = pb2.ModelProto.FromString(model.serialized_model_proto())
    runs = [*("▁" * n for n in (2, 4, 8, 5, 6, 3, 9)), "bb", "bbb", "bbbbb"]
    kept = [piece for piece in content.pieces if piece.piece not in runs]
    del content.pieces[:]
    content.pieces.extend(kept)
    for run in runs:
        content.pieces.add(piece=run, type=1, score=-1e9)
    model = type(model)(model_proto=content.SerializeToString())
    convert(tmp_path / "m.gguf", model, symbols=(), prefix=True)
    ours = rebuild(tmp_path / "m.gguf")
    counted = [" " * n + "x" + "b" * m for n in range(25) for m in range(12)]
    for text in (*counted, *fuzz("  ab"), *fuzz("   the")):
        assert ours.encode(text) == model.encode(text), text


def test_unknown_characters_without_bytes(tmp_path):
    model = train(prefix=True, byte_fallback=False)
    path = tmp_path / "m.gguf"
    convert(path, model, symbols=(), prefix=True)
    ours = rebuild(path)
    for text in ("a🙂🙂 b", "🙂", "🙂 \x00 the"):
        assert ours.encode(text) == model.encode(text)
        assert model.unk_id() in ours.encode(text)


def test_what_scores_do_not_decide_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    letters = [("<unk>", 2), ("</s>", 3), ("a", 1), ("b", 1), ("c", 1)]

    def refused(message, *more, fields=(), scores=None):
        pieces = [*letters, *more]
        scores = scores or [-float(i) for i in range(len(pieces))]
        fields = [("eos_token_id", 1), *fields]
        write(path, "llama", pieces, fields, token_scores=scores)
        with pytest.raises(ValueError, match=message):
            rebuild(path)

    refused("'ab' and 'bc' have the same", ("ab", 1), ("bc", 1), scores=[0.0] * 7)
    refused("'ab' is only a step", ("ab", 5), ("abc", 1))
    refused("characters of token 'ad'", ("ad", 1))
    refused("tokens repeat", ("a", 1))
    refused("1 of 256 bytes", ("<0x00>", 6))
    refused("normalized first", fields=[("remove_extra_whitespaces", True)])
    write(path, "llama", letters, token_scores=[0.0] * 5)
    with pytest.raises(ValueError, match="the token that ends a response"):
        rebuild(path)
    write(path, "bert", letters)
    with pytest.raises(ValueError, match="tokenizer 'bert' with cuts 'default' cannot"):
        rebuild(path)
    write(path, "llama", letters)
    with pytest.raises(ValueError, match=r"metadata lack 'ggml\.scores'"):
        rebuild(path)


def test_texts_begin_as_the_file_says(tmp_path):
    """A plain prompt begins with the token that texts of training began with."""
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1)]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "eot_token_id": 1}
    for more, expected in (
        ({}, [1, 3, 4]),
        ({"add_bos_token": True}, [1, 3, 4]),
        ({"add_bos_token": False}, [3, 4]),
    ):
        path = tmp_path / "m.gguf"
        fields = {"token_scores": [-1.0, -2.0, -3.0, -4.0, -5.0], **ids, **more}
        write(path, "llama", pieces, fields.items())
        ours = rebuild(path)
        assert ours.encode_prompt("a") == expected
        assert ours.encode("a") == [3, 4]
        assert ours.stop_ids == (2, 1)


# --- Merges of bytes -----------------------------------------------------------------

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHER = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = {
    "gpt-2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": _WORDS + r"\p{N}{1,3}" + _OTHER,
    "qwen2": _WORDS + r"\p{N}" + _OTHER,
    "tekken": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
TEXTS = [
    "Don't  WON'T\t\n\n HTTPServer isOK a//b /\n//",
    "It's 123 of 4567,  isn't it?\n\n\n It IS 12 OF it" * 9,
]


def learn(cuts):
    """Return (tokens as bytes in order, merges) of a vocabulary for such cuts."""
    pre = tokenizers.pre_tokenizers
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre.Split(tokenizers.Regex(PUBLISHED[cuts]), "isolated")
    core.pre_tokenizer = pre.Sequence([split, level])
    alphabet = pre.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS,
        tokenizers.trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=alphabet, show_progress=False
        ),
    )
    vocab = core.get_vocab()
    merges = json.loads(core.to_str())["model"]["merges"]
    return sorted(vocab, key=lambda token: vocab[token]), merges


@pytest.mark.parametrize("cuts", PUBLISHED)
def test_merges_of_bytes_are_those_of_tiktoken(cuts, tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    tokens, merges = learn(cuts)
    starts = cuts in ("llama-bpe", "tekken")
    if starts:
        tokens.append("Ġunseen")  # a whole cut, which no merge makes
    path = tmp_path / "m.gguf"
    pieces = [(token, 1) for token in tokens] + [(token, 3) for token in CONTROL]
    fields = {
        "tokenizer_pre": cuts,
        "token_merges": [" ".join(merge) for merge in merges],
        "eos_token_id": len(tokens),
        "bos_token_id": len(tokens) + 1,
        "chat_template": TEMPLATE,
    }
    write(path, "gpt2", pieces, fields.items())
    ours = rebuild(path)
    # The usual way to write bytes as letters: those that print, then the others.
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in prints]
    letters = {chr(b): b for b in prints} | {
        chr(256 + i): b for i, b in enumerate(others)
    }
    ranks = {bytes(letters[c] for c in token): i for i, token in enumerate(tokens)}
    theirs = tiktoken.Encoding(
        "x", pat_str=PUBLISHED[cuts], mergeable_ranks=ranks, special_tokens={}
    )
    alphabet = "aIt's isn'T12Ⅷ²  \n\t./é漢Ǆʰ\u0301ſ🙂"
    for text in (*TEXTS, *HOSTILE, "an unseen", *fuzz(alphabet)):
        given = unicodedata.normalize("NFC", text) if cuts == "qwen2" else text
        assert ours.encode(text) == theirs.encode_ordinary(given), text
        assert ours.decode(ours.encode(text)) == given
    plain = dataclasses.replace(ours, chat_template=None)
    assert plain.encode_prompt("a") == [len(tokens) + 1] * starts + ours.encode("a")
    assert (ours.stop_ids, ours.chat_template) == ((len(tokens),), TEMPLATE)
    user, end = len(tokens) + 1, len(tokens)
    assert ours.encode_prompt("a<|end|>") == [user, *ours.encode("a<|end|>"), end]
    assert end not in ours.encode("<|end|>")
    assert ours.decode([user, *ours.encode("a"), end]) == "a"


def test_digits_of_smollm_stand_alone(tmp_path):
    pre = tokenizers.pre_tokenizers
    tokens, merges = learn("gpt-2")
    path = tmp_path / "m.gguf"
    fields = {
        "tokenizer_pre": "smollm",
        "token_merges": [" ".join(merge) for merge in merges],
        "eos_token_id": 0,
    }
    write(path, "gpt2", [(token, 1) for token in tokens], fields.items())
    ours = rebuild(path)
    pairs = [tuple(merge) for merge in merges]
    vocab = {token: i for i, token in enumerate(tokens)}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=pairs))
    alone = pre.Split(tokenizers.Regex(r"\p{N}"), "isolated")
    theirs.pre_tokenizer = pre.Sequence([alone, pre.ByteLevel(add_prefix_space=False)])
    for text in (*TEXTS, *HOSTILE, *fuzz("aI12Ⅷ²  \n'tis")):
        assert ours.encode(text) == theirs.encode(text).ids, text
    assert len(ours.encode("4567")) == 4 > len(ours.encode("isn"))
