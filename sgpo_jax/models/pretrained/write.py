"""A `DecoderConfig` into the `config.json` of a family that has its shape."""

import dataclasses
from typing import Any

from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.pretrained.families import ACTIVATIONS, FAMILIES, SIZES, Json
from sgpo_jax.models.pretrained.read import read_config
from sgpo_jax.models.rope import LinearScaling, Llama3Scaling, YarnScaling


def write_config(config: DecoderConfig, *, like: Json | None = None) -> dict[str, Any]:
    """Return a `config.json` for a decoder, of the first family that can express it.

    Args:
      config: the decoder's shape.
      like: keys to take over where the shape does not decide them, such as the
        longest context; normally the published `config.json`.

    Raises:
      ValueError: if no family has this combination of options, or it has adapters.
    """
    if config.lora is not None:
        raise ValueError("a config.json has no adapters: merge them first")
    wanted = dataclasses.replace(
        config, dtype="float32", param_dtype="float32", remat="none"
    )
    names = list(FAMILIES)
    if like and like.get("model_type") in FAMILIES:
        names.insert(0, like["model_type"])
    for name in names:
        json = _write(name, config)
        try:
            if read_config(json) == wanted:
                return {"max_position_embeddings": 8192, **(like or {}), **json}
        except ValueError:
            continue
    raise ValueError(f"no published family has this shape: {config}")


def _write(name: str, c: DecoderConfig) -> dict[str, Any]:
    family = FAMILIES[name]
    json: dict[str, Any] = {
        "model_type": name,
        "architectures": [family.architecture],
        **{key: getattr(c, field) for field, key in SIZES.items()},
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tie_embeddings,
        **_write_rope(c),
    }
    (activation,) = ACTIVATIONS[c.activation]
    if name.startswith("gemma"):
        scalar = c.head_dim if c.query_scale is None else c.query_scale**-2
        near = abs(scalar - round(scalar)) < 1e-6
        json |= {
            "hidden_activation": activation,
            "query_pre_attn_scalar": round(scalar) if near else scalar,
            "attn_logit_softcapping": c.attention_soft_cap,
            "final_logit_softcapping": c.final_soft_cap,
        }
    else:
        json["hidden_act"] = activation
    if family.window:
        json["sliding_window"] = c.window
    if name.startswith("qwen"):
        json["use_sliding_window"] = c.window is not None
        json["max_window_layers"] = len(c.global_layers) if c.window else c.num_layers
    if family.window and name != "mistral":
        json["layer_types"] = [
            "full_attention"
            if c.window is None or i in c.global_layers
            else "sliding_attention"
            for i in range(c.num_layers)
        ]
    return json


def _write_rope(c: DecoderConfig) -> dict[str, Any]:
    """Both spellings, so that transformers 4, 5 and vLLM read the same."""
    match c.rope_scaling:
        case None:
            scaling = None
        case LinearScaling(factor=factor):
            scaling = {"rope_type": "linear", "factor": factor}
        case Llama3Scaling() as s:
            scaling = {
                "rope_type": "llama3",
                "factor": s.factor,
                "low_freq_factor": s.low,
                "high_freq_factor": s.high,
                "original_max_position_embeddings": s.original_context,
            }
        case YarnScaling() as s:
            scaling = {
                "rope_type": "yarn",
                "factor": s.factor,
                "original_max_position_embeddings": s.original_context,
                "beta_fast": s.fast,
                "beta_slow": s.slow,
                "attention_factor": s.attention_factor,
                "truncate": s.rounded,
            }
    whole = {"rope_type": "default", **(scaling or {}), "rope_theta": c.rope_base}
    json = {"rope_theta": c.rope_base, "rope_scaling": scaling}
    if c.local_rope_base is None:
        return json | {"rope_parameters": whole}
    local = {"rope_type": "default", "rope_theta": c.local_rope_base}
    return json | {
        "rope_local_base_freq": c.local_rope_base,
        "rope_parameters": {"full_attention": whole, "sliding_attention": local},
    }
