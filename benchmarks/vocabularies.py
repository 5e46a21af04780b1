"""Real vocabularies through GGUF and back, against the libraries they belong to.

`python benchmarks/vocabularies.py` writes each vocabulary that an installed package
brings (`pip install --no-deps mistral-common llama-models openai-whisper dashscope`)
into a GGUF file, rebuilds the tokenizer from it and compares ids and decoded text with
SentencePiece or tiktoken, and ids with llama.cpp's server (`xllamacpp`) on the file.
"""

import argparse
import base64
import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unicodedata
import urllib.request
from collections.abc import Callable, Iterator

import gguf
import numpy as np
import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2

from sgpo_jax.models.pretrained import read_tokenizer

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
OTHER = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Package, file, kind; and how text is cut, by name and by pattern.
SOURCES = {
    "Mistral 7B v0.1": ("mistral-common", "data/tokenizer.model.v1", ""),
    "Mistral 7B v0.3": (
        "mistral-common",
        "data/mistral_instruct_tokenizer_240323.model.v3",
        "",
    ),
    "Mistral Nemo (Tekken)": ("mistral-common", "data/tekken_240911.json", "tekken"),
    "Llama 3": ("llama-models", "llama3/tokenizer.model", "llama-bpe"),
    "Qwen": ("dashscope", "resources/qwen.tiktoken", "qwen2"),
    "GPT-2": ("openai-whisper", "assets/gpt2.tiktoken", "gpt-2"),
}
PATTERNS = {
    "gpt-2": GPT2,
    "llama-bpe": WORDS + r"\p{N}{1,3}" + OTHER,
    "qwen2": WORDS + r"\p{N}" + OTHER,
}


@dataclasses.dataclass
class Made:
    """A vocabulary as a GGUF file holds it, and the library it belongs to."""

    kind: str
    cuts: str
    tokens: list[str]
    types: list[int]
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    scores: list[float] | None = None
    merges: list[str] | None = None


def find(package: str, file: str) -> pathlib.Path | None:
    """Find a file of an installed package, without importing it."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for path in files:
        if str(path).endswith(file):
            return pathlib.Path(str(path.locate()))
    return None


def of_sentencepiece(path: pathlib.Path) -> Made:
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes()).pieces
    return Made(
        kind="llama",
        cuts="default",
        tokens=[piece.piece for piece in pieces],
        types=[piece.type for piece in pieces],  # numbered alike
        scores=[piece.score for piece in pieces],
        encode=model.encode,
        decode=model.decode,
    )


def read_ranks(path: pathlib.Path) -> tuple[dict[bytes, int], str | None]:
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        config = content["config"]
        size = config["default_vocab_size"] - config["default_num_special_tokens"]
        tokens = [base64.b64decode(t["token_bytes"]) for t in content["vocab"][:size]]
        return {token: i for i, token in enumerate(tokens)}, config["pattern"]
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}, None


def of_ranks(path: pathlib.Path, cuts: str) -> Made:
    ranks, pattern = read_ranks(path)
    theirs = tiktoken.Encoding(
        cuts,
        pat_str=pattern or PATTERNS[cuts],
        mergeable_ranks=ranks,
        special_tokens={},
    )
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in prints]
    letters = {b: chr(b) for b in prints} | {
        b: chr(256 + i) for i, b in enumerate(others)
    }

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=lambda token: ranks[token]):
        cut = [(token[:i], token[i:]) for i in range(1, len(token))]
        halves = [(a, b) for a, b in cut if a in ranks and b in ranks]
        halves.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [f"{spelled(a)} {spelled(b)}" for a, b in halves]
    tokens = [spelled(token) for token in sorted(ranks, key=lambda t: ranks[t])]

    def normal(text: str) -> str:
        return unicodedata.normalize("NFC", text) if cuts == "qwen2" else text

    return Made(
        kind="gpt2",
        cuts=cuts,
        tokens=[*tokens, "<|end|>"],
        types=[1] * len(tokens) + [3],
        merges=merges,
        encode=lambda text: theirs.encode_ordinary(normal(text)),
        decode=theirs.decode,
    )


def write(path: pathlib.Path, made: Made) -> None:
    """The vocabulary, and a model of one layer so that llama.cpp takes the file."""
    width, vocab = 32, len(made.tokens)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(made.kind)
    writer.add_tokenizer_pre(made.cuts)
    writer.add_token_list(made.tokens)
    writer.add_token_types(made.types)
    if made.scores:
        writer.add_token_scores(made.scores)
    if made.merges:
        writer.add_token_merges(made.merges)
    ends = 2 if made.kind == "llama" else vocab - 1
    writer.add_bos_token_id(1 if made.kind == "llama" else ends)
    writer.add_eos_token_id(ends)
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    square = np.zeros((width, width), np.float32)
    names = (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    )
    for name in names:
        writer.add_tensor(f"blk.0.{name}.weight", square)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.add_tensor("token_embd.weight", np.zeros((vocab, width), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def corpus(count: int) -> list[str]:
    """Files of this repository, and text nobody would write."""
    draw = random.Random(0)
    root = pathlib.Path(__file__).parents[1]
    prose = "\n".join(p.read_text() for p in sorted(root.rglob("*.md")))
    alphabets = (
        "ab \n",
        "the answer is 12, isn'T IT?\t\r\n  ",
        "▁_ -=>/\\()[]{}<|>s",
        "零一二三漢字かなカナ한글عربيשלוםहिन्दीไทยé e\u0301ñßſ",
        "0123456789١٢٣１２²½Ⅷ ,.",
        "🙂👩\u200d👧\ufeff\u200b\u202e\xa0\x00\x01\x7f\x85 aA",
    )
    texts = ["", " ", "\n", "<s></s><unk> <0x0A>", "a" * 200, " " * 99]
    while len(texts) < count:
        start = draw.randrange(len(prose))
        texts.append(prose[start : start + draw.randrange(1, 200)])
        for alphabet in (*alphabets, "".join(alphabets)):
            texts.append("".join(draw.choices(alphabet, k=draw.randrange(1, 60))))
        wild = (chr(draw.randrange(0x110000)) for _ in range(draw.randrange(1, 20)))
        texts.append("".join(c for c in wild if not 0xD800 <= ord(c) < 0xE000))
    return texts[:count]


@contextlib.contextmanager
def llama_cpp(path: pathlib.Path) -> Iterator[Callable[[str], list[int]]]:
    script = pathlib.Path(__file__).parents[1] / "tests/sampling/llama_server.py"
    process = subprocess.Popen(
        [sys.executable, script, path, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    address = process.stdout.readline().strip()

    def encode(text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": False}
        data = json.dumps(body).encode()
        with urllib.request.urlopen(f"{address}/tokenize", data, timeout=30) as answer:
            return json.load(answer)["tokens"]

    try:
        yield encode
    finally:
        process.kill()
        process.communicate()


def compare(made: Made, texts: list[str], path: pathlib.Path) -> dict[str, float]:
    write(path, made)
    started = time.process_time()
    ours = read_tokenizer(path)
    seconds = time.process_time() - started
    ids = [ours.encode(text) for text in texts]
    theirs = [made.encode(text) for text in texts]
    for text, a, b in zip(texts, ids, theirs, strict=True):
        if a != b:
            print(f"  differs: {text!r}\n    {a}\n    {b}")
    back = sum(ours.decode(i) != made.decode(i) for i in theirs)
    with llama_cpp(path) as encode:
        # The server drops what follows a NUL, and replaces what is no character.
        sent = [(t, i) for t, i in zip(texts, ids, strict=True) if "\x00" not in t]
        other = [text for text, i in sent if encode(text) != i]
    for text in other[:5]:
        print(f"  llama.cpp differs: {text!r}")
    return {
        "tokens": len(made.tokens),
        "seconds": seconds,
        "ids": sum(a != b for a, b in zip(ids, theirs, strict=True)),
        "decoded": back,
        "llama.cpp": len(other),
        "asked": len(sent),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    texts = corpus(args.count)
    print(
        "| vocabulary | tokens | rebuilt in | ids differ | decoded text differs |"
        " llama.cpp differs |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, (package, file, cuts) in SOURCES.items():
        path = find(package, file)
        if path is None or args.only not in name:
            continue
        made = of_ranks(path, cuts) if cuts else of_sentencepiece(path)
        with tempfile.TemporaryDirectory() as folder:
            found = compare(made, texts, pathlib.Path(folder) / "m.gguf")
        print(
            f"| {name} | {found['tokens']:,} | {found['seconds']:.1f} s |"
            f" {found['ids']} of {len(texts):,} | {found['decoded']} |"
            f" {found['llama.cpp']} of {found['asked']:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
