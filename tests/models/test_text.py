"""Conversations as tokens, and templates from strangers."""

import json
import time

import pytest

from sgpo_jax.models import Tokenizer
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


def test_special_tokens_in_plain_text_stay_text(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a<|end|>b")) == "a<|end|>b"
    assert tokenizer.decode([tokenizer.eos_id]) == ""


def test_out_and_in_again(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [257, 256]}')
    again = TextTokenizer.from_folder(tmp_path)
    assert again.chat_template == TEMPLATE
    assert again.encode_prompt("hi <|end|>") == tokenizer.encode_prompt("hi <|end|>")
    assert again.stop_ids == (tokenizer.eos_id, *({256, 257} - {tokenizer.eos_id}))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is no tokenizer"):
        TextTokenizer.from_folder(tmp_path)
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
