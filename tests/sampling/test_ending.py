"""Stop strings and limits on thinking, against what the same noise gives without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models, packing, sampling
from sgpo_jax.sampling.automaton import watch_strings, watch_tokens
from sgpo_jax.training.batch import make_groups, only_sampled

# Tokens of several letters, so that strings begin and end inside them; EOS is empty.
PIECES = (b"", b"a", b"b", b"ab", b"ba", b"aab", b"\xc3", b"\xa9")
RESPONSE, STOP = 12, 0
CONFIG = models.DecoderConfig(
    vocab_size=9, num_layers=1, embed_dim=8, mlp_dim=8, num_heads=2, num_kv_heads=1,
    head_dim=4, tie_embeddings=False,
)  # fmt: skip
REQUESTS = [sampling.Request(key=i, prompt=[1, 2 + i], samples=20) for i in range(3)]


def text_of(tokens) -> bytes:
    return b"".join(PIECES[t] for t in tokens if t < len(PIECES))


@pytest.fixture(scope="module")
def params():
    return models.init(CONFIG, key=jax.random.key(0))


def run(params, requests=REQUESTS, **changes):
    engine = sampling.Engine(
        CONFIG,
        lanes=2,
        slots=4,
        max_prompt=2,
        max_response=RESPONSE,
        stop_tokens=(STOP,),
        staged=4,
        prefill_prompts=4,
        **changes,
    )
    return engine.sample(params, requests, seed=3, step=0)


def rows(rollouts):
    pairs = zip(rollouts.tokens.tolist(), rollouts.length.tolist(), strict=True)
    return [tokens[:length] for tokens, length in pairs]


@pytest.mark.parametrize("words", [["abb"], ["ba", "aaba"], ["bab", "é"]])
def test_automata_find_what_is_in_the_text(words, rng):
    automaton = watch_strings(words, PIECES)
    table = np.asarray(automaton.next)
    seen = 0
    for _ in range(300):
        state, tokens = 0, rng.integers(0, len(PIECES), 7)
        for n, token in enumerate(tokens):
            state = table[state, token]
            inside = any(w.encode() in text_of(tokens[: n + 1]) for w in words)
            assert (state == automaton.found) == inside
            seen += inside
    assert 0 < seen < 2000


def test_a_sequence_of_tokens_is_found_where_it_overlaps_itself():
    table = np.asarray(watch_tokens([1, 1, 2], 4).next)
    state = 0
    for token in (1, 1, 1):
        state = table[state, token]
    assert state == 2
    assert table[state, 2] == 3
    with pytest.raises(ValueError, match="no sequence of tokens"):
        watch_tokens([4], 4)


def test_stop_strings_end_a_response_at_the_token_that_completes_them(params):
    words = ("abb", "é", "bab")
    free = rows(run(params))
    stopped = run(params, stop_strings=sampling.StopStrings(words, PIECES))
    reasons = set()
    for whole, row, finish in zip(free, rows(stopped), stopped.finish, strict=True):
        ends = [
            n
            for n in range(1, len(whole) + 1)
            if any(w.encode() in text_of(whole[:n]) for w in words)
        ]
        assert row == whole[: ends[0] if ends else None]
        if row[-1] == STOP:
            assert finish == sampling.Finish.TOKEN
        else:
            expected = sampling.Finish.STRING if ends else sampling.Finish.LENGTH
            assert finish == expected
        reasons.add(int(finish))
    assert reasons == {0, 1, 2}
    # Slots are free at once: no step is computed for tokens that are thrown away.
    assert stopped.stats.decode_tokens == stopped.length.sum()
    np.testing.assert_array_equal(stopped.finished, stopped.finish != 0)


def test_text_is_cut_before_the_first_stop_string():
    stop = sampling.StopStrings(("\n\n", "Q:"), ())
    assert stop.cut("4\nQ: 5\n\n") == "4\n"
    assert stop.cut("4\n") == "4\n"
    with pytest.raises(ValueError, match="must not be empty"):
        sampling.StopStrings(("",), (b"a",)).automaton(1)
    with pytest.raises(ValueError, match="2 tokens, the decoder only 1"):
        sampling.StopStrings(("a",), (b"a", b"b")).automaton(1)


def test_the_stop_string_can_be_kept():
    strings = ("</answer>", "</answer>\n", "###")
    stop = sampling.StopStrings(strings, (b"4",), keep=True)
    assert stop.cut("<answer>4</answer>\n###") == "<answer>4</answer>"
    assert stop.cut("4") == "4"


END = (5, 5, 1)


def test_thinking_is_ended_by_force_and_the_forced_tokens_marked(params):
    requests = [
        dataclasses.replace(request, thinking=limit)
        for request, limit in zip(REQUESTS, (0, 4, None), strict=True)
    ]
    free = run(params)
    limited = run(params, requests, end_of_thinking=END)
    strategy = np.where(limited.sampled, 1, 0)
    kinds = set()
    for i, (whole, row) in enumerate(zip(rows(free), rows(limited), strict=True)):
        limit = requests[limited.request[i]].thinking
        forced = [n for n in range(len(row)) if not strategy[i, n]]
        if limit is None:
            assert row == whole
            assert not forced
            continue
        # The same noise gives the same tokens up to the first that is forced.
        first = forced[0] if forced else len(row)
        assert row[:first] == whole[:first]
        thought = row[: limit + len(END)]
        places = [n for n in range(len(thought)) if tuple(thought[n : n + 3]) == END]
        if len(row) > limit and STOP not in row[:limit]:
            begun = next(
                n for n in (2, 1, 0) if tuple(row[:limit][-n:]) == END[:n] or not n
            )
            if not (places and places[0] + 3 <= limit):
                expected = range(limit, min(limit + 3 - begun, len(row)))
                assert forced == list(expected)
                assert [row[n] for n in forced] == list(END[begun:][: len(forced)])
                kinds.add((limit, bool(begun)))
        else:
            assert not forced
    assert {(0, False), (4, False)} <= kinds
    assert (limited.support_mass[limited.sampled] == 1).all()
    inside = np.arange(RESPONSE) < limited.length[:, None]
    assert (limited.support_mass[inside & ~limited.sampled] == 0).all()
    # What the policy itself gave the forced tokens is recorded all the same.
    assert (limited.log_prob[inside] < 0).all()


def test_log_probs_after_forced_tokens_are_those_of_the_training_forward(params):
    request = dataclasses.replace(REQUESTS[0], thinking=2)
    limited = run(params, [request], end_of_thinking=END)
    whole = np.concatenate(
        [np.tile(np.array(request.prompt, np.int32), (20, 1)), limited.tokens], axis=1
    )
    positions = jnp.broadcast_to(jnp.arange(whole.shape[1]), whole.shape)
    tokens = jnp.asarray(whole)
    hidden, _ = models.apply(params, CONFIG, tokens, positions, models.causal)
    logits = hidden @ models.unembedding(params, CONFIG)
    log_prob = np.asarray(jax.nn.log_softmax(logits))[:, 1:-1]
    log_prob = np.take_along_axis(log_prob, limited.tokens[..., None], axis=2)[..., 0]
    inside = np.arange(RESPONSE) < limited.length[:, None]
    # float32, sums reordered
    np.testing.assert_allclose(limited.log_prob, log_prob * inside, atol=1e-5)
    assert (inside & ~limited.sampled).sum() > 20


def test_forced_tokens_are_masked_from_the_loss(params):
    request = dataclasses.replace(REQUESTS[0], thinking=2)
    limited = run(params, [request], end_of_thinking=END)
    groups = make_groups([request.prompt], limited, np.ones(20, bool))
    buckets = packing.make_buckets(
        row_lengths=[128], rows=[2], response_length=RESPONSE, shortest_response=4
    )
    (packed,) = packing.pack(groups, buckets)
    masked = only_sampled(packed, limited)
    for slot, row in enumerate(packed.response):
        if row >= 0:
            width = masked.mask.shape[1]
            np.testing.assert_array_equal(
                masked.mask[slot], limited.sampled[row, :width]
            )
    assert masked.mask.sum() == limited.sampled.sum() < packed.mask.sum()


def test_impossible_limits_are_refused(params):
    request = dataclasses.replace(REQUESTS[0], thinking=2)
    with pytest.raises(ValueError, match="query 0 limits thinking"):
        run(params, [request])
    request = dataclasses.replace(request, thinking=-1)
    with pytest.raises(ValueError, match="negative thinking"):
        run(params, [request], end_of_thinking=END)
