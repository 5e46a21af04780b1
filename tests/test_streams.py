"""Random streams: one place, no two alike, the same bits as ever."""

import ast
import collections
import itertools
import pathlib

import jax
import numpy as np
import pytest

from sgpo_jax import streams
from sgpo_jax.methods.prompts.order import shuffled

PACKAGE = pathlib.Path(__file__).parent.parent / "sgpo_jax"
ROOTS = {"key", "PRNGKey", "fold_in", "default_rng", "SeedSequence", "RandomState"}
ROOTS |= {"Random", "PCG64", "Philox"}
ELSEWHERE = {
    "profiling/gflownet.py": "trains a network for one choice, by the seed of the call",
    "sweep/study.py": "trials of a sweep, which is no run, by its own seed and number",
    "testing/doubles.py": "scripted rollouts are a function of the step alone",
}


def roots(path: pathlib.Path) -> list[str]:
    """Calls that make a generator or a key, as `line: name`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            if node.func.attr in ROOTS and owner == "random":
                found.append(f"{node.lineno}: {node.func.attr}")
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_only_one_module_derives_from_a_seed(path):
    name = str(path.relative_to(PACKAGE))
    if name == "streams.py":
        assert len(roots(path)) >= 8  # the search finds what there is
    elif name in ELSEWHERE:
        assert roots(path), f"{name} needs no exception any more"
    else:
        assert not roots(path), f"take a stream of sgpo_jax.streams: {roots(path)}"
    assert "from jax.random import" not in path.read_text()
    assert "from numpy.random import" not in path.read_text()


SEED = 11
LIMIT = range(40)
GENERATORS = {
    "questions": lambda: (
        streams.questions(SEED, family, level)
        for family, level in itertools.product(("gcd", "bits"), range(1, 6))
    ),
    "demonstrations": lambda: [streams.demonstrations(SEED)],
    "fine_tuning": lambda: (streams.fine_tuning(SEED, n) for n in LIMIT),
    "plan": lambda: [streams.plan(SEED)],
    "passes": lambda: (
        streams.generator(*streams.passes(SEED, phase), number)
        for phase, number in itertools.product(range(4), LIMIT)
    ),
    "draws": lambda: (
        streams.generator(streams.draw_seed(SEED, number))
        for step, rollbacks in itertools.product(LIMIT[1:], range(4))
        for number in itertools.islice(streams.rounds(step, rollbacks), 16)
    ),
    "subsamples": lambda: (
        streams.generator(streams.subsample_seed(SEED, step, rollbacks))
        for step, rollbacks in itertools.product(LIMIT[1:], range(4))
    ),
}


def state(generator: np.random.Generator) -> tuple[int, ...]:
    return tuple(generator.bit_generator.state["state"].values())


def test_streams_of_generators_differ():
    """But for those that share the padding of their words, as the module says."""
    owners = collections.defaultdict(list)
    for name, made in GENERATORS.items():
        for generator in made():
            owners[state(generator)].append(name)
    shared = {tuple(names) for names in owners.values() if len(names) > 1}
    assert shared == {("fine_tuning", "plan", "passes"), ("fine_tuning", "passes")}
    # Pass n of the fine-tuning is the first pass of phase n; pass 0 is the plan's, too.
    count = sum(len(names) > 1 for names in owners.values())
    assert count == 4


def test_sampling_steps_differ():
    steps = [streams.PROFILE, streams.EVALUATION]
    for step, rollbacks in itertools.product((1, 2, 999, 2**24 - 1), range(4)):
        steps += itertools.islice(streams.rounds(step, rollbacks), streams.ROUNDS)
    assert len(set(steps)) == len(steps)
    assert max(steps) == streams.EVALUATION
    with pytest.raises(ValueError, match=r"lower train.steps or train.max_rollbacks"):
        next(iter(streams.rounds(1, 8)))
    with pytest.raises(ValueError, match="16777216"):
        streams.sampling_step(1 << 24)


def test_keys_differ_by_every_word():
    """Also where the numbers of one word are those of another."""
    few = range(3)
    keys = {
        tuple(
            np.asarray(
                jax.random.key_data(
                    streams.token(
                        streams.sample(streams.sampling(seed, step), query, index), age
                    )
                )
            ).tolist()
        )
        for seed, step, query, index, age in itertools.product(few, repeat=5)
    }
    assert len(keys) == 3**5
    fresh = jax.random.key_data(streams.parameters(1))
    assert tuple(np.asarray(fresh).tolist()) not in keys


def test_requests_of_a_server_have_seeds_of_their_own():
    words = itertools.product((0, 1), (0, 1, 1 << 24), (7, 8), range(50))
    seeds = [streams.request_seed(*parts) for parts in words]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**31


def test_bits_are_what_they_were():
    """A run that is resumed, or repeated years later, draws what it drew."""
    first = [
        streams.questions(3, "gcd", 2),
        streams.demonstrations(3),
        streams.fine_tuning(3, 2),
        streams.plan(3),
        streams.generator(*streams.passes(3, 1), 4),
    ]
    assert [int(rng.integers(10**6)) for rng in first] == [
        349000,
        865531,
        844359,
        811504,
        357738,
    ]
    assert streams.draw_seed(3, 5) == 9791734468858838757
    assert streams.subsample_seed(3, 5, 1) == 17971314389690845891
    assert streams.request_seed(3, 5, 6, 7) == 312984192
    key = streams.token(streams.sample(streams.sampling(3, 5), 6, 7), 8)
    assert jax.random.key_data(key).tolist() == [587868979, 4012196913]
    order = shuffled(100_000, 0, 3, seeds=(*streams.passes(3, 1), 4))
    assert order.tolist() == [11832, 12746, 67036]
