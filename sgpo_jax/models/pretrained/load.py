"""Tensors of a checkpoint, straight into the shardings they are used in."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

from sgpo_jax.models import decoder
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.lora import LETTERS
from sgpo_jax.models.pretrained.names import WHOLE, layer_names, layer_prefix
from sgpo_jax.models.pretrained.tensors import Tensors

# Buffers that old checkpoints carry and nobody reads.
_IGNORED = ("rotary_emb.inv_freq",)


class Place(NamedTuple):
    """Where a parameter, or one layer of it, is published.

    A matrix is published as [outputs, inputs] with heads and their width flattened;
    here it is [*inputs, *outputs].

    Attributes:
      name: of the tensor.
      inputs: sizes of the inputs; empty for vectors.
      outputs: sizes of the outputs.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def published(self) -> tuple[int, ...]:
        """Shape of the published tensor."""
        sizes = (math.prod(self.outputs), math.prod(self.inputs))
        return sizes if self.inputs else sizes[:1]


def places(config: DecoderConfig) -> dict[tuple[str, ...], list[Place]]:
    """Return where each parameter is published: one place, or one per layer."""
    shapes = decoder.shapes(config)
    found: dict[tuple[str, ...], list[Place]] = {}
    for name in WHOLE.keys() & shapes.keys() - {"embedding"}:
        *inputs, outputs = shapes[name].shape
        found[(name,)] = [Place(WHOLE[name], tuple(inputs), (outputs,))]
    found[("embedding",)] = [
        Place(WHOLE["embedding"], (config.embed_dim,), (config.vocab_size,))
    ]
    names = layer_names(config)
    for name, leaf in shapes["layers"].items():
        shape = leaf.shape[1:]
        split = len(LETTERS[name][0]) if name in LETTERS else 0
        found[("layers", name)] = [
            Place(layer_prefix(layer) + names[name], shape[:split], shape[split:])
            for layer in range(config.num_layers)
        ]
    return found


def check(tensors: Tensors, config: DecoderConfig) -> None:
    """Compare names and shapes with the config, before anything is allocated.

    Raises:
      ValueError: naming the tensors that are missing, surplus or of another shape.
    """
    wanted = {
        place.name: place.published
        for group in places(config).values()
        for place in group
    }
    shapes = tensors.shapes
    if missing := sorted(wanted.keys() - shapes.keys()):
        raise ValueError(f"{_some(missing)} missing from the checkpoint")
    surplus = sorted(
        name for name in shapes.keys() - wanted.keys() if not name.endswith(_IGNORED)
    )
    if config.tie_embeddings and surplus == ["lm_head.weight"]:
        _check_tied(tensors)
    elif surplus:
        raise ValueError(f"{_some(surplus)} in the checkpoint, unknown to the config")
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(
                f"tensor {name!r} has shape {list(shapes[name])}, the config says"
                f" {list(shape)}"
            )


def _some(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"tensor {names[0]!r} is"
    return f"{len(names)} tensors, the first {names[0]!r}, are"


def _check_tied(tensors: Tensors) -> None:
    """An output matrix beside tied embeddings must be a copy of them."""
    rows = tensors.shapes["lm_head.weight"][0]
    both = (WHOLE["embedding"], "lm_head.weight")
    if tensors.shapes[both[0]] == tensors.shapes[both[1]]:
        for start in range(0, rows, 4096):
            part = slice(start, min(start + 4096, rows))
            table, output = (tensors.read(name, part) for name in both)
            if not np.array_equal(table, output):
                break
        else:
            return
    raise ValueError(
        "the config ties the embeddings, but tensor 'lm_head.weight' differs from them"
    )


def load_params(
    tensors: Tensors,
    config: DecoderConfig,
    *,
    shardings: PyTree | None = None,
    lora_key: Array | None = None,
) -> decoder.Params:
    """Read a checkpoint into parameters.

    Every device's part is read from the files by itself and put there; no process holds
    more on the host than the part of one parameter it is about to send.

    Args:
      tensors: the checkpoint.
      config: the decoder's shape; parameters take its `param_dtype`.
      shardings: a tree as of `sharding.tree_shardings`; None for the default device.
      lora_key: draws the adapters, if the config has some.

    Raises:
      ValueError: if names or shapes do not fit the config.
    """
    check(tensors, config)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    into: Any = shardings or jax.tree.map(lambda _: one, decoder.shapes(config))
    params: dict = {"layers": {}}
    for path, group in places(config).items():
        leaf, sharding = decoder.shapes(config), into
        for key in path:
            leaf, sharding = leaf[key], sharding[key]
        array = _load(tensors, path, group, leaf, sharding)
        (params["layers"] if len(path) == 2 else params)[path[-1]] = array
    if config.lora is not None:
        assert lora_key is not None, "a config with adapters needs a key for them"
        init = jax.jit(
            lambda key: decoder.init(config, key=key)["adapters"],
            out_shardings=into["adapters"],
        )
        params["adapters"] = init(lora_key)
    return params


def _load(
    tensors: Tensors,
    path: tuple[str, ...],
    group: Sequence[Place],
    leaf: jax.ShapeDtypeStruct,
    sharding: jax.sharding.Sharding,
) -> Array:
    stacked = path[0] == "layers"
    held: dict[tuple, np.ndarray] = {}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        whole = [
            slice(*i.indices(n)[:2]) for i, n in zip(index, leaf.shape, strict=True)
        ]
        key = tuple((i.start, i.stop) for i in whole)
        if key in held:  # a copy on several devices is read once
            return held[key]
        out = np.empty([i.stop - i.start for i in whole], leaf.dtype)
        if stacked:
            first = whole[0].start
            for row in range(len(out)):
                out[row] = _read(tensors, group[first + row], whole[1:])
        elif path == ("embedding",):
            out[...] = tensors.read(group[0].name, whole[0])[:, whole[1]]
        else:
            out[...] = _read(tensors, group[0], whole)
        if not np.isfinite(out).all():
            raise ValueError(
                f"tensor {group[0].name!r} or a later layer's is not finite"
            )
        held[key] = out
        return out

    return jax.make_array_from_callback(leaf.shape, sharding, part)


def _read(tensors: Tensors, place: Place, index: Sequence[slice]) -> np.ndarray:
    """Read [*inputs, *outputs] at `index`, from rows of [outputs, inputs]."""
    ins, outs = index[: len(place.inputs)], index[len(place.inputs) :]
    inner = math.prod(place.outputs[1:])
    rows = tensors.read(place.name, slice(outs[0].start * inner, outs[0].stop * inner))
    outputs = (outs[0].stop - outs[0].start, *place.outputs[1:])
    whole = (slice(None), *outs[1:])
    if not place.inputs:
        return rows.reshape(outputs)[whole]
    block = rows.reshape(*outputs, *place.inputs)[(*whole, *ins)]
    order = (*range(len(outs), block.ndim), *range(len(outs)))
    return block.transpose(order)
