"""Parameters go to the devices once; `test_identity` counts reads of what is there."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import data, models, training
from sgpo_jax.pipeline import initial
from tests.pipeline.test_run import run

pytestmark = pytest.mark.slow

EMBEDDING = models.CharTokenizer(data.CHARACTERS).vocab_size, 32


def moved(given, made) -> int:
    """Count embeddings that were not yet where they were put."""
    return sum(
        np.shape(after) == EMBEDDING
        and not (
            isinstance(before, jax.Array)
            and before.sharding.is_equivalent_to(after.sharding, 2)
        )
        for before, after in zip(
            jax.tree.leaves(given), jax.tree.leaves(made), strict=True
        )
    )


@pytest.fixture
def counts(monkeypatch):
    """Placements of embeddings (moments are alike), copies, hashes and restores."""
    found = collections.Counter()

    def count(owner, name, number):
        function = getattr(owner, name)

        def call(*args, **options):
            made = function(*args, **options)
            found[name] += number(args[0], made)
            return made

        monkeypatch.setattr(owner, name, call)

    count(jax, "device_put", moved)
    count(jnp, "copy", lambda x, _: np.shape(x) == EMBEDDING)
    count(initial, "fingerprint", lambda *_: 1)
    count(training.Checkpoints, "restore", lambda *_: 1)
    return found


def test_a_run_sends_no_parameters_to_the_devices(tmp_path, counts):
    """They are drawn there, hashed once, and copied by each stage that trains them."""
    short = "--sft.steps", "2", "--train.steps", "1"
    again = (*short, "--methods", "grpo_token", "dr_grpo")
    assert run("run", tmp_path / "run", tmp_path / "cache", *again) == 0
    assert +counts == {"copy": 3, "fingerprint": 1}
    counts.clear()
    assert run("run", tmp_path / "run", tmp_path / "cache", *again) == 0
    assert not +counts
