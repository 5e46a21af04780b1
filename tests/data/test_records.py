"""JSONL and Parquet: a bad row is reported with its place and costs itself only."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_jax import data
from sgpo_jax.data import Records, collecting, jsonl


def _write(path, *lines):
    lines_ = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
    path.write_bytes(b"\n".join(lines_))
    return str(path)


GOOD = {"prompt": "4+3=", "answer": "7", "key": "a"}


def test_columns_become_a_query(tmp_path):
    row = {"question": "4+3=", "solution": 7, "key": 12, "hard": 2, "unit": ["kg"]}
    path = _write(tmp_path / "sums.jsonl", row)
    source = Records(
        path=path, prompt="question", answer="solution", id="key", level="hard",
        metadata=("unit",), verifier="integer",
    )  # fmt: skip
    (query,) = source.load().queries
    assert (query.id, query.prompt, query.reference) == ("12", "4+3=", "7")
    assert (query.family, query.level, query.verifier) == ("sums", 2, "integer")
    assert query.metadata == {"unit": ["kg"]}


def test_what_was_left_out_is_compared_with_no_later_question(tmp_path):
    """A repeat in another spelling, and a question whose id was taken, come again."""
    rows = [("4 + 3 =", "7"), ("4 +  3 =", "7"), ("1+1=", "2"), ("4 +  3 =", "7")]
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in rows]
    path = _write(tmp_path / "q.jsonl", *rows)
    loaded = Records(path=path).load()
    assert [q.prompt for q in loaded.queries] == ["4 + 3 =", "1+1="]
    assert loaded.repeats == {collecting.SPELLING: 2} and not loaded.problems
    rows = [("a", "7"), ("a", "9"), ("b", "2"), ("b", "9")]
    rows = [{"prompt": f"{i}!", "answer": x, "id": k} for i, (k, x) in enumerate(rows)]
    rows += [{"prompt": "1!", "answer": "9", "id": "c"}]  # its first id was taken
    path = _write(tmp_path / "ids.jsonl", *rows)
    loaded = Records(path=path, id="id").load()
    assert [q.id for q in loaded.queries] == ["a", "b", "c"]
    assert len(loaded.problems) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("options", [{"verifier": "my.py:score"}, {"answer": ""}])
def test_rewards_of_ones_own_need_no_answer(tmp_path, suffix, options):
    rows = [{"prompt": f"{n}!", "hard": n} for n in range(3)]
    path = tmp_path / f"q{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        _write(path, *rows)
    loaded = Records(path=str(path), level="hard", **options).load()
    assert [(q.prompt, q.reference) for q in loaded.queries] == [
        (f"{n}!", "") for n in range(3)
    ]
    assert loaded.reading == "prompt from 'prompt', no answers"
    with pytest.raises(ValueError, match=r"no column 'answer'; .*answer=\)"):
        Records(path=str(path)).load()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": "x", "answer": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b"null", "a JSON NoneType, not an object"),
        ({"answer": "7", "key": "b"}, "no column 'prompt'; there are 'answer', 'key'"),
        ({"prompt": "2+2=", "key": "b"}, "no column 'answer'"),
        ({"prompt": "2+2=", "answer": "4"}, "no column 'key'"),
        ({**GOOD, "prompt": None}, "'prompt' is null, neither text"),
        ({**GOOD, "answer": ["7", "8"]}, "'answer' is a list of 2 values"),
        ({**GOOD, "answer": True}, "'answer' is bool, neither text nor number"),
        ({**GOOD, "prompt": " \t"}, "'prompt' is empty"),
        ({**GOOD, "prompt": "\ud800"}, "half a surrogate pair"),
        ({**GOOD, "prompt": "9+9="}, "id 'a' is taken by"),
        ({**GOOD, "answer": "8"}, "with another answer, '8' and not '7'"),
    ],
)
def test_bad_line_costs_itself_only(tmp_path, line, reason):
    last = {"prompt": "1+1=", "answer": 2, "key": "z"}
    path = _write(tmp_path / "q.jsonl", GOOD, b"", line, last)
    loaded = Records(path=path, id="key").load()
    assert [query.id for query in loaded.queries] == ["a", "z"]
    (problem,) = loaded.problems
    assert problem.startswith(f"{path}:3: ") and reason in problem
    with pytest.raises(ValueError, match=r"q\.jsonl:3: "):
        Records(path=path, id="key", strict=True).load()


def test_duplicate_names_the_first_place(tmp_path):
    path = _write(tmp_path / "q.jsonl", {**GOOD, "answer": "8"}, GOOD)
    (problem,) = Records(path=path).load().problems
    assert f"the question of {path}:1 with another answer" in problem


def test_overlong_line_is_skipped_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 1000)
    long = {**GOOD, "prompt": "x" * 5000}
    path = _write(tmp_path / "q.jsonl", long, GOOD, long, {**GOOD, "prompt": "?"})
    loaded = Records(path=path).load()
    assert [query.prompt for query in loaded.queries] == ["4+3=", "?"]
    assert [problem.split(":")[-2] for problem in loaded.problems] == ["1", "3"]


def test_line_of_the_longest_length_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", len(json.dumps(GOOD)))
    for end in (b"", b"\n", b"\n\n"):
        path = _write(tmp_path / "q.jsonl", json.dumps(GOOD).encode() + end)
        assert len(Records(path=path).load().queries) == 1


def test_nul_order_mark_and_carriage_return(tmp_path):
    row = json.dumps({"prompt": "a\x00b", "answer": "\u202e7"}).encode()
    path = _write(tmp_path / "q.jsonl", b"\xef\xbb\xbf" + row + b"\r")
    (query,) = Records(path=path).load().queries
    assert (query.prompt, query.reference) == ("a\x00b", "\u202e7")


def test_ids_are_content_and_stable(tmp_path):
    first = _write(tmp_path / "a.jsonl", GOOD, {"prompt": "1+1=", "answer": "2"})
    second = _write(tmp_path / "b.jsonl", {"prompt": "1+1=", "answer": "2"}, GOOD)
    ids = [
        {q.prompt: q.id for q in Records(path=path, family="sums").load().queries}
        for path in (first, second)
    ]
    assert ids[0] == ids[1]


def test_parquet(tmp_path):
    path = str(tmp_path / "q.parquet")
    table = {
        "prompt": ["1+1=", None, "2+2=", "3+3=", "1+1="],
        "answer": [2, 3, 4, None, 2],
    }
    pq.write_table(pa.table(table), path, row_group_size=2)
    loaded = Records(path=path).load()
    assert [(q.prompt, q.reference) for q in loaded.queries] == [
        ("1+1=", "2"),
        ("2+2=", "4"),
    ]
    assert [problem.split(": ")[0] for problem in loaded.problems] == [
        f"{path}:{row}" for row in (2, 4)
    ]


def test_parquet_with_bytes_that_are_no_text(tmp_path):
    path = str(tmp_path / "q.parquet")
    prompts = pa.array([b"ok", b"\xff"]).view(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": prompts, "answer": ["1", "2"]}), path)
    loaded = Records(path=path).load()
    assert [query.prompt for query in loaded.queries] == ["ok"]
    assert "not UTF-8" in loaded.problems[0]


def test_unusable_files_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        Records(path=str(tmp_path / "absent.jsonl")).load()
    with pytest.raises(ValueError, match="has no usable row: it has no rows"):
        Records(path=_write(tmp_path / "empty.jsonl", b"")).load()
    with pytest.raises(ValueError, match=r"no usable row: .*no column 'question'"):
        Records(path=_write(tmp_path / "q.jsonl", GOOD), prompt="question").load()
    with pytest.raises(ValueError, match=r"ends in none of \.jsonl"):
        Records(path="questions.csv")
    (tmp_path / "fake.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"[Pp]arquet"):
        Records(path=str(tmp_path / "fake.parquet")).load()


def test_metadata_must_be_json(tmp_path):
    path = str(tmp_path / "q.parquet")
    rows = {"prompt": ["x"], "answer": ["y"], "raw": [b"bytes"]}
    pq.write_table(pa.table(rows), path)
    with pytest.raises(ValueError, match=r"metadata 'raw': bytes is not JSON"):
        Records(path=path, metadata=("raw",)).load()


@pytest.mark.parametrize("kind", ["pyarrow", "pandas"])
def test_tables_are_their_rows(kind):
    """Also with a missing level, which pandas has as NaN."""
    rows = [
        {"prompt": f"{n}+1=", "answer": n + 1, "level": None if n == 3 else n % 2}
        for n in range(8)
    ]
    package = pytest.importorskip(kind)
    made = package.Table.from_pylist if kind == "pyarrow" else package.DataFrame
    found, _ = data.load(made(rows), held_out=0, level="level", verbose=False)
    expected, _ = data.load(rows, held_out=0, level="level", verbose=False)
    assert [dataclasses.replace(x, metadata={}) for x in found] == [
        dataclasses.replace(x, metadata={}) for x in expected
    ]


def test_another_object_is_refused_by_name():
    with pytest.raises(ValueError, match=r"cannot load questions from int: .* a table"):
        data.load(3)
