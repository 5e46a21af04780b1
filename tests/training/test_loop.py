"""The loop around the step, with a sampler and verifiers that are scripted."""

import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import data, ledger, losses, methods, models, packing, training
from sgpo_jax.testing import ARITHMETIC as TOKENIZER
from sgpo_jax.testing import TINY as CONFIG
from sgpo_jax.testing import MemoryLog, MemoryStore, ScriptedRollouts, tiny_buckets
from sgpo_jax.training.batch import make_groups, micro_batch, response_weights

QUERIES = tuple(
    data.Query(id=f"{a}+{b}", prompt=f"{a}+{b}=", reference=str(a + b))
    for a in range(4)
    for b in range(3)
)
LADDER = tiny_buckets()


@dataclasses.dataclass(frozen=True)
class Exploding:
    """A subsample whose factors are infinite at some noise steps."""

    source: ScriptedRollouts
    at: frozenset

    def __call__(self, advantage, groups, *, seed):
        bad = self.source.steps[-1] in self.at
        return np.full(len(advantage), np.inf if bad else 1, np.float32)


GROUPS_OF_3 = methods.Method(
    prompts=methods.Shuffled(group_size=3),
    optimizer=methods.AdamW(learning_rate=1e-3),
)


@pytest.fixture(scope="module")
def programs():
    return training.TrainPrograms(
        config=CONFIG,
        loss=GROUPS_OF_3.loss,
        optimizer=GROUPS_OF_3.optimizer.make(),
    )


def make_learner(programs, source, method=GROUPS_OF_3, **config):
    return training.Learner(
        programs=programs,
        rollouts=source,
        queries=QUERIES,
        method=method,
        buckets=LADDER,
        config=training.TrainConfig(rollouts=12, **config),
        seed=0,
    )


def evaluated(progress):
    return {"evaluated": int(progress.train.step)}


def run(learner, programs, memory, lines=None, evaluate=evaluated):
    params = models.init(CONFIG, key=jax.random.key(0))
    progress = learner.start(programs.init(params))
    memory.save(0, progress)
    lines = MemoryLog() if lines is None else lines
    progress = training.train(
        learner,
        progress,
        start=0,
        store=memory,
        log=lines,
        evaluate=evaluate,
    )
    logged = dict(lines.lines)
    assert len(logged) == len(lines.lines), "a step was logged twice"
    return progress, logged


def test_steps_evaluations_and_checkpoints(programs):
    memory, source = MemoryStore(), ScriptedRollouts()
    learner = make_learner(programs, source, steps=5, eval_every=2)
    progress, logged = run(learner, programs, memory)
    assert list(logged) == [0, 1, 2, 3, 4, 5]
    assert [s for s, m in logged.items() if "evaluated" in m] == [0, 2, 4, 5]
    assert [step for step, _ in memory.saved] == [0, 2, 4, 5]
    assert int(progress.train.step) == 5
    # Two steps never see the same sampling noise.
    assert len(set(source.steps)) == 5
    assert progress.ledger["generation"].rollouts == 60


def test_a_finished_run_that_is_trained_again_has_each_line_once(programs):
    """Its last checkpoint is older than the evaluation of its last step."""
    memory, source, log = MemoryStore(), ScriptedRollouts(), MemoryLog()
    learner = make_learner(programs, source, steps=2, eval_every=2)
    _, first = run(learner, programs, memory, log)
    start, progress = memory.restore()
    assert start == 2
    training.train(
        learner, progress, start=start, store=memory, log=log, evaluate=evaluated
    )
    steps = [step for step, _ in log.lines]
    assert steps == [0, 1, 2]
    clocks = ("time/eval", "step_time_sec")
    for step, line in log.lines:
        for name in line.keys() - set(clocks):
            assert line[name] == first[step][name], name


def test_non_finite_updates_lead_back_and_then_on(programs):
    """Three bad steps after a checkpoint: back to it, on with other noise."""
    memory, source = MemoryStore(), ScriptedRollouts()
    method = GROUPS_OF_3.replace(subsample=Exploding(source, frozenset({3, 4, 5})))
    learner = make_learner(
        programs, source, method, steps=6, eval_every=2, max_skipped=3
    )
    progress, logged = run(learner, programs, memory)
    assert list(logged) == list(range(7)), "lines of abandoned steps are dropped"
    assert progress.rollbacks == 1
    assert source.steps == [1, 2, 3, 4, 5, *((16 << 24) + s for s in (5, 6))]
    assert int(progress.train.skipped) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(progress.train.params))


@pytest.mark.parametrize("stop", [False, True])
def test_a_collapse_is_recorded_and_may_end_the_run(programs, stop):
    def evaluate(progress):
        mean = 0.02 if int(progress.train.step) >= 2 else 0.5
        return {"eval/success": mean, "eval/low": mean - 0.02, "eval/high": mean + 0.02}

    memory, lines = MemoryStore(), MemoryLog()
    config = {"steps": 4, "eval_every": 2, "stop_on_collapse": stop}
    learner = make_learner(programs, ScriptedRollouts(), **config)
    if stop:
        with pytest.raises(training.CollapseError, match="step 2: COLLAPSE"):
            run(learner, programs, memory, lines, evaluate)
    else:
        run(learner, programs, memory, lines, evaluate)
    logged = dict(lines.lines)
    assert [s for s, m in logged.items() if "eval/collapse" in m] == (
        [2] if stop else [2, 4]
    )
    assert [step for step, _ in memory.saved] == ([0, 2] if stop else [0, 2, 4])
    assert memory.saved[-1][1].initial[0] == 0.5


def test_an_evaluation_without_an_interval_is_not_judged(programs):
    def evaluate(progress):
        return {"eval/success": 0.5 if int(progress.train.step) == 0 else 0.0}

    lines = MemoryLog()
    config = {"steps": 2, "eval_every": 2, "stop_on_collapse": True}
    learner = make_learner(programs, ScriptedRollouts(), **config)
    run(learner, programs, MemoryStore(), lines, evaluate)
    assert [line["eval/success"] for _, line in lines.lines[::2]] == [0.5, 0.0]
    assert not any("eval/collapse" in line for _, line in lines.lines)


@pytest.mark.parametrize("behind", [1, -1])
def test_rollouts_of_another_policy_are_refused(programs, behind):
    learner = make_learner(programs, ScriptedRollouts(staleness=behind), steps=3)
    message = f"version {-behind} cannot train version 0: .* max_staleness=0"
    with pytest.raises(ValueError, match=message):
        run(learner, programs, MemoryStore())


def test_a_stale_sampler_is_refreshed_when_it_is_too_old(programs):
    """Rollouts of parameters up to one update old: versions 0, 0, 2, 2, 4."""
    seen = []

    class Recording(ScriptedRollouts):
        def __call__(self, params, *arguments, version=None, **keywords):
            seen.append((version, params))
            return super().__call__(params, *arguments, version=version, **keywords)

    method = GROUPS_OF_3.replace(max_staleness=1, correction=methods.Truncated())
    own = dataclasses.replace(programs, loss=method.loss)
    learner = make_learner(own, Recording(), method, steps=5)
    progress, logged = run(learner, own, MemoryStore())
    assert [version for version, _ in seen] == [0, 0, 2, 2, 4]
    assert int(progress.train.step) == 5
    assert logged[1]["correction/weight"] > 0


def test_a_run_that_stays_broken_says_so(programs):
    memory, source = MemoryStore(), ScriptedRollouts()
    everywhere = {s + ((16 * r) << 24) for s in range(9) for r in range(4)}
    method = GROUPS_OF_3.replace(subsample=Exploding(source, frozenset(everywhere)))
    learner = make_learner(
        programs, source, method, steps=8, max_skipped=2, max_rollbacks=1
    )
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        run(learner, programs, memory)


def test_a_step_without_any_reward_changes_nothing(programs):
    memory, source = MemoryStore(), ScriptedRollouts(unscorable=1.1)
    learner = make_learner(programs, source, steps=1)
    progress, logged = run(learner, programs, memory)
    assert logged[1]["trained"] == 0
    assert logged[1]["unscorable"] == 1.0
    start = memory.saved[0][1]
    jax.tree.map(
        np.testing.assert_array_equal, progress.train.params, start.train.params
    )


def test_a_second_epoch_uses_the_first_ones_log_probabilities(programs):
    memory = MemoryStore()
    twice = GROUPS_OF_3.replace(updates_per_batch=2)
    learner = make_learner(programs, ScriptedRollouts(), twice, steps=1)
    progress, logged = run(learner, programs, memory)
    assert logged[1]["kl_old"] > 0
    assert int(progress.train.step) == 2
    once = MemoryStore()
    single, _ = run(make_learner(programs, ScriptedRollouts(), steps=1), programs, once)
    cost = progress.ledger["training"]
    assert cost.flops == 2 * single.ledger["training"].flops


def test_what_leaving_dead_groups_out_saves_is_known_without_doing_it(programs):
    """The same updates twice; the second run spends what the first one says."""
    costs = {}
    for subsample in (methods.KeepAll(), methods.DropZeroAdvantage()):
        method = GROUPS_OF_3.replace(subsample=subsample)
        learner = make_learner(programs, ScriptedRollouts(), method, steps=3)
        progress, _ = run(learner, programs, MemoryStore())
        costs[type(subsample)] = progress.ledger
    whole, live = costs[methods.KeepAll], costs[methods.DropZeroAdvantage]
    assert whole.total_live == live.total.flops == live.total_live
    assert whole[ledger.LIVE].rollouts == live["training"].rollouts
    assert live["training"].flops < 0.9 * whole["training"].flops


def test_left_out_responses_keep_their_share_of_the_denominator():
    """Skipping zero advantages gives the very gradient of training on them."""
    source = ScriptedRollouts(unscorable=0.0)
    scored = source(None, QUERIES[:4], [3] * 4, step=1)
    rollouts = scored.rollouts
    advantage = np.where(rollouts.request % 2, 0.0, scored.rewards - 0.5)
    advantage = advantage.astype(np.float32)
    programs = training.TrainPrograms(
        config=CONFIG,
        loss=methods.Method().loss,
        optimizer=methods.AdamW().make(),
    )
    params = models.init(CONFIG, key=jax.random.key(0))
    prompts = [TOKENIZER.encode(query.prompt) for query in QUERIES[:4]]
    means = []
    rewarded = methods.RewardGroups(
        rewards=scored.rewards,
        id=rollouts.request,
        length=rollouts.length.astype(np.float32),
        size=np.full(len(rollouts), 3, np.float32),
        count=4,
    )
    for subsample in (methods.KeepAll(), methods.DropZeroAdvantage()):
        factor = subsample(advantage, rewarded, seed=0)
        everyone = np.ones(len(rollouts), bool)
        token, response = response_weights(
            rollouts.length, rollouts.request, everyone, aggregation=losses.PerToken()
        )
        response = response * (response.sum() / response[factor != 0].sum())
        groups = make_groups(prompts, rollouts, factor != 0)
        total = programs.zeros(params)
        for packed in packing.pack(groups, LADDER):
            batch = micro_batch(
                packed, advantage=advantage, weights=(token * factor, response)
            )
            total, _ = programs.accumulate(params, total, batch)
        weight = np.asarray(total.loss.weight)
        means.append(jax.tree.map(lambda g, w=weight: np.asarray(g) / w, total.grads))
    for a, b in zip(jax.tree.leaves(means[0]), jax.tree.leaves(means[1]), strict=True):
        # float32, sums reordered
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
