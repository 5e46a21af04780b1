"""Tokenizers as people save them: files that differ, and what is made of them."""

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax.models import text_files

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

SPECIAL = ["<s>", "</s>", "<|end|>"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
TEXTS = ["", "2+2=", "  two\n spaces ", "é 漢 and more than six tokens of text"]
ENDS = ["", "$A", "<s> $A", "$A </s>", "<s> $A </s>"]


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


def saved(
    *,
    cut: bool = False,
    fill: bool = False,
    ends: str = "",
    more: int = 0,
    end: str | None = "</s>",
    spelt: bool = False,
    mapped: bool = False,
    generation: Any = None,
    config: Any = None,
    chat: str = "string",
    adds: tuple[tuple[str, bool], ...] = (),
    pads: bool = False,
) -> Saved:
    """Return a tokenizer's folder.

    Args:
      cut: truncation saved in tokenizer.json.
      fill: padding likewise.
      ends: what its post-processor puts around a text.
      more: tokens added after the special ones.
      end: the token that ends a response.
      spelt: that one as an object.
      mapped: special tokens in special_tokens_map.json only.
      generation: ids of ends in generation_config.json.
      config: likewise in config.json.
      chat: where the template is.
      adds: `add_bos_token` and the like.
      pads: whether the last added token is for padding.
    """
    inside = {"cut": cut, "fill": fill, "ends": ends, "more": more}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict(adds),
    }
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": end}
    if pads and more:
        names["pad_token"] = f"<more{more - 1}>"
    files: dict[str, Any] = {"tokenizer_config.json": settings}
    if mapped:
        files["special_tokens_map.json"] = names
    else:
        settings.update(names)
        if spelt and end is not None:
            settings["eos_token"] = {"__type": "AddedToken", "content": end}
    stops = {ID[end]} if end is not None else set()
    for name, ids in (("generation_config.json", generation), ("config.json", config)):
        if ids is not None:
            files[name] = {"eos_token_id": ids}
            stops |= set(ids if isinstance(ids, list) else [ids])
    files.setdefault("config.json", {})["model_type"] = "llama"
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


IDS = st.sampled_from([None, 257, [257, 258]])
SAVES = st.builds(
    saved,
    cut=st.booleans(),
    fill=st.booleans(),
    ends=st.sampled_from(ENDS),
    more=st.integers(0, 3),
    end=st.sampled_from(SPECIAL[1:]),
    spelt=st.booleans(),
    mapped=st.booleans(),
    generation=IDS,
    config=IDS,
    chat=st.sampled_from(["", "string", "names", "file", "both"]),
    adds=st.dictionaries(
        st.sampled_from(["add_bos_token", "add_eos_token"]), st.booleans()
    ).map(lambda given: tuple(given.items())),
    pads=st.booleans(),
)
# Each was reported once.
REPORTED = {
    "plain": saved(),
    "truncation and padding": saved(cut=True, fill=True),
    "named templates": saved(chat="names"),
    "templates in a folder": saved(chat="both"),
    "no template": saved(chat=""),
    "special tokens in their map only": saved(mapped=True, end="<|end|>"),
    "no template, begun by the post-processor": saved(chat="", ends="<s> $A"),
    "begun by the post-processor": saved(
        ends="<s> $A", adds=(("add_bos_token", False),)
    ),
    "ended by the post-processor": saved(ends="<s> $A </s>"),
    "begun by an option": saved(
        adds=(("add_bos_token", True), ("add_eos_token", False))
    ),
    "one end, an object": saved(spelt=True, end="<|end|>", config=258),
    "several ends": saved(generation=[257, 258]),
    "an end in the configuration alone": saved(end=None, config=258),
    "a token for padding": saved(more=3, pads=True),
}


FEW = settings(max_examples=40)


@FEW
@given(SAVES)
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
            asked = found.prompted().encode_prompt(text)
            if saved.chat:
                turn = BASE.encode(f"user: {text}<|end|>assistant:").ids
                assert asked == [ID["<s>"], *turn]
            else:
                begun, _, ended = saved.inside["ends"].partition("$A")
                ids = [[ID[x] for x in side.split()] for side in (begun, ended)]
                assert asked == [*ids[0], *plain, *ids[1]]


def as_transformers_makes(saved, transformers):
    """Compare texts, prompts and conversations, and the ends, with transformers'."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        saved.write(folder)
        found = text_files.read_folder(folder).prompted()
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
    whole = {"truncation": False, "padding": False}
    assert theirs.eos_token_id in {*found.stop_ids, None}
    assert set(found.stop_ids) == saved.stops
    for text in TEXTS:
        said = theirs(text, add_special_tokens=False, **whole)["input_ids"]
        assert found.encode(text) == said
        assert found.decode(said) == theirs.decode(
            said, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if not saved.chat:
            assert found.encode_prompt(text) == theirs(text, **whole)["input_ids"]
            continue
        for roles in (["user"], ["system", "user", "assistant", "user"]):
            asked = theirs.apply_chat_template(
                [{"role": role, "content": text} for role in roles],
                add_generation_prompt=True,
                return_dict=False,
            )
            assert found.encode_prompt([(role, text) for role in roles]) == asked


@pytest.mark.filterwarnings("ignore")
@FEW
@given(SAVES)
def test_transformers_makes_the_same_of_them(saved):
    as_transformers_makes(saved, pytest.importorskip("transformers"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REPORTED)
def test_transformers_makes_the_same_of_what_was_reported(name):
    as_transformers_makes(REPORTED[name], pytest.importorskip("transformers"))


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
