"""A policy of 8 billion parameters is never whole on one device, by memory analysis."""

import collections
import dataclasses
import itertools
import json
import math
import struct

import jax
import pytest

from sgpo_jax import chips, methods, models, sharding, streams, training
from sgpo_jax.ahead_of_time import public, topology
from sgpo_jax.ahead_of_time.programs import device_bytes
from sgpo_jax.models import pretrained
from sgpo_jax.models.policy import initializer
from sgpo_jax.models.pretrained import load
from tests.claims import takes_minutes
from tests.training.test_step import make_batches, make_groups

CONFIG = dataclasses.replace(public.find("qwen3-8b"), param_dtype="float32")
LORA = dataclasses.replace(CONFIG, lora=models.Lora(rank=16))
DEVICES = 8
MESHES = [sharding.MeshShape(fsdp=8), sharding.MeshShape(fsdp=4, tensor=2)]


def sizes(tree) -> list[int]:
    return [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)]


SHAPES = models.shapes(CONFIG)
TOTAL, LARGEST = sum(sizes(SHAPES)), max(sizes(SHAPES))
# Scales of norms are kept whole on every device.
NORMS = sum(size for size in sizes(SHAPES) if size < 2**20)


@pytest.fixture(params=MESHES, ids=["parts", "parts and heads"])
def mesh(request):
    return sharding.make_mesh(request.param, jax.devices()[:DEVICES])


def test_eight_billion():
    assert TOTAL / 4 > 8e9
    assert NORMS < TOTAL / 10_000


def drawn(mesh, config=CONFIG):
    program = initializer(config, mesh).lower(streams.parameters(0))
    return program.compile().memory_analysis()


def test_drawing_one(mesh):
    """A device holds its parts, and the noise of one parameter's part at a time."""
    memory = drawn(mesh)
    assert memory.output_size_in_bytes < TOTAL / DEVICES + 2 * NORMS
    # Bits, halves of them and floats: eight numbers for one, unfused.
    assert memory.temp_size_in_bytes < 8 * LARGEST / DEVICES
    assert 8 * LARGEST < 2 * TOTAL


@takes_minutes
def test_drawing_one_on_tpus():
    """Fused: nothing beside the parts. Narrower: the compiler takes long over width."""
    pytest.importorskip("libtpu")
    narrow = dataclasses.replace(CONFIG, vocab_size=4096, embed_dim=512, mlp_dim=1024)
    found = topology.devices(chips.parse_slice("v5e-8"))
    memory = drawn(topology.mesh(MESHES[1], found), narrow)
    parts = sizes(models.shapes(narrow))
    norms = sum(size for size in parts if size < 2**20)
    assert memory.output_size_in_bytes < sum(parts) / DEVICES + 2 * norms
    assert memory.temp_size_in_bytes < max(parts) / DEVICES


def test_drawing_adapters_draws_nothing_else(mesh):
    program = load.adapters_initializer(LORA, models.shardings(LORA, mesh))
    memory = program.lower(streams.parameters(0)).compile().memory_analysis()
    matrices = sum(sizes(models.shapes(LORA)["adapters"]))
    assert memory.output_size_in_bytes <= matrices
    assert memory.temp_size_in_bytes < 8 * matrices
    assert 8 * matrices < TOTAL / DEVICES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published folder of this shape, whose numbers are a hole in a file."""
    folder = tmp_path_factory.mktemp("published")
    models.save(models.load("tiny"), folder)  # for its tokenizer
    config = pretrained.write_config(CONFIG)
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for place in itertools.chain(*load.places(CONFIG).values()):
        start, end = end, end + 2 * math.prod(place.published)
        header[place.name] = {
            "dtype": "BF16",
            "shape": place.published,
            "data_offsets": [start, end],
        }
    content = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + end)
    return folder


def test_reading_one(mesh, folder, monkeypatch):
    """Every array is made of its devices' own parts, each read by itself."""
    held = collections.Counter()

    def made(shape, to, part):
        for device, index in to.devices_indices_map(shape).items():
            edges = [i.indices(n) for i, n in zip(index, shape, strict=True)]
            held[device] += 4 * math.prod(stop - start for start, stop, _ in edges)
        return jax.numpy.zeros(())

    policy = models.load(f"hf:{folder}", mesh=mesh)
    monkeypatch.setattr(jax, "make_array_from_callback", made)
    assert policy.params
    assert len(held) == DEVICES
    assert sum(held.values()) >= TOTAL
    assert max(held.values()) < TOTAL / DEVICES + 2 * NORMS


def test_starting_to_train(mesh):
    """Parameters, both moments of Adam and gradients: four times the parts."""
    programs = training.TrainPrograms(
        config=CONFIG,
        loss=methods.TokenLoss(),
        optimizer=methods.AdamW().make(),
        mesh=mesh,
    )
    state, total, _ = programs.abstract(make_batches(make_groups(1, 1))[0])
    assert device_bytes((state, total)) < 4 * (TOTAL / DEVICES + 2 * NORMS)
    memory = programs.zeros.lower(state.params).compile().memory_analysis()
    assert memory.output_size_in_bytes < TOTAL / DEVICES + 2 * NORMS
    assert memory.temp_size_in_bytes < NORMS
