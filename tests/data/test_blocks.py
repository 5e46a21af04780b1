"""Blocks of rows: the same queries, repeats and errors as row by row."""

import copy
import decimal
import json

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_jax.data import Columns, collecting, parse_source
from sgpo_jax.data.collecting import collect
from sgpo_jax.data.source import BadRow

words = st.text("aA \u00e9\ud800\t", max_size=3)
plain = st.sampled_from(["a", "A", "b ", "é", "4+3="])
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "human", "system", "tool"]), "content": words}
)
said = st.fixed_dictionaries({"role": st.just("user"), "content": plain})
prompts = st.one_of(
    plain,
    words,
    st.lists(said, min_size=1, max_size=1),
    st.lists(turns, max_size=2),
    st.sampled_from(['[{"role": "user", "content": "a"}]', "[{'role': 'user'}]"]),
)
numbers = st.one_of(
    st.integers(-2, 2), st.floats(width=16), st.booleans(), st.just(10**500)
)
answers = st.one_of(
    plain,
    words,
    numbers,
    st.none(),
    st.sampled_from([["7"], ["7", "8"], '["7"]', "[1, 2]", decimal.Decimal("1.50")]),
    st.sampled_from(["6+1\n#### 7", r"so $\boxed{7}$", {"target": 7}]),
)
cells = {
    "prompt": prompts,
    "answer": answers,
    "level": st.integers(1, 2) | st.sampled_from(["1", 2.0, "x", True, None]),
    "key": st.sampled_from(["a", "b", "c", 1, 2.0, None]),
    "data_source": st.sampled_from(["openai/gsm8k", "math_dapo", "other", None]),
    "reward_model": st.none() | st.fixed_dictionaries({"ground_truth": answers}),
    "reward_model.ground_truth": plain,
}
often = {"prompt", "answer", "reward_model"}
rows = st.one_of(
    st.fixed_dictionaries({"prompt": plain, "answer": plain}),
    st.fixed_dictionaries(
        {name: cells[name] for name in often},
        optional={name: cells[name] for name in cells.keys() - often},
    ),
    st.just(BadRow("unreadable")),
)
columns = st.fixed_dictionaries(
    {"prompt": st.just("prompt")},
    optional={
        "answer": st.sampled_from(["answer", "reward_model.ground_truth"]),
        "id": st.just("key"),
        "level": st.just("level"),
        "metadata": st.sampled_from([("level",), ("reward_model.ground_truth",)]),
        "verifier": st.just("my:score"),
        "max_chars": st.just(2),
    },
)


def _outcome(table, columns, block, strict=False):
    convert_block = columns.queries if block else None
    try:
        found = collect([("t", table)], columns.query, convert_block, strict=strict)
    except ValueError as error:
        return str(error)
    account = found.problems, dict(found.repeats), dict(found.left_out)
    return found.queries, account, dict(found.places)


@hypothesis.given(st.lists(rows, min_size=1, max_size=9), columns, st.booleans())
@hypothesis.settings(max_examples=400)
def test_a_block_is_its_rows(table, options, strict):
    chosen = Columns(**{"answer": "answer", "family": "f", **options})
    numbered = list(enumerate(table, 1))
    kept = copy.deepcopy(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "BLOCK", 3)
        by_block = _outcome(numbered, chosen, True, strict)
        assert by_block == _outcome(numbered, chosen, False, strict)
    assert [str(row) for row in kept] == [str(row) for row in table]


@pytest.mark.parametrize("answer", ["a", 3, 2.0, ["7"]])
def test_good_rows_are_made_as_blocks(answer):
    asked = [{"role": "user", "content": "?"}]
    for prompt in ("?", asked, [{"role": "system", "content": "!"}, *asked]):
        row = {"prompt": prompt, "answer": answer, "n": 1}
        chosen = Columns(level="n", metadata=("n",)).chosen(row)
        assert chosen.queries([row] * 3) == [chosen.query(row)] * 3


def test_what_was_read_before_the_damage_is_said_first():
    def damaged():
        yield 1, {"prompt": "?", "answer": None}
        raise ValueError("damaged")

    chosen = Columns(prompt="prompt", answer="answer")
    assert "t:1: 'answer' is null" in _outcome(damaged(), chosen, True, strict=True)
    assert _outcome(damaged(), chosen, True) == "damaged"


def test_questions_of_one_hash_are_two_questions(monkeypatch):
    monkeypatch.setattr(collecting, "hash", lambda spelling: 7, raising=False)
    table = list(enumerate([{"prompt": p, "answer": "7"} for p in "abAcb"], 1))
    queries, account, _ = _outcome(table, Columns(prompt="prompt", answer="answer"), 1)
    assert [query.prompt for query in queries] == ["a", "b", "c"]
    assert account[1] == {collecting.REPEAT: 1, collecting.SPELLING: 1}


nested = st.fixed_dictionaries(
    {
        "prompt": st.none() | st.lists(st.none() | said, max_size=2),
        "reward_model": st.none() | st.fixed_dictionaries({"ground_truth": plain}),
        "data_source": st.sampled_from(["openai/gsm8k", None]),
    }
)


@hypothesis.given(st.lists(nested, min_size=1, max_size=6), st.integers(1, 4))
@hypothesis.settings(max_examples=60)
def test_parquet_and_json_lines_are_read_alike(tmp_path_factory, table, group):
    folder = tmp_path_factory.mktemp("alike")
    turn = pa.struct({"role": pa.string(), "content": pa.string()})
    schema = pa.schema(
        {
            "prompt": pa.list_(turn),
            "reward_model": pa.struct({"ground_truth": pa.string()}),
            "data_source": pa.string(),
        }
    )
    # Beyond its first group, the file's dictionaries are others.
    made = pa.Table.from_pylist(table, schema=schema)
    pq.write_table(made, folder / "q.parquet", row_group_size=group)
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, table)))
    options = "prompt=prompt,answer=reward_model.ground_truth,metadata=data_source"
    found = []
    for kind in ("parquet", "jsonl"):
        try:
            loaded = parse_source(f"{folder}/q.{kind},{options}").load()
            found.append((loaded.queries, loaded.repeats, loaded.left_out))
        except ValueError as error:
            found.append(str(error).replace(f".{kind}", "").partition(":")[0])
    assert found[0] == found[1]
