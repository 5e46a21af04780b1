"""Every family computes what transformers computes, in, trained on, and out again."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, packing, training
from sgpo_jax.models import pretrained
from sgpo_jax.models.pretrained.load import places
from sgpo_jax.models.pretrained.save import publish
from sgpo_jax.sampling import Engine, Greedy, Request

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from . import published  # noqa: E402 after the skip

pytestmark = pytest.mark.filterwarnings("ignore")
# Longer than every window, twice; longer than Llama 3.1's short first context.
LENGTH = 20


@dataclasses.dataclass
class Pair:
    theirs: Any
    ours: pretrained.Pretrained
    params: Any


@pytest.fixture(scope="module", params=published.CASES)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = published.make(request.param, folder)
    ours = pretrained.open_source(f"hf:{folder}")
    return Pair(theirs, ours, pretrained.load_params(ours.tensors, ours.config))


def tokens(rows=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, published.SIZES["vocab_size"], (rows, LENGTH))


def their_logits(model, ids):
    return model(torch.tensor(ids), use_cache=False).logits


def our_logits(params, config, ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    hidden, _ = models.apply(
        params, config, jnp.asarray(ids, jnp.int32), positions, models.causal
    )
    return models.logits(params, config, hidden)


def test_logits(pair):
    ids = tokens()
    with torch.no_grad():
        theirs = their_logits(pair.theirs, ids).numpy()
    ours = jax.jit(our_logits, static_argnums=1)(pair.params, pair.ours.config, ids)
    # float32 sums in another order, relative to the largest logit.
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_greedy_continuations(pair):
    """The sampler's caches honour windows, soft caps and scales."""
    prompts = [row[:n].tolist() for row, n in zip(tokens(3), (5, 9, 2), strict=True)]
    engine = Engine(
        pair.ours.config,
        lanes=2,
        slots=2,
        max_prompt=9,
        max_response=12,
        stop_tokens=(),
        staged=4,
        prefill_prompts=4,
    )
    requests = [Request(key=i, prompt=p, samples=1) for i, p in enumerate(prompts)]
    ours = engine.sample(pair.params, requests, seed=0, step=0, strategy=Greedy())
    for prompt, row, log_prob in zip(
        prompts, ours.tokens, ours.log_prob_at_one, strict=True
    ):
        # The largest logit after each of our own tokens: by induction, their greedy
        # continuation, in one pass.
        ids = [*prompt, *row.tolist()]
        with torch.no_grad():
            theirs = their_logits(pair.theirs, [ids])[0, len(prompt) - 1 : -1]
        np.testing.assert_array_equal(row, theirs.argmax(-1))
        expected = theirs.log_softmax(-1).max(-1).values
        np.testing.assert_allclose(log_prob, expected, rtol=1e-6, atol=2e-4)
    if pair.ours.config.window:
        # Chunks as long as the window, so that most keys lie in earlier ones.
        chunked = dataclasses.replace(engine, prefill_chunk=4)
        again = chunked.sample(pair.params, requests, seed=0, step=0, strategy=Greedy())
        np.testing.assert_array_equal(again.tokens, ours.tokens)


def test_gradients_and_packed_scores(pair):
    """Packed rows share prompts; transformers sees each prompt + response alone."""
    ids = tokens(3, seed=1)
    prompts = [ids[0, :7].tolist(), ids[1, :4].tolist()]
    answers = [[ids[0, 7:17].tolist(), ids[2, :3].tolist()], [ids[2, 3:15].tolist()]]
    groups = [
        packing.Group(prompt=p, responses=r, ids=list(range(i, i + len(r))))
        for p, r, i in zip(prompts, answers, (0, 2), strict=True)
    ]
    buckets = packing.make_buckets(
        row_lengths=[64], rows=[1], response_length=16, shortest_response=2
    )
    (packed,) = packing.pack(groups, buckets)

    def likelihood(params):
        scored = training.log_probs(params, pair.ours.config, packed).log_prob
        return scored.sum(), scored

    step = jax.jit(jax.grad(likelihood, has_aux=True))
    grads, scored = step(pair.params)
    pair.theirs.zero_grad()
    rows = [(p, r) for p, rs in zip(prompts, answers, strict=True) for r in rs]
    used = np.flatnonzero(packed.mask.any(axis=1))
    slots = {int(packed.response[row]): int(row) for row in used}
    for number, (prompt, response) in enumerate(rows):
        logits = their_logits(pair.theirs, [prompt + response])[0]
        log_prob = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        chosen = log_prob.gather(1, torch.tensor(response)[:, None])[:, 0]
        np.testing.assert_allclose(
            scored[slots[number], : len(response)], chosen.detach().numpy(), atol=2e-4
        )
        chosen.sum().backward()
    theirs = {
        name: parameter.grad.numpy()
        for name, parameter in pair.theirs.named_parameters()
        if parameter.grad is not None
    }
    for path, group in places(pair.ours.config).items():
        ours = grads["layers"][path[1]] if len(path) == 2 else grads[path[0]][None]
        for place, grad in zip(group, np.asarray(ours), strict=True):
            expected = theirs[place.name]
            np.testing.assert_allclose(
                publish(place, grad),
                expected,
                atol=1e-3 * np.abs(expected).max() + 1e-6,
                err_msg=place.name,
            )


def test_out_and_in_again(pair, tmp_path):
    """Written in small parts, read by transformers, equal; and equal for us."""
    config = pair.ours.config
    pretrained.save(
        tmp_path, pair.params, config, dtype="float32", shard_bytes=8_000, eos_ids=[3]
    )
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ids = tokens()
    with torch.no_grad():
        first = their_logits(pair.theirs, ids)
        again = their_logits(published.load(tmp_path), ids)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    ours = pretrained.open_source(f"hf:{tmp_path}")
    assert ours.config == config
    jax.tree.map(
        np.testing.assert_array_equal,
        pretrained.load_params(ours.tensors, config),
        pair.params,
    )
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [3]
