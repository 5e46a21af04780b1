"""GGUF files written by the `gguf` package, and files somebody broke."""

import math
import struct

import jax
import numpy as np
import pytest

from sgpo_jax import models
from sgpo_jax.models import pretrained
from sgpo_jax.models.pretrained.load import places
from sgpo_jax.models.pretrained.save import publish
from sgpo_jax.models.rope import Llama3Scaling

gguf = pytest.importorskip("gguf")

SIZES = {
    "vocab_size": 11,
    "num_layers": 2,
    "embed_dim": 12,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "mlp_dim": 10,
    "norm_eps": 2.0**-20,  # a float32 in the file
}
GEMMA = {
    "norm_offset": True,
    "sandwich_norms": True,
    "scale_embeddings": True,
    "activation": "gelu",
    "window": 4,
}
CONFIGS = {
    "llama": models.DecoderConfig(
        **SIZES,
        rope_base=500_000.0,
        rope_scaling=Llama3Scaling(factor=8.0),
        tie_embeddings=False,
    ),
    "qwen2": models.DecoderConfig(**SIZES, rope_base=1e6, qkv_bias=True),
    "qwen3": models.DecoderConfig(**SIZES, rope_base=1e6, qk_norm=True),
    "gemma2": models.DecoderConfig(
        **SIZES,
        **GEMMA,
        global_layers=(1,),
        attention_soft_cap=50.0,
        final_soft_cap=30.0,
    ),
    "gemma3": models.DecoderConfig(
        **{**SIZES, "num_layers": 7},
        **GEMMA,
        qk_norm=True,
        global_layers=(5,),
        rope_base=1e6,
        local_rope_base=1e4,
    ),
}
# How llama.cpp calls what Hugging Face calls "model.layers.N." + the key.
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
WHOLE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def interleave(rows, heads):
    """Put row j of a head's first half at 2j, of its second half at 2j + 1."""
    out = np.empty_like(rows)
    width = len(rows) // heads
    for head in range(heads):
        for j in range(width // 2):
            out[head * width + 2 * j] = rows[head * width + j]
            out[head * width + 2 * j + 1] = rows[head * width + width // 2 + j]
    return out


def divisors(scaling, base, width):
    """By what llama.cpp divides frequencies: wavelength by wavelength."""
    found = []
    for pair in range(width // 2):
        wavelength = 2 * math.pi * base ** (2 * pair / width)
        turns = scaling.original_context / wavelength
        if turns > scaling.high:
            found.append(1.0)
        elif turns < scaling.low:
            found.append(scaling.factor)
        else:
            s = (turns - scaling.low) / (scaling.high - scaling.low)
            found.append(1 / ((1 - s) / scaling.factor + s))
    return np.array(found, np.float32)


def tensors(architecture, params, config=None):
    """Return what a converter writes: llama.cpp's names, order of rows and norms."""
    config = config or CONFIGS[architecture]
    gemma = architecture.startswith("gemma")
    names = NAMES | (GEMMA_NAMES if gemma else {})
    out = {}
    for path, group in places(config).items():
        leaf = params[path[0]][path[1]] if len(path) == 2 else params[path[0]][None]
        for place, value in zip(group, leaf, strict=True):
            value = publish(place, np.asarray(value))
            stem, kind = place.name.rsplit(".", 1)
            if len(path) == 2:
                _, _, layer, key = stem.split(".", 3)
                stem = f"blk.{layer}.{names[key]}"
            else:
                stem = WHOLE[stem]
            if architecture == "llama" and stem.endswith(("attn_q", "attn_k")):
                heads = config.num_heads if stem[-1] == "q" else config.num_kv_heads
                value = interleave(value, heads)
            if gemma and "norm" in stem:
                value = value + np.float32(1)
            out[f"{stem}.{kind}"] = np.ascontiguousarray(value)
    if config.rope_scaling:
        out["rope_freqs.weight"] = divisors(
            config.rope_scaling, config.rope_base, config.head_dim
        )
    return out


def write(path, architecture, values, config=None, vocabulary=None, **changes):
    config = config or CONFIGS[architecture]
    writer = gguf.GGUFWriter(str(path), architecture)
    if vocabulary:
        vocabulary(writer)
    metadata = {
        "block_count": config.num_layers,
        "embedding_length": config.embed_dim,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "feed_forward_length": config.mlp_dim,
    } | changes
    if split := metadata.pop("split", None):
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
    for key, value in metadata.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    if config.window:
        writer.add_sliding_window(config.window)
    if config.final_soft_cap:
        writer.add_final_logit_softcapping(config.final_soft_cap)
        writer.add_attn_logit_softcapping(config.attention_soft_cap)
    for name, value in values.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def draw(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), models.shapes(config)
    )


@pytest.mark.parametrize("architecture", CONFIGS)
def test_what_a_converter_changed_is_undone(architecture, tmp_path):
    """Rows of queries and keys, ones in norms, scaling of positions, windows."""
    config = CONFIGS[architecture]
    params = draw(config)
    write(tmp_path / "m.gguf", architecture, tensors(architecture, params))
    found = pretrained.open_source(f"gguf:{tmp_path / 'm.gguf'}")
    assert found.config == config
    loaded = pretrained.load_params(found.tensors, config)
    # Adding one and taking it away again rounds; nothing else may.
    exact = 0.0 if not config.norm_offset else 5e-7
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=exact),
        loaded,
        params,
    )


def test_heads_are_read_in_parts(tmp_path):
    """A device's heads are put in order by themselves; half a head cannot be."""
    params = draw(CONFIGS["llama"])
    write(tmp_path / "m.gguf", "llama", tensors("llama", params))
    found = pretrained.open_source(f"gguf:{tmp_path / 'm.gguf'}").tensors
    name = "model.layers.1.self_attn.q_proj.weight"
    whole = found.read(name, slice(0, 64))
    np.testing.assert_array_equal(found.read(name, slice(16, 48)), whole[16:48])
    with pytest.raises(ValueError, match="heads of 16 rows"):
        found.read(name, slice(0, 8))


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "m.gguf"
    values = tensors("qwen2", draw(CONFIGS["qwen2"]))
    write(path, "qwen2", values)
    return path, values


def refused(path, message):
    with pytest.raises(ValueError, match=message):
        found = pretrained.open_source(f"gguf:{path}")
        pretrained.load_params(found.tensors, found.config)


def test_broken_files_are_refused(good):
    path, _ = good
    raw = path.read_bytes()
    for length in (0, 3, 40, len(raw) // 2, len(raw) - 64):
        path.write_bytes(raw[:length])
        refused(path, r"m\.gguf is no readable GGUF")
    for begin, bits in ((0, b"GGML"), (4, struct.pack("<I", 99))):
        path.write_bytes(raw[:begin] + bits + raw[begin + 4 :])
        refused(path, r"m\.gguf is no readable GGUF")
    path.write_bytes(raw[:8] + struct.pack("<Q", 2**60) + raw[16:])
    refused(path, r"m\.gguf is no readable GGUF")


def test_what_does_not_fit_names_itself(good):
    path, values = good
    gate, biased = "blk.1.ffn_gate.weight", "blk.0.attn_k.bias"
    spoilt = values[gate].copy()
    spoilt[3, 2] = np.nan
    without = {name: value for name, value in values.items() if name != biased}
    cases = {
        f"'{gate}' of {path} has shape": values | {gate: values[gate][:-1]},
        f"'model.layers.0.self_attn.k_proj.bias' of {path} is missing": without,
        f"'{gate}' of {path} is not finite": (values | {gate: spoilt}),
        f"'blk.0.extra.weight' of {path} is unknown to the config": (
            values | {"blk.0.extra.weight": values[gate]}
        ),
        # Another vocabulary than that of the embedding.
        rf"'output.weight' of {path} has shape \[10, 12\], the config says \[11,": (
            values | {"output.weight": values["token_embd.weight"][:-1]}
        ),
    }
    for message, changed in cases.items():
        write(path, "qwen2", changed)
        refused(path, message)
    write(path, "qwen2", values, embedding_length=2**31)
    refused(path, "hidden_size must be a positive number, got 2147483648")
    write(path, "qwen2", values, **{"attention.head_count": 0})
    refused(path, "num_attention_heads must be a positive number, got 0")


def test_unknown_scalings_of_positions_are_refused(tmp_path):
    values = tensors("llama", draw(CONFIGS["llama"]))
    values["rope_freqs.weight"] = np.linspace(1, 8, 8, dtype=np.float32)
    write(tmp_path / "m.gguf", "llama", values)
    refused(tmp_path / "m.gguf", "is not Llama 3's")


def test_a_part_of_a_split_file_says_so(good):
    path, values = good
    for number in (0, 2):
        write(path, "qwen2", values, split=(number, 3))
        refused(path, f"is part {number + 1} of 3: merge them first")
