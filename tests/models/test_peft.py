"""Adapters as PEFT reads and writes them, on models as transformers reads them."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import models
from sgpo_jax.models import pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors")
from . import published  # noqa: E402 after the skips

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = np.random.default_rng(0).integers(0, published.SIZES["vocab_size"], (2, 12))


def our_logits(params, config):
    positions = jnp.broadcast_to(jnp.arange(IDS.shape[1]), IDS.shape)
    tokens = jnp.asarray(IDS, jnp.int32)
    hidden, _ = models.apply(params, config, tokens, positions, models.causal)
    return np.asarray(models.logits(params, config, hidden), np.float32)


def their_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS), use_cache=False).logits.float().numpy()


def opened(folder, lora=None):
    found = pretrained.open_source(f"hf:{folder}")
    config = dataclasses.replace(found.config, lora=lora)
    key = jax.random.key(0)
    return config, pretrained.load_params(found.tensors, config, lora_key=key)


def close(ours, theirs):
    # float32 sums in another order, relative to the largest logit.
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


STABLE = models.Lora(rank=4, alpha=3.0, rslora=True)
SOME = models.Lora(rank=3, alpha=5.0, targets=("query", "value", "output", "down"))


@pytest.mark.parametrize("lora", [STABLE, SOME])
@pytest.mark.parametrize("name", ["smollm2", "qwen3", "gemma-3"])
def test_peft_computes_the_same_with_our_adapters(name, lora, tmp_path):
    base = published.make(name, tmp_path / "model")
    config, params = opened(tmp_path / "model", lora)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    params["adapters"] = jax.tree.map(
        lambda x: 0.3 * jax.random.normal(next(keys), x.shape), params["adapters"]
    )
    pretrained.save_adapters(tmp_path / "adapters", params, config)
    ours = our_logits(params, config)
    assert np.abs(ours - their_logits(base)).max() > 0.1
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapters")
    close(ours, their_logits(adapted))
    # What vLLM's loader asks of names and of the description.
    described = json.loads((tmp_path / "adapters/adapter_config.json").read_text())
    assert {"r", "lora_alpha", "target_modules", "bias"} <= described.keys()
    file = tmp_path / "adapters" / "adapter_model.safetensors"
    with safetensors.safe_open(file, "np") as content:
        for tensor in list(content.keys()):
            found = re.fullmatch(
                r"base_model\.model\.model\.layers\.\d+\.\w+\.(\w+)\.lora_[AB]\.weight",
                tensor,
            )
            assert found and found[1] in described["target_modules"]


def test_we_compute_the_same_with_adapters_of_peft(tmp_path):
    base = published.make("qwen2", tmp_path / "model")
    described = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    adapted = peft.get_peft_model(base, described).eval()
    adapted.save_pretrained(tmp_path / "adapters")
    config, params = opened(tmp_path / "model", SOME)
    params = pretrained.load_adapters(tmp_path / "adapters", params, config)
    close(our_logits(params, config), their_logits(adapted))
    merged = models.merge(params, SOME)
    plain = dataclasses.replace(config, lora=None)
    pretrained.save(tmp_path / "merged", merged, plain, dtype="float32")
    close(their_logits(published.load(tmp_path / "merged")), their_logits(adapted))


def test_a_file_in_bfloat16_holds_what_rounding_gives(tmp_path):
    """Half the bytes; transformers computes what we compute of rounded parameters."""
    published.make("gemma-2", tmp_path / "model")
    config, params = opened(tmp_path / "model")
    for dtype in ("float32", "bfloat16"):
        pretrained.save(tmp_path / dtype, params, config, dtype=dtype)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "bfloat16", attn_implementation="eager"
    )
    assert theirs.dtype == torch.bfloat16
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    close(our_logits(rounded, config), their_logits(theirs.float()))
    config_16, again = opened(tmp_path / "bfloat16")
    jax.tree.map(np.testing.assert_array_equal, again, rounded)
    assert config_16 == config
    sizes = [
        (tmp_path / dtype / "model.safetensors").stat().st_size
        for dtype in ("float32", "bfloat16")
    ]
    assert 1.5 < sizes[0] / sizes[1] < 2.0


DESCRIPTIONS = {
    "rslora": {"use_rslora": True},
    "alpha": {"lora_alpha": 17},
    "patterns": {
        "rank_pattern": {"q_proj": 5, r"layers\.1\.mlp\.up_proj": 1},
        "alpha_pattern": {r".*\.1\..*": 9, "o_proj": 2},
    },
    "patterns, rslora": {
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"self_attn.v_proj": 3},
        "use_rslora": True,
    },
    "some layers": {"layers_to_transform": [0, 2]},
    "one layer": {"layers_to_transform": 1},
    "expression": {"target_modules": r".*\.[02]\.(self_attn|mlp)\.(v|up)_proj"},
    "all linear": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions_of_peft_are_read(name, tmp_path):
    base = published.make("qwen3", tmp_path / "model")
    usual = {
        "r": 3,
        "lora_alpha": 5,
        "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj"],
        "task_type": "CAUSAL_LM",
        "init_lora_weights": False,
    }
    described = peft.LoraConfig(**{**usual, **DESCRIPTIONS[name]})
    adapted = peft.get_peft_model(base, described).eval()
    adapted.save_pretrained(tmp_path / "adapters")
    config, _ = opened(tmp_path / "model")
    lora = pretrained.read_lora(tmp_path / "adapters", config)
    config, params = opened(tmp_path / "model", lora)
    params = pretrained.load_adapters(tmp_path / "adapters", params, config)
    theirs = their_logits(adapted)
    close(our_logits(params, config), theirs)
    with adapted.disable_adapter():
        assert np.abs(their_logits(adapted) - theirs).max() > 0.1
    # And out again: padded and rescaled, but the same function.
    pretrained.save_adapters(tmp_path / "again", params, config)
    model = published.load(tmp_path / "model")
    again = peft.PeftModel.from_pretrained(model, tmp_path / "again")
    close(their_logits(again), theirs)
