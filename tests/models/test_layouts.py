"""Checkpoints in the layouts people save: the same model, or one line that says why."""

import functools
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from sgpo_jax import models
from sgpo_jax.models import pretrained

from . import layouts
from .layouts import HEAD, TABLE, WEIGHTS, Save

IDS = np.random.default_rng(1).integers(0, layouts.SIZES["vocab_size"], (2, 9))


@functools.cache
def base(*, tied):
    with tempfile.TemporaryDirectory() as folder:
        layouts.plain(tied=tied).write(Path(folder))
        return read(folder)


def read(folder):
    found = pretrained.open_source(f"hf:{folder}")
    return found.config, pretrained.load_params(found.tensors, found.config)


def logits(config, params):
    positions = jnp.broadcast_to(jnp.arange(IDS.shape[1]), IDS.shape)
    tokens = jnp.asarray(IDS, jnp.int32)
    hidden, _ = models.apply(params, config, tokens, positions, models.causal)
    return np.asarray(models.logits(params, config, hidden))


def same(folder, *, tied):
    config, params = read(folder)
    wanted_config, wanted = base(tied=tied)
    assert config == wanted_config
    jax.tree.map(np.testing.assert_array_equal, params, wanted)


def tied_only_head():
    save = layouts.plain(tied=True)
    tensors = save.files["model.safetensors"]
    tensors[HEAD] = tensors.pop(TABLE)
    return save


def tied_copy(change=0.0):
    save = layouts.plain(tied=True)
    tensors = save.files["model.safetensors"]
    tensors[HEAD] = ("F32", WEIGHTS[TABLE] + np.float32(change))
    return save


def int_buffer():
    save = layouts.plain()
    save.files["model.safetensors"]["model.position_ids"] = ("I64", np.arange(5))
    return save


def surplus_in_shard():
    save = layouts.plain(shards=3)
    list(save.files.values())[1]["model.layers.7.stale.weight"] = (
        "F32",
        layouts.NOISE,
    )
    return save


def overlay():
    """A later file with some tensors again; the index prefers it."""
    save = layouts.plain(shards=3)
    name = "model.layers.1.mlp.up_proj.weight"
    file, new = save.file_of(name), "model-overlay-00001.safetensors"
    save.files[new] = {name: save.files[file][name]}
    save.files[file][name] = ("F32", WEIGHTS[name] + 1)
    assert save.index is not None
    save.index[name] = new
    return save


def no_prefix():
    save = layouts.plain(tied=True)
    return layouts.renamed(save, lambda name: name.removeprefix("model."))


SAVES = {
    "plain": layouts.plain,
    "tied": lambda: layouts.plain(tied=True),
    "sharded": lambda: layouts.plain(shards=3),
    "fp64": lambda: layouts.plain(label="F64"),
    "fp16": lambda: layouts.plain(label="F16"),
    "no_prefix": no_prefix,
    "int_buffer": int_buffer,
    "overlay": overlay,
    "surplus_in_shard": surplus_in_shard,
    "tied_only_head": tied_only_head,
    "tied_copy": tied_copy,
}


@pytest.mark.parametrize("name", SAVES)
def test_layouts_that_hold_the_same_model(name, tmp_path):
    save: Save = SAVES[name]()
    save.write(tmp_path)
    same(tmp_path, tied=save.config["tie_word_embeddings"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAVES)
def test_transformers_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    save: Save = SAVES[name]()
    save.write(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS), use_cache=False).logits.numpy()
    # float32 sums in another order, relative to the largest logit.
    ours = logits(*read(tmp_path))
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


def test_a_head_that_differs_from_tied_embeddings_says_what_to_do(tmp_path):
    tied_copy(0.5).write(tmp_path)
    with pytest.raises(ValueError, match=r"'lm_head.weight' .*tie_word_embeddings"):
        read(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(content))
    _, params = read(tmp_path)
    np.testing.assert_array_equal(params["unembedding"].T, WEIGHTS[TABLE] + 0.5)


@settings(max_examples=60)
@given(layouts.harmless())
def test_what_nobody_reads_does_no_harm(save):
    with tempfile.TemporaryDirectory() as folder:
        save.write(Path(folder))
        same(folder, tied=save.config["tie_word_embeddings"])


@settings(max_examples=80)
@given(layouts.faulty())
def test_faults_are_one_line_that_names_file_and_tensor(faulty):
    with tempfile.TemporaryDirectory() as folder:
        faulty.save.write(Path(folder))
        with pytest.raises(ValueError) as info:
            read(folder)
        message = str(info.value)
        assert folder in message
    assert len(message.splitlines()) == 1
    for word in faulty.names:
        assert word in message, (faulty.kind, message)


@pytest.mark.parametrize("kind", layouts.FAULTS)
def test_every_kind_of_fault_is_found(kind):
    """The generator draws among kinds; here each has its turn."""
    found = []

    @settings(max_examples=3, database=None)
    @given(layouts.faulty(kinds=(kind,)))
    def run(faulty):
        with tempfile.TemporaryDirectory() as folder:
            faulty.save.write(Path(folder))
            with pytest.raises(ValueError, match=r".+"):
                read(folder)
        found.append(faulty.kind)

    run()
    assert set(found) == {kind}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 9999],
)
def test_an_index_of_anything_is_one_line(content, tmp_path):
    layouts.plain(shards=3).write(tmp_path)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"index\.json") as info:
        read(tmp_path)
    assert len(str(info.value).splitlines()) == 1


def test_a_folder_of_adapters_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds adapters and no model"):
        pretrained.open_source(f"hf:{tmp_path}")
