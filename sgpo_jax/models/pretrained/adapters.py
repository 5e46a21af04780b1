"""Adapters by themselves, in the layout of PEFT."""

import hashlib
import math
import pathlib

import jax
import numpy as np

from sgpo_jax.models import decoder
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.lora import LETTERS, Lora
from sgpo_jax.models.pretrained import adapter_config
from sgpo_jax.models.pretrained.adapter_config import Module, module_name
from sgpo_jax.models.pretrained.save import write_tensors
from sgpo_jax.models.pretrained.tensors import SafeTensors, read_header

_FILE = "adapter_model.safetensors"


def _name(module: Module, part: str, config: DecoderConfig) -> str:
    stem = f"base_model.model.{module_name(*module, config)}"
    return f"{stem}.lora_{part.upper()}.weight"


def save_adapters(
    folder: pathlib.Path,
    params: decoder.Params,
    config: DecoderConfig,
    *,
    base: str = "",
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, float32.

    Args:
      folder: made if it is not there.
      params: parameters with adapters.
      config: the decoder's shape.
      base: folder or hub id of the model they belong to.

    Raises:
      ValueError: if the decoder has no adapters.
    """
    if config.lora is None:
        raise ValueError("the decoder has no adapters to save")
    folder.mkdir(parents=True, exist_ok=True)
    values = {}
    for target in config.lora.targets:
        for layer in range(config.num_layers):
            for part in ("a", "b"):
                value = np.asarray(params["adapters"][target][part][layer], np.float32)
                # A is [*inputs, r] here and [r, inputs] there; B is [r, *outputs].
                inputs = len(LETTERS[target][0]) if part == "a" else 1
                rows = math.prod(value.shape[:inputs])
                name = _name((target, layer), part, config)
                values[name] = value.reshape(rows, -1).T
    shapes = {name: value.shape for name, value in values.items()}
    write_tensors(folder / _FILE, shapes, iter(values.values()), label="F32")
    text = adapter_config.describe(config.lora, config, base=base)
    (folder / adapter_config.FILE).write_text(text)


def read_lora(folder: pathlib.Path, config: DecoderConfig) -> Lora:
    """Return the rank, scale and targets that hold the adapters of a folder.

    Adapters of several ranks and scales take the largest rank; `load_adapters` fills up
    the others with zeros and puts the ratio of the scales into B.

    Args:
      folder: with `adapter_config.json`.
      config: shape of the decoder they belong to.

    Raises:
      ValueError: naming what is wrong or not supported.
    """
    return adapter_config.read_description(folder, config).lora


def load_adapters(
    folder: pathlib.Path, params: decoder.Params, config: DecoderConfig
) -> decoder.Params:
    """Return `params` with the adapters of a folder, where those of `params` are.

    Matrices and layers that the folder has no adapters of get zeros, which compute
    nothing and learn nothing.

    Raises:
      ValueError: if a tensor is missing, surplus or of another shape, or the decoder's
        adapters are too small for them.
    """
    if config.lora is None:
        raise ValueError("the decoder has no adapters to load into")
    described = adapter_config.read_description(folder, config)
    given, path = config.lora, folder / _FILE
    if absent := set(described.lora.targets) - set(given.targets):
        raise ValueError(f"the decoder has no adapters of {', '.join(sorted(absent))}")
    if described.lora.rank > given.rank:
        raise ValueError(
            f"{folder} holds adapters of rank {described.lora.rank}, and the decoder's"
            f" have {given.rank}"
        )
    found = _open(path)
    wanted = {
        _name(module, part, config) for module in described.ranks for part in ("a", "b")
    }
    if different := sorted(wanted ^ {*found.shapes, *found.unreadable}):
        problem = "is missing" if different[0] in wanted else "is not described"
        raise ValueError(f"adapter tensor {found.where(different[0])} {problem}")
    like = decoder.shapes(config)["adapters"]
    adapters: dict = {}
    for target in given.targets:
        adapters[target] = {}
        for part in ("a", "b"):
            leaf = like[target][part]
            out = np.zeros(leaf.shape, np.float32)
            for module in described.ranks:
                if module[0] == target:
                    name = _name(module, part, config)
                    rank = described.ranks[module]
                    value = _read(found, name, part, rank, out[module[1]].shape)
                    if part == "b":
                        value = value * (described.scales[module] / given.factor)
                        out[module[1]][:rank] = value
                    else:
                        out[module[1]][..., :rank] = value
            place = params["adapters"][target][part].sharding
            adapters[target][part] = jax.make_array_from_callback(
                leaf.shape, place, lambda index, out=out: out[index]
            )
    return {**params, "adapters": adapters}


def _open(path: pathlib.Path) -> SafeTensors:
    if not path.is_file():
        there = path.with_suffix(".bin").is_file()
        reason = "; a .bin is a pickle and not read: save it as safetensors"
        raise ValueError(f"there is no {path}{reason if there else ''}")
    return SafeTensors(read_header(path), path)


def _read(
    found: SafeTensors, name: str, part: str, rank: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Return A as [*inputs, r] or B as [r, *outputs]."""
    if part == "a":
        own, published = (*shape[:-1], rank), (rank, math.prod(shape[:-1]))
    else:
        own, published = (rank, *shape[1:]), (math.prod(shape[1:]), rank)
    if name in found.unreadable:
        raise ValueError(f"{found.where(name)} has dtype {found.unreadable[name]}")
    if found.shapes[name] != published:
        raise ValueError(
            f"adapter tensor {found.where(name)} has shape {list(found.shapes[name])},"
            f" the configuration has {list(published)}"
        )
    value = found.read(name, slice(0, published[0])).astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"adapter tensor {found.where(name)} is not finite")
    return value.T.reshape(own)


def adapters_identity(folder: pathlib.Path) -> str:
    """Return a fingerprint of the adapters' content, 16 hexadecimal digits.

    Raises:
      ValueError: if there are none.
    """
    _open(folder / _FILE)
    digest = hashlib.sha256()
    for file in (adapter_config.FILE, _FILE):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()[:16]
