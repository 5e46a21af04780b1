"""Checkpoint files: what is refused, and loading into shardings."""

import dataclasses
import json
import re
import struct
import tracemalloc

import jax
import numpy as np
import pytest

from sgpo_jax import models, sharding
from sgpo_jax.models import pretrained
from sgpo_jax.models.pretrained import tensors

CONFIG = models.DecoderConfig(
    vocab_size=32,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=24,
    tie_embeddings=False,
    qkv_bias=True,
)


@pytest.fixture(scope="module")
def params():
    fresh = models.init(CONFIG, key=jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    # Biases and norms too must land where they belong.
    return jax.tree.map(lambda x: x + jax.random.normal(next(keys), x.shape), fresh)


@pytest.fixture
def folder(params, tmp_path):
    pretrained.save(tmp_path, params, CONFIG, dtype="float32")
    return tmp_path


def rewrite(path, change):
    """Apply `change(header, data)` to a safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header, data = change(header, data)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 4, 2), (8, 1, 1)])
def test_every_device_reads_its_own_part(folder, params, shape, monkeypatch):
    """8 devices: right numbers, right places, and no part is read twice."""
    read = []
    original = tensors.SafeTensors.read

    def counted(self, name, rows):
        read.append((name, rows.start, rows.stop))
        return original(self, name, rows)

    monkeypatch.setattr(tensors.SafeTensors, "read", counted)
    data, fsdp, tensor = shape
    mesh = sharding.make_mesh(
        sharding.MeshShape(data=data, fsdp=fsdp, tensor=tensor), jax.devices()[:8]
    )
    shardings = sharding.tree_shardings(
        models.logical_axes(CONFIG), models.shapes(CONFIG), sharding.Rules(), mesh
    )
    found = pretrained.open_source(f"hf:{folder}")
    loaded = pretrained.load_params(found.tensors, found.config, shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    jax.tree.map(lambda x, s: x.sharding == s or pytest.fail(str(s)), loaded, shardings)
    queries = [part for part in read if part[0].endswith("0.self_attn.q_proj.weight")]
    # Heads are rows of the file: each tensor shard reads its rows, per fsdp shard.
    assert len(queries) == fsdp * tensor
    assert {stop - start for _, start, stop in queries} == {16 // tensor}


@pytest.mark.parametrize("shape", [(4, 2, 1), (1, 8, 1)], ids=["copies", "parts"])
def test_the_host_holds_one_parameter_at_a_time(tmp_path, shape):
    """Measured: eight devices do not take eight copies, nor the whole model."""
    wide = dataclasses.replace(CONFIG, embed_dim=64, mlp_dim=512, vocab_size=4096)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), models.shapes(wide)
    )
    pretrained.save(tmp_path, jax.tree.map(jax.numpy.asarray, drawn), wide)
    sizes = [x.nbytes for x in jax.tree.leaves(drawn)]
    data, fsdp, tensor = shape
    mesh = sharding.make_mesh(
        sharding.MeshShape(data=data, fsdp=fsdp, tensor=tensor), jax.devices()[:8]
    )
    shardings = sharding.tree_shardings(
        models.logical_axes(wide), models.shapes(wide), sharding.Rules(), mesh
    )
    found = pretrained.open_source(f"hf:{tmp_path}")
    tracemalloc.start()
    loaded = pretrained.load_params(found.tensors, found.config, shardings=shardings)
    jax.block_until_ready(loaded)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # What numpy holds beyond what became the devices' own memory, which on CPU may be
    # numpy's: the largest parameter, and it once more while its rows are turned.
    assert peak - kept < 2.5 * max(sizes)
    assert max(sizes) < 0.4 * sum(sizes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_independent_reader_agrees(params, tmp_path, dtype):
    safetensors = pytest.importorskip("safetensors")
    pretrained.save(tmp_path, params, CONFIG, dtype=dtype)
    ours = tensors.SafeTensors(
        tensors.read_header(tmp_path / "model.safetensors"), tmp_path
    )
    with safetensors.safe_open(tmp_path / "model.safetensors", "flax") as theirs:
        assert set(theirs.keys()) == set(ours.shapes)
        for name, shape in ours.shapes.items():
            value = theirs.get_tensor(name)
            assert value.shape == shape and value.dtype == dtype
            np.testing.assert_array_equal(ours.read(name, slice(0, shape[0])), value)


def test_missing_surplus_and_misshapen_tensors_name_themselves(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()

    def renamed(header, data):
        header["model.extra.weight"] = header.pop("model.norm.weight")
        return header, data

    def flat(header, data):
        header["model.norm.weight"]["shape"] = [4, 4]
        return header, data

    for change, message in (
        (renamed, f"'model.norm.weight' of {path} is missing"),
        (flat, rf"'model.norm.weight' of {path} has shape \[4, 4\], the config says"),
    ):
        path.write_bytes(good)
        rewrite(path, change)
        found = pretrained.open_source(f"hf:{folder}")
        with pytest.raises(ValueError, match=message):
            pretrained.load_params(found.tensors, found.config)
    path.write_bytes(good)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    found = pretrained.open_source(f"hf:{folder}")
    with pytest.raises(ValueError, match=r"unknown to the config.*\(and 11 more\)"):
        pretrained.load_params(found.tensors, found.config)
    (folder / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 4096})
    )
    found = pretrained.open_source(f"hf:{folder}")
    with pytest.raises(ValueError, match="says 4096 layers, but there are only"):
        pretrained.load_params(found.tensors, found.config)


def test_hostile_headers_are_refused(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    name = "model.norm.weight"

    def changed(**fields):
        def change(header, data):
            header[name] = {**header[name], **fields}
            return header, data

        return change

    begin = json.loads(good[8 : 8 + struct.unpack("<Q", good[:8])[0]])[name]
    begin, end = begin["data_offsets"]
    cases = {
        "begins at": changed(data_offsets=[begin + 64, end + 64]),
        "does not take": changed(data_offsets=[begin, end - 4]),
        "has dtype": changed(dtype=64),
        "has shape": changed(shape=[-16]),
        "the file at": lambda header, data: (header, data[:-4]),
        "there twice": lambda header, data: (
            json.dumps(header)[:-1].encode() + b', "a": 1, "a": 2}',
            data,
        ),
        "bad header": lambda header, data: (b"[" * 5000, data),
    }
    for message, change in cases.items():
        path.write_bytes(good)
        rewrite(path, change)
        with pytest.raises(ValueError, match=message):
            pretrained.open_source(f"hf:{folder}")
    for raw in (b"", b"\xff" * 8 + good[8:], good[:100]):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="does not fit"):
            pretrained.open_source(f"hf:{folder}")


def test_values_that_are_not_finite_are_refused(folder):
    rewrite(
        folder / "model.safetensors", lambda h, d: (h, d[:-4] + b"\x00\x00\xc0\x7f")
    )
    found = pretrained.open_source(f"hf:{folder}")
    with pytest.raises(ValueError, match="not finite"):
        pretrained.load_params(found.tensors, found.config)


def test_pickles_are_refused_by_name(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, a pickle"):
        pretrained.open_source(f"hf:{folder}")


@pytest.mark.parametrize(
    "inside", ["checkpoint-500", "snapshots/0123abc", "global_step_9/actor"]
)
def test_the_folder_of_a_run_names_the_model_in_it(folder, inside):
    """A run of TRL's, the hub's cache, a run of verl's."""
    place = folder / "run" / inside
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"name the folder {re.escape(str(place))}"):
        pretrained.open_source(f"hf:{folder / 'run'}")


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("model_world_size_8_rank_0.pt", "verl.model_merger merge"),
        ("../model_world_size_8_rank_0.pt", "verl.model_merger merge"),
        ("zero_to_fp32.py", "python zero_to_fp32.py"),
        ("pytorch_model-00001-of-00002.bin", "a pickle"),
    ],
)
def test_weights_of_trainers_say_how_to_convert_them(folder, file, remedy):
    actor = folder / "actor"
    actor.mkdir()
    (folder / "config.json").rename(actor / "config.json")
    (actor / file).touch()
    with pytest.raises(ValueError, match=remedy) as info:
        pretrained.open_source(f"hf:{actor}")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("Qwen/Qwen3-0.6B", "did you mean hf:Qwen/Qwen3-0.6B?"),
        ("./model.gguf", "did you mean gguf:./model.gguf?"),
        ("out/model.safetensors", "did you mean its folder, hf:out?"),
        ("/nowhere/at/all", "there is no folder /nowhere/at/all"),
    ],
)
def test_a_source_without_a_kind_says_what_it_seems_to_be(source, meant):
    with pytest.raises(ValueError, match=re.escape(meant)):
        pretrained.open_source(source)


@pytest.mark.parametrize("source", ["tinny", "tny:layers=1"])
def test_a_misspelt_random_policy_is_not_looked_for_elsewhere(source):
    with pytest.raises(ValueError, match="did you mean tiny"):
        models.load(source)


def test_an_index_that_leaves_the_folder_is_refused(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="no plain file names"):
        pretrained.open_source(f"hf:{folder}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported; there are llama"),
        ({"hidden_size": "16"}, "hidden_size must be a positive number"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
            "rope type 'dynamic' is not supported",
        ),
        ({"rope_scaling": {"rope_type": "yarn"}}, "lacks 'factor'"),
        ({"rope_scaling": {"type": "linear"}}, "lacks 'factor'"),
    ],
)
def test_configs_that_would_compute_something_else_are_refused(change, message):
    good = pretrained.write_config(CONFIG)
    assert pretrained.read_config(good) == CONFIG
    with pytest.raises(ValueError, match=message):
        pretrained.read_config({**good, **change})


def test_what_no_family_computes_is_not_written():
    odd = dataclasses.replace(CONFIG, final_soft_cap=3.0)
    with pytest.raises(ValueError, match="no published family"):
        pretrained.write_config(odd)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tea", "is none of hf:FOLDER"),
        ("hf:./nowhere/at/all", "no folder"),
        ("gguf:/nowhere.gguf", "there is no file"),
    ],
)
def test_sources_that_are_not_there(source, message):
    with pytest.raises(ValueError, match=message):
        pretrained.open_source(source)


def test_offloading_is_refused_where_there_is_no_other_memory():
    with pytest.raises(ValueError, match="not cpu; use 'everything'"):
        models.check_offload("offload", jax.devices())
    models.check_offload("everything", jax.devices())
