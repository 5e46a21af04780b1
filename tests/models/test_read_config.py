"""Whatever a config.json holds, it is a decoder or one line that names the key."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.pretrained.read import read_config
from sgpo_jax.models.rope import LinearScaling, YarnScaling

LLAMA = {
    "model_type": "llama",
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
GEMMA = {
    **{k: v for k, v in LLAMA.items() if not k.startswith("rope")},
    "model_type": "gemma2",
    "sliding_window": 16,
    "sliding_window_pattern": 2,
    "query_pre_attn_scalar": 8,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
}
YARN = {
    **LLAMA,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": 1.1,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
        "truncate": True,
    },
}
ABSURD = st.sampled_from(
    [
        math.nan,
        math.inf,
        -math.inf,
        -1,
        0,
        -0.5,
        1e400,
        True,
        "8",
        "",
        [],
        {},
        [1],
        {"a": 1},
    ]
)


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        (
            {
                "rope_scaling": {
                    "rope_type": "linear",
                    "factor": 2.0,
                    "rope_theta": 7000.0,
                }
            },
            7000.0,
        ),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 10_000.0),
        ({"rope_scaling": None, "rope_parameters": {"rope_theta": 5e5}}, 5e5),
    ],
)
def test_the_rope_base_is_read_wherever_it_stands(changes, base):
    config = read_config({**LLAMA, **changes})
    assert config.rope_base == base
    assert isinstance(config.rope_scaling, LinearScaling) == bool(
        changes["rope_scaling"]
    )


@settings(max_examples=300)
@given(st.sampled_from([LLAMA, GEMMA, YARN]), st.data())
def test_an_absurd_value_is_one_line(good, data):
    config = copy.deepcopy(good)
    nested = [(config, key) for key in config if key != "model_type"]
    nested += [
        (inner, key)
        for inner in config.values()
        if isinstance(inner, dict)
        for key in inner
    ]
    for owner, key in data.draw(
        st.lists(st.sampled_from(nested), min_size=1, max_size=2)
    ):
        owner[key] = data.draw(ABSURD)
    try:
        made = read_config(config)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).startswith(config["model_type"])
        return
    assert isinstance(made, DecoderConfig)
    numbers = [made.rope_base, made.norm_eps]
    assert all(0 < x < math.inf for x in numbers)


@pytest.mark.parametrize("good", [LLAMA, GEMMA, YARN])
def test_the_unchanged_configs_are_read(good):
    assert read_config(good).num_layers == 2


def test_yarn_takes_the_first_context_from_where_transformers_does():
    scaling = {"rope_type": "yarn", "factor": 2.0}
    given = {**LLAMA, "rope_scaling": scaling, "max_position_embeddings": 512}
    for changes, context in (
        ({}, 512),
        ({"rope_scaling": {**scaling, "original_max_position_embeddings": 256}}, 256),
        ({"original_max_position_embeddings": 128}, 128),
    ):
        found = read_config({**given, **changes}).rope_scaling
        assert isinstance(found, YarnScaling)
        assert found.original_context == context


def test_yarn_in_some_layers_only_is_refused():
    config = {
        **GEMMA,
        "model_type": "gemma3_text",
        "rope_parameters": {
            "full_attention": {**YARN["rope_scaling"], "rope_theta": 1e6},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
    }
    with pytest.raises(ValueError, match="YaRN in some layers only"):
        read_config(config)


@pytest.mark.parametrize("layers", [4097, 10**9])
@pytest.mark.parametrize("config", [LLAMA, GEMMA], ids=["llama", "gemma2"])
def test_more_layers_than_any_model_has_are_refused_at_once(config, layers):
    """Lists of a billion entries were made first."""
    with pytest.raises(ValueError, match="num_hidden_layers must be at most 4096"):
        read_config({**config, "num_hidden_layers": layers})
