"""Adapters by themselves, in the layout of PEFT."""

import json
import math
import pathlib

import jax.numpy as jnp
import numpy as np

from sgpo_jax.models import decoder
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.lora import LETTERS
from sgpo_jax.models.pretrained.names import layer_names, layer_prefix
from sgpo_jax.models.pretrained.save import write_tensors
from sgpo_jax.models.pretrained.tensors import SafeTensors, read_header

_FILE = "adapter_model.safetensors"


def _names(config: DecoderConfig) -> dict[tuple[str, int, str], str]:
    assert config.lora is not None
    names = layer_names(config)
    return {
        (target, layer, part): (
            f"base_model.model.{layer_prefix(layer)}"
            f"{names[target].removesuffix('.weight')}.lora_{part.upper()}.weight"
        )
        for target in config.lora.targets
        for layer in range(config.num_layers)
        for part in ("a", "b")
    }


def save_adapters(
    folder: pathlib.Path, params: decoder.Params, config: DecoderConfig
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, float32.

    Raises:
      ValueError: if the decoder has no adapters.
    """
    if config.lora is None:
        raise ValueError("the decoder has no adapters to save")
    folder.mkdir(parents=True, exist_ok=True)
    values = {}
    for (target, layer, part), name in _names(config).items():
        value = np.asarray(params["adapters"][target][part][layer], np.float32)
        # A is [*inputs, r] here and [r, inputs] there; B is [r, *outputs].
        inputs = len(LETTERS[target][0]) if part == "a" else 1
        values[name] = value.reshape(math.prod(value.shape[:inputs]), -1).T
    shapes = {name: value.shape for name, value in values.items()}
    write_tensors(folder / _FILE, shapes, iter(values.values()), label="F32")
    names = layer_names(config)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "target_modules": [names[t].split(".")[1] for t in config.lora.targets],
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(described, indent=2) + "\n")


def load_adapters(
    folder: pathlib.Path, params: decoder.Params, config: DecoderConfig
) -> decoder.Params:
    """Return `params` with the adapters of a folder.

    Raises:
      ValueError: if a tensor is missing, surplus or of another shape.
    """
    if config.lora is None:
        raise ValueError("the decoder has no adapters to load into")
    found, names = (
        SafeTensors(read_header(folder / _FILE), folder / _FILE),
        _names(config),
    )
    if different := sorted(set(names.values()) ^ set(found.shapes)):
        raise ValueError(f"adapters and config differ in tensor {different[0]!r}")
    like = decoder.shapes(config)["adapters"]
    adapters: dict = {name: {"a": [], "b": []} for name in config.lora.targets}
    for (target, _, part), name in names.items():
        shape = like[target][part].shape[1:]
        value = found.read(name, slice(0, found.shapes[name][0])).T
        if value.size != math.prod(shape):
            raise ValueError(f"tensor {name!r} has {value.shape[::-1]}, not {shape}")
        adapters[target][part].append(value.reshape(shape).astype(np.float32))
    stacked = {
        target: {part: jnp.asarray(np.stack(rows)) for part, rows in parts.items()}
        for target, parts in adapters.items()
    }
    return {**params, "adapters": stacked}
