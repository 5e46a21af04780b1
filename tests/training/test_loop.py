"""The loop around the step, with a sampler and verifiers that are scripted."""

import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import data, losses, models, packing, planning, training
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


@dataclasses.dataclass
class Exploding:
    """A schedule whose advantages are infinite at some noise steps."""

    inner: planning.Epochs
    source: ScriptedRollouts
    at: set

    def init(self):
        return self.inner.init()

    def draw(self, state, **keywords):
        return self.inner.draw(state, **keywords)

    def credit(self, state, draw, *, group, rewards):
        advantage, state = self.inner.credit(state, draw, group=group, rewards=rewards)
        if self.source.steps[-1] in self.at:
            advantage = np.full_like(advantage, np.inf)
        return advantage, state


EPOCHS = planning.Epochs(phases=((np.arange(len(QUERIES)), np.full(len(QUERIES), 3)),))


@pytest.fixture(scope="module")
def programs():
    return training.Programs(
        config=CONFIG,
        objective=training.ClippedSurrogate(),
        optimizer=training.OptimizerConfig(learning_rate=1e-3).make(),
    )


def make_learner(programs, source, schedule=EPOCHS, **config):
    return training.Learner(
        programs=programs,
        rollouts=source,
        queries=QUERIES,
        schedule=schedule,
        ladder=LADDER,
        select=training.Everything(),
        by=losses.PerToken(),
        config=training.TrainConfig(rollouts=12, **config),
        seed=0,
    )


def run(learner, programs, memory):
    params = models.init(CONFIG, key=jax.random.key(0))
    progress = learner.start(programs.init(params))
    memory.save(0, progress)
    lines = MemoryLog()
    progress = training.train(
        learner,
        progress,
        start=0,
        store=memory,
        log=lines,
        evaluate=lambda progress: {"evaluated": int(progress.train.step)},
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


def test_non_finite_updates_lead_back_and_then_on(programs):
    """Three bad steps after a checkpoint: back to it, on with other noise."""
    memory, source = MemoryStore(), ScriptedRollouts()
    schedule = Exploding(EPOCHS, source, at={3, 4, 5})
    learner = make_learner(
        programs, source, schedule, steps=6, eval_every=2, max_skipped=3
    )
    progress, logged = run(learner, programs, memory)
    assert list(logged) == list(range(7)), "lines of abandoned steps are dropped"
    assert progress.rollbacks == 1
    assert source.steps == [1, 2, 3, 4, 5, *((1 << 24) + s for s in (5, 6))]
    assert int(progress.train.skipped) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(progress.train.params))


@pytest.mark.parametrize("behind", [1, -1])
def test_rollouts_of_another_policy_are_refused(programs, behind):
    learner = make_learner(programs, ScriptedRollouts(staleness=behind), steps=3)
    message = f"version {-behind} cannot train version 0: .* most_stale=0"
    with pytest.raises(ValueError, match=message):
        run(learner, programs, MemoryStore())
    patient = dataclasses.replace(learner, most_stale=1)
    if behind == 1:
        assert int(run(patient, programs, MemoryStore())[0].train.step) == 3
    else:  # from the future: the policy went back since
        with pytest.raises(ValueError, match="version 1 cannot train version 0"):
            run(patient, programs, MemoryStore())


def test_a_run_that_stays_broken_says_so(programs):
    memory, source = MemoryStore(), ScriptedRollouts()
    everywhere = {s + (r << 24) for s in range(9) for r in range(4)}
    schedule = Exploding(EPOCHS, source, at=everywhere)
    learner = make_learner(
        programs, source, schedule, steps=8, max_skipped=2, max_rollbacks=1
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
    learner = make_learner(programs, ScriptedRollouts(), steps=1, epochs=2)
    progress, logged = run(learner, programs, memory)
    assert logged[1]["kl_old"] > 0
    assert int(progress.train.step) == 2
    once = MemoryStore()
    single, _ = run(make_learner(programs, ScriptedRollouts(), steps=1), programs, once)
    cost = progress.ledger["training"]
    assert cost.flops == 2 * single.ledger["training"].flops


def test_left_out_responses_keep_their_share_of_the_denominator():
    """Skipping zero advantages gives the very gradient of training on them."""
    source = ScriptedRollouts(unscorable=0.0)
    scored = source(None, QUERIES[:4], [3] * 4, step=1)
    rollouts = scored.rollouts
    advantage = np.where(rollouts.request % 2, 0.0, scored.rewards - 0.5)
    advantage = advantage.astype(np.float32)
    programs = training.Programs(
        config=CONFIG,
        objective=training.ClippedSurrogate(),
        optimizer=training.OptimizerConfig().make(),
    )
    params = models.init(CONFIG, key=jax.random.key(0))
    prompts = [TOKENIZER.encode(query.prompt) for query in QUERIES[:4]]
    means = []
    for select in (training.Everything(), training.NonZero()):
        factor = select(advantage, seed=0)
        everyone = np.ones(len(rollouts), bool)
        token, response = response_weights(
            rollouts.length, rollouts.request, everyone, by=losses.PerToken()
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
