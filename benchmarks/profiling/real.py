"""A real profile with hidden states of the policy it was made with."""

import contextlib
import dataclasses
import json
import pathlib

import jax
import numpy as np

from sgpo_jax import data, models, training
from sgpo_jax.config import ModelConfig
from sgpo_jax.profiling import Profile, hidden_states


def load(folder):
    """Return profile, features [Q, 2 D] and queries of a run folder."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    profile = Profile.load(folder / "profile.parquet")
    source = data.parse_source(config["data"])
    known = {query.id: query for query in source.load().queries}
    queries = [known[id_] for id_ in profile.ids]
    sizes = {
        field.name: config[f"model.{field.name}"]
        for field in dataclasses.fields(ModelConfig)
        if f"model.{field.name}" in config
    }
    tokenizer = models.CharTokenizer(data.CHARACTERS)
    decoder = ModelConfig(**sizes).decoder(vocab_size=tokenizer.vocab_size)
    like = models.init(decoder, key=jax.random.key(0))
    with contextlib.closing(training.Checkpoints(folder / "policy", keep=1)) as saved:
        params, _ = saved.restore(0, like)
    features = hidden_states(params, decoder, tokenizer, queries)
    return profile, np.asarray(features, np.float64), queries
