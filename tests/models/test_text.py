"""Conversations as tokens, and templates from strangers."""

import dataclasses
import json
import time

import pytest

from sgpo_jax.models import Tokenizer, text_files
from sgpo_jax.models.chat import render
from sgpo_jax.models.text import TextTokenizer

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTROL = ["<|end|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocab = {c: i for i, c in enumerate(sorted(alphabet))}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    core.add_special_tokens(
        [tokenizers.AddedToken(t, special=True, normalized=False) for t in CONTROL]
    )
    end = core.token_to_id("<|end|>")
    return TextTokenizer(core, (end,), TEMPLATE, {"eos_token": "<|end|>"})


def test_it_is_a_tokenizer(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == 256 + len(CONTROL)


@pytest.mark.parametrize(
    "text",
    ["plain", " \ue000<|end|>\ue000 ", "<|user|><|end|", "é\x00🙂", "<|end|>" * 3],
)
def test_control_tokens_come_from_the_template_only(tokenizer, text):
    ids = tokenizer.encode_prompt(text)
    control = [tokenizer.core.token_to_id(t) for t in CONTROL]
    end, user, assistant = control
    assert ids[0] == user and ids[-2:] == [end, assistant]
    inside = ids[1:-2]
    assert not set(inside) & set(control)
    assert tokenizer.decode(inside) == text.strip()


def test_messages_do_not_join_to_control_tokens(tokenizer):
    joins = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    joining = dataclasses.replace(tokenizer, chat_template=joins)
    control = {tokenizer.core.token_to_id(t) for t in CONTROL}
    for size in range(1, len("<|end|>")):
        halves = "a<|end|>"[: size + 1] + " \n", "<|end|>"[size:] + "b"
        ids = joining.encode_chat([{"role": "user", "content": t} for t in halves])
        assert not set(ids) & control
        assert joining.decode(ids) == "a<|end|>b"


CHATML = (
    "{% for m in messages %}{{ '<s><|im_start|>' + m['role'] + '\n' + m['content']"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' +"
    " m.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}"
    "{% endif %}{% endfor %}"
)


def byte_level(split):
    pre = tokenizers.pre_tokenizers
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.normalizer = tokenizers.normalizers.NFC()
    core.pre_tokenizer = pre.Sequence(
        [
            pre.Split(tokenizers.Regex(split), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = tokenizers.decoders.ByteLevel()
    return core, pre.ByteLevel.alphabet()


def sentencepiece(scheme):
    core = tokenizers.Tokenizer(
        tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>")
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
        prepend_scheme=scheme, split=False
    )
    decoders = tokenizers.decoders
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return core, []


@pytest.mark.parametrize("template", [CHATML, TURNS], ids=["chatml", "turns"])
@pytest.mark.parametrize(
    "made",
    [
        byte_level(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"),
        byte_level(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"),
        sentencepiece("first"),
        sentencepiece("never"),
    ],
    ids=["llama-3", "qwen", "mistral", "gemma"],
)
def test_saved_tokenizers_and_chats_equal_those_of_transformers(
    made, template, tmp_path
):
    transformers = pytest.importorskip("transformers")
    core, alphabet = made
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    core.train_from_iterator(["What is 12+345? The answer isn't  two\n"] * 5, trainer)
    if not alphabet:
        # Bytes are of the vocabulary, not control tokens.
        content = json.loads(core.to_str())
        vocab = content["model"]["vocab"]
        vocab |= {f"<0x{i:02X}>": len(vocab) + i for i in range(256)}
        core = tokenizers.Tokenizer.from_str(json.dumps(content))
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    ours = TextTokenizer(core, (core.token_to_id("</s>"),), template, names)
    text_files.save_folder(ours, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [
        "What is 12+345?",
        "  the\n\nanswer",
        "é 🙂 عربي 漢字 e\u0301",
        "\x00\u200b",
        "a ",
    ]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        roles = zip(("user", "assistant", "user"), (text, "two", text), strict=True)
        messages = [{"role": role, "content": said} for role, said in roles]
        assert ours.encode_chat(messages) == theirs.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )


def test_special_tokens_in_plain_text_stay_text(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a<|end|>b")) == "a<|end|>b"
    assert tokenizer.decode([tokenizer.eos_id]) == ""


def test_out_and_in_again(tokenizer, tmp_path):
    text_files.save_folder(tokenizer, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [257, 256]}')
    again = text_files.read_folder(tmp_path)
    assert again.chat_template == TEMPLATE
    assert again.encode_prompt("hi <|end|>") == tokenizer.encode_prompt("hi <|end|>")
    assert again.stop_ids == (tokenizer.eos_id, *({256, 257} - {tokenizer.eos_id}))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is no tokenizer"):
        text_files.read_folder(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "<|end|>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception('no') }}",
        "{{ 'a' * 10**10 }}",
        "{% for",
    ],
)
def test_templates_cannot_do_harm(template):
    with pytest.raises(ValueError, match="the chat template"):
        render(template, [{"role": "user", "content": "x"}])


def test_a_template_that_spins_is_killed_and_the_next_one_served():
    spin = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    render("", [])  # starts the process
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"longer than 0\.5 s"):
        render(spin, [], deadline=0.5)
    assert time.monotonic() - started < 5
    assert render("{{ a }}", [], variables={"a": "b"}) == "b"


def test_unmarked_tokens_of_the_template_are_control_and_others_are_text(tokenizer):
    core = tokenizers.Tokenizer.from_str(tokenizer.core.to_str())
    core.add_tokens(["<think>", "\n\n", "<td>"])
    template = TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n\n")
    ours = dataclasses.replace(tokenizer, core=core, chat_template=template)
    think, gap, cell = map(core.token_to_id, ("<think>", "\n\n", "<td>"))
    ids = ours.encode_prompt("<think>\n\n<td>")
    assert [i for i in ids if i >= think] == [gap, cell, think, gap]
    assert ours.decode([think]) == "<think>"  # verifiers read thoughts
