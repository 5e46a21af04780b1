import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import models, packing, training
from sgpo_jax.testing import TINY as CONFIG

LADDER = packing.make_buckets(
    row_lengths=[24, 48], rows=[2, 4], response_length=9, shortest_response=2
)


def random_groups(seed: int):
    """Groups of 0 to 12 responses: some fill a row, some have to be split."""
    rng = np.random.default_rng(seed)

    def tokens(longest):
        size = rng.integers(1, longest + 1)
        return rng.integers(0, CONFIG.vocab_size, size=size).tolist()

    made, next_id = [], 0
    for _ in range(rng.integers(1, 10)):
        prompt = tokens(11)
        responses = [tokens(9) for _ in range(rng.integers(0, 13))]
        ids = list(range(next_id, next_id + len(responses)))
        next_id += len(responses)
        made.append(packing.Group(prompt=prompt, responses=responses, ids=ids))
    return made


def read_back(batches):
    """Rebuild prompts and responses from the packed arrays alone."""
    found = {}
    for batch in batches:
        layout, slots = batch.layout, len(batch.response) // len(batch.tokens)
        for slot, id_ in enumerate(batch.response):
            if id_ < 0:
                assert not batch.mask[slot].any()
                continue
            where = batch.gather[slot][batch.mask[slot]]
            row, target_offset = np.divmod(where, batch.target.shape[1])
            assert (row == slot // slots).all()
            response = batch.target[row, target_offset].tolist()
            sources = batch.predictor_index[row, target_offset]
            # The first token is predicted by the end of the prefix.
            end = int(sources[0]) + 1
            begin = end - 1 - int(layout.position[row[0], end - 1])
            assert id_ not in found
            prompt = batch.tokens[row[0], begin:end].tolist()
            found[int(id_)] = (prompt, response)
            # The row itself holds the response right after each source but the first.
            if len(response) > 1:
                at = sources[1:]
                assert batch.tokens[row[1:], at + 1].tolist() == response[1:]
                positions = layout.position[row[1:], at]
                assert positions.tolist() == [
                    len(prompt) + i for i in range(len(response) - 1)
                ]
    return found


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_packing_is_exactly_invertible(seed):
    groups = random_groups(seed)
    batches = packing.pack(groups, LADDER)
    expected = {
        id_: (list(group.prompt), list(response))
        for group in groups
        for id_, response in zip(group.ids, group.responses, strict=True)
    }
    assert read_back(batches) == expected
    shapes = {b.tokens.shape for b in batches}
    assert shapes <= {(s.rows, s.row_length) for s in LADDER.shapes}
    waste = packing.waste(groups, batches)
    assert waste.padded == sum(b.tokens.size for b in batches)
    assert waste.tokens == sum(int(b.layout.real.sum()) for b in batches)
    assert sum(int(b.mask.sum()) for b in batches) == sum(
        len(r) for g in groups for r in g.responses
    )


def dense_log_probs(params, sequences, length):
    """Score every sequence by itself: causal attention, plain log-softmax.

    Rows are filled up to one length with tokens that come after everything scored.
    """
    tokens = np.zeros((len(sequences), length), np.int32)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    hidden, _ = models.apply(
        params, CONFIG, jnp.asarray(tokens), positions, models.causal
    )
    logits = hidden @ models.unembedding(params, CONFIG)
    log_prob = jax.nn.log_softmax(logits)[:, :-1]
    return jnp.take_along_axis(log_prob, tokens[:, 1:, None], axis=2)[:, :, 0]


def mixed_groups(rng):
    """Mixed sizes, ragged lengths, one group larger than a row."""
    made, next_id = [], 0
    for prompt, lengths in [
        (7, [3, 1, 9]),
        (1, [5]),
        (4, [2, 2]),
        (11, [9, 8, 7, 9, 3, 9]),
        (3, [1]),
    ]:
        responses = [
            rng.integers(0, CONFIG.vocab_size, size=n).tolist() for n in lengths
        ]
        ids = list(range(next_id, next_id + len(lengths)))
        next_id += len(lengths)
        tokens = rng.integers(0, CONFIG.vocab_size, size=prompt).tolist()
        made.append(packing.Group(prompt=tokens, responses=responses, ids=ids))
    return made


def test_packed_equals_dense_forward_and_gradient(rng):
    """Arxiv 2506.05433: identical outputs and gradients (float32, sums reordered)."""
    params = models.init(CONFIG, key=jax.random.key(1))
    groups = mixed_groups(rng)
    batches = packing.pack(groups, LADDER)
    assert len(batches) > 0
    split = [g for g in groups if len(g.prompt) + sum(map(len, g.responses)) > 48]
    assert split, "the case should contain a group larger than a row"
    weights = rng.normal(size=(sum(len(g.ids) for g in groups), 9)).astype(np.float32)

    @jax.jit
    def packed_loss(params):
        total = jnp.float32(0)
        scored = []
        for batch in batches:
            log_prob = training.log_probs(params, CONFIG, batch).log_prob
            scored.append(log_prob)
            w = jnp.where(batch.mask, weights[batch.response], 0)
            total += jnp.sum(w * log_prob)
        return total, scored

    pairs = [(g.prompt, r) for g in groups for r in g.responses]
    longest = max(len(p) + len(r) for p, r in pairs)

    @jax.jit
    def dense_loss(params):
        every = dense_log_probs(params, [[*p, *r] for p, r in pairs], longest)
        total, scored = jnp.float32(0), []
        for id_, (prompt, response) in enumerate(pairs):
            log_prob = every[id_, len(prompt) - 1 : len(prompt) + len(response) - 1]
            scored.append(log_prob)
            total += jnp.sum(log_prob * weights[id_, : len(response)])
        return total, scored

    (packed, scored), grads = jax.value_and_grad(packed_loss, has_aux=True)(params)
    (dense, expected), dense_grads = jax.value_and_grad(dense_loss, has_aux=True)(
        params
    )
    np.testing.assert_allclose(packed, dense, rtol=1e-5)
    for i, batch in enumerate(batches):
        for slot, id_ in enumerate(batch.response):
            if id_ >= 0:
                got = scored[i][slot][batch.mask[slot]]
                np.testing.assert_allclose(got, expected[int(id_)], atol=1e-5)
    for got, want in zip(
        jax.tree.leaves(grads), jax.tree.leaves(dense_grads), strict=True
    ):
        scale = np.linalg.norm(want)
        assert np.linalg.norm(got - want) <= 1e-5 * scale


def test_what_does_not_fit_is_refused_with_a_remedy():
    group = packing.Group(prompt=[1] * 45, responses=[[1] * 4], ids=[0])
    with pytest.raises(ValueError, match="add a longer row"):
        packing.pack([group], LADDER)
    with pytest.raises(ValueError, match="at least one token"):
        packing.Group(prompt=[], responses=[], ids=[])
    with pytest.raises(ValueError, match="EOS counts"):
        packing.Group(prompt=[1], responses=[[]], ids=[0])


def test_small_batches_take_the_small_shape():
    group = packing.Group(prompt=[1, 2], responses=[[3, 4]], ids=[0])
    (batch,) = packing.pack([group], LADDER)
    assert batch.tokens.shape == (2, 24)
