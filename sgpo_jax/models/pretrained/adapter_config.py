"""PEFT's description of adapters, `adapter_config.json`, as a `Lora` and scales."""

import dataclasses
import json
import math
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

from sgpo_jax.bounds import shown
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.lora import LETTERS, Lora
from sgpo_jax.models.pretrained.names import layer_names, layer_prefix
from sgpo_jax.models.text_files import read_object

FILE = "adapter_config.json"
_DEFAULT = 8  # PEFT's r and lora_alpha
Module = tuple[str, int]
"""A matrix of `LETTERS`, and its layer."""

# Values under which a key does not change what adapters compute; others are refused.
_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "layers_pattern": ("layers", ["layers"], None, [], ""),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(
        (
            *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "kasa_config"),
            *("modules_to_save", "exclude_modules", "target_parameters"),
            *("layer_replication", "trainable_token_indices", "arrow_config"),
            *("alora_invocation_tokens", "megatron_config", "monteclora_config"),
            "velora_config",
        ),
        (None, False, [], {}),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """Adapters of a decoder as `adapter_config.json` describes them.

    Attributes:
      lora: rank and scale to hold all of them.
      ranks: rank of each adapter.
      scales: factor of each adapter's product.
    """

    lora: Lora
    ranks: Mapping[Module, int]
    scales: Mapping[Module, float]


def read_description(folder: pathlib.Path, config: DecoderConfig) -> Described:
    """Read `adapter_config.json` for a decoder.

    `rank_pattern`, `alpha_pattern`, `use_rslora`, `target_modules` as names or as an
    expression, and `layers_to_transform` are understood as PEFT understands them.

    Raises:
      ValueError: naming the file, the key and the value that is wrong or unsupported.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"there is no {path}, which has the scale of adapters")
    given = read_object(path)
    for key, allowed in _ALLOWED.items():
        if key in given and given[key] not in allowed:
            raise ValueError(f"{path}: {key}={shown(given[key])} is not supported")
    rslora = given.get("use_rslora") or False
    if type(rslora) is not bool:
        raise ValueError(f"{path}: use_rslora must be a boolean, got {shown(rslora)}")
    try:
        modules = _modules(given, config)
        ranks = _by_pattern(given, "r", "rank_pattern", modules)
        alphas = _by_pattern(given, "lora_alpha", "alpha_pattern", modules)
        bad = next((r for r in ranks.values() if r != int(r)), None)
        if bad is not None:
            raise ValueError(f"r must be whole, got {shown(bad)}")
    except (ValueError, re.error) as error:
        raise ValueError(f"{path}: {error}") from None
    whole = {module: int(rank) for module, rank in ranks.items()}
    lora = Lora(
        rank=max(whole.values()),
        alpha=float(given.get("lora_alpha", _DEFAULT)),
        targets=tuple(name for name in LETTERS if any(t == name for t, _ in modules)),
        rslora=rslora,
    )
    scales = {
        module: alphas[module] / (math.sqrt(rank) if rslora else rank)
        for module, rank in whole.items()
    }
    return Described(lora=lora, ranks=whole, scales=scales)


def module_name(target: str, layer: int, config: DecoderConfig) -> str:
    """Return the published name of the module of a matrix.

    >>> module_name("query", 3, DecoderConfig(vocab_size=2))
    'model.layers.3.self_attn.q_proj'
    """
    return layer_prefix(layer) + layer_names(config)[target].removesuffix(".weight")


def _modules(given: Mapping[str, Any], config: DecoderConfig) -> dict[Module, str]:
    """Return the modules that have an adapter, and their names."""
    every = {
        (target, layer): module_name(target, layer, config)
        for target in LETTERS
        for layer in range(config.num_layers)
    }
    wanted = given.get("target_modules")
    if isinstance(wanted, str):
        expression = r".*" if wanted.lower() == "all-linear" else wanted
        found = {m: n for m, n in every.items() if re.fullmatch(expression, n)}
    elif isinstance(wanted, list) and all(type(name) is str for name in wanted):
        found = {
            module: name
            for module, name in every.items()
            if any(name == one or name.endswith(f".{one}") for one in wanted)
        }
        for one in wanted:
            if not any(n == one or n.endswith(f".{one}") for n in every.values()):
                raise ValueError(f"target_modules: {shown(one)} has no adapters here")
    else:
        raise ValueError(f"target_modules must be names, got {shown(wanted)}")
    layers = given.get("layers_to_transform")
    if layers is not None:
        layers = layers if isinstance(layers, list) else [layers]
        if any(type(layer) is not int for layer in layers):
            raise ValueError(
                f"layers_to_transform must be numbers, got {shown(layers)}"
            )
        found = {module: name for module, name in found.items() if module[1] in layers}
    if not found:
        raise ValueError(f"target_modules={shown(wanted)} names no matrix of the model")
    return found


def _by_pattern(
    given: Mapping[str, Any],
    key: str,
    pattern_key: str,
    modules: Mapping[Module, str],
) -> dict[Module, float]:
    """Return a number per module: that of the first pattern that ends its name."""
    patterns = given.get(pattern_key) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{pattern_key} must be an object, got {shown(patterns)}")
    number = _number(key, given.get(key, _DEFAULT))
    found = {}
    for module, name in modules.items():
        first = next((p for p in patterns if re.match(rf"(.*\.)?({p})$", name)), None)
        own = number if first is None else patterns[first]
        found[module] = _number(pattern_key, own)
    return found


def _number(key: str, value: Any) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{key} must be a positive number, got {shown(value)}")
    return float(value)


def describe(lora: Lora, config: DecoderConfig, *, base: str) -> str:
    """Return the text of `adapter_config.json`; `base` is the model's name or path."""
    names = layer_names(config)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rslora,
        "target_modules": [names[target].split(".")[1] for target in lora.targets],
        "bias": "none",
        "inference_mode": True,
    }
    return json.dumps(described, indent=2) + "\n"
