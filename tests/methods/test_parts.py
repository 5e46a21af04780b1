"""Contracts of the parts of methods: subsamples, prompt samplers, needs, identity."""

import dataclasses

import numpy as np
import pytest

from sgpo_jax import advantages, methods
from sgpo_jax.profiling import Profile
from sgpo_jax.training import Prompts

SAMPLERS = {
    "shuffled": methods.Shuffled(group_size=4),
    "planned": methods.Planned(),
    "belief": methods.ByBelief(group_size=2),
}


def groups_of(rewards, size=4):
    rewards = np.asarray(rewards, np.float32)
    count = len(rewards) // size
    return methods.RewardGroups(
        rewards=rewards,
        id=np.repeat(np.arange(count), size).astype(np.int32),
        length=np.ones(len(rewards), np.float32),
        size=np.full(len(rewards), size, np.float32),
        count=count,
    )


def profile_of(successes):
    count = len(successes)
    return Profile(
        ids=tuple(f"q{i}" for i in range(count)),
        samples=[8] * count,
        successes=successes,
        unscorable=[0] * count,
        tokens=[24] * count,
        truncated=[0] * count,
    )


def prompts_of(sampler, count=30, seed=0):
    method = methods.Method(
        prompts=sampler, baseline=advantages.BetaTracker(profile_weight=1.0)
    )
    return Prompts(
        method=method,
        count=count,
        seed=seed,
        profile=profile_of(np.arange(count) % 9),
    )


@pytest.mark.parametrize(
    "subsample",
    [
        methods.KeepAll(),
        methods.DropZeroAdvantage(),
        methods.RussianRoulette(keep_above=2.0),
    ],
)
def test_subsamples_keep_the_expected_gradient(subsample):
    advantage = np.array([0.0, 0.1, -0.5, 1.0, -3.0, 0.3, 2.0, 0.7], np.float32)
    groups = groups_of(np.zeros(8))
    draws = [subsample(advantage, groups, seed=s) for s in range(20_000)]
    # Standard error of the rarest (p = 0.05) is 0.03.
    np.testing.assert_allclose(np.mean(draws, axis=0)[1:], 1.0, atol=0.12)
    np.testing.assert_array_equal(draws[7], subsample(advantage, groups, seed=7))
    kept = isinstance(subsample, methods.KeepAll)
    assert draws[0][0] == (1.0 if kept else 0.0)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_prompt_samplers(sampler):
    """Budget exceeded by less than a group, distinct rows, deterministic."""
    prompts = prompts_of(sampler)
    state = prompts.init()
    for step in range(12):
        draw, after = prompts.draw(state, budget=24, progress=step / 12, seed=step)
        again, _ = prompts.draw(state, budget=24, progress=step / 12, seed=step)
        np.testing.assert_array_equal(draw.rows, again.rows)
        assert len(set(draw.rows.tolist())) == len(draw.rows)
        assert draw.sizes.sum() - draw.sizes[-1] < 24
        group = np.repeat(np.arange(len(draw.rows)), draw.sizes)
        rewards = (group % 2).astype(np.float64)
        state = prompts.observe(
            after, draw, group=group, rewards=rewards, step=step + 1
        )
    assert state.history.visits.sum() > 0
    assert state.history.rollouts.sum() >= 12 * 20


def test_shuffled_visits_every_prompt_equally_often():
    prompts = prompts_of(methods.Shuffled(group_size=2), count=10)
    state, visits = prompts.init(), np.zeros(10)
    for step in range(25):
        draw, state = prompts.draw(state, budget=8, progress=0.0, seed=step)
        visits[draw.rows] += 1
    assert visits.max() - visits.min() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_runs_of_other_seeds_draw_other_prompts(sampler):
    def rows(seed):
        prompts = prompts_of(sampler, seed=seed)
        draw, _ = prompts.draw(prompts.init(), budget=24, progress=0.0, seed=seed)
        return set(draw.rows.tolist())

    assert len({tuple(sorted(rows(seed))) for seed in range(8)}) > 1


def test_history_by_hand():
    history = methods.History.empty(3)
    draw = methods.Draw(np.array([2, 0]), np.array([2, 2]))
    rewards = np.array([1.0, 1.0, 0.0, np.nan])
    history = history.observe(draw, np.array([0, 0, 1, 1]), rewards, step=5)
    assert history.visits.tolist() == [1, 0, 1]
    assert history.streak.tolist() == [1, 0, 1]
    assert history.rollouts.tolist() == [1, 0, 2]
    np.testing.assert_array_equal(history.last_mean, [0.0, np.nan, 1.0])
    history = history.observe(draw, np.array([0, 0, 1, 1]), 1 - rewards, step=6)
    mixed = np.array([0.0, 1.0, 1.0, 1.0])
    history = history.observe(draw, np.array([0, 0, 1, 1]), mixed, step=7)
    assert history.streak.tolist() == [3, 0, 0]
    assert history.last_step.tolist() == [7, 0, 7]


def test_a_part_that_reads_what_it_did_not_ask_for_fails():
    def greedy(groups):
        return groups.rewards - groups.baseline

    groups = groups_of([1, 0, 0, 1])
    padded = methods.advantage.pad_groups(
        dataclasses.replace(groups, optional={"baseline": np.zeros(4)})
    )
    with pytest.raises(methods.MissingInput, match=r"needing\('baseline'\)"):
        methods.advantage.evaluate(greedy, padded, 4)
    honest = methods.needing("baseline")(greedy)
    found = methods.advantage.evaluate(honest, padded, 4)
    np.testing.assert_array_equal(found, [1, 0, 0, 1])


@pytest.mark.parametrize("name", methods.ZOO)
def test_named_methods_are_values(name):
    method = methods.named(name)
    again = methods.from_json(methods.to_json(method))
    assert again == method
    assert methods.fingerprint(again) == methods.fingerprint(method)
    assert hash(method.loss) == hash(again.loss)


def test_parts_from_outside_are_found_again():
    method = methods.named("examples.own_method.own:mine")
    content = methods.to_json(method)
    assert methods.from_json(content) == method
    content["advantage"]["source"] = "0" * 16
    with pytest.raises(ValueError, match=r"source of .*shrunk has changed"):
        methods.from_json(content)


def test_a_closure_is_known_by_what_it_closes_over():
    def made(scale, other):
        def scaled(groups):
            return groups.rewards * scale if other else groups.rewards

        return methods.Method(advantage=scaled)

    one, same = (methods.fingerprint(made(1.0, object())) for _ in range(2))
    assert one == same
    assert one != methods.fingerprint(made(2.0, object()))


def test_no_two_named_methods_are_the_same():
    prints = {methods.fingerprint(make()) for make in methods.ZOO.values()}
    assert len(prints) == len(methods.ZOO)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.named("gpro"), "unknown method 'gpro'; did you mean"),
        (lambda: methods.named("sgpo_jax.nowhere:x"), "cannot import"),
        (
            lambda: methods.from_json({"type": "subprocess:Popen", "args": ["true"]}),
            "is not a dataclass, as parts are",
        ),
        (
            lambda: methods.from_json({"type": "sgpo_jax.methods:KL", "coeff": 1}),
            "unexpected keyword",
        ),
        (lambda: methods.KL(coef=float("nan")), "coef must be a number .* got nan"),
        (
            lambda: methods.AdamW(learning_rate=float("inf")),
            "learning_rate .* got inf",
        ),
        (lambda: methods.Method(prompts=methods.ByBelief()), "tracked baseline"),
        (lambda: methods.Method(max_staleness=1), "give a correction"),
        (
            lambda: methods.Method(
                kl=methods.KL(), subsample=methods.DropZeroAdvantage()
            ),
            "leaves out responses",
        ),
    ],
)
def test_bad_parts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
