"""Descriptions of adapters: read, or refused by the name of the key."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import models
from sgpo_jax.models import pretrained
from sgpo_jax.testing import TINY

LORA = models.Lora(rank=2, alpha=6.0, targets=("query", "down"))
CONFIG = dataclasses.replace(TINY, lora=LORA)
FILE = "adapter_config.json"


@pytest.fixture
def params():
    fresh = models.init(CONFIG, key=jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    drawn = jax.tree.map(
        lambda x: jax.random.normal(next(keys), x.shape), fresh["adapters"]
    )
    return {**fresh, "adapters": drawn}


@pytest.fixture
def folder(params, tmp_path):
    pretrained.save_adapters(tmp_path, params, CONFIG)
    return tmp_path


def change(folder, **changes):
    described = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**described, **changes}))


def test_out_and_in_again(folder, params):
    assert pretrained.read_lora(folder, CONFIG) == LORA
    fresh = models.init(CONFIG, key=jax.random.key(9))
    again = pretrained.load_adapters(folder, fresh, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, again["adapters"], params["adapters"])


def test_rslora_divides_by_the_square_root():
    plain = models.Lora(rank=16, alpha=8.0)
    assert plain.factor == 0.5
    assert dataclasses.replace(plain, rslora=True).factor == 2.0


def test_other_scales_go_into_b(folder, params):
    """alpha of layer 1 is three times that of the others; so is its product."""
    change(folder, alpha_pattern={r".*layers\.1\..*": 18.0})
    lora = pretrained.read_lora(folder, CONFIG)
    assert lora == LORA
    loaded = pretrained.load_adapters(folder, params, CONFIG)
    before, after = (x["adapters"]["down"] for x in (params, loaded))
    np.testing.assert_array_equal(after["a"], before["a"])
    ratio = np.ones(CONFIG.num_layers)
    ratio[1] = 3.0
    shape = (-1, *[1] * (before["b"].ndim - 1))
    np.testing.assert_allclose(
        after["b"], before["b"] * ratio.reshape(shape), rtol=1e-6
    )


def test_a_larger_rank_is_filled_up_with_zeros(folder, params):
    wide = dataclasses.replace(
        CONFIG, lora=dataclasses.replace(LORA, rank=5, alpha=15.0)
    )
    fresh = models.init(wide, key=jax.random.key(9))
    loaded = pretrained.load_adapters(folder, fresh, wide)["adapters"]
    for name, parts in loaded.items():
        given = params["adapters"][name]
        np.testing.assert_array_equal(parts["a"][..., :2], given["a"])
        np.testing.assert_array_equal(parts["b"][:, :2], given["b"])
        assert not jnp.any(parts["a"][..., 2:]) and not jnp.any(parts["b"][:, 2:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"peft_type": "IA3"}, "peft_type='IA3' is not supported"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"target_modules": ["q_proj", "lm_head"]}, "'lm_head' has no adapters"),
        ({"target_modules": ["q_proj"]}, "down_proj.lora_A.weight' .*not described"),
        ({"target_modules": ["q_proj", "down_proj", "up_proj"]}, "no adapters of up"),
        (
            {"r": 3},
            r"has shape \[2, \d+\], the configuration has \[3, \d+\]|of rank 3",
        ),
        ({"rank_pattern": {"q_proj": 1}}, "the configuration has"),
        ({"layers_to_transform": [0]}, "layers.1.*is not described"),
    ],
    ids=str,
)
def test_what_is_not_understood_is_refused_by_name(changes, message, folder, params):
    change(folder, **changes)
    with pytest.raises(ValueError, match=message) as info:
        pretrained.load_adapters(folder, params, CONFIG)
    assert len(str(info.value).splitlines()) == 1


ABSURD = st.sampled_from(
    [
        *(float("nan"), float("inf"), -1, 0, 0.5, True, "8", "(", "", None),
        *([], {}, [1], ["q_proj", 3], {"q_proj": -1}, {"(": 3}, {"q_proj": "x"}),
    ]
)


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "r",
                "lora_alpha",
                "use_rslora",
                "rank_pattern",
                "alpha_pattern",
                "target_modules",
                "layers_to_transform",
                "peft_type",
                "bias",
                "use_dora",
            ]
        ),
        ABSURD,
        min_size=1,
        max_size=3,
    )
)
def test_an_absurd_description_is_one_line(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("adapters")
    good = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 6.0,
        "target_modules": ["q_proj"],
    }
    (folder / FILE).write_text(json.dumps({**good, **changes}))
    try:
        lora = pretrained.read_lora(folder, CONFIG)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        assert FILE in str(error)
        return
    assert 0 < lora.factor < float("inf")


@pytest.mark.parametrize("content", ["", "[", "[]", "3", "{}"])
def test_a_description_of_anything_is_one_line(content, folder):
    (folder / FILE).write_text(content)
    with pytest.raises(ValueError, match=FILE) as info:
        pretrained.read_lora(folder, CONFIG)
    assert len(str(info.value).splitlines()) == 1


def test_a_pickle_is_not_read(folder, params):
    path = folder / "adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"there is no .*a \.bin is a pickle"):
        pretrained.load_adapters(folder, params, CONFIG)


def test_a_policy_is_loaded_with_its_adapters(tmp_path):
    policy = models.load("tiny:layers=1,width=32", lora_rank=2, rslora=True)
    base = tmp_path / "base"
    models.save(policy, base)
    b = policy.params["adapters"]["query"]["b"]
    trained = {**policy.params["adapters"]}
    trained["query"] = {**trained["query"], "b": jnp.ones_like(b)}
    moved = policy.with_params({**policy.params, "adapters": trained}, identity="moved")
    models.save(moved, tmp_path / "apart", merged=False)
    models.save(moved, tmp_path / "merged")
    again = models.load(str(base), adapters=tmp_path / "apart")
    assert again.config.lora == moved.config.lora
    jax.tree.map(np.testing.assert_array_equal, again.params, moved.params)
    assert again.identity != models.load(str(base)).identity
    merged = models.merge(again.params, again.config.lora)
    wanted = models.load(str(tmp_path / "merged")).params
    jax.tree.map(np.testing.assert_array_equal, merged, wanted)
    with pytest.raises(ValueError, match="adapters bring their own rank"):
        models.load(str(base), adapters=tmp_path / "apart", lora_rank=2)
    with pytest.raises(ValueError, match="lora_alpha and rslora need a lora_rank"):
        models.load(str(base), rslora=True)
    with pytest.raises(ValueError, match="holds adapters and no model"):
        models.load(str(tmp_path / "apart"))
