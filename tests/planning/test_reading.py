"""plan.json is edited by people: every mistake is one line that names the entry."""

import copy
import json

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from sgpo_jax import planning

GOOD = {
    "phases": [
        {"ids": ["a", "b"], "sizes": [2, 4], "dead": 0.5},
        {"ids": ["c"], "sizes": [8], "dead": 0.25},
    ],
    "profile": "x",
    "rules": {"filter": "f"},
    "trivial": 1,
    "unsolved": 0,
    "prediction": None,
}


def load(tmp_path, content, ids=("a", "b", "c")):
    path = tmp_path / "plan.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return planning.Plan.load(path, ids=ids)


def test_a_good_plan_loads(tmp_path):
    plan = load(tmp_path, GOOD)
    assert plan.phases[0].sizes == (2, 4)
    without = {k: v for k, v in GOOD.items() if k != "prediction"}
    assert load(tmp_path, without) == plan
    assert load(tmp_path, "\ufeff" + json.dumps(GOOD)) == plan


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("phases", 0, "sizes", 1), 0, r"phases\[0\].sizes\[1\] is 0;"),
        (("phases", 0, "sizes", 1), 10**9, r"phases\[0\].sizes\[1\] is 1000000000"),
        (("phases", 0, "sizes", 1), 1e9, r"sizes\[1\] is 1000000000.0"),
        (("phases", 1, "sizes", 0), "four", r"phases\[1\].sizes\[0\] is 'four'"),
        (("phases", 1, "sizes", 0), True, r"sizes\[0\] is True"),
        (("phases", 0, "sizes"), [2], "2 ids and 1 sizes"),
        (("phases", 0, "ids", 1), "z", r"phases\[0\].ids\[1\] is 'z', which no query"),
        (("phases", 0, "ids", 1), "a", r"ids\[1\] is 'a', as is ids\[0\]"),
        (("phases", 0, "ids", 1), 3, r"ids\[1\] is 3, not text"),
        (("phases", 0, "dead"), 1.5, r"phases\[0\].dead is 1.5"),
        (("phases", 0, "dead"), float("nan"), r"phases\[0\].dead is nan"),
        (("phases", 0, "size"), [2], "has 'size', which no plan has"),
        (("phases",), [], "phases is empty"),
        (("phases",), 3, "phases is 3"),
        (("trivial",), -1, "trivial is -1"),
        (("rules", "filter"), 1, r"rules\['filter'\] is 1"),
    ],
)
def test_mistakes_are_named(tmp_path, keys, value, message):
    content = copy.deepcopy(GOOD)
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, content)
    assert "\n" not in str(error.value)
    assert "plan.json is not a plan" in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(data=st.data(), value=JSON)
@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_edit_loads_as_it_is_or_is_one_line(tmp_path, data, value):
    """A random entry is replaced, removed or doubled."""
    content = copy.deepcopy(GOOD)
    place, key = content, None
    while isinstance(place, dict | list) and len(place):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            break
        place = place[key]
    how = data.draw(st.sampled_from(["replace", "remove", "double"]))
    if how == "replace" or (isinstance(place, dict) and how == "double"):
        place[key] = value
    elif how == "remove":
        del place[key]
    elif isinstance(key, int):
        place.append(place[key])
    try:
        plan = load(tmp_path, content)
    except ValueError as error:
        assert str(error).count("\n") == 0
        assert "is not a plan" in str(error)
    else:
        assert [list(p.ids) for p in plan.phases] == [
            p["ids"] for p in content["phases"]
        ]
        assert [list(p.sizes) for p in plan.phases] == [
            p["sizes"] for p in content["phases"]
        ]
        str(plan)


@given(place=st.integers(0, 400), byte=st.integers(0, 255))
@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_changed_byte_is_no_traceback(tmp_path, place, byte):
    content = bytearray(json.dumps(GOOD, indent=1).encode())
    content[place % len(content)] = byte
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    try:
        planning.Plan.load(path)
    except ValueError as error:
        assert "is not a plan" in str(error)
