"""Tokenizers as people save them: files that differ, and what is made of them."""

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgpo_jax.models import text_files

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

SPECIAL = ["<s>", "</s>", "<|end|>"]
CHAT = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
TEXTS = ["2+2=", "  two\n spaces ", "é 漢 and more than six tokens of text"]


def core(*, cut: bool = False, fill: bool = False, ends: str = "", more: int = 0):
    """Return a byte-level tokenizer with what is saved inside `tokenizer.json`."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    made.add_tokens([f"<more{i}>" for i in range(more)])
    if cut:
        made.enable_truncation(max_length=6)
    if fill:
        made.enable_padding(length=40)
    if ends:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=ends, special_tokens=[(t, made.token_to_id(t)) for t in SPECIAL]
        )
    return made


BASE = core()
ID = {token: BASE.token_to_id(token) for token in SPECIAL}


@dataclasses.dataclass(frozen=True)
class Saved:
    """A tokenizer's folder before it is written.

    Attributes:
      inside: arguments of `core`.
      files: the other files.
      chat: whether there is a default template.
      stops: ids that must end a response.
    """

    inside: dict[str, Any]
    files: dict[str, Any]
    chat: bool
    stops: set[int]

    def write(self, folder: pathlib.Path) -> None:
        core(**self.inside).save(str(folder / "tokenizer.json"))
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)


@st.composite
def saves(draw: st.DrawFn) -> Saved:
    inside = {
        "cut": draw(st.booleans()),
        "fill": draw(st.booleans()),
        "ends": draw(st.sampled_from(["", "$A", "<s> $A"])),
        "more": draw(st.integers(0, 3)),
    }
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    names = {"bos_token": "<s>", "eos_token": draw(st.sampled_from(SPECIAL[1:]))}
    spelt: dict[str, Any] = dict(names)
    if draw(st.booleans()):
        spelt["eos_token"] = {"__type": "AddedToken", "content": names["eos_token"]}
    files: dict[str, Any] = {"tokenizer_config.json": settings}
    if draw(st.booleans()):
        files["special_tokens_map.json"] = names
    else:
        settings.update(spelt)
    stops = {ID[names["eos_token"]]}
    for name in ("generation_config.json", "config.json"):
        ends = draw(st.sampled_from([None, 257, [257, 258]]))
        if ends is not None:
            files[name] = {"eos_token_id": ends}
            stops |= set(ends if isinstance(ends, list) else [ends])
    files.setdefault("config.json", {})["model_type"] = "llama"
    chat = draw(st.sampled_from(["", "string", "names", "file", "both"]))
    named = [("tool_use", "TOOL" + CHAT), ("default", CHAT)]
    if chat == "string":
        settings["chat_template"] = CHAT
    if chat == "names":
        settings["chat_template"] = [{"name": n, "template": t} for n, t in named]
    if chat in ("file", "both"):
        files["chat_template.jinja"] = CHAT
    if chat == "both":
        settings["chat_template"] = "older" + CHAT
        files["additional_chat_templates/tool_use.jinja"] = "TOOL" + CHAT
    return Saved(inside, files, bool(chat), stops)


FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@FEW
@given(saves())
def test_files_that_differ_are_one_tokenizer(saved):
    """No truncation, no padding; the end and the template from wherever they are."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        saved.write(folder)
        found = text_files.read_folder(folder)
        assert set(found.stop_ids) == saved.stops
        for text in TEXTS:
            plain = BASE.encode(text, add_special_tokens=False).ids
            assert found.encode(text) == plain
            bos = [ID["<s>"]] * (saved.chat or saved.inside["ends"] == "<s> $A")
            end = [ID["<|end|>"]] * saved.chat
            assert found.prompted().encode_prompt(text) == [*bos, *plain, *end]


@pytest.mark.filterwarnings("ignore")
@FEW
@given(saves())
def test_transformers_makes_the_same_of_them(saved):
    transformers = pytest.importorskip("transformers")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        saved.write(folder)
        found = text_files.read_folder(folder).prompted()
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        theirs_plain = {"truncation": False, "padding": False}
        assert theirs.eos_token_id in found.stop_ids
        for text in TEXTS:
            said = theirs(text, add_special_tokens=False, **theirs_plain)["input_ids"]
            assert found.encode(text) == said
            assert found.decode(said) == theirs.decode(
                said, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            if saved.chat:
                asked = theirs.apply_chat_template(
                    [{"role": "user", "content": text}],
                    add_generation_prompt=True,
                    return_dict=False,
                )
            else:
                asked = theirs(text, **theirs_plain)["input_ids"]
            assert found.encode_prompt(text) == asked


def test_tokens_without_a_row_are_refused_where_they_are_used(tmp_path):
    """As in Gemma 3 1B, whose tokenizer has one token more than the embedding rows."""
    Saved({"more": 2}, {"config.json": {"eos_token_id": 257}}, False, set()).write(
        tmp_path
    )
    found = text_files.read_folder(tmp_path, rows=260)
    assert found.vocab_size == 260
    assert found.encode("<more0>") == [259]
    with pytest.raises(ValueError, match=r"'<more1>' has id 260.*260 rows"):
        found.encode("a<more1>")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tokenizer.model", "transformers writes one"),
        ("README.md", "no tokenizer.json"),
    ],
)
def test_another_form_of_tokenizer_says_how_to_convert_it(tmp_path, name, words):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=words):
        text_files.read_folder(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    Saved({}, {"tokenizer_config.json": {"eos_token": None}}, False, set()).write(
        tmp_path
    )
    with pytest.raises(ValueError, match="no file names the token that ends"):
        text_files.read_folder(tmp_path)
