"""A `config.json` of any family into a `DecoderConfig`."""

import sys
from typing import Any

from sgpo_jax.bounds import MOST_LAYERS, shown
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.pretrained.families import ACTIVATIONS, FAMILIES, SIZES, Json
from sgpo_jax.models.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling

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
            f"model_type {shown(name)} is not supported; there are"
            f" {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    given = {**family.defaults, **{k: v for k, v in json.items() if v is not None}}
    # A null is a choice where it means "none", and absence where it does not.
    nullable = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
    given |= {key: None for key in nullable if key in json and json[key] is None}
    for key, allowed in _UNSUPPORTED.items():
        if given.get(key) not in allowed:
            raise ValueError(f"{name}: {key}={shown(given[key])} is not supported")
    sizes = _read_sizes(name, given)
    options = dict(family.options)
    activation = options.get("activation", "silu")
    for key in ("hidden_activation", "hidden_act"):
        if key in given:
            if given[key] not in ACTIVATIONS[activation]:
                raise ValueError(f"{name}: {key}={shown(given[key])} is not supported")
            break
    if "query_pre_attn_scalar" in given:
        scalar = given["query_pre_attn_scalar"]
        same = scalar == sizes["head_dim"]
        number = _positive(name, "query_pre_attn_scalar", scalar)
        options["query_scale"] = None if same else number**-0.5
    if name == "gemma2":
        options["attention_soft_cap"] = _soft_cap(name, given, "attn_logit_softcapping")
    if name.startswith("gemma"):
        options["final_soft_cap"] = _soft_cap(name, given, "final_logit_softcapping")
    return DecoderConfig(
        **sizes,
        **options,
        **_read_rope(name, given),
        **_read_windows(name, given, sizes["num_layers"]),
        norm_eps=_positive(name, "rms_norm_eps", given.get("rms_norm_eps", 1e-6)),
        tie_embeddings=bool(given.get("tie_word_embeddings", False)),
    )


def _positive(name: str, key: str, value: Any) -> float:
    """A positive finite number of a config.

    Raises:
      ValueError: naming the key and the value.
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name}: {key} must be a positive number, got {shown(value)}")
    return float(value)


def _soft_cap(name: str, given: Json, key: str) -> float | None:
    value = given.get(key)
    return None if value is None else _positive(name, key, value)


def _mapping(name: str, key: str, value: Any) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {key} must be an object, got {shown(value)}")
    return value


def _read_sizes(name: str, given: Json) -> dict[str, int]:
    sizes = {}
    for field, key in SIZES.items():
        value = given.get(key)
        if value is None and key == "num_key_value_heads":
            value = given.get("num_attention_heads")
        if value is None and key == "head_dim":
            value = sizes["embed_dim"] // sizes["num_heads"]
        if type(value) is not int or not 0 < value < 2**31:
            raise ValueError(
                f"{name}: {key} must be a positive number, got {shown(value)}"
            )
        sizes[field] = value
    if sizes["num_layers"] > MOST_LAYERS:  # a list is made of them
        raise ValueError(
            f"{name}: num_hidden_layers must be at most {MOST_LAYERS}, got"
            f" {sizes['num_layers']}"
        )
    return sizes


def _read_rope(name: str, given: Json) -> dict[str, Any]:
    """Read `rope_parameters` (transformers 5) or the older spelling."""
    new = _mapping(name, "rope_parameters", given.get("rope_parameters") or {})
    local_base = given.get("rope_local_base_freq")
    if "full_attention" in new:
        local = _mapping(name, "sliding_attention", new.get("sliding_attention", {}))
        if local.get("rope_type", "default") != "default":
            raise ValueError(f"{name}: local rope_type {shown(local['rope_type'])}")
        local_base = local.get("rope_theta", local_base)
        new = _mapping(name, "full_attention", new["full_attention"])
    scaling = _mapping(name, "rope_scaling", given.get("rope_scaling") or new)
    # The base is where the scaling is, or beside it.
    base = given.get("rope_theta", 10_000.0)
    base = scaling.get("rope_theta", new.get("rope_theta", base))
    rope: dict[str, Any] = {
        "rope_base": _positive(name, "rope_theta", base),
        "rope_scaling": _read_scaling(name, scaling, given),
    }
    if name == "gemma3_text":
        local = 10_000.0 if local_base is None else local_base
        rope["local_rope_base"] = _positive(name, "rope_local_base_freq", local)
    return rope


def _read_scaling(name: str, scaling: Json, given: Json) -> RopeScaling | None:
    kind = scaling.get("rope_type", scaling.get("type", "default"))

    def number(key: str) -> float:
        return _positive(name, f"rope scaling {key}", scaling[key])

    try:
        match kind:
            case "default":
                return None
            case "linear":
                return LinearScaling(factor=number("factor"))
            case "llama3":
                return Llama3Scaling(
                    factor=number("factor"),
                    low=number("low_freq_factor"),
                    high=number("high_freq_factor"),
                    original_context=int(number("original_max_position_embeddings")),
                )
            case "yarn":
                return _read_yarn(name, scaling, given)
    except KeyError as error:
        raise ValueError(f"{name}: rope scaling {shown(kind)} lacks {error}") from None
    raise ValueError(
        f"{name}: rope type {shown(kind)} is not supported; there are default, linear,"
        " llama3 and yarn"
    )


def _read_yarn(name: str, scaling: Json, given: Json) -> YarnScaling:
    """YaRN with the defaults and the precedence of transformers."""

    def number(key: str, default: float) -> float:
        value = scaling.get(key)
        return default if value is None else _positive(name, f"yarn {key}", value)

    context = "original_max_position_embeddings"
    # Beside the scaling if it is there, else the context the config allows.
    original = given.get(context, scaling.get(context))
    if original is None:
        original = given.get("max_position_embeddings")
    original = int(_positive(name, f"yarn {context}", original))
    factor = _positive(name, "yarn factor", scaling["factor"])
    sharpening = YarnScaling.sharpening(factor)
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        over, under = (
            YarnScaling.sharpening(factor, number(key, 1.0))
            for key in ("mscale", "mscale_all_dim")
        )
        sharpening = over / under
    truncate = scaling.get("truncate", True)
    if type(truncate) is not bool:
        raise ValueError(
            f"{name}: yarn truncate must be a boolean, got {shown(truncate)}"
        )
    fast, slow = number("beta_fast", 32.0), number("beta_slow", 1.0)
    if slow > fast:
        raise ValueError(f"{name}: yarn beta_slow {slow} exceeds beta_fast {fast}")
    return YarnScaling(
        factor=factor,
        original_context=original,
        fast=fast,
        slow=slow,
        attention_factor=number("attention_factor", sharpening),
        rounded=truncate,
    )


def _read_windows(name: str, given: Json, layers: int) -> dict[str, Any]:
    family, window = FAMILIES[name], given.get("sliding_window")
    if not family.window or not window or given.get("use_sliding_window") is False:
        return {}
    _positive(name, "sliding_window", window)
    types = given.get("layer_types")
    if types is not None and not isinstance(types, list):
        raise ValueError(f"{name}: layer_types must be a list, got {shown(types)}")
    if types is not None:
        unknown = set(types) - {"full_attention", "sliding_attention"}
        if unknown or len(types) != layers:
            raise ValueError(
                f"{name}: layer_types must name full_attention or sliding_attention for"
                f" {layers} layers, got {shown(types)}"
            )
        everywhere = [i for i, kind in enumerate(types) if kind == "full_attention"]
    elif family.global_every:
        every = given.get("sliding_window_pattern", family.global_every)
        every = int(_positive(name, "sliding_window_pattern", every))
        everywhere = [i for i in range(layers) if (i + 1) % every == 0]
    elif name == "mistral":
        everywhere = []
    else:
        first = given.get("max_window_layers", 28)
        if type(first) is not int:
            raise ValueError(
                f"{name}: max_window_layers must be whole, got {shown(first)}"
            )
        everywhere = list(range(min(first, layers)))
    if len(everywhere) == layers and name != "gemma3_text":
        return {}
    return {"window": int(window), "global_layers": tuple(everywhere)}
