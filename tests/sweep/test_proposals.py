"""Proposals of the Gaussian process and of the learned sampler."""

import numpy as np
import pytest

from benchmarks.sweep import functions, train
from sgpo_jax import sweep
from sgpo_jax.sweep import learned, proposals, study
from sgpo_jax.sweep.proposals import Observations

optuna = pytest.importorskip("optuna")

SPACE = sweep.parse(["a=0:1", "b=log:1e-3:1", "c=1,2,4"], dict(a="0.5", b="0.1", c="1"))


def bowl(x: np.ndarray) -> float:
    return -float(((x - np.array([0.3, 0.7, 0.5])) ** 2).sum())


@pytest.fixture
def history(rng) -> Observations:
    x = proposals.snapped(SPACE, rng.random((8, 3)))
    return Observations(x, np.array([bowl(row) for row in x]))


def test_expected_improvement_is_that_of_samples(rng):
    mean, deviation = np.array([-1.0, 0.0, 0.5]), np.array([0.5, 1.0, 0.1])
    drawn = mean + deviation * rng.standard_normal((200_000, 3))
    expected = np.maximum(drawn - 0.2, 0).mean(0)
    found = proposals.expected_improvement(mean, deviation, 0.2)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_the_process_knows_what_it_has_seen_and_not_what_it_has_not(rng):
    x = rng.random((12, 2)) * 0.5
    history = Observations(x, np.sin(4 * x[:, 0]))
    mean, deviation = proposals.fitted(history, rng)(np.vstack([x, [[1.0, 1.0]]]))
    np.testing.assert_allclose(mean[:-1], history.standardized, atol=0.3)
    assert deviation[-1] > 3 * deviation[:-1].max()


def best_after(sampler: str, trials: int, seed: int) -> float:
    """Best value on a bowl of two options."""
    space, found = SPACE[:2], optuna.create_study(direction="maximize")
    for _ in range(trials):
        trial = study.ask(found, space, sampler=sampler, seed=seed)
        x = [one.position(trial.params[one.name]) for one in space]
        found.tell(trial, bowl(np.array([*x, 0.5])))
    return found.best_value


@pytest.mark.parametrize("sampler", ["gp", "learned"])
def test_it_finds_the_bottom_of_a_bowl_sooner_than_chance(sampler):
    ours = [best_after(sampler, 12, seed) for seed in range(4)]
    chance = [best_after("random", 12, seed) for seed in range(4)]
    assert np.mean(ours) > np.mean(chance) / 2  # of the squared distance


def corner(space, observations, rng):
    """A sampler from outside."""
    assert observations.x.shape[1] == len(space) and rng.random() < 1
    return np.ones(len(space))


def test_a_function_from_outside_proposes():
    space, found = SPACE[:2], optuna.create_study(direction="maximize")
    drawn = []
    for _ in range(study.RANDOM + 2):
        trial = study.ask(found, space, sampler=f"{__name__}:corner", seed=0)
        drawn.append([one.position(trial.params[one.name]) for one in space])
        found.tell(trial, 0.0)
    np.testing.assert_allclose(drawn[-2:], 1.0)
    assert np.max(drawn[: study.RANDOM]) < 1


@pytest.mark.parametrize("propose", study.PROPOSERS.values())
def test_no_setting_is_proposed_twice(propose, rng):
    space = sweep.parse(["a=1,2", "b=x,y,z"], dict(a="1", b="x"))
    grid = np.array([[a, b] for a in (0, 1) for b in (0, 0.5, 1)])
    for left in range(len(grid)):
        history = Observations(np.delete(grid, left, 0), np.arange(5.0))
        np.testing.assert_allclose(propose(space, history, rng), grid[left])


def test_a_query_sees_the_trials_before_it_and_no_later_one(history, rng):
    weights = learned.initial(rng)
    names = learned.buckets([one.name for one in SPACE])
    at = rng.random((4, 3)).astype(np.float32)
    asked = np.broadcast_to(weights["ask_y"], (4, learned.WIDTH))
    queries = (at, np.ones_like(at), asked, np.array([0, 3, 5, 8]))
    x, y = history.x.astype(np.float32), history.standardized.astype(np.float32)
    before = learned.forward(weights, (x, y), queries, names, np)
    x, y = x.copy(), y.copy()
    x[5:], y[5:] = 0.9, 2.0
    after = learned.forward(weights, (x, y), queries, names, np)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert np.abs(before[3] - after[3]).max() > 1e-3


def test_what_is_not_known_of_a_query_changes_nothing(history, rng):
    """Options are drawn one by one; those to come are not looked at."""
    weights = learned.initial(rng)
    names = learned.buckets([one.name for one in SPACE])
    known = np.array([[1, 0, 0]] * 2, np.float32)
    at = np.array([[0.2, 0.0, 0.0], [0.2, 0.7, 0.9]], np.float32)
    asked = np.broadcast_to(weights["ask_x"][names[1]], (2, learned.WIDTH))
    state = learned.forward(
        weights,
        (history.x.astype(np.float32), history.standardized.astype(np.float32)),
        (at, known, asked, np.array([8, 8])),
        names,
        np,
    )
    np.testing.assert_allclose(state[0], state[1], atol=1e-6)


def test_training_computes_what_a_sweep_does(rng):
    """The same forward pass on JAX, in a batch, and on NumPy, alone."""
    weights = learned.initial(rng)
    made = functions.random_functions(rng, 3, 2)
    batch = functions.sequences(rng, made, 3, 2, trials=5)
    data = {
        k: np.float32(v) if np.asarray(v).dtype.kind in "fb" else np.int32(v)
        for k, v in train.queries(batch, rng).items()
    }
    _, (y_loss, x_loss) = train.losses(weights, data)
    losses = []
    for i in range(3):
        for j in range(4):
            seen = (
                data["x"][i][: j + 1],
                data["y"][i][: j + 1],
            )
            asked = weights["ask_y"][None]
            at = data["x"][i][j + 1][None]
            state = learned.forward(
                weights,
                seen,
                (at, np.ones_like(at), asked, np.array([j + 1])),
                data["names"][i],
                np,
            )
            chance = learned.log_softmax(state @ weights["to_y"], np)[0]
            losses.append(-chance[data["y_bin"][i, j]])
    assert float(y_loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(x_loss) > 0


def test_a_pruned_trial_counts_as_the_worst_and_a_running_one_as_the_mean():
    space = sweep.parse(["a=0:1"], {"a": "0.5"})
    found = optuna.create_study(direction="maximize")
    for position, value in ((0.0, 0.5), (0.5, 0.3)):
        found.enqueue_trial({"a": position})
        trial = study.ask(found, space, sampler="random", seed=0)
        found.tell(trial, value)
    for value in (0.45, 0.2):
        trial = study.ask(found, space, sampler="random", seed=0)
        trial.report(value, 3)
        found.tell(trial, state=optuna.trial.TrialState.PRUNED)
    study.ask(found, space, sampler="random", seed=0)
    seen = study.history(found.get_trials(), space)
    np.testing.assert_allclose(seen.y, [0.5, 0.3, 0.3, 0.2, 0.4])
    assert seen.x.shape == (5, 1) and seen.x[1, 0] == 0.5


def test_the_weights_are_small():
    assert learned.WEIGHTS.stat().st_size < 300_000
