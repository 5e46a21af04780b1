"""Parameters out: the layout that transformers and vLLM load."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jaxtyping import Array

from sgpo_jax.models.config import DecoderConfig, Dtype
from sgpo_jax.models.decoder import Params
from sgpo_jax.models.pretrained.load import Place, places
from sgpo_jax.models.pretrained.write import write_config

_DTYPES = {
    "float32": (np.dtype("<f4"), "F32"),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), "BF16"),
}


def save(
    folder: pathlib.Path,
    params: Params,
    config: DecoderConfig,
    *,
    dtype: Dtype = "bfloat16",
    like: Mapping[str, Any] | None = None,
    eos_ids: Sequence[int] = (),
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a checkpoint; the configs last, so that a torn one does not load.

    One layer of one parameter is on the host at a time. The tokenizer saves itself.

    Args:
      folder: made if it is not there.
      params: parameters without adapters; see `lora.merge`.
      config: the decoder's shape.
      dtype: of the file.
      like: the published `config.json`, for what the shape does not have.
      eos_ids: tokens that end a response.
      shard_bytes: most bytes per file.

    Raises:
      ValueError: if no published family has this shape.
    """
    described = write_config(config, like=like) | {"dtype": dtype, "torch_dtype": dtype}
    if eos_ids:
        described["eos_token_id"] = list(eos_ids)
    numbers, label = _DTYPES[dtype]
    folder.mkdir(parents=True, exist_ok=True)
    listed = [
        (place, path, row if path[0] == "layers" else None)
        for path, group in places(config).items()
        for row, place in enumerate(group)
    ]
    shards: list[list] = [[]]
    filled = 0
    for item in listed:
        size = math.prod(item[0].published) * numbers.itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(item)
        filled += size
    files = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        blocks = ((place, _fetch(params, path, row)) for place, path, row in shard)
        write_tensors(
            folder / name,
            {place.name: place.published for place, _, _ in shard},
            (publish(place, value).astype(numbers) for place, value in blocks),
            label=label,
        )
        files |= {place.name: name for place, _, _ in shard}
    if len(shards) > 1:
        total = sum(math.prod(p.published) for p, _, _ in listed) * numbers.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": files}
        _write_json(folder / "model.safetensors.index.json", index)
    ends = {"eos_token_id": list(eos_ids)} if eos_ids else {}
    _write_json(folder / "generation_config.json", {"do_sample": True, **ends})
    _write_json(folder / "config.json", described)


def _fetch(params: Params, path: tuple[str, ...], row: int | None) -> np.ndarray:
    leaf = params
    for key in path:
        leaf = leaf[key]
    return _to_host(leaf if row is None else leaf[row])


def _to_host(x: Array) -> np.ndarray:
    if x.is_fully_addressable:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def publish(place: Place, value: np.ndarray) -> np.ndarray:
    """Return [outputs, inputs] of [*inputs, *outputs]; the embedding is so already."""
    if place.inputs and place.name != "model.embed_tokens.weight":
        value = value.reshape(math.prod(place.inputs), -1).T
    return value.reshape(place.published)


def write_tensors(
    path: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    values: Iterator[np.ndarray],
    *,
    label: str,
) -> None:
    """Write a safetensors file, tensor after tensor; whole or not at all."""
    itemsize = {"F32": 4, "BF16": 2}[label]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * itemsize
        header[name] = {
            "dtype": label,
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    writes = jax.process_index() == 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary if writes else os.devnull, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in values:  # every process takes part in fetching them
            file.write(np.ascontiguousarray(value).tobytes())
    if writes:
        os.replace(temporary, path)


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    if jax.process_index() == 0:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(temporary, path)
