"""Families of published models: what the models of a `model_type` have in common.

A family is a row of options; the decoder is one. `read` turns a `config.json` into a
`DecoderConfig`, `write` does the reverse, `names` are those of tensors.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """Model family: the architecture of a `model_type` of transformers.

    Attributes:
      architecture: name of the class in transformers.
      options: fields of `DecoderConfig` that the family fixes.
      defaults: keys of `config.json` whose default is not that of Llama.
      global_every: without `layer_types`, period of the layers with full attention;
        None if that is not in its configuration.
      window: whether the family has layers with a window.
    """

    architecture: str
    options: Json = dataclasses.field(default_factory=dict)
    defaults: Json = dataclasses.field(default_factory=dict)
    global_every: int | None = None
    window: bool = False


_GEMMA = {
    "norm_offset": True,
    "sandwich_norms": True,
    "scale_embeddings": True,
    "activation": "gelu",
}
_GEMMA_DEFAULTS = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
}
FAMILIES: Mapping[str, ModelFamily] = {
    "llama": ModelFamily(architecture="LlamaForCausalLM"),
    "mistral": ModelFamily(
        architecture="MistralForCausalLM",
        defaults={"sliding_window": 4096, "num_key_value_heads": 8},
        window=True,
    ),
    "qwen2": ModelFamily(
        architecture="Qwen2ForCausalLM",
        options={"qkv_bias": True},
        defaults={"use_sliding_window": False},
        window=True,
    ),
    "qwen3": ModelFamily(
        architecture="Qwen3ForCausalLM",
        options={"qk_norm": True},
        defaults={"use_sliding_window": False, "head_dim": 128},
        window=True,
    ),
    "gemma2": ModelFamily(
        architecture="Gemma2ForCausalLM",
        options=_GEMMA,
        defaults=_GEMMA_DEFAULTS
        | {
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window": 4096,
        },
        global_every=2,
        window=True,
    ),
    "gemma3_text": ModelFamily(
        architecture="Gemma3ForCausalLM",
        options=_GEMMA | {"qk_norm": True},
        defaults=_GEMMA_DEFAULTS
        | {
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "sliding_window": 4096,
        },
        global_every=6,
        window=True,
    ),
}

# How a `config.json` spells fields of `DecoderConfig`, and activations.
SIZES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "embed_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_dim": "intermediate_size",
}
ACTIVATIONS = {"silu": ("silu",), "gelu": ("gelu_pytorch_tanh",)}
