"""Chat templates as published models write them, against transformers."""

import dataclasses
import time

import pytest

from sgpo_jax.models.chat import render
from sgpo_jax.models.text import TextTokenizer

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

# Written for this test, with what the templates of these families make use of.
LLAMA3 = """\
{{- bos_token }}
{%- if not day is defined %}
    {%- set day = strftime_now("%d %b") if strftime_now is defined else "1 Jan" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set said = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set said = "" %}
{%- endif %}
{{- "<|start|>system<|stop|>\\n\\n" }}
{{- "Today: " + day + "\\n" }}
{%- if tools is not none %}
    {{- "Tools:\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- said + eos_token }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|stop|>\\n\\n' }}
        {{- message['content'] | trim + eos_token }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls|length != 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {{- message.tool_calls[0].function | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|stop|>\\n\\n' }}
{%- endif %}
"""
QWEN3 = """\
{%- macro turn(role, text) %}{{- '<|start|>' + role + '\\n' + text }}{% endmacro -%}
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- set asked = not message.content.startswith('<r>') %}
    {%- if ns.searching and message.role == "user" and asked %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- if '</think>' in content %}
            {%- set parts = content.split('</think>') %}
            {%- set thought = parts[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set content = parts[-1].lstrip('\\n') %}
        {%- else %}{%- set thought = '' %}{%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {%- set thought = '<think>' + thought.strip('\\n') + '</think>' %}
            {{- turn('assistant', thought + content) }}
        {%- else %}
            {{- turn('assistant', content) }}
        {%- endif %}
    {%- else %}
        {{- turn(message.role, content) }}
    {%- endif %}
    {{- '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {{ raise_exception('no system here') }}
{%- endif -%}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception("user and assistant take turns") }}
    {% endif %}
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{ '<start>' + role + '\\n' + message['content'] | trim + '<end>\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<start>model\\n' }}{% endif %}
"""
MISTRAL = """\
{{ bos_token }}{% for message in messages %}
{% if message.role == 'system' %}{% continue %}{% endif %}
{% if message.role == 'user' %}
{% if loop.last and messages | selectattr('role', 'equalto', 'system') | list %}
[INST] {{ (messages | selectattr('role', 'equalto', 'system') | first).content }}

{{ message.content }} [/INST]
{%- else %}[INST] {{ message.content }} [/INST]
{%- endif %}
{% else %}
{% generation %}{% set inside = 1 %}
 {{ message.content }}{{ eos_token }}{%- endgeneration %}
{{ inside is defined }}
{% endif %}
{% if loop.index > 4 %}{% break %}{% endif %}
{% endfor %}
{{ messages | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}
{{ {"b": "é<&>'", "a": [1, none, true]} | tojson }}
{{ tools is none, documents is none }}
"""
TEMPLATES = {"llama-3": LLAMA3, "qwen-3": QWEN3, "gemma": GEMMA, "mistral": MISTRAL}


def conversation(*turns):
    return [{"role": role, "content": content} for role, content in turns]


SHORT = conversation(("user", "  What is <1> + 2?\n"))
LONG = conversation(
    ("user", "hé"),
    ("assistant", "<think>\nhm\n</think>\n\n  3 "),
    ("user", "<r>漢"),
    ("assistant", "4"),
    ("user", " last "),
)
CONVERSATIONS = {
    "short": SHORT,
    "long": LONG,
    "system": conversation(("system", " Be brief. ")) + LONG,
    "answered": LONG[:-1],
    "two of a kind": [*SHORT, *SHORT],
}
VARIABLES = {
    "nothing more": {},
    "more": {
        "tools": [{"name": "f", "parameters": {"x": {"enum": ["é", "<b>"]}}}],
        "enable_thinking": False,
        "day": "2 Feb",
    },
}


@pytest.fixture(scope="module")
def reference():
    transformers = pytest.importorskip("transformers")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("more", VARIABLES.values(), ids=VARIABLES)
def test_templates_write_what_they_write_in_transformers(template, more, reference):
    refusals = 0
    for messages in CONVERSATIONS.values():
        for prompting in (True, False):

            def ours(messages=messages, prompting=prompting):
                return render(
                    template,
                    messages,
                    add_generation_prompt=prompting,
                    variables={"bos_token": "<s>", "eos_token": "</s>", **more},
                )

            try:
                theirs = reference.apply_chat_template(
                    messages,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=prompting,
                    **more,
                )
            except Exception as error:
                refusals += 1
                with pytest.raises(ValueError, match=f"template fails.*{error}"):
                    ours()
            else:
                assert ours() == theirs
    assert refusals == (4 if template == GEMMA else 0)


def tokenizer(template):
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocab = {c: i for i, c in enumerate(sorted(alphabet))}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>", "<|start|>", "<|end|>", "<|stop|>"])
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return TextTokenizer(core, (core.token_to_id("</s>"),), template, names)


def test_questions_are_put_as_the_settings_say():
    made = tokenizer(QWEN3)

    def shown(tokenizer):
        ids = tokenizer.encode_prompt("Hi <s>")
        return tokenizer.core.decode(ids, skip_special_tokens=False)

    turn = "<|start|>user\nHi <s><|end|>\n<|start|>assistant\n"
    assert shown(made) == shown(made.prompted()) == turn
    briefly = made.prompted(system="Be <|end|> brief.")
    assert shown(briefly) == "<|start|>system\nBe <|end|> brief.<|end|>\n" + turn
    ends = briefly.encode_prompt("Hi").count(made.core.token_to_id("<|end|>"))
    assert ends == 2  # none of the system's own
    plain = made.prompted(chat=False)
    assert plain.encode_prompt("Hi <s>") == [
        made.core.token_to_id("<s>"),
        *made.encode("Hi <s>"),
    ]
    assert plain.encode("Hi") == made.encode("Hi")


def test_a_conversation_keeps_its_turns_and_its_own_system_prompt():
    made = tokenizer(QWEN3)
    turns = (("user", "Hi"), ("assistant", "Yes?"), ("user", "4+3= <|end|>"))
    messages = [{"role": role, "content": content} for role, content in turns]
    assert made.encode_prompt(turns) == made.encode_chat(messages)
    assert made.encode_prompt(turns[:1]) == made.encode_prompt("Hi")
    own, given = {"role": "system", "content": "Own."}, made.prompted(system="Given.")
    expected = made.encode_chat([own, *messages])
    assert given.encode_prompt((("system", "Own."), *turns)) == expected
    assert given.encode_prompt(turns) == made.encode_chat(
        [{"role": "system", "content": "Given."}, *messages]
    )
    plain = made.prompted(chat=False)
    assert plain.encode_prompt(turns) == plain.encode_prompt(
        "Hi\n\nYes?\n\n4+3= <|end|>"
    )


def test_system_prompts_that_would_not_be_said_are_refused():
    for template, message in (
        (GEMMA, "no system here; leave prompt.system empty"),
        ("{{ messages[-1].content }}", "leaves the system prompt out"),
        (None, "the model has no chat template: leave"),
    ):
        with pytest.raises(ValueError, match=message):
            tokenizer(template).prompted(system="Be brief.")


def test_a_template_is_compiled_once():
    """Rendering again takes a fraction of the first time, which compiles."""
    render("", [])  # starts the process
    size = 300
    template = "{% if messages %}{{ messages[0].content }}{% endif %}" * size
    seconds = []
    for number in range(4):
        started = time.perf_counter()
        said = render(template, conversation(("user", str(number % 10))), deadline=60.0)
        seconds.append(time.perf_counter() - started)
        assert said == str(number) * size
    assert min(seconds[1:]) < 0.2 * seconds[0]


def test_settings_of_prompts_are_checked():
    from sgpo_jax import config

    with pytest.raises(ValueError, match="plain text has no system prompt"):
        config.PromptConfig(chat=False, system="x")
    with pytest.raises(ValueError, match=r"give model\.source, or drop it"):
        config.ModelConfig(prompt=config.PromptConfig(chat=False))
    prompt = config.PromptConfig(system="x")
    assert config.ModelConfig(source="hf:x", prompt=prompt).prompt == prompt
    assert dataclasses.replace(prompt, system="").chat
