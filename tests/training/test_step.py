import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgpo_jax import methods, models, packing, sharding, training
from sgpo_jax.testing import TINY as CONFIG
from sgpo_jax.training.batch import micro_batch

LADDER = packing.make_buckets(
    row_lengths=[32], rows=[4, 8], response_length=8, shortest_response=2
)


def make_groups(seed: int, count: int):
    rng = np.random.default_rng(seed)
    made, next_id = [], 0
    for _ in range(count):
        size = int(rng.integers(1, 6))
        responses = [
            rng.integers(0, CONFIG.vocab_size, size=rng.integers(1, 9)).tolist()
            for _ in range(size)
        ]
        prompt = rng.integers(0, CONFIG.vocab_size, size=rng.integers(1, 9)).tolist()
        ids = list(range(next_id, next_id + size))
        next_id += size
        made.append(packing.Group(prompt=prompt, responses=responses, ids=ids))
    return made


def make_batches(groups, buckets=LADDER, seed=0):
    rng = np.random.default_rng(seed)
    count = sum(len(group.ids) for group in groups)
    advantage = rng.normal(size=count).astype(np.float32)
    lengths = np.array([len(r) for g in groups for r in g.responses], np.float32)
    weights = (np.ones(count, np.float32), lengths)
    return [
        micro_batch(packed, advantage=advantage, weights=weights)
        for packed in packing.pack(groups, buckets)
    ]


@functools.cache
def programs(temperature: float = 1.0, mesh_shape: tuple[int, ...] | None = None):
    mesh = None
    if mesh_shape:
        data, fsdp, tensor = mesh_shape
        shape = sharding.MeshShape(data=data, fsdp=fsdp, tensor=tensor)
        mesh = sharding.make_mesh(shape, jax.devices())
    return training.TrainPrograms(
        config=CONFIG,
        loss=methods.TokenLoss(),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
        temperature=temperature,
        mesh=mesh,
    )


@pytest.fixture(scope="module")
def params():
    return models.init(CONFIG, key=jax.random.key(0))


def assert_close(got, want, *, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.linalg.norm(a - b) <= rtol * max(np.linalg.norm(b), 1e-6)


def test_split_batch_equals_whole(params):
    """Gradients of micro-batches add up (float32, sums reordered)."""
    groups = make_groups(0, 18)
    whole = packing.make_buckets(
        row_lengths=[32], rows=[40], response_length=8, shortest_response=2
    )
    one, many = make_batches(groups, whole), make_batches(groups)
    assert len(one) == 1
    assert len(many) > 1
    run = programs()

    def accumulated(batches):
        total = run.zeros(params)
        for batch in batches:
            total, _ = run.accumulate(params, total, batch)
        return total

    got, want = accumulated(many), accumulated(one)
    assert_close(got.grads, want.grads, rtol=1e-5)
    np.testing.assert_allclose(got.loss.mean(), want.loss.mean(), rtol=1e-5)
    np.testing.assert_allclose(got.loss.weight, want.loss.weight)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_importance_ratio_is_exactly_one(params, temperature):
    run = programs(temperature)
    batches = make_batches(make_groups(1, 6))
    state = run.init(params)
    state, metrics, scores = training.apply_batch(run, state, batches)
    assert float(metrics["kl_old"]) == 0.0
    assert float(metrics["clip_ratio/low"]) == float(metrics["clip_ratio/high"]) == 0.0
    again = [
        dataclasses.replace(b, old_log_prob=s, on_policy=np.asarray(False))
        for b, s in zip(batches, scores, strict=True)
    ]
    _, metrics, _ = training.apply_batch(run, state, again)
    assert float(metrics["kl_old"]) > 0


def test_a_non_finite_update_is_skipped_and_counted(params):
    run = programs()
    batches = make_batches(make_groups(2, 6))
    state = run.init(params)
    broken = dataclasses.replace(
        batches[0], advantage=np.full_like(batches[0].advantage, np.nan)
    )
    before = jax.tree.map(np.array, (state.params, state.opt_state))
    for skips in (1, 2):
        state, metrics, _ = training.apply_batch(run, state, [*batches, broken])
        assert float(metrics["skipped"]) == skips
    after = (state.params, state.opt_state)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    state, metrics, _ = training.apply_batch(run, state, batches)
    assert float(metrics["skipped"]) == 0
    assert int(state.step) == 3
    moved = jax.tree.map(
        lambda a, b: (np.asarray(a) != b).any(), state.params, before[0]
    )
    assert any(jax.tree.leaves(moved))


def test_padding_is_inert(params):
    """NaN in every padded cell of the mathematics side changes nothing."""
    run = programs()
    batches = make_batches(make_groups(3, 5))
    empty = batches[0].packed.response < 0
    assert empty.any()
    assert not batches[0].packed.layout.real.all()
    poisoned = dataclasses.replace(
        batches[0],
        old_log_prob=np.where(batches[0].packed.mask, 0, np.nan).astype(np.float32),
        advantage=np.where(empty, np.nan, batches[0].advantage).astype(np.float32),
        # Tokens of padding are real embeddings; any other must do as well.
        packed=dataclasses.replace(
            batches[0].packed,
            tokens=np.where(
                batches[0].packed.layout.real, batches[0].packed.tokens, 16
            ).astype(np.int32),
        ),
    )
    zero = run.zeros(params)
    want, _ = run.accumulate(params, run.zeros(params), batches[0])
    got, _ = run.accumulate(params, zero, poisoned)
    np.testing.assert_array_equal(got.loss.total, want.loss.total)
    jax.tree.map(np.testing.assert_array_equal, got.grads, want.grads)


def test_one_program_per_shape(params):
    run = dataclasses.replace(programs())  # fresh caches
    state = run.init(params)
    for seed in range(12):
        batches = make_batches(make_groups(seed, 1 + 2 * seed))
        state, _, _ = training.apply_batch(run, state, batches)
    assert run.accumulate._cache_size() == len(LADDER.shapes)
    assert run.update._cache_size() == 1


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit 8 device"):
        programs(1.0, (1, 1, 2))


def test_objective_and_optimizer_refuse_bad_numbers():
    with pytest.raises(ValueError, match="from 0 to below 1, got 1"):
        methods.ClippedSurrogate(low=1.0)
    with pytest.raises(ValueError, match="learning_rate"):
        methods.AdamW(learning_rate=0.0)


def test_learning_rate_warms_up():
    optimizer = methods.AdamW(learning_rate=1.0, warmup_steps=4).make()
    x = {"w": jnp.ones(3)}
    state = optimizer.init(x)
    sizes = []
    for _ in range(6):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes scalars
            updates, state = optimizer.update({"w": jnp.ones(3)}, state, x)
        sizes.append(float(jnp.abs(updates["w"]).max()))
    # Adam with a constant gradient moves by the step size.
    np.testing.assert_allclose(sizes, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0], rtol=1e-5)


def test_eos_is_trained(params):
    """A response of EOS alone has a loss, and its gradient raises its probability."""
    eos = 0
    group = packing.Group(prompt=[3, 5], responses=[[eos]], ids=[0])
    (packed,) = packing.pack([group], LADDER)
    ones = np.ones(1, np.float32)
    batch = micro_batch(packed, advantage=ones, weights=(ones, ones))
    run = programs()
    total, scores = run.accumulate(params, run.zeros(params), batch)
    before = float(np.asarray(scores)[packed.mask][0])
    moved = jax.tree.map(lambda p, g: p - 1e-2 * g, params, total.grads)
    _, scores = run.accumulate(moved, run.zeros(params), batch)
    assert float(np.asarray(scores)[packed.mask][0]) > before


def test_imitation_learns_to_answer_and_to_stop(params):
    """Four demonstrations by heart, end of sequence included."""
    demonstrations = [([1, a], [2 + a, 0]) for a in range(4)]
    run = training.TrainPrograms(
        config=CONFIG,
        loss=methods.TokenLoss(objective=methods.SupervisedLoss()),
        optimizer=methods.AdamW(learning_rate=1e-2).make(),
    )
    seen = []
    state, cost = training.fine_tune(
        run,
        run.init(params),
        demonstrations,
        steps=60,
        batch_size=4,
        buckets=LADDER,
        seed=0,
        on_step=lambda step, loss: seen.append(float(loss)),
    )
    assert seen[-1] < 0.05 < seen[0]
    assert cost.rollouts == 240
    with pytest.raises(ValueError, match="do not fill a batch of 8"):
        training.fine_tune(
            run,
            state,
            demonstrations,
            steps=1,
            batch_size=8,
            buckets=LADDER,
            seed=0,
        )
