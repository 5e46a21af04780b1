"""Layouts that people bring, and answers by rule."""

import decimal
import gzip
import importlib.util
import json
import os
import pathlib
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_jax.data import describe, files, load, parse_source
from sgpo_jax.data.source import BadRow
from sgpo_jax.data.values import conversation, scalar
from sgpo_jax.rewards import Worker

CASES = pathlib.Path(__file__).parent / "cases"


def _loaded(text):
    return parse_source(f"{CASES}/{text}").load()


@pytest.mark.parametrize("name", ["verl.parquet", "verl.jsonl"])
def test_verl_layout(name):
    loaded = _loaded(name)
    first = loaded.queries[0]
    assert len(loaded.queries) == 24 and not loaded.left_out
    assert first.prompt.startswith("Ann has 1 pens") and first.messages == ()
    assert (first.reference, first.verifier) == ("4", "gsm8k")
    own = _loaded(f"{name},verifier=my.rewards:score").queries[0]
    assert own.metadata == {
        "data_source": "openai/gsm8k",
        "extra_info": {"split": "train", "index": 1},
    }
    dotted = _loaded(
        f"{name},id=extra_info.index,level=extra_info.index,verifier=exact"
    )
    assert [query.id for query in dotted.queries] == [str(n) for n in range(1, 25)]
    assert dotted.queries[3].level == 4 and dotted.queries[3].verifier == "exact"


@pytest.mark.parametrize(
    ("source", "verifier"),
    [
        ("openai/gsm8k", "gsm8k"),
        ("math_dapo", "math"),
        ("lighteval/MATH", "math"),
        ("aime2024", "math"),
        ("countdown", "exact"),
    ],
)
def test_the_verifier_of_a_data_source(tmp_path, source, verifier):
    row = {"data_source": source, "prompt": "?", "reward_model": {"ground_truth": "7"}}
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row))
    loaded = parse_source(str(path)).load()
    assert loaded.queries[0].verifier == verifier
    said = describe(loaded)[0]
    assert ("'countdown' says none (give verifier=NAME)" in said) == (
        verifier == "exact"
    )


def test_a_struct_as_ground_truth_is_for_a_reward_of_ones_own(tmp_path):
    """As TinyZero's countdown has it."""
    truth = {"target": 7, "numbers": [3, 4]}
    row = {"prompt": "?", "reward_model": {"ground_truth": truth}, "extra_info": {}}
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"extra_info": {"index": 3}}]), path)
    (query,) = parse_source(f"{path},verifier=my_reward.py:score").load().queries
    assert query.metadata == {"extra_info": {"index": 3}, "ground_truth": truth}
    assert json.loads(query.reference) == truth
    with pytest.raises(ValueError, match="fields target, numbers: name one"):
        parse_source(str(path)).load()


@pytest.mark.parametrize(
    ("answer", "verifier"),
    [
        ("6+1 = <<6+1=7>>7\n#### 7", "gsm8k"),
        (r"So it is $\boxed{7}$.", "math"),
        ("7", "exact"),
        ("# 7", "exact"),
    ],
)
def test_the_verifier_of_a_worked_solution(answer, verifier):
    rows = [{"question": "6+1?", "answer": answer}]
    (query,) = load(rows, held_out=0, verbose=False)[0]
    assert (query.reference, query.verifier) == (answer, verifier)
    (own,) = load(rows, held_out=0, verifier="exact", verbose=False)[0]
    assert own.verifier == "exact"
    if verifier != "math" or importlib.util.find_spec("math_verify"):
        with Worker(workers=1) as worker:
            worker.check([query])
            paid = worker.score([answer, "so it is 8"], [query] * 2)
        assert paid.tolist() == [1, 0]


def test_messages_written_as_text_are_messages(tmp_path):
    turns = [("system", "Be brief."), ("user", "6+1?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"prompt": json.dumps(messages), "answer": 7}))
    assert parse_source(str(path)).load().queries[0].messages == tuple(turns)
    path.write_text(json.dumps({"prompt": str(messages), "answer": 7}))
    with pytest.raises(ValueError, match=r"messages written as text.*json\.dumps"):
        parse_source(str(path)).load()


def test_an_empty_system_turn_takes_the_place_of_the_templates_own():
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "6+1?"}]
    assert conversation(turns, "prompt") == (("system", ""), ("user", "6+1?"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{folder}/q.csv", "to_json"),
        ("{folder}/a,b.jsonl", "has a comma in its path"),
        ("openai/gsm8k", "hf download --repo-type dataset openai/gsm8k"),
        ("hf:openai/gsm8k", "hf download --repo-type dataset openai/gsm8k"),
    ],
)
def test_what_is_no_source_says_what_to_do(tmp_path, text, words):
    for name in ("q.csv", "a,b.jsonl"):
        (tmp_path / name).write_text("prompt,answer\n")
    with pytest.raises(ValueError, match=words) as error:
        parse_source(text.format(folder=tmp_path))
    assert "\n" not in str(error.value)


def test_levels_as_math_has_them():
    rows = [{"problem": "?", "answer": "7", "level": "Level 5"}]
    (query,) = load(rows, held_out=0, level="level", verbose=False)[0]
    assert query.level == 5


def test_conversation_with_a_system_turn():
    first = _loaded("trl_conv.parquet,answer=solution").queries[0]
    assert first.messages == (
        ("system", "Think, then answer."),
        ("user", "Compute 1+1."),
    )
    assert first.turns == first.messages
    assert (first.prompt, first.reference) == ("Compute 1+1.", "$2$")
    with pytest.raises(ValueError, match=r"no column 'answer'; .*'solution'"):
        _loaded("trl_conv.parquet")


@pytest.mark.parametrize("name", ["dapo_dup.parquet", "dup_flat.parquet"])
def test_repeats_are_kept_once_and_said_once(name):
    loaded = _loaded(name)
    assert len(loaded.queries) == 17
    assert loaded.repeats == {"same question and answer": 1683}
    assert not loaded.problems and not loaded.left_out
    assert "1,683" in describe(loaded)[0]


def test_conflicts_are_no_repeats():
    loaded = _loaded("conflict.jsonl")
    assert [query.reference for query in loaded.queries] == [
        *"4128", "23", *"ab",
    ]  # fmt: skip
    assert not loaded.repeats
    assert loaded.left_out == {"same question, another answer": 1}
    (problem,) = loaded.problems
    assert "conflict.jsonl:2: " in problem and "conflict.jsonl:1 with" in problem
    with pytest.raises(ValueError, match=r"conflict\.jsonl:2: .*another answer"):
        _loaded("conflict.jsonl,strict=true")


def test_layout_of_the_hub():
    loaded = parse_source(f"gsm8k:{CASES}/gsm8k_hf").load()
    assert (len(loaded.queries), len(loaded.held_out)) == (24, 6)
    assert loaded.queries[0].reference == "1001"
    as_rows = _loaded("gsm8k_hf")
    assert (len(as_rows.queries), len(as_rows.held_out)) == (24, 6)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("shards", 20), ("shards/*.parquet", 20), ("flat.jsonl.gz", 20),
        ("array.json", 5), ("array.jsonl", 5), ("sum24.jsonl", 24),
    ],
)  # fmt: skip
def test_files_that_load_whole(text, count):
    loaded = _loaded(text)
    assert len(loaded.queries) == count and not loaded.problems
    assert loaded.queries[0].reference == "1"


def test_line_ends_and_order_marks(tmp_path):
    rows = [{"prompt": f"{n}+0?\u2028kurz é", "answer": str(n)} for n in range(6)]
    rows.append({"prompt": "long " + "x" * 2_000_000, "answer": "6"})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    loaded = parse_source(str(path)).load()
    assert [query.prompt for query in loaded.queries] == [row["prompt"] for row in rows]


@pytest.mark.parametrize(
    ("name", "answers", "left_out"),
    [
        ("float_answer.jsonl", [str(2 * n) for n in range(8)], {}),
        ("float_answer.parquet", [str(2 * n) for n in range(8)], {}),
        ("decimal.parquet", ["1.5"] * 3, {}),
        ("list_answer.jsonl", ["0", "1", "4", "9"], {}),
        ("json_answer.jsonl", ["0", "1", "4", "9"], {}),
        (
            "sci.jsonl",
            ["10000000000000000", "0.00001", "123456789012345678", "0"],
            {"'answer' is missing": 1, "'answer' is bool": 1},
        ),
    ],
)
def test_answers_by_rule(name, answers, left_out):
    loaded = _loaded(name)
    assert [query.reference for query in loaded.queries] == answers
    assert loaded.left_out == left_out


@hypothesis.given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_written_numbers_keep_their_value(number):
    text = scalar(number, "answer")
    assert decimal.Decimal(text) == number
    assert "e" not in text.lower() and not text.endswith((".", ".0"))


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_from_their_text(number):
    assert float(scalar(number, "answer")) == number


@pytest.mark.parametrize("number", ["9007199254740993.0", "0.12345678901234567891"])
def test_json_numbers_keep_the_digits_they_are_written_with(tmp_path, number):
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"prompt": "?", "answer": {number}}}')
    (query,) = parse_source(str(path)).load().queries
    assert query.reference == number.removesuffix(".0")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is null, a missing value"),
        (float("nan"), "is nan, a missing value"),
        (float("-inf"), "is -inf, a missing value"),
        ([], "is null, a missing value"),
        (["a", "b"], "a list of 2 values"),
        ('["a", "b"]', "a list of 2 values"),
        ({"value": 3}, "with fields value: name one, as in answer.value"),
        (True, "is bool"),
        (b"\xff", "is not UTF-8"),
        (decimal.Decimal("1e9999"), "more than 400 digits"),
        (10**400, "more than 400 digits"),
    ],
)
def test_what_is_no_answer_is_refused_by_name(value, reason):
    with pytest.raises(BadRow, match=reason):
        scalar(value, "answer")


@pytest.mark.parametrize("value", ["[1, 2]", "[0, 1)", "[x]", '["a"', "{1}"])
def test_mathematics_in_brackets_stays(value):
    assert scalar(value, "answer") == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "an empty list"),
        (3, "is int"),
        (["hi"], "message 1 is str, not an object"),
        ([{"role": "user"}], 'message 1: content" is null'),
        ([{"role": "tool", "content": "x"}], "has the role 'tool'"),
        ([{"role": "assistant", "content": "x"}], "ends with a turn of the assistant"),
        (
            [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}] * 2,
            "ends with a turn of the system",
        ),
        ([{"role": "user", "content": [{"type": "image"}]}], "part of type 'image'"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(value, reason):
    with pytest.raises(BadRow, match=reason):
        conversation(value, "prompt")


def test_conversations_in_other_spellings():
    parts = [{"type": "text", "text": "4+"}, {"type": "text", "text": "3="}]
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Yes?"},
        {"role": "user", "content": parts},
    ]
    assert conversation(turns, "prompt") == (
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "4+3="),
    )


def test_outlier_is_said_and_can_be_left_out():
    line = describe(_loaded("outlier.jsonl"))[1]
    assert "median 5 " in line and "longest 6,009" in line and "1 beyond" in line
    loaded = _loaded("outlier.jsonl,max_chars=1000")
    assert len(loaded.queries) == 40
    assert "6,009" not in describe(loaded)[1]
    assert "1 row: 1 'prompt' longer than 1000" in describe(loaded)[2]


def test_held_out_file_of_ones_own():
    train, test = load(
        CASES / "sum24.jsonl", held_out=f"{CASES}/flat.jsonl.gz", verbose=False
    )
    assert (len(train), len(test)) == (4, 20)


def test_columns_that_are_not_used_are_not_decoded(tmp_path):
    path = tmp_path / "q.parquet"
    good, junk = [f"{n}+1=" for n in range(99)], ["junk-in-the-way"] * 99
    table = pa.table({"prompt": good, "answer": good, "junk": junk})
    pq.write_table(table, path, use_dictionary=False, compression="none")
    data = path.read_bytes()
    assert data.count(b"junk-in-the-way") >= 99
    # Lengths of strings that do not fit: decoding them would fail.
    path.write_bytes(data.replace(b"\x0f\0\0\0junk", b"\xff\xff\xff\x7fjunk"))
    assert len(parse_source(str(path)).load().queries) == 99
    with pytest.raises(ValueError, match="not readable as Parquet"):
        parse_source(f"{path},metadata=junk").load()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((CASES / "utf16.jsonl").read_bytes(), "in UTF-16: convert it"),
        ("{}".encode("utf-32"), "in UTF-32"),
        ("{}".encode("utf-16-le"), "in UTF-16"),
        (b"PAR1", "a Parquet file: name it .parquet"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04", "a ZIP archive"),
        (gzip.compress(b'{"prompt": "?"}' * 99, mtime=0)[:-9], "damaged gzip"),
        (gzip.compress(b" " * (65 << 20), mtime=0), "expands to more than 500 times"),
    ],
)
def test_other_files_are_named(tmp_path, data, reason):
    path = tmp_path / "q.jsonl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason) as error:
        parse_source(str(path)).load()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "arrow"])
def test_pipes_and_devices_are_refused_without_waiting(tmp_path, suffix):
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    device = tmp_path / f"device.{suffix}"
    device.symlink_to("/dev/zero")
    for path, kind in ((pipe, "a pipe"), (device, "a device")):
        with pytest.raises(ValueError, match=f"is {kind}: write the rows to a file"):
            parse_source(str(path)).load()


def test_parquet_that_claims_more_than_it_holds(tmp_path, monkeypatch):
    path = tmp_path / "q.parquet"
    count = 200_000
    table = pa.table({"prompt": ["x"] * count, "answer": ["y"] * count})
    pq.write_table(table, path)
    monkeypatch.setattr("sgpo_jax.data.columnar._MANY", 1000)
    with pytest.raises(ValueError, match="claims 200000 values"):
        parse_source(str(path)).load()


def test_repeated_long_text_is_not_multiplied_in_memory(tmp_path):
    path, rows, size = tmp_path / "q.parquet", 400, 1 << 20
    one = pa.array(["x" * size])
    prompts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), one)
    pq.write_table(pa.table({"prompt": prompts, "answer": ["1"] * rows}), path)
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    tracemalloc.start()
    try:
        (query,) = parse_source(str(path)).load().queries
        strings = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(query.prompt) == size
    # 400 MiB, if every row had its own.
    assert strings + pool.max_memory() - before < rows * size / 4


def test_folders(tmp_path):
    def write(name, *numbers):
        lines = [json.dumps({"prompt": f"{n}?", "answer": n}) for n in numbers]
        (tmp_path / name).write_text("\n".join(lines))

    write("train-b.jsonl", 2)
    write("train-a.jsonl", 1)
    write("validation.jsonl", 3)
    write("test.jsonl", 4)
    loaded = parse_source(str(tmp_path)).load()
    assert [query.reference for query in loaded.queries] == ["1", "2"]
    assert [query.reference for query in loaded.held_out] == ["4"]
    assert "not read: validation.jsonl" in loaded.reading
    (tmp_path / "more.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ending in \.jsonl and \.parquet: choose"):
        files.find(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no file matches"):
        files.find(str(tmp_path / "*.json"))


PARTS = {
    "train": [{"question": f"{n}+1=", "answer": n + 1, "junk": "x"} for n in range(8)],
    "test": [{"question": f"{n}+2=", "answer": n + 2, "junk": "x"} for n in range(3)],
}


@pytest.mark.parametrize("form", ["object", "folder"])
def test_what_the_package_datasets_holds_or_saved(form, tmp_path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows) for name, rows in PARTS.items()}
    )
    given = {"whole": whole, "train": whole["train"]}
    if form == "folder":
        for name, saved in tuple(given.items()):
            saved.save_to_disk(tmp_path / name)
            given[name] = str(tmp_path / name)
    train, test = load(given["whole"], prompt="question", verbose=False)
    assert [(q.prompt, q.reference) for q in train] == [
        (row["question"], str(row["answer"])) for row in PARTS["train"]
    ]
    assert [q.reference for q in test] == ["2", "3", "4"]
    one, held_out = load(given["train"], prompt="question", held_out=2, verbose=False)
    assert {q.prompt for q in (*one, *held_out)} == {q.prompt for q in train}
    assert len(held_out) == 2
    with pytest.raises(ValueError, match=r"no column 'ask'.*'question'"):
        load(given["train"], prompt="ask", verbose=False)


def test_a_stream_of_the_package_datasets_says_what_to_do():
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_list(PARTS["train"]).to_iterable_dataset()
    with pytest.raises(ValueError, match=r"list\(dataset\.take\(1000\)\)"):
        load(stream, prompt="question", verbose=False)
