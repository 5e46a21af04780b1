"""A run folder says which shapes its methods use; a config.json, which model."""

import dataclasses
import json

import numpy as np
import pytest

from sgpo_jax import packing
from sgpo_jax.ahead_of_time import planned, public
from sgpo_jax.config import Experiment, PackConfig, SplitConfig, tuned_methods
from sgpo_jax.pipeline import open_folder, open_run
from sgpo_jax.profiling import Profile
from sgpo_jax.rewards import Worker
from sgpo_jax.training import TrainConfig


@pytest.fixture
def experiment(tmp_path):
    return Experiment(
        out=str(tmp_path / "run"),
        split=SplitConfig(max_train=40, max_held_out=8),
        train=TrainConfig(steps=20, rollouts=64),
        methods=tuned_methods(("grpo", "sgpo"), 1e-3),
        pack=PackConfig(rows=(1, 64)),
    )


def profiled(config, rate):
    """Leave a profile in which every question is solved as often as told."""
    run = open_run(config, Worker())
    files = open_folder(config)
    ids = [query.id for query in run.train]
    count = np.full(len(ids), 8)
    Profile(
        ids=tuple(ids),
        samples=count,
        successes=np.round(count * rate).astype(int),
        unscorable=0 * count,
        tokens=3 * count,
        truncated=0 * count,
    ).save(files.profile)
    return run, files


def test_a_folder_without_a_profile_is_refused(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        planned.read(tmp_path)
    profiled(experiment, 0.5)
    (tmp_path / "run" / "profile.parquet").unlink()
    with pytest.raises(ValueError, match=r"has no profile.*after `sgpo profile`"):
        planned.read(tmp_path / "run")


def test_a_rehearsal_uses_the_shapes_that_the_tokens_need(experiment):
    opened, files = profiled(experiment, 0.5)
    run = planned.read(files.path)
    assert run.config == dataclasses.replace(experiment, out=str(files.path))
    small, large = (
        packing.Shape(
            row_length=128, response_length=8, targets=128, slots=64, rows=rows
        )
        for rows in (1, 64)
    )
    used = run.rehearse(packing.Buckets((small, large)), steps=4)
    assert set(used) == {"grpo", "sgpo"}
    # 64 responses of 3 tokens and their prompts are a few rows of 128: the large shape
    # would be taken for more than one row, and it is.
    tokens = (
        sum(len(opened.tokenizer.encode_prompt(q.prompt)) for q in opened.train)
        / len(opened.train)
        * 8
        + 64 * 3
    )
    expected = small if tokens < 128 else large
    assert used["grpo"] == {expected: 4}
    # With room for all in one row, one row is enough.
    longer = [dataclasses.replace(s, row_length=2048, targets=2048) for s in (small,)]
    used = run.rehearse(packing.Buckets(tuple(longer)), steps=4)
    assert used["grpo"] == {longer[0]: 4}


def test_a_method_that_learns_nothing_needs_no_shape(experiment):
    config = dataclasses.replace(
        experiment, methods=tuned_methods(("grpo", "grpo_nonzero"), 1e-3)
    )
    _, files = profiled(config, 0.5)
    profiled(config, 1.0)  # every group is all right: no response is worth training on
    buckets = packing.make_buckets(row_lengths=[128], rows=[8], response_length=8)
    used = planned.read(files.path).rehearse(buckets, steps=3)
    assert not used["grpo_nonzero"]
    assert used["grpo"].total() >= 3


def test_a_rehearsal_knows_minibatches_and_continued_groups(experiment):
    """Every minibatch is packed by itself; a pilot is a part of its rollouts."""
    names = ("grpo_token", "gspo", "reinforce_ada")
    config = dataclasses.replace(experiment, methods=tuned_methods(names, 1e-3))
    _, files = profiled(config, 0.5)
    (shape,) = packing.make_buckets(
        row_lengths=[2048], rows=[1], response_length=8
    ).shapes
    used = planned.read(files.path).rehearse(packing.Buckets((shape,)), steps=3)
    assert used["grpo_token"][shape] == 3
    assert used["gspo"][shape] == 3 * 4
    assert used["reinforce_ada"][shape] == 3


def test_a_model_is_found_by_its_config_file(tmp_path):
    known = public.find("qwen3-0.6b")
    path = tmp_path / "config.json"
    content = {
        "model_type": "qwen3",
        "vocab_size": known.vocab_size,
        "hidden_size": known.embed_dim,
        "num_hidden_layers": known.num_layers,
        "num_attention_heads": known.num_heads,
        "num_key_value_heads": known.num_kv_heads,
        "head_dim": known.head_dim,
        "intermediate_size": known.mlp_dim,
        "rope_theta": known.rope_base,
        "rms_norm_eps": known.norm_eps,
        "tie_word_embeddings": True,
    }
    path.write_text(json.dumps(content))
    assert public.find(str(path)) == public.find(str(tmp_path)) == known
    path.write_text(json.dumps(content | {"model_type": "mamba"}))
    with pytest.raises(ValueError, match="'mamba' is not supported"):
        public.find(str(path))
    path.write_text("[")
    with pytest.raises(ValueError, match="is no JSON"):
        public.find(str(path))
    with pytest.raises(ValueError, match=r"known: tiny.*path of a config\.json"):
        public.find(str(tmp_path / "nothing"))
