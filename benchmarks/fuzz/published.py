"""Files of published models, with sound inputs made by the package itself."""

import functools
import json
import pathlib
import shutil
from typing import Any

from sgpo_jax import models
from sgpo_jax.models import pretrained, text_files
from sgpo_jax.models.pretrained import adapter_config, adapters, gguf, read, tensors


@functools.cache
def policy() -> models.Policy:
    """A small policy from nothing."""
    return models.load("tiny:layers=1,width=32")


def model_folder(folder: pathlib.Path) -> pathlib.Path:
    """A published model's folder."""
    place = folder / "model"
    if not place.exists():
        models.save(policy(), place)
    return place


def model_file(name: str) -> Any:
    """Return the seeds of one file of a published model."""
    return lambda folder: [(model_folder(folder) / name).read_bytes()]


def in_model(name: str, parse: Any) -> Any:
    """Return a parser of a folder in which one file is the input."""

    def parsed(path: pathlib.Path) -> Any:
        place = model_folder(path.parent)
        target, kept = place / name, (place / name).read_bytes()
        try:
            target.write_bytes(path.read_bytes())
            return parse(place)
        finally:
            target.write_bytes(kept)

    return parsed


def read_tokenizer(place: pathlib.Path) -> Any:
    """Return what a tokenizer makes of a text."""
    found = text_files.read_folder(place)
    return [found.vocab_size, found.stop_ids, found.encode("12+7 = x")]


def read_tensors(path: pathlib.Path) -> Any:
    """Return shapes of a safetensors file, and rows of its first tensors."""
    found = tensors.SafeTensors(tensors.read_header(path), path)
    some = sorted(found.shapes)[:4]
    rows = [found.read(n, slice(0, 1)).size for n in some if found.shapes[n]]
    return [{n: list(s) for n, s in found.shapes.items()}, rows]


def read_model(path: pathlib.Path) -> Any:
    """Return the decoder of a model's `config.json`."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(content, dict):
        raise ValueError("no object")
    return repr(read.read_config(content))


def gguf_seeds(folder: pathlib.Path) -> list[bytes]:
    """A GGUF file of a tiny decoder with a tokenizer."""
    from tests.models import test_gguf

    path = folder / "model.gguf"
    params = test_gguf.draw(test_gguf.CONFIGS["qwen2"])
    test_gguf.write(path, "qwen2", test_gguf.tensors("qwen2", params))
    return [path.read_bytes()]


def read_gguf(path: pathlib.Path) -> Any:
    """Return configuration and shapes of a GGUF file, and a row of each tensor."""
    found = gguf.GgufTensors(path)
    config = read.read_config(found.config)
    checked = pretrained.load.check(found, config)
    return [repr(config), {n: list(s) for n, s in checked.shapes.items()}]


def adapter_seeds(folder: pathlib.Path) -> list[bytes]:
    """`adapter_config.json` as PEFT writes it."""
    lora = models.Lora(rank=4)
    return [adapter_config.describe(lora, policy().config, base="x").encode()]


def read_adapters(path: pathlib.Path) -> Any:
    """Return rank and scales of adapters."""
    shutil.copy(path, path.parent / adapter_config.FILE)
    return repr(adapters.read_lora(path.parent, policy().config))
