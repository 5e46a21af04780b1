"""Tensors of a checkpoint, straight into the shardings they are used in."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

from sgpo_jax.models import decoder
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.lora import LETTERS
from sgpo_jax.models.pretrained.layout import HEAD, causal_model
from sgpo_jax.models.pretrained.names import WHOLE, layer_names, layer_prefix
from sgpo_jax.models.pretrained.tensors import DTYPES, Tensors


class Place(NamedTuple):
    """Checkpoint tensor of a parameter, or of one layer of it.

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


def check(tensors: Tensors, config: DecoderConfig) -> Tensors:
    """Compare names and shapes with the config, before anything is allocated.

    What lies outside of the decoder (heads of a value, towers of images, buffers) is
    left alone; what lies inside, and the config does not know, would change what the
    model computes.

    Returns:
      The decoder's tensors under their usual names.

    Raises:
      ValueError: naming the file and the tensor that is missing, surplus or of another
        shape.
    """
    found = causal_model(tensors, config)
    if config.num_layers > len(found.shapes):  # names of as many are not made
        one = next(iter(found.shapes), "")
        raise ValueError(
            f"the config says {config.num_layers} layers, but there are only"
            f" {len(found.shapes)} tensors" + (one and f", one is {found.where(one)}")
        )
    wanted = {
        place.name: place.published
        for group in places(config).values()
        for place in group
    }
    shapes = found.shapes
    if missing := sorted(wanted.keys() - shapes.keys()):
        problem = "is missing"
        if dtype := found.unreadable.get(missing[0]):
            problem = f"has dtype {dtype}; there are {', '.join(DTYPES)}"
        raise ValueError(f"tensor {found.where(missing[0])} {problem}{_more(missing)}")
    surplus = sorted(shapes.keys() - wanted.keys())
    if config.tie_embeddings and surplus == [HEAD]:
        if shapes[HEAD] != shapes[WHOLE["embedding"]]:
            raise ValueError(_UNTIED.format(found.where(HEAD)))
    elif surplus:
        raise ValueError(
            f"tensor {found.where(surplus[0])} is unknown to the config: it describes"
            f" another model{_more(surplus)}"
        )
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(
                f"tensor {found.where(name)} has shape {list(shapes[name])}, the config"
                f" says {list(shape)}"
            )
    return found


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if names[1:] else ""


_UNTIED = (
    "the config ties the embeddings, but tensor {0} differs from them: set"
    " tie_word_embeddings to false in config.json if the model has an output matrix of"
    " its own, or leave the tensor out"
)


def _check_tied(tensors: Tensors) -> None:
    """An output matrix beside tied embeddings must be a copy of them."""
    shapes = tensors.shapes
    if HEAD not in shapes:
        return
    rows = shapes[HEAD][0]
    for start in range(0, rows, 4096):
        part = slice(start, min(start + 4096, rows))
        table, output = (tensors.read(n, part) for n in (WHOLE["embedding"], HEAD))
        if not np.array_equal(table, output, equal_nan=True):
            raise ValueError(_UNTIED.format(tensors.where(HEAD)))


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
    tensors = check(tensors, config)
    if config.tie_embeddings:
        _check_tied(tensors)
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
        params["adapters"] = adapters_initializer(config, into)(lora_key)
    return params


def adapters_initializer(
    config: DecoderConfig, shardings: PyTree
) -> Callable[[Array], PyTree[Array]]:
    """Return the jitted program that draws adapters, and nothing else."""
    return jax.jit(
        lambda key: decoder.init(config, key=key)["adapters"],
        out_shardings=shardings["adapters"],
    )


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
        with np.errstate(over="ignore"):  # what overflows is found below
            if stacked:
                first = whole[0].start
                for row in range(len(out)):
                    out[row] = _read(tensors, group[first + row], whole[1:])
            elif path == ("embedding",):
                out[...] = tensors.read(group[0].name, whole[0])[:, whole[1]]
            else:
                out[...] = _read(tensors, group[0], whole)
        if not np.isfinite(out).all():
            raise ValueError(_unfinite(tensors, group, leaf.dtype))
        held[key] = out
        return out

    return jax.make_array_from_callback(leaf.shape, sharding, part)


def _unfinite(tensors: Tensors, group: Sequence[Place], dtype: Any) -> str:
    """Name the first tensor with numbers that are not finite."""
    for place in group:
        with np.errstate(over="ignore"):
            values = tensors.read(place.name, slice(0, place.published[0]))
            if not np.isfinite(values.astype(dtype)).all():
                return f"tensor {tensors.where(place.name)} is not finite in {dtype}"
    return f"tensor {tensors.where(group[0].name)} or a later layer's is not finite"


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
