"""Every method on the smallest decoder; all share their programs."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from sgpo_jax import methods, models, sharding, training
from sgpo_jax.methods.advantage import evaluate, pad_groups
from sgpo_jax.profiling import Profile
from sgpo_jax.testing import (
    ARITHMETIC,
    TINY,
    ScriptedRollouts,
    tiny_buckets,
    tiny_queries,
)
from sgpo_jax.training.collect import Collected
from sgpo_jax.training.update import (
    Batch,
    make_batch,
    with_reference,
    with_residual_means,
)
from tests.methods import shared

QUERIES = tiny_queries()
SMALL = dataclasses.replace(TINY, num_layers=1)
FURTHER = {
    "stale": methods.Method(max_staleness=1, correction=methods.Masked()),
    "sequence": methods.Method(correction=methods.Truncated(level="sequence")),
    "kl_reward": methods.Method(kl=methods.KL(in_reward=True), averaging=0.9),
    "kl_refresh": methods.Method(kl=methods.KL(refresh=2), minibatches=2),
    "passes": methods.Method(updates_per_batch=2, minibatches=3, entropy_bonus=0.01),
    "group_adam": methods.Method(optimizer=methods.GroupAdam()),
    "group_adagrad": methods.Method(optimizer=methods.GroupAdagrad()),
}
FURTHER["outside"] = methods.named("examples.own_method.own:mine")
METHODS = {**{name: make() for name, make in methods.ZOO.items()}, **FURTHER}
# Of eight responses that are right half the time, hardly ever is just one right.
METHODS["pass_at_k"] = METHODS["pass_at_k"].replace(
    prompts=methods.Shuffled(group_size=2)
)


def by_loss() -> dict[str, methods.Method]:
    """One method for each loss and aggregation there is."""
    found = {}
    for name, method in METHODS.items():
        found.setdefault((method.loss, method.aggregation), name)
    return {name: METHODS[name] for name in found.values()}


LOSSES = tuple(dict.fromkeys(method.loss for method in METHODS.values()))


@functools.cache
def make_programs(
    loss: methods.TokenLoss,
    optimizer: methods.Optimizer,
    config: models.DecoderConfig = SMALL,
    mesh: Mesh | None = None,
) -> training.TrainPrograms:
    """Programs that all tests of a process share, those of one loss among the zoo's."""
    among = LOSSES if loss in LOSSES else (loss,)
    made = _made(optimizer)
    return shared.TrainPrograms(
        config=config, loss=loss, optimizer=made, mesh=mesh, among=among
    )


@functools.cache
def _made(optimizer: methods.Optimizer) -> optax.GradientTransformation:
    return optimizer.make()


def params_of(config: models.DecoderConfig = SMALL, seed: int = 0) -> models.Params:
    """Fresh parameters."""
    return models.init(config, key=jax.random.key(seed))


def profile() -> Profile:
    """A profile of the queries with zero to six successes of eight."""
    count = len(QUERIES)
    return Profile(
        ids=tuple(query.id for query in QUERIES),
        samples=[8] * count,
        successes=np.arange(count) % 7,
        unscorable=[0] * count,
        tokens=[24] * count,
        truncated=[0] * count,
    )


def make_learner(
    method: methods.Method, *, rows: int = 4, steps: int = 3
) -> training.Learner:
    """Learner of scripted rollouts with a large step size."""
    rate = dataclasses.replace(method.optimizer, learning_rate=1e-2)
    method = method.replace(optimizer=rate)
    return training.Learner(
        programs=make_programs(method.loss, rate),
        rollouts=ScriptedRollouts(),
        queries=QUERIES,
        method=method,
        buckets=tiny_buckets(rows=rows),
        config=training.TrainConfig(rollouts=24, steps=steps, eval_every=1),
        seed=0,
        profile=profile() if "profile" in method.needs else None,
    )


def assert_same(a, b, **tolerance):
    """Equal leaves, to the bit or within a tolerance."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def reward_groups(method: methods.Method, taken: Collected) -> methods.RewardGroups:
    """Rewards of rollouts with what the parts of a method read of their prompts."""
    known = np.linspace(0.1, 0.9, len(taken.queries))[taken.group]
    return methods.RewardGroups(
        rewards=taken.rewards,
        id=taken.group,
        length=taken.rollouts.length.astype(np.float32),
        size=np.bincount(taken.group).astype(np.float32)[taken.group],
        count=len(taken.queries),
        max_length=4,
        optional={name: known for name in ("profile", "baseline")},
    )


def advantage_of(method: methods.Method, taken: Collected) -> np.ndarray:
    """Advantages of rollouts."""
    groups = pad_groups(reward_groups(method, taken))
    return evaluate(method.advantage, groups, len(taken.rewards))


def batch_of(
    method: methods.Method,
    taken: Collected,
    *,
    advantage: np.ndarray,
    factor: np.ndarray,
) -> Batch:
    """Micro-batches of four rows."""
    prompts = [ARITHMETIC.encode_prompt(query.turns) for query in taken.queries]
    made = make_batch(
        method,
        tiny_buckets(rows=4),
        prompts,
        taken,
        advantage=advantage,
        factor=factor,
    )
    assert made is not None
    return made


def gradient(
    programs: training.TrainPrograms,
    method: methods.Method,
    batch: Batch,
    taken: Collected,
    *,
    params: models.Params,
    reference: models.Params,
    old: models.Params | None,
    log_z: float | None = None,
    change: Callable[[training.MicroBatch], training.MicroBatch] | None = None,
) -> Any:
    """Gradient of the mean loss of a batch.

    Args:
      programs: of the method's loss.
      method: its parts.
      batch: one minibatch.
      taken: the rollouts it was made of.
      params: the policy.
      reference: trained parameters of the reference.
      old: trained parameters of the old policy; None for the policy itself.
      log_z: value of a learnt log-normalizer; None for one of the prompt, off 0.
      change: applied to micro-batches on the host, scores included.
    """
    learner = dataclasses.replace(make_learner(method), programs=programs)
    progress = learner.start(programs.init(params))
    if progress.train.log_z:
        progress.train = _with_log_z(progress.train, log_z)
    state = progress.train

    def placed(tree: Any) -> Any:
        like = models.trainable(state.params)[0]
        return jax.tree.map(lambda x, at: sharding.put(x, at.sharding), tree, like)

    if "reference" in progress.copies:
        progress.copies["reference"] = placed(reference)
    (hosts,) = batch.packed
    part = with_reference(programs, progress, [programs.put(one) for one in hosts])
    if old is not None:
        before = {**placed(old), **models.trainable(state.params)[1]}
        part = [
            dataclasses.replace(
                one,
                old_log_prob=programs.score(before, one.packed),
                on_policy=np.asarray(False),
            )
            for one in part
        ]
    part = with_residual_means(programs, progress, part, hosts, taken.group)
    total = programs.zeros(state.params)
    for one in part:
        if change is not None:
            one = programs.put(change(jax.tree.map(np.asarray, one)))
        total, _ = programs.accumulate(state.weights, total, one)
    return jax.tree.map(lambda g: np.asarray(g / total.loss.weight), total.grads)


def _with_log_z(state: training.TrainState, value: float | None) -> training.TrainState:
    """State whose learnt log-normalizer has a value, or depends on the prompt."""
    params = jax.tree.map(lambda x: x + 0.1, state.log_z["params"])
    if value is not None:
        out = params["out"]
        out = {"weight": 0 * out["weight"], "bias": 0 * out["bias"] + value}
        params = {**params, "out": out}
    return dataclasses.replace(state, log_z={**state.log_z, "params": params})
