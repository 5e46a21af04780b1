"""The loop around the step, with a sampler and verifiers that are scripted."""

import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import data, losses, models, packing, planning, training
from sgpo_jax.ledger import Entry
from sgpo_jax.profiling import Scored
from sgpo_jax.sampling import Finish, Rollouts, Stats
from sgpo_jax.training.batch import make_groups, micro_batch, response_weights

TOKENIZER = models.CharTokenizer("0123456789+=")
CONFIG = models.DecoderConfig(
    vocab_size=TOKENIZER.vocab_size,
    num_layers=1,
    embed_dim=16,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
)
QUERIES = tuple(
    data.Query(id=f"{a}+{b}", prompt=f"{a}+{b}=", reference=str(a + b))
    for a in range(4)
    for b in range(3)
)
LADDER = packing.make_ladder(
    row_lengths=[64], rows=[8], response_length=4, shortest_response=2
)


@dataclasses.dataclass
class Scripted:
    """Answers with random digits; about half of the rewards are 1, some are missing."""

    tokenizer: models.CharTokenizer = TOKENIZER
    unscorable: float = 0.1
    noise: list = dataclasses.field(default_factory=list)
    behind: int = 0

    def __call__(self, params, queries, samples, *, step, method=None, version=None):
        self.noise.append(step)
        rng = np.random.default_rng(step)
        request = np.repeat(np.arange(len(queries)), samples).astype(np.int32)
        count = len(request)
        length = rng.integers(1, 5, size=count).astype(np.int32)
        tokens = rng.integers(1, 11, size=(count, 4)).astype(np.int32)
        tokens[np.arange(4) >= length[:, None]] = 0
        rewards = rng.integers(0, 2, size=count).astype(np.float64)
        rewards[rng.random(count) < self.unscorable] = np.nan
        zeros = np.zeros(tokens.shape, np.float32)
        rollouts = Rollouts(
            request=request,
            sample=np.zeros(count, np.int32),
            tokens=tokens,
            length=length,
            log_prob=zeros,
            log_prob_at_one=zeros,
            kept=(np.arange(4) < length[:, None]).astype(np.float32),
            finish=np.full(count, Finish.TOKEN),
            stats=Stats(0, 0, 0, 0, 0, 0, 0.0),
            version=version - self.behind if version is not None else None,
        )
        return Scored(
            rollouts=rollouts,
            rewards=rewards,
            texts=[""] * count,
            cost=Entry(flops=1.0, rollouts=count),
            scoring_seconds=0.0,
            scoring_queue=0.0,
        )


@dataclasses.dataclass
class Exploding:
    """A schedule whose advantages are infinite at some noise steps."""

    inner: planning.Epochs
    source: Scripted
    at: set

    def init(self):
        return self.inner.init()

    def draw(self, state, **keywords):
        return self.inner.draw(state, **keywords)

    def credit(self, state, draw, *, group, rewards):
        advantage, state = self.inner.credit(state, draw, group=group, rewards=rewards)
        if self.source.noise[-1] in self.at:
            advantage = np.full_like(advantage, np.inf)
        return advantage, state


@dataclasses.dataclass
class Memory:
    """Keeps progress in memory."""

    saved: list = dataclasses.field(default_factory=list)

    def save(self, step, progress):
        copy = dataclasses.replace(
            progress.copy(), train=jax.tree.map(np.array, progress.train)
        )
        self.saved.append((step, copy))

    def check(self):
        pass

    def restore(self):
        step, progress = self.saved[-1]
        return step, progress.copy()


@dataclasses.dataclass
class Lines:
    """Keeps lines in memory."""

    lines: list = dataclasses.field(default_factory=list)

    def write(self, step, metrics):
        self.lines.append((step, metrics))

    def rewind(self, lines):
        del self.lines[lines:]


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
    lines = Lines()
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
    memory, source = Memory(), Scripted()
    learner = make_learner(programs, source, steps=5, eval_every=2)
    progress, logged = run(learner, programs, memory)
    assert list(logged) == [0, 1, 2, 3, 4, 5]
    assert [s for s, m in logged.items() if "evaluated" in m] == [0, 2, 4, 5]
    assert [step for step, _ in memory.saved] == [0, 2, 4, 5]
    assert int(progress.train.step) == 5
    # Two steps never see the same sampling noise.
    assert len(set(source.noise)) == 5
    assert progress.ledger["generation"].rollouts == 60


def test_non_finite_updates_lead_back_and_then_on(programs):
    """Three bad steps after a checkpoint: back to it, on with other noise."""
    memory, source = Memory(), Scripted()
    schedule = Exploding(EPOCHS, source, at={3, 4, 5})
    learner = make_learner(
        programs, source, schedule, steps=6, eval_every=2, max_skipped=3
    )
    progress, logged = run(learner, programs, memory)
    assert list(logged) == list(range(7)), "lines of abandoned steps are dropped"
    assert progress.rollbacks == 1
    assert source.noise == [1, 2, 3, 4, 5, *((1 << 24) + s for s in (5, 6))]
    assert int(progress.train.skipped) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(progress.train.params))


@pytest.mark.parametrize("behind", [1, -1])
def test_rollouts_of_another_policy_are_refused(programs, behind):
    learner = make_learner(programs, Scripted(behind=behind), steps=3)
    message = f"version {-behind} cannot train version 0: .* most_stale=0"
    with pytest.raises(ValueError, match=message):
        run(learner, programs, Memory())
    patient = dataclasses.replace(learner, most_stale=1)
    if behind == 1:
        assert int(run(patient, programs, Memory())[0].train.step) == 3
    else:  # from the future: the policy went back since
        with pytest.raises(ValueError, match="version 1 cannot train version 0"):
            run(patient, programs, Memory())


def test_a_run_that_stays_broken_says_so(programs):
    memory, source = Memory(), Scripted()
    everywhere = {s + (r << 24) for s in range(9) for r in range(4)}
    schedule = Exploding(EPOCHS, source, at=everywhere)
    learner = make_learner(
        programs, source, schedule, steps=8, max_skipped=2, max_rollbacks=1
    )
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        run(learner, programs, memory)


def test_a_step_without_any_reward_changes_nothing(programs):
    memory, source = Memory(), Scripted(unscorable=1.1)
    learner = make_learner(programs, source, steps=1)
    progress, logged = run(learner, programs, memory)
    assert logged[1]["trained"] == 0
    assert logged[1]["unscorable"] == 1.0
    start = memory.saved[0][1]
    jax.tree.map(
        np.testing.assert_array_equal, progress.train.params, start.train.params
    )


def test_a_second_epoch_uses_the_first_ones_log_probabilities(programs):
    memory = Memory()
    learner = make_learner(programs, Scripted(), steps=1, epochs=2)
    progress, logged = run(learner, programs, memory)
    assert logged[1]["kl_old"] > 0
    assert int(progress.train.step) == 2
    once = Memory()
    single, _ = run(make_learner(programs, Scripted(), steps=1), programs, once)
    cost = progress.ledger["training"]
    assert cost.flops == 2 * single.ledger["training"].flops


def test_left_out_responses_keep_their_share_of_the_denominator():
    """Skipping zero advantages gives the very gradient of training on them."""
    source = Scripted(unscorable=0.0)
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
