"""Gradients of every loss: any packing, poisoned padding, a mesh of 8 with LoRA."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sgpo_jax import methods, models, packing, sharding, training
from sgpo_jax.models.lora import LETTERS, Lora, merge
from sgpo_jax.testing import ScriptedRollouts, tiny_buckets
from sgpo_jax.training.batch import micro_batch
from sgpo_jax.training.collect import collected
from tests.methods.cases import (
    QUERIES,
    SMALL,
    assert_same,
    batch_of,
    by_loss,
    gradient,
    make_learner,
    make_programs,
    params_of,
)

pytestmark = pytest.mark.slow

LOSSES = by_loss()
LORA = Lora(rank=2, alpha=3.0)
ADAPTED = dataclasses.replace(SMALL, lora=LORA)
LADDER = tiny_buckets(rows=4)


@pytest.fixture(scope="module")
def mesh():
    shape = sharding.MeshShape(data=2, fsdp=2, tensor=2)
    return sharding.make_mesh(shape, jax.devices()[:8])


@pytest.fixture(scope="module")
def taken():
    queries = QUERIES[:4]
    scored = ScriptedRollouts(unscorable=0.2)(None, queries, [5] * 4, step=1)
    drawn = -np.random.default_rng(1).uniform(0.5, 3, scored.rollouts.tokens.shape)
    rollouts = dataclasses.replace(scored.rollouts, log_prob=drawn.astype(np.float32))
    scored = dataclasses.replace(scored, rollouts=rollouts)
    return collected(queries, methods.Draw(np.arange(4), np.full(4, 5)), scored)


def adapters(seed):
    shapes = models.shapes(ADAPTED)["adapters"]
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(
        lambda s: 0.3 * jax.random.normal(next(keys), s.shape, s.dtype), shapes
    )


def repacked(batch):
    """The same responses in reverse order, with prefixes of their own, groups cut."""
    pieces = [
        packing.Group(prompt=group.prompt, responses=[response], ids=[id_])
        for group in reversed(batch.all_groups)
        for response, id_ in zip(group.responses, group.ids, strict=True)
    ]
    old = [one for part in batch.packed for one in part]
    names = ("advantage", "reward", "token_weight", "response_weight")
    values, tokens = {}, {}
    for one in old:
        for slot, id_ in enumerate(one.packed.response):
            values[id_] = {name: getattr(one, name)[slot] for name in names}
            if one.sampler_log_prob is not None:
                tokens[id_] = one.sampler_log_prob[slot]
    parts = []
    halves = [packing.pack(pieces[start::2], LADDER) for start in (0, 1)]
    for packed in (*halves[0], *halves[1]):
        fields = {
            name: np.array(
                [values[i][name] if i >= 0 else np.nan for i in packed.response],
                np.float32,
            )
            for name in names
        }
        used = packed.response >= 0
        for name in ("token_weight", "response_weight"):
            fields[name] = np.where(used, fields[name], 0)
        if tokens:
            fields["sampler_log_prob"] = np.stack(
                [tokens.get(i, np.full(4, np.nan)) for i in packed.response]
            ).astype(np.float32)
        parts.append(
            dataclasses.replace(
                old[0],
                packed=packed,
                old_log_prob=np.zeros(packed.mask.shape, np.float32),
                **fields,
            )
        )
    return dataclasses.replace(batch, groups=[pieces], packed=[parts])


def poisoned(one):
    """NaN and nonsense wherever nothing is."""

    def poison(x):
        return None if x is None else np.where(one.packed.mask, x, np.nan)

    tokens = one.packed.tokens
    noise = np.random.default_rng(3).integers(1, 11, tokens.shape).astype(tokens.dtype)
    tokens = np.where(one.packed.layout.end > 0, tokens, noise)
    return dataclasses.replace(
        one,
        packed=dataclasses.replace(one.packed, tokens=tokens),
        old_log_prob=poison(one.old_log_prob),
        reference_log_prob=poison(one.reference_log_prob),
        sampler_log_prob=poison(one.sampler_log_prob),
    )


def through_adapters(full, adapters):
    """Gradient of adapters by the chain rule, from that of the merged matrices."""
    found = {}
    for name, parts in adapters.items():
        inputs, outputs = LETTERS[name]
        whole = full["layers"][name]
        a = np.einsum(f"zr{outputs},z{inputs}{outputs}->z{inputs}r", parts["b"], whole)
        b = np.einsum(f"z{inputs}r,z{inputs}{outputs}->zr{outputs}", parts["a"], whole)
        found[name] = {"a": LORA.factor * a, "b": LORA.factor * b}
    return found


def batch_for(method, taken):
    rng = np.random.default_rng(2)
    return batch_of(
        method,
        taken,
        advantage=rng.normal(size=len(taken.rewards)).astype(np.float32),
        factor=np.isfinite(taken.rewards).astype(np.float32),
    )


def optimizer_of(method):
    return make_learner(method).method.optimizer


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_do_not_depend_on_packing(name, taken):
    """Another order, a prefix for each response, NaN and nonsense in the padding."""
    # One update over the whole batch: minibatches and passes are the loop's affair.
    method = LOSSES[name].replace(minibatches=1, updates_per_batch=1)
    params, reference, old = (params_of(seed=seed) for seed in (0, 1, 2))
    near = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, params, old)
    programs = make_programs(method.loss, optimizer_of(method))
    batch = batch_for(method, taken)
    at = {"params": params, "reference": reference, "old": near}
    whole = gradient(programs, method, batch, taken, **at)
    split = repacked(batch)
    assert len(split.packed[0]) > len(batch.packed[0])
    again = gradient(programs, method, split, taken, **at, change=poisoned)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(whole))
    assert largest > 1e-4
    # Sums of float32 in another order.
    assert_same(whole, again, rtol=1e-3, atol=2e-5 * largest)


@dataclasses.dataclass(frozen=True)
class Everything:
    """All losses of the zoo in one, each of about the same size."""

    losses: tuple[methods.TokenLoss, ...]
    log_z: methods.LogZ = methods.LogZ()

    @property
    def needs(self):
        return frozenset().union(*(loss.needs for loss in self.losses))

    def residual(self, responses):
        return methods.Rebel().residual(responses)

    def __call__(self, responses):
        return sum(
            loss(responses)[0] / SIZES.get(type(loss.objective), 1.0)
            for loss in self.losses
        )


SIZES = {
    methods.VarGrad: 100.0,
    methods.TrajectoryBalance: 100.0,
    methods.FlowBalance: 200.0,
}


def test_every_loss_over_a_mesh_with_adapters(taken, mesh):
    """8 devices and adapters against one device, merged matrices and the chain rule.

    The losses are added, so that two programs do for all of them. To find the one at
    fault, give `Everything` fewer.
    """
    losses = {method.loss: None for method in LOSSES.values()}
    method = methods.Method(objective=Everything(tuple(losses)))
    base = params_of()
    trees = [adapters(seed) for seed in (5, 6, 7)]
    params, reference, old = (merge({**base, "adapters": tree}, LORA) for tree in trees)
    batch = batch_for(method, taken)
    at = {"params": params, "reference": reference, "old": old}
    programs = make_programs(method.loss, method.optimizer)
    whole = gradient(programs, method, batch, taken, **at)
    expected = {
        "adapters": through_adapters(whole, trees[0]),
        "log_z": whole["log_z"],
    }
    tuned, reference, old = ({"adapters": tree} for tree in trees)
    at = {"params": {**base, **tuned}, "reference": reference, "old": old}
    programs = make_programs(method.loss, method.optimizer, ADAPTED, mesh)
    found = gradient(programs, method, batch, taken, **at)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(expected))
    assert_same(found, expected, rtol=1e-3, atol=5e-5 * largest)


def test_a_learnt_normalizer_is_split_like_the_policy(mesh):
    """Along the width of the model, its moments too; also without any array."""
    method = methods.named("flowrl")
    programs = training.TrainPrograms(
        config=ADAPTED, loss=method.loss, optimizer=method.optimizer.make(), mesh=mesh
    )
    group = packing.Group(prompt=[1], responses=[[2]], ids=[0])
    (packed,) = packing.pack([group], LADDER)
    one = np.ones(1, np.float32)
    batch = micro_batch(packed, advantage=one, weights=(one, one))
    scores = np.zeros(packed.mask.shape, np.float32)
    batch = dataclasses.replace(batch, reference_log_prob=scores)
    state, total, batch = programs.abstract(batch)
    moments = state.log_z["opt_state"][0]
    trees = (state.log_z["params"], moments.mu, moments.nu, total.grads["log_z"])
    for tree in trees:
        assert tree["hidden_0"]["weight"].sharding.spec == PartitionSpec("fsdp", None)
        assert tree["out"]["bias"].sharding.is_fully_replicated
    programs.accumulate.lower(state.weights, total, batch)
    programs.update.lower(state, total)
