"""Small random models of every family, made and saved by transformers."""

import dataclasses
import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SIZES = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A class of transformers' configs, and what differs from `SIZES`."""

    config: str
    changes: dict[str, Any]


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES = {
    "llama-2": Case("LlamaConfig", {"num_key_value_heads": 4}),
    "llama-3.1": Case("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama-linear": Case(
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "linear",
                "rope_theta": 1e4,
                "factor": 2.0,
            }
        },
    ),
    "smollm2": Case(
        "LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 1}
    ),
    "mistral": Case("MistralConfig", {"sliding_window": 4}),
    "qwen2": Case("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-window": Case(
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": Case("Qwen3Config", {}),
    # So short a first context turns few pairs: the bounds are moved to blend some.
    "qwen3-yarn": Case(
        "Qwen3Config", {"rope_parameters": {**YARN, "beta_fast": 2.0}, "head_dim": 16}
    ),
    "llama-yarn-mscale": Case(
        "LlamaConfig",
        {
            "rope_parameters": {
                **YARN,
                "beta_slow": 0.1,
                "beta_fast": 1.5,
                "mscale": 0.707,
                "mscale_all_dim": 1.0,
                "truncate": False,
            },
            "head_dim": 16,
        },
    ),
    "gemma-2": Case(
        "Gemma2Config",
        {
            "sliding_window": 4,
            "query_pre_attn_scalar": 10,
            # Low enough to bend the logits of so small a model.
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma-3": Case("Gemma3TextConfig", {"sliding_window": 4, "num_hidden_layers": 7}),
}


def make(name: str, folder) -> Any:
    """Return a transformers model with every parameter drawn, saved in `folder`."""
    import torch
    import transformers

    case = CASES[name]
    config = getattr(transformers, case.config)(**{**SIZES, **case.changes})
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases too: at their initial values many mistakes are silent.
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * 0.3 + (0.5 if parameter.ndim == 1 else 0.0))
    model.save_pretrained(folder)
    return model


def load(folder) -> Any:
    """Let transformers load a folder."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
