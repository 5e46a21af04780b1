"""GGUF files of the same families, dequantized, under the names of Hugging Face."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sgpo_jax.models.pretrained.families import FAMILIES
from sgpo_jax.models.rope import Llama3Scaling, frequencies

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_MLP_NORM = {"ffn_norm.weight": "post_attention_layernorm.weight"}
_SANDWICH = {
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}
_ARCHITECTURES = {name.removesuffix("_text"): name for name in FAMILIES}
_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}


class GgufTensors:
    """The tensors of a GGUF file.

    Two differences are undone here: files of the architecture `llama`, and only those,
    hold the rows of queries and keys in the order of interleaved rotary pairs; and
    those of Gemma hold norms with the one already added.

    Raises:
      ValueError: if the file cannot be read, or is of another family.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        reader = _open(path)
        # A tensor that reaches beyond the file, an enumeration that does not exist, a
        # string that is no text: the reader raises whatever comes to it.
        try:
            self.fields = {
                name: field.contents()
                for name, field in reader.fields.items()
                if not name.startswith("tokenizer.")
            }
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        except Exception as error:
            raise _unreadable(path, error) from error
        self._check_whole()
        self.architecture = str(self.fields.get("general.architecture"))
        if self.architecture not in _ARCHITECTURES:
            raise ValueError(
                f"{path}: architecture {self.architecture!r} is not supported; there"
                f" are {', '.join(_ARCHITECTURES)}"
            )
        scaling = self._tensors.pop("rope_freqs.weight", None)
        self._rope_factors = None if scaling is None else np.asarray(scaling.data)
        self._names = {self._published(name): name for name in self._tensors}
        self._heads = {
            "self_attn.q_proj": self._key("attention.head_count"),
            "self_attn.k_proj": self._key("attention.head_count_kv"),
        }

    def _check_whole(self) -> None:
        count = self.fields.get("split.count") or 1
        if count != 1:
            number = int(self.fields.get("split.no") or 0) + 1
            raise ValueError(
                f"{self.path} is part {number} of {count}: merge them first with"
                " llama-gguf-split --merge FIRST_PART WHOLE.gguf, or load the"
                " safetensors"
            )

    def _key(self, key: str) -> Any:
        return self.fields.get(f"{self.architecture}.{key}")

    def _published(self, name: str) -> str:
        gemma = self.architecture.startswith("gemma")
        layer = _LAYER | (_SANDWICH if gemma else _MLP_NORM)
        match = re.fullmatch(r"blk\.(\d{1,4})\.(.+)", name)
        if match and match[2] in layer:
            return f"model.layers.{int(match[1])}.{layer[match[2]]}"
        # Nothing lies beside the decoder: what is unknown is unknown within it.
        return _WHOLE.get(name, f"model.layers.{name}")

    @property
    def config(self) -> dict[str, Any]:
        """Return the metadata as a `config.json`.

        Raises:
          ValueError: if the metadata lack a size or scale positions in unknown ways.
        """
        json: dict[str, Any] = {"model_type": _ARCHITECTURES[self.architecture]}
        for name, key in _KEYS.items():
            if (value := self._key(key)) is not None:
                json[name] = value
        if "model.embed_tokens.weight" in self.shapes:
            json["vocab_size"] = int(self.shapes["model.embed_tokens.weight"][0])
        json["tie_word_embeddings"] = "lm_head.weight" not in self._names
        json["rope_scaling"] = self._rope_scaling(json)
        if self.architecture.startswith("gemma"):
            json["hidden_activation"] = "gelu_pytorch_tanh"
            # The largest ones scale by the width per head of the residual stream.
            wide = {"gemma2": 46, "gemma3": 62}[self.architecture]
            large = json.get("num_hidden_layers") == wide
            json["query_pre_attn_scalar"] = (
                json["hidden_size"] // json["num_attention_heads"]
                if large
                else json.get("head_dim")
            )
        return json

    def _rope_scaling(self, json: Mapping[str, Any]) -> dict[str, Any] | None:
        kind = self._key("rope.scaling.type")
        if self._rope_factors is not None:
            return self._llama3_scaling(json)
        if kind in (None, "none"):
            return None
        if kind == "yarn":
            return {
                "rope_type": "yarn",
                "factor": self._key("rope.scaling.factor"),
                "original_max_position_embeddings": self._key(
                    "rope.scaling.original_context_length"
                ),
            }
        if kind != "linear":
            raise ValueError(f"{self.path}: rope scaling {kind!r} is not supported")
        return {"rope_type": "linear", "factor": self._key("rope.scaling.factor")}

    def _llama3_scaling(self, json: Mapping[str, Any]) -> dict[str, Any]:
        """Recognize Llama 3.1's scaling by the divisors the file has instead."""
        divisors = self._rope_factors
        assert divisors is not None
        base = float(json.get("rope_theta", 10_000.0))
        scaling = Llama3Scaling(factor=float(divisors.max()))
        plain = frequencies(2 * divisors.size, base, None)
        expected = plain / frequencies(2 * divisors.size, base, scaling)
        if not np.allclose(divisors, expected, rtol=1e-3):
            raise ValueError(
                f"{self.path}: rope_freqs.weight is not Llama 3's; load the safetensors"
            )
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original_context,
        }

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor, as published."""
        return {
            name: tuple(int(n) for n in reversed(self._tensors[own].shape))
            for name, own in self._names.items()
        }

    @property
    def unreadable(self) -> Mapping[str, str]:
        """None: every kind of block is dequantized."""
        return {}

    def where(self, name: str) -> str:
        """Return what to call a tensor in an error."""
        return f"{self._names.get(name, name)!r} of {self.path}"

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor, dequantized."""
        from gguf.quants import dequantize

        tensor = self._tensors[self._names[name]]
        values = dequantize(tensor.data[rows], tensor.tensor_type)
        heads = next((n for part, n in self._heads.items() if part in name), None)
        if heads and self.architecture == "llama":
            values = _half_split(values, self.shapes[name][0] // heads)
        if self.architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values - np.float32(1)
        return values

    def sample(self, name: str, row: int) -> np.ndarray:
        """Return a row as it is stored, quantized."""
        return np.asarray(self._tensors[self._names[name]].data[row])


def _half_split(values: np.ndarray, width: int) -> np.ndarray:
    """Undo the interleaving of rotary pairs in whole heads of `width` rows.

    >>> _half_split(np.array([0, 2, 1, 3]), 4)
    array([0, 1, 2, 3])
    """
    if len(values) % width:
        raise ValueError(f"heads of {width} rows cannot be read in parts")
    pairs = values.reshape(-1, width // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _open(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        import gguf
    except ImportError as error:
        raise ValueError("GGUF files need gguf: pip install 'sgpo_jax[hf]'") from error
    try:
        return gguf.GGUFReader(str(path))
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is no readable GGUF: {type(error).__name__}: {error}")


def tokenizer_fields(path: pathlib.Path) -> dict[str, Any]:
    """Return the metadata under "tokenizer.", without that prefix."""
    reader = _open(path)
    try:
        return {
            name.removeprefix("tokenizer."): field.contents()
            for name, field in reader.fields.items()
            if name.startswith("tokenizer.")
        }
    except Exception as error:
        raise _unreadable(path, error) from error
