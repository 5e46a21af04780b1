"""Every named method trains: two steps on a tiny model, resumed, split, poisoned."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import losses, methods, packing, training
from sgpo_jax.methods.zoo import adaptive
from sgpo_jax.testing import (
    ARITHMETIC,
    MemoryLog,
    MemoryStore,
    ScriptedRollouts,
    tiny_buckets,
)
from sgpo_jax.training.batch import make_groups, sampler_log_probs
from sgpo_jax.training.collect import collected
from sgpo_jax.training.update import make_batch, with_reference, with_residual_means
from tests.methods.cases import (
    METHODS,
    QUERIES,
    SMALL,
    assert_same,
    make_learner,
    params_of,
)

pytestmark = pytest.mark.slow


def run(learner, store, start=0, progress=None):
    if progress is None:
        params = params_of()
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


def assert_charged(method, ledger):
    """Scoring costs a third of training a pass, so many times as the parts need it."""
    expected = method.scoring_passes / (3 * method.updates_per_batch)
    found = ledger["scoring"].flops / ledger["training"].flops
    # Minibatches are of about equal size, and the reward's penalty is for all rollouts.
    assert expected / 1.5 <= found <= expected * 1.5, (found, expected)


# Without the slow tests, one method of each kind: with a reference, tracked, refilled,
# planned, with residuals of groups, of several updates.
QUICK = {"grpo", "tracked", "dapo", "sgpo", "rebel", "passes"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
    ],
)
def test_a_method_trains(name):
    start = params_of()
    progress, logged = run(make_learner(METHODS[name]), MemoryStore())
    assert int(progress.train.step) >= 3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(progress.train))
    assert sum(line.get("trained", 0) for line in logged.values()) > 0
    assert_charged(METHODS[name], progress.ledger)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), progress.train.params, start
    )
    assert max(jax.tree.leaves(moved)) > 1e-3


class Uncalled:
    """A program that must not run."""

    def __call__(self, *arguments):
        pytest.fail("a program ran that the default method does not need")

    def _cache_size(self):
        return 0


def test_the_default_method_runs_two_programs_and_keeps_no_copies():
    """A gradient for each shape and an update; no scores, residuals or reference."""
    learner = make_learner(METHODS["grpo_token"])
    shared = learner.programs
    programs = training.TrainPrograms(  # counted alone, whatever other tests compiled
        config=shared.config, loss=shared.loss, optimizer=shared.optimizer
    )
    programs.__dict__.update(score=Uncalled(), residual=Uncalled())
    store = MemoryStore()
    progress, logged = run(dataclasses.replace(learner, programs=programs), store)
    assert int(progress.train.step) == 3 and len(logged) >= 3
    assert programs.compiles() == len(learner.buckets.shapes) + 1
    assert not progress.copies and not progress.train.log_z


@pytest.mark.parametrize("name", ["dapo", "passes", "tracked", "vargrad"])
def test_a_run_does_not_depend_on_its_packing(name):
    """The same parameters from 4 rows at once and from micro-batches of one row."""
    first, _ = run(make_learner(METHODS[name]), MemoryStore())
    split, _ = run(make_learner(METHODS[name], rows=1), MemoryStore())
    # Other order of sums in float32, where Adam divides small gradients by
    # themselves: a tenth of one step of 1e-2.
    assert_same(first.train.params, split.train.params, rtol=2e-3, atol=1e-3)


RESUMED = ["tracked", "dapo", "stale", "kl_refresh", "flowrl"]
RESUMED += [make.__name__ for make in adaptive.METHODS]


@pytest.mark.parametrize("name", RESUMED)
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
    params = params_of()
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
        method, learner.buckets, prompts, taken, advantage=ones, factor=ones
    )
    assert len(batch.all_packed) > 1
    (hosts,) = batch.packed
    part = [learner.programs.put(one) for one in hosts]
    part = with_reference(learner.programs, progress, part)
    part = with_residual_means(learner.programs, progress, part, hosts, taken.group)
    total = learner.programs.zeros(params)
    for one in part:
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
        now = training.log_probs(params, SMALL, packed).log_prob
        before = training.log_probs(reference, SMALL, packed).log_prob
        before = before if name == "vargrad" else jax.lax.stop_gradient(now)
        mask = jax.numpy.asarray(packed.mask)
        ratio = losses.log_ratio(now, before, mask)
        delta = losses.sequence_log_ratio(ratio, mask)
        if name == "vargrad":
            each = losses.vargrad(delta, rewards, group, num_groups=4, beta=0.1)
        else:
            each = losses.rebel(delta, rewards, group, num_groups=4, eta=1.0)
        return each.sum() / 24

    assert_same(found, jax.jit(jax.grad(loss))(params), rtol=1e-3, atol=1e-4)


def test_residual_means_are_those_of_each_update(monkeypatch):
    """Before the first update log-ratios are 0, later they are not."""
    seen = []

    def spy(*arguments):
        found = with_residual_means(*arguments)
        seen.append([np.asarray(one.residual_mean) for one in found])
        return found

    monkeypatch.setattr(training.update, "with_residual_means", spy)
    run(make_learner(METHODS["rebel"], steps=1), MemoryStore())
    first, second = seen
    assert not any(np.isnan(x).any() for x in (*first, *second))
    assert max(np.abs(np.concatenate(first)).tolist()) <= 1  # minus the mean reward
    assert np.abs(np.concatenate(first) - np.concatenate(second)).max() > 1e-3


def test_sampler_log_probs_are_those_of_truncated_sampling():
    scored = ScriptedRollouts()(None, QUERIES[:1], [2], step=0)
    rollouts = dataclasses.replace(
        scored.rollouts,
        length=np.array([2, 1], np.int32),
        log_prob=np.log(np.full((2, 4), 0.25, np.float32)),
        support_mass=np.array([[0.5, 0.0, 0, 0], [1.0, 0, 0, 0]], np.float32),
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


def test_the_drift_of_the_policy_is_what_its_log_probabilities_changed_by():
    """A step size of next to nothing moves nothing; what moved is summed and kept."""
    store = MemoryStore()
    progress, logged = run(make_learner(METHODS["spo"]), store)
    moved = [line["policy_drift"] for line in logged.values() if "rounds" in line]
    assert min(moved) > 1e-4
    np.testing.assert_allclose(progress.prompts.drift, sum(moved), rtol=1e-5)
    # A query remembers where the policy was before the step that visited it.
    seen = np.unique(progress.prompts.baseline.drift)
    before = np.cumsum([0.0, *moved[:-1]])
    assert np.isclose(seen[:, None], before, rtol=1e-4, atol=1e-9).any(axis=1).all()
    learner = make_learner(METHODS["spo"], steps=1)
    still = dataclasses.replace(
        learner.programs, optimizer=methods.AdamW(learning_rate=1e-12).make()
    )
    _, same = run(dataclasses.replace(learner, programs=still), MemoryStore())
    assert same[1]["policy_drift"] < 1e-6


def test_continued_groups_are_trained_on_whole():
    _, logged = run(make_learner(METHODS["speed"]), MemoryStore())
    steps = [line for line in logged.values() if "rounds" in line]
    assert any(line["rounds"] > 1 for line in steps)
    # Pilots of 4 that were all right or all wrong are dropped, the others hold 8.
    assert all(line["trained"] > 0 for line in steps)


@pytest.mark.parametrize("name", ["dapo", "grpo_token", "krpo", "gspo"])
def test_a_batch_of_dead_groups_changes_nothing(name):
    """Dropped, trained on with advantage 0, filtered, and under a KL penalty of 0."""

    @dataclasses.dataclass
    class Dead(ScriptedRollouts):
        def __call__(self, *arguments, **keywords):
            scored = super().__call__(*arguments, **keywords)
            return dataclasses.replace(scored, rewards=np.ones(len(scored.rewards)))

    learner = dataclasses.replace(make_learner(METHODS[name]), rollouts=Dead())
    store = MemoryStore()
    progress, _ = run(learner, store)
    assert_same(progress.train.params, store.saved[0][1].train.params)


def test_copies_have_buffers_of_their_own():
    """The update donates the parameters: a copy that shares them would be deleted."""
    learner = make_learner(METHODS["kl_refresh"])
    params = params_of()
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


def test_a_learnt_normalizer_is_trained_and_in_checkpoints(tmp_path):
    learner = make_learner(METHODS["trajectory_balance"])
    progress, logged = run(learner, MemoryStore())
    head = progress.train.log_z
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(head))
    # From 0 towards log E[exp(R / beta)], which is positive.
    values = [line["log_z"] for line in logged.values() if "log_z" in line]
    assert values[0] == 0 < values[1] < values[2]
    with contextlib.closing(training.Checkpoints(tmp_path)) as checkpoints:
        store = training.ProgressStore(checkpoints, progress, {"method": "x"})
        store.save(3, progress)
        store.wait()
        _, restored = store.restore()
    assert_same(restored.arrays, progress.arrays)
    # What is sampled, evaluated and exported is the policy alone.
    assert progress.train.params.keys() == params_of().keys()


def test_an_objective_that_needs_a_normalizer_must_name_it():
    @methods.needing("log_z")
    def nameless(responses):
        return responses.log_prob + responses.log_z[:, None]

    with pytest.raises(ValueError, match=r"give it an attribute log_z"):
        run(make_learner(methods.Method(objective=nameless)), MemoryStore())


def test_shaping_moves_advantages_and_not_the_logged_reward():
    """The longest responses lose the whole penalty; the verifier's reward is logged."""
    method = methods.Method(advantage=methods.Centered())
    _, plain = run(make_learner(method, steps=1), MemoryStore())
    shaped = method.replace(shaping=methods.OverlongPenalty(cache=0.5))
    learner = make_learner(shaped, steps=1)
    groups = methods.RewardGroups(
        rewards=np.array([1.0, 1.0, 0.0, np.nan]),
        id=np.zeros(4, np.int32),
        length=np.array([2, 3, 4, 4], np.float32),
        size=np.full(4, 4, np.float32),
        count=1,
        max_length=4,
    )
    found = methods.shaping.shape(shaped.shaping, groups)
    np.testing.assert_allclose(found, [1, 0.5, -1, np.nan])
    _, logged = run(learner, MemoryStore())
    assert logged[1]["reward"] == plain[1]["reward"]
    assert logged[1]["loss"] != plain[1]["loss"]


def test_shaping_that_loses_a_reward_is_refused():
    method = methods.Method(shaping=lambda groups: groups.rewards / 0.0)
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match="must return a finite reward for each"),
    ):
        run(make_learner(method), MemoryStore())


def test_the_kl_penalty_pulls_towards_the_reference():
    """A large coefficient keeps the policy nearer to where it began."""

    def moved(coef):
        method = METHODS["grpo"].replace(kl=methods.KL(coef=coef))
        progress, _ = run(make_learner(method, steps=6), MemoryStore())
        start = params_of()
        return sum(
            float(np.square(np.asarray(a) - np.asarray(b)).sum())
            for a, b in zip(
                jax.tree.leaves(start),
                jax.tree.leaves(progress.train.params),
                strict=True,
            )
        )

    assert moved(50.0) < moved(1e-4)
