"""A small checkpoint in the layouts that people save, and with the faults they have."""

import copy
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

SIZES = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
}
DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I8": np.dtype("i1"),
}
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def weights() -> dict[str, np.ndarray]:
    """Return the tensors, of numbers that every dtype holds exactly."""
    width, hidden = SIZES["hidden_size"], SIZES["intermediate_size"]
    shapes = {TABLE: (SIZES["vocab_size"], width), HEAD: (SIZES["vocab_size"], width)}
    for layer in range(SIZES["num_hidden_layers"]):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (width,),
                "post_attention_layernorm": (width,),
                "self_attn.q_proj": (16, width),
                "self_attn.k_proj": (8, width),
                "self_attn.v_proj": (8, width),
                "self_attn.o_proj": (width, 16),
                "mlp.gate_proj": (hidden, width),
                "mlp.up_proj": (hidden, width),
                "mlp.down_proj": (width, hidden),
            }.items()
        }
    shapes["model.norm.weight"] = (width,)
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(-60, 60, shape).astype(np.float32) / 64
        for name, shape in shapes.items()
    }


WEIGHTS = weights()


@dataclasses.dataclass(repr=False)
class Save:
    """A checkpoint before it is written.

    Attributes:
      config: what config.json says.
      files: label and values of each tensor, by file.
      index: the file of each tensor; None for no index.
      cut: bytes missing at the end of files.
    """

    config: dict[str, Any]
    files: dict[str, dict[str, tuple[str, np.ndarray]]]
    index: dict[str, str] | None = None
    cut: dict[str, int] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        """Show what lies where, without numbers."""
        files = {
            file: {name: label for name, (label, _) in tensors.items()}
            for file, tensors in self.files.items()
        }
        return f"Save({files}, index={self.index}, cut={self.cut})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show a failing example of hypothesis likewise."""
        printer.text(repr(self))

    def write(self, folder: pathlib.Path) -> None:
        """Write the files."""
        folder.mkdir(parents=True, exist_ok=True)
        for file, tensors in self.files.items():
            data = safetensors_bytes(tensors)
            (folder / file).write_bytes(data[: len(data) - self.cut.get(file, 0)])
        if self.index is not None:
            index = {"metadata": {"total_size": 0}, "weight_map": self.index}
            path = folder / "model.safetensors.index.json"
            path.write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps(self.config))

    def file_of(self, name: str) -> str:
        """Return the file a tensor is read from."""
        if self.index is not None:
            return self.index[name]
        return next(file for file, tensors in self.files.items() if name in tensors)


def safetensors_bytes(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """Return a safetensors file, written down here from the format's description."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (label, values) in tensors.items():
        data = values.astype(DTYPES[label]).tobytes()
        offsets = [len(body), len(body) + len(data)]
        shape = list(values.shape)
        header[name] = {"dtype": label, "shape": shape, "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def plain(*, tied: bool = False, shards: int = 1, label: str = "F32") -> Save:
    """Return the usual layout: one file, or several and an index."""
    tensors = {
        name: (label, values)
        for name, values in WEIGHTS.items()
        if not (tied and name == HEAD)
    }
    config = {**SIZES, "tie_word_embeddings": tied}
    if shards == 1:
        return Save(config, {"model.safetensors": tensors})
    files: dict[str, dict] = {}
    for i, (name, tensor) in enumerate(tensors.items()):
        number = i * shards // len(tensors) + 1
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        files.setdefault(file, {})[name] = tensor
    index = {name: file for file, found in files.items() for name in found}
    return Save(config, files, index)


def renamed(save: Save, new_name: Callable[[str], str]) -> Save:
    """Return the same save with other names of tensors."""
    save.files = {
        file: {new_name(name): tensor for name, tensor in tensors.items()}
        for file, tensors in save.files.items()
    }
    if save.index is not None:
        save.index = {new_name(name): file for name, file in save.index.items()}
    return save


PREFIXES = ("model.", "", "module.model.", "_orig_mod.model.", "language_model.model.")
NOISE = np.full((3, 5), 9.0, np.float32)


@st.composite
def harmless(draw: st.DrawFn) -> Save:
    """Draw a layout that holds the same model."""
    tied, shards = draw(st.booleans()), draw(st.integers(1, 4))
    save = plain(tied=tied, shards=shards)
    for tensors in save.files.values():
        for name, (_, values) in tensors.items():
            label = draw(st.sampled_from(["F64", "F32", "F16", "BF16"]))
            tensors[name] = (label, values)
    if tied:
        _tie(save, draw(st.sampled_from(["table", "head", "both"])))
    last = list(save.files)[-1]
    for name, tensor in {
        "model.embed_tokens.position_ids": ("I64", np.arange(5)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", NOISE[0]),
        "v_head.summary.weight": ("F32", NOISE),
    }.items():
        if draw(st.booleans()):
            save.files[last][name] = tensor
            if save.index is not None and draw(st.booleans()):
                save.index[name] = last
    if save.index is not None:
        _unindexed(draw, save, last)
    prefix = draw(st.sampled_from(PREFIXES))
    outer = prefix.removesuffix("model.")

    def new_name(name: str) -> str:
        inside = name.startswith("model.")
        return prefix + name.removeprefix("model.") if inside else outer + name

    return renamed(save, new_name)


def _tie(save: Save, form: str) -> None:
    """Save tied embeddings as the table, as the head, or as both."""
    file = save.file_of(TABLE)
    for places in (save.files[file], save.index):
        if places is None or form == "table":
            continue
        places[HEAD] = places[TABLE]
        if form == "head":
            del places[TABLE]


def _unindexed(draw: st.DrawFn, save: Save, last: str) -> None:
    """Add what the index does not name: stale tensors, and others of the same name."""
    assert save.index is not None
    if draw(st.booleans()):
        save.files[last]["model.layers.7.stale.weight"] = ("F32", NOISE)
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(set(save.index) & set(WEIGHTS))))
        other = draw(st.sampled_from([f for f in save.files if f != save.index[name]]))
        save.files[other][name] = ("F32", WEIGHTS[name] + 1)
    if draw(st.booleans()):
        save.files["model-old.safetensors"] = {"model.norm.weight": ("F32", NOISE)}


@dataclasses.dataclass
class Faulty:
    """A save with one fault, and what its error has to name."""

    kind: str
    save: Save
    names: tuple[str, ...]


FAULTS = (
    *("lost tensor", "shape", "integers", "not finite", "unknown inside"),
    *("tied, and differs", "two decoders", "cut file"),
    *("lost file", "stale index", "wrong file", "no index"),
)


@st.composite
def faulty(draw: st.DrawFn, kinds: tuple[str, ...] = FAULTS) -> Faulty:
    """Draw a layout with one fault."""
    kind = draw(st.sampled_from(kinds))
    shards = 3 if kind in FAULTS[8:] else draw(st.sampled_from([1, 3]))
    save = copy.deepcopy(plain(tied=kind.startswith("tied"), shards=shards))
    name = draw(st.sampled_from(sorted(set(WEIGHTS) - {HEAD, TABLE})))
    file = save.file_of(name)
    return Faulty(kind, save, _spoil(kind, save, name, file))


def _spoil(kind: str, save: Save, name: str, file: str) -> tuple[str, ...]:
    """Put a fault into a save; returns what the error has to name."""
    if kind in FAULTS[7:]:
        return _spoil_files(kind, save, name, file)
    tensors, index = save.files[file], save.index or {}
    if kind == "lost tensor":
        del tensors[name]
        index.pop(name, None)
        return (name,)
    spoilt = WEIGHTS[name].copy()
    spoilt.flat[-1] = np.nan
    name, tensors[name] = {
        "shape": (name, ("F32", np.zeros((3, 7), np.float32))),
        "integers": (name, ("I8", WEIGHTS[name])),
        "not finite": (name, ("F32", spoilt)),
        "unknown inside": (f"{name}_scale", ("F32", NOISE)),
        "tied, and differs": (HEAD, ("F32", WEIGHTS[TABLE] + 1)),
        "two decoders": ("layers.0.input_layernorm.weight", ("F32", NOISE)),
    }[kind]
    index[name] = file
    return (file, name)


def _spoil_files(kind: str, save: Save, name: str, file: str) -> tuple[str, ...]:
    index = save.index or {}
    match kind:
        case "cut file":
            save.cut[file], name = 5, list(save.files[file])[-1]
        case "lost file":
            del save.files[file]
            name = min(n for n, place in index.items() if place == file)
        case "stale index":
            for key, place in index.items():
                index[key] = place.replace("-of-00003", "-of-00030")
            return ("model.safetensors.index.json", min(save.files))
        case "wrong file":
            file = next(other for other in save.files if other != file)
            index[name] = file
        case "no index":
            save.index = None
            return (min(save.files), "model.safetensors.index.json")
    return (file, name)
