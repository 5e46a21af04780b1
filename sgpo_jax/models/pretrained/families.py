"""Families of published models: how they spell their shape and name their tensors.

A family is a row of options; the decoder is one. `read_config` turns a `config.json`
into a `DecoderConfig`, `write_config` does the reverse.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.rope import LinearScaling, Llama3Scaling, RopeScaling

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What all models of a `model_type` have in common.

    Attributes:
      architecture: name of the class in transformers.
      options: fields of `DecoderConfig` that the family fixes.
      defaults: keys of `config.json` whose default is not that of Llama.
      global_every: without `layer_types`, every which layer reads everything; None if
        that is not how the family says it.
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
FAMILIES: Mapping[str, Family] = {
    "llama": Family(architecture="LlamaForCausalLM"),
    "mistral": Family(
        architecture="MistralForCausalLM",
        defaults={"sliding_window": 4096, "num_key_value_heads": 8},
        window=True,
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        options={"qkv_bias": True},
        defaults={"use_sliding_window": False},
        window=True,
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        options={"qk_norm": True},
        defaults={"use_sliding_window": False, "head_dim": 128},
        window=True,
    ),
    "gemma2": Family(
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
    "gemma3_text": Family(
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

_SIZES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "embed_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_dim": "intermediate_size",
}
_ACTIVATIONS = {"silu": ("silu",), "gelu": ("gelu_pytorch_tanh",)}
# What would change the model's function, and the values under which it does not.
_UNSUPPORTED = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_bidirectional_attention": (False, None),
    "partial_rotary_factor": (1, 1.0, None),
    "quantization_config": (None,),
}


def read_config(json: Json) -> DecoderConfig:
    """Return the decoder that a `config.json` describes.

    Raises:
      ValueError: naming the key and the value that is missing or not supported.

    Example:
      >>> read_config({"model_type": "mamba"})
      Traceback (most recent call last):
      ValueError: model_type 'mamba' is not supported; there are llama, ...
    """
    name = str(json.get("model_type"))
    if name not in FAMILIES:
        raise ValueError(
            f"model_type {name!r} is not supported; there are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    given = {**family.defaults, **{k: v for k, v in json.items() if v is not None}}
    # A null is a choice where it means "none", and absence where it does not.
    nullable = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
    given |= {key: None for key in nullable if key in json and json[key] is None}
    for key, allowed in _UNSUPPORTED.items():
        if given.get(key) not in allowed:
            raise ValueError(f"{name}: {key}={given[key]!r} is not supported")
    sizes = _read_sizes(name, given)
    options = dict(family.options)
    activation = options.get("activation", "silu")
    for key in ("hidden_activation", "hidden_act"):
        if key in given:
            if given[key] not in _ACTIVATIONS[activation]:
                raise ValueError(f"{name}: {key}={given[key]!r} is not supported")
            break
    if "query_pre_attn_scalar" in given:
        scalar = given["query_pre_attn_scalar"]
        same = scalar == sizes["head_dim"]
        options["query_scale"] = None if same else float(scalar) ** -0.5
    if name == "gemma2":
        options["attention_soft_cap"] = given["attn_logit_softcapping"]
    if name.startswith("gemma"):
        options["final_soft_cap"] = given.get("final_logit_softcapping")
    return DecoderConfig(
        **sizes,
        **options,
        **_read_rope(name, given),
        **_read_windows(name, given, sizes["num_layers"]),
        norm_eps=float(given.get("rms_norm_eps", 1e-6)),
        tie_embeddings=bool(given.get("tie_word_embeddings", False)),
    )


def _read_sizes(name: str, given: Json) -> dict[str, int]:
    sizes = {}
    for field, key in _SIZES.items():
        value = given.get(key)
        if value is None and key == "num_key_value_heads":
            value = given.get("num_attention_heads")
        if value is None and key == "head_dim":
            value = sizes["embed_dim"] // sizes["num_heads"]
        if type(value) is not int or not 0 < value < 2**31:
            raise ValueError(f"{name}: {key} must be a positive number, got {value!r}")
        sizes[field] = value
    return sizes


def _read_rope(name: str, given: Json) -> dict[str, Any]:
    """Read `rope_parameters` (transformers 5) or the older spelling."""
    new = given.get("rope_parameters") or {}
    local_base = given.get("rope_local_base_freq")
    if "full_attention" in new:
        local = new.get("sliding_attention", {})
        if local.get("rope_type", "default") != "default":
            raise ValueError(f"{name}: local rope_type {local['rope_type']!r}")
        local_base, new = local.get("rope_theta", local_base), new["full_attention"]
    scaling = given.get("rope_scaling") or new
    base = new.get("rope_theta", given.get("rope_theta", 10_000.0))
    rope: dict[str, Any] = {
        "rope_base": float(base),
        "rope_scaling": _read_scaling(name, scaling),
    }
    if name == "gemma3_text":
        rope["local_rope_base"] = float(local_base or 10_000.0)
    return rope


def _read_scaling(name: str, scaling: Json) -> RopeScaling | None:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    try:
        match kind:
            case "default":
                return None
            case "linear":
                return LinearScaling(factor=float(scaling["factor"]))
            case "llama3":
                return Llama3Scaling(
                    factor=float(scaling["factor"]),
                    low=float(scaling["low_freq_factor"]),
                    high=float(scaling["high_freq_factor"]),
                    original_context=int(scaling["original_max_position_embeddings"]),
                )
    except KeyError as error:
        raise ValueError(f"{name}: rope scaling {kind!r} lacks {error}") from None
    raise ValueError(
        f"{name}: rope type {kind!r} is not supported; there are default, linear and"
        " llama3"
    )


def _read_windows(name: str, given: Json, layers: int) -> dict[str, Any]:
    family, window = FAMILIES[name], given.get("sliding_window")
    if not family.window or not window or given.get("use_sliding_window") is False:
        return {}
    types = given.get("layer_types")
    if types is not None:
        unknown = set(types) - {"full_attention", "sliding_attention"}
        if unknown or len(types) != layers:
            raise ValueError(
                f"{name}: layer_types must name full_attention or sliding_attention for"
                f" {layers} layers, got {types}"
            )
        everywhere = [i for i, kind in enumerate(types) if kind == "full_attention"]
    elif family.global_every:
        every = given.get("sliding_window_pattern", family.global_every)
        everywhere = [i for i in range(layers) if (i + 1) % every == 0]
    elif name == "mistral":
        everywhere = []
    else:
        everywhere = list(range(min(given.get("max_window_layers", 28), layers)))
    if len(everywhere) == layers and name != "gemma3_text":
        return {}
    return {"window": int(window), "global_layers": tuple(everywhere)}


def write_config(config: DecoderConfig, *, like: Json | None = None) -> dict[str, Any]:
    """Return a `config.json` for a decoder, of the first family that can express it.

    Args:
      config: the decoder's shape.
      like: keys to take over where the shape does not decide them, such as the
        longest context; normally the `config.json` the model came with.

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
        **{key: getattr(c, field) for field, key in _SIZES.items()},
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tie_embeddings,
        **_write_rope(c),
    }
    (activation,) = _ACTIVATIONS[c.activation]
    if name.startswith("gemma"):
        scalar = c.scale**-2
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
    whole = {"rope_type": "default", **(scaling or {}), "rope_theta": c.rope_base}
    json = {"rope_theta": c.rope_base, "rope_scaling": scaling}
    if c.local_rope_base is None:
        return json | {"rope_parameters": whole}
    local = {"rope_type": "default", "rope_theta": c.local_rope_base}
    return json | {
        "rope_local_base_freq": c.local_rope_base,
        "rope_parameters": {"full_attention": whole, "sliding_attention": local},
    }


# Tensors of a layer under "model.layers.N.", and of the whole.
_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "output": "self_attn.o_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key_bias": "self_attn.k_proj.bias",
    "value_bias": "self_attn.v_proj.bias",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_MLP_NORM = {"mlp_norm": "post_attention_layernorm.weight"}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "post_mlp_norm": "post_feedforward_layernorm.weight",
}
WHOLE = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
}


def layer_names(config: DecoderConfig) -> dict[str, str]:
    """Return the published name of each parameter of a layer, behind its prefix."""
    return _LAYER | (_SANDWICH if config.sandwich_norms else _MLP_NORM)


def layer_prefix(layer: int) -> str:
    """Return what the names of a layer's tensors begin with."""
    return f"model.layers.{layer}."
