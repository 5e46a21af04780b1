"""Every named method trains: two steps on a tiny model, resumed, split, poisoned."""

import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import losses, methods, models, packing, training
from sgpo_jax.profiling import Profile
from sgpo_jax.testing import (
    ARITHMETIC,
    TINY,
    MemoryLog,
    MemoryStore,
    ScriptedRollouts,
    tiny_buckets,
    tiny_queries,
)
from sgpo_jax.training.batch import make_groups, sampler_log_probs
from sgpo_jax.training.collect import collected
from sgpo_jax.training.update import make_batch, with_scores

QUERIES = tiny_queries()
FURTHER = {
    "stale": methods.Method(max_staleness=1, correction=methods.Masked()),
    "sequence": methods.Method(correction=methods.Truncated(level="sequence")),
    "kl_reward": methods.Method(kl=methods.KL(in_reward=True), averaging=0.9),
    "kl_refresh": methods.Method(kl=methods.KL(refresh=2), minibatches=2),
    "passes": methods.Method(updates_per_batch=2, minibatches=3, entropy_bonus=0.01),
    "group_adam": methods.Method(optimizer=methods.GroupAdam()),
    "group_adagrad": methods.Method(optimizer=methods.GroupAdagrad()),
}
FURTHER["outside"] = methods.named("tests.methods.outside:mine")
METHODS = {**{name: make() for name, make in methods.ZOO.items()}, **FURTHER}


def profile():
    count = len(QUERIES)
    return Profile(
        ids=tuple(query.id for query in QUERIES),
        samples=[8] * count,
        successes=np.arange(count) % 7,
        unscorable=[0] * count,
        tokens=[24] * count,
        truncated=[0] * count,
    )


def make_learner(method, *, rows=8, steps=3):
    rate = dataclasses.replace(method.optimizer, learning_rate=1e-2)
    method = method.replace(optimizer=rate)
    return training.Learner(
        programs=training.Programs(
            config=TINY, loss=method.loss, optimizer=method.optimizer.make()
        ),
        rollouts=ScriptedRollouts(),
        queries=QUERIES,
        method=method,
        ladder=tiny_buckets(rows=rows),
        config=training.TrainConfig(rollouts=24, steps=steps, eval_every=1),
        seed=0,
        profile=profile() if "profile" in method.needs else None,
    )


def run(learner, store, start=0, progress=None):
    if progress is None:
        params = models.init(TINY, key=jax.random.key(0))
        progress = learner.start(learner.programs.init(params))
        store.save(0, progress)
    log = MemoryLog()
    progress = training.train(
        learner,
        progress,
        start=start,
        store=store,
        log=log,
        evaluate=lambda progress: {},
    )
    return progress, dict(log.lines)


def assert_same(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_does_not_depend_on_its_packing(name):
    """The same parameters from 8 rows at once and from micro-batches of one row."""
    first, logged = run(make_learner(METHODS[name]), MemoryStore())
    assert int(first.train.step) >= 3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(first.train.params))
    assert sum(line.get("trained", 0) for line in logged.values()) > 0
    split, _ = run(make_learner(METHODS[name], rows=1), MemoryStore())
    # Other order of sums in float32, where Adam divides small gradients by
    # themselves: a tenth of one step of 1e-2.
    assert_same(first.train.params, split.train.params, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["tracked", "grpo", "dapo", "stale", "kl_refresh"])
def test_a_resumed_run_is_the_same_to_the_bit(name):
    store = MemoryStore()
    whole, _ = run(make_learner(METHODS[name]), store)
    step, saved = next((s, p) for s, p in store.saved if s == 1)
    learner = make_learner(METHODS[name])
    resumed, _ = run(learner, MemoryStore(), start=step, progress=saved.copy())
    assert_same(whole.arrays, resumed.arrays)


@pytest.mark.parametrize("name", ["vargrad", "rebel"])
def test_group_objectives_split_over_micro_batches_are_those_of_the_library(name):
    """Gradient of micro-batches of one row against that of the loss on whole groups."""
    method = METHODS[name].replace(updates_per_batch=1)
    learner = make_learner(method, rows=1)
    params = models.init(TINY, key=jax.random.key(0))
    reference = jax.tree.map(lambda x: x * 1.1, params)
    progress = learner.start(learner.programs.init(params))
    if "reference" in progress.copies:
        progress.copies["reference"] = reference
    queries = QUERIES[:4]
    scored = ScriptedRollouts(unscorable=0.0)(None, queries, [6] * 4, step=1)
    draw = methods.Draw(np.arange(4), np.full(4, 6))
    taken = collected(queries, draw, scored)
    prompts = [ARITHMETIC.encode_prompt(query.turns) for query in queries]
    ones = np.ones(24, np.float32)
    batch = make_batch(
        method, learner.ladder, prompts, taken, advantage=ones, factor=ones
    )
    assert len(batch.all_packed) > 1
    put = [[learner.programs.put(one) for one in part] for part in batch.packed]
    put = with_scores(learner.programs, method, progress, put, batch, taken)
    total = learner.programs.zeros(params)
    for one in put[0]:
        total, _ = learner.programs.accumulate(params, total, one)
    found = jax.tree.map(lambda g: g / total.loss.weight, total.grads)

    groups = make_groups(prompts, scored.rollouts, np.ones(24, bool))
    (packed,) = packing.pack(groups, tiny_buckets(rows=8))
    slot = packed.response
    rewards = np.where(slot >= 0, scored.rewards[slot], np.nan)
    group = np.where(slot >= 0, scored.rollouts.request[slot], 4)
    rewards = jax.numpy.asarray(rewards, jax.numpy.float32)
    group = jax.numpy.asarray(group, jax.numpy.int32)

    def loss(params):
        now = training.log_probs(params, TINY, packed).log_prob
        before = training.log_probs(reference, TINY, packed).log_prob
        before = before if name == "vargrad" else jax.lax.stop_gradient(now)
        mask = jax.numpy.asarray(packed.mask)
        ratio = losses.log_ratio(now, before, mask)
        delta = losses.sequence_log_ratio(ratio, mask)
        if name == "vargrad":
            each = losses.vargrad(delta, rewards, group, num_groups=4, beta=0.1)
        else:
            each = losses.rebel(delta, rewards, group, num_groups=4, eta=1.0)
        return each.sum() / 24

    assert_same(found, jax.grad(loss)(params), rtol=1e-3, atol=1e-4)


def test_sampler_log_probs_are_those_of_truncated_sampling():
    scored = ScriptedRollouts()(None, QUERIES[:1], [2], step=0)
    rollouts = dataclasses.replace(
        scored.rollouts,
        length=np.array([2, 1], np.int32),
        log_prob=np.log(np.full((2, 4), 0.25, np.float32)),
        kept=np.array([[0.5, 0.0, 0, 0], [1.0, 0, 0, 0]], np.float32),
    )
    # 0.25 of the mass 0.5 that top-k left is 0.5; a forced token was not drawn.
    expected = np.log([[0.5, 1, 1, 1], [0.25, 1, 1, 1]])
    np.testing.assert_allclose(sampler_log_probs(rollouts), expected, atol=1e-6)


def test_old_log_probs_of_later_minibatches_are_from_before_the_first_update():
    """With a step size of next to nothing no ratio moves; with a real one it does."""
    method = METHODS["grpo_token"].replace(minibatches=3)
    _, moved = run(make_learner(method, steps=1), MemoryStore())
    assert moved[1]["kl_old"] > 1e-7
    learner = make_learner(method, steps=1)
    still = dataclasses.replace(
        learner.programs, optimizer=methods.AdamW(learning_rate=1e-12).make()
    )
    _, same = run(dataclasses.replace(learner, programs=still), MemoryStore())
    assert abs(same[1]["kl_old"]) < 1e-9


def test_refill_replaces_dead_groups():
    learner = make_learner(METHODS["dapo"])
    _, logged = run(learner, MemoryStore())
    assert any(line.get("rounds", 1) > 1 for line in logged.values())
    steps = [line for line in logged.values() if "rounds" in line]
    assert all(line["frac_advantage_zero"] == 0 for line in steps)
    # Those that were dropped had no signal; all of them were sampled and paid for.
    for line in steps:
        assert line["frac_no_signal"] == line["frac_reward_zero_std"]
    assert any(line["frac_no_signal"] > 0 for line in steps)


def test_a_tracked_baseline_gives_signal_to_groups_of_equal_rewards():
    _, logged = run(make_learner(METHODS["tracked"]), MemoryStore())
    steps = [line for line in logged.values() if "rounds" in line]
    assert any(line["frac_reward_zero_std"] > 0 for line in steps)
    assert all(
        line["frac_no_signal"] < line["frac_reward_zero_std"]
        or line["frac_reward_zero_std"] == 0
        for line in steps
    )


def test_a_batch_of_dead_groups_changes_nothing():
    @dataclasses.dataclass
    class Dead(ScriptedRollouts):
        def __call__(self, *arguments, **keywords):
            scored = super().__call__(*arguments, **keywords)
            return dataclasses.replace(scored, rewards=np.ones(len(scored.rewards)))

    learner = dataclasses.replace(make_learner(METHODS["dapo"]), rollouts=Dead())
    store = MemoryStore()
    progress, _ = run(learner, store)
    assert_same(progress.train.params, store.saved[0][1].train.params)


def test_copies_have_buffers_of_their_own():
    """The update donates the parameters: a copy that shares them would be deleted."""
    learner = make_learner(METHODS["kl_refresh"])
    params = models.init(TINY, key=jax.random.key(0))
    progress = learner.start(learner.programs.init(params))
    pairs = zip(
        jax.tree.leaves(progress.copies["reference"]),
        jax.tree.leaves(progress.train.params),
        strict=True,
    )
    assert all(a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer() for a, b in pairs)


def test_averaged_parameters_by_hand():
    learner = make_learner(METHODS["kl_reward"], steps=1)
    store = MemoryStore()
    progress, _ = run(learner, store)
    before, after = store.saved[0][1].train.params, progress.train.params
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, before, after)
    assert_same(progress.copies["averaged"], expected, rtol=1e-5, atol=1e-7)


def test_the_kl_penalty_pulls_towards_the_reference():
    """A large coefficient keeps the policy nearer to where it began."""

    def moved(coef):
        method = METHODS["grpo"].replace(kl=methods.KL(coef=coef))
        progress, _ = run(make_learner(method, steps=6), MemoryStore())
        start = models.init(TINY, key=jax.random.key(0))
        return sum(
            float(np.square(np.asarray(a) - np.asarray(b)).sum())
            for a, b in zip(
                jax.tree.leaves(start),
                jax.tree.leaves(progress.train.params),
                strict=True,
            )
        )

    assert moved(50.0) < moved(1e-4)
