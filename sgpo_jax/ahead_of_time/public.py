"""Shapes of published models, by name or read from their `config.json`."""

import dataclasses
import json
import pathlib

from sgpo_jax.models import DecoderConfig, pretrained

_TINY = DecoderConfig(
    vocab_size=1024,
    num_layers=2,
    embed_dim=256,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    mlp_dim=512,
    dtype="bfloat16",
    remat="everything",
)


def _shape(vocab: int, layers: int, width: int, mlp: int, **others) -> DecoderConfig:
    return dataclasses.replace(
        _TINY,
        vocab_size=vocab,
        num_layers=layers,
        embed_dim=width,
        mlp_dim=mlp,
        **others,
    )


def _llama(vocab: int, layers: int, width: int, mlp: int, **others) -> DecoderConfig:
    return _shape(vocab, layers, width, mlp, **{"tie_embeddings": False, **others})


def _qwen3(layers: int, width: int, mlp: int, heads: int, *, tied: bool):
    return _shape(
        151_936,
        layers,
        width,
        mlp,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        rope_base=1e6,
        norm_eps=1e-6,
        qk_norm=True,
        tie_embeddings=tied,
    )


PUBLIC: dict[str, DecoderConfig] = {
    "tiny": _TINY,
    "smollm2-135m": _shape(
        *(49_152, 30, 576, 1536),
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        rope_base=1e5,
    ),
    "llama3-8b": _llama(
        *(128_256, 32, 4096, 14_336),
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        rope_base=5e5,
    ),
    "qwen3-0.6b": _qwen3(28, 1024, 3072, 16, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 6144, 16, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 9728, 32, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 12_288, 32, tied=False),
    "qwen3-32b": _qwen3(64, 5120, 25_600, 64, tied=False),
}


def find(name: str) -> DecoderConfig:
    """Return the shape of a published model, bfloat16 activations, full remat.

    Args:
      name: one of the table, or the path of a `config.json` or of its folder.

    Raises:
      ValueError: if it is neither; the message lists the names. Or if the file's model
        is not supported.

    >>> find("smollm2-135m").head_dim
    64
    """
    if name in PUBLIC:
        return PUBLIC[name]
    path = pathlib.Path(name).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"no model {name!r}; known: {', '.join(PUBLIC)}, and the path of a"
            " config.json or of its folder"
        )
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    shape = pretrained.read_config(content)
    return dataclasses.replace(shape, dtype="bfloat16", remat="everything")
