"""Exports are loaded by `datasets`, the reader of TRL, verl and prime-rl."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_jax import data, planning
from sgpo_jax.planning import figures
from sgpo_jax.profiling import Profile, from_rates, read_rates

QUERIES = tuple(
    data.Query(id=f"q{i}", prompt=f"{i}+1=", reference=str(i + 1), family="sums")
    for i in range(6)
)
PROFILE = Profile(
    ids=tuple(q.id for q in QUERIES[:5]),
    samples=[8] * 5,
    successes=[0, 1, 2, 4, 8],
)
PLAN = planning.make_plan(PROFILE)


@pytest.mark.parametrize("layout", ["trl", "verl", "prime-rl"])
def test_datasets_loads_what_is_exported(tmp_path, layout):
    datasets = pytest.importorskip("datasets")
    table = planning.dataset(QUERIES, PROFILE, PLAN, layout=layout)
    pq.write_table(table, tmp_path / "train.parquet")
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 6
    assert loaded["pass_rate"][:5] == [0.0, 0.125, 0.25, 0.5, 1.0]
    assert loaded["pass_rate"][5] is None
    assert loaded["group_size"][1:5] == [8, 4, 2, 0]
    assert loaded["phase"][1:5] == [3, 2, 1, 0]
    row = loaded[3]
    if layout == "verl":
        assert row["reward_model"] == {"ground_truth": "4", "style": "rule"}
        assert row["extra_info"]["id"] == "q3"
        assert row["prompt"] == [{"content": "3+1=", "role": "user"}]
    if layout == "trl":
        assert row["prompt"] == [{"content": "3+1=", "role": "user"}]
        assert row["solution"] == "4"
    if layout == "prime-rl":
        assert (row["question"], row["answer"]) == ("3+1=", "4")
    harder = loaded.filter(lambda row: row["group_size"] >= 4)
    assert len(harder) >= 2


def test_verls_own_reader_and_scorer_take_what_is_exported(tmp_path):
    reader = pytest.importorskip("verl.utils.dataset.rl_dataset")
    scorer = pytest.importorskip("verl.utils.reward_score")
    omegaconf = pytest.importorskip("omegaconf")
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"[UNK]": 0, **{c: i for i, c in enumerate("0123456789+=", 1)}}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="[UNK]",
        chat_template="{% for turn in messages %}{{ turn.content }}{% endfor %}",
    )
    # Their scorer is chosen by the source: GSM8K's looks for the last "#### number".
    queries = [dataclasses.replace(q, verifier="gsm8k") for q in QUERIES]
    table = planning.dataset(queries, PROFILE, PLAN, layout="verl")
    pq.write_table(table, tmp_path / "train.parquet")
    config = {"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": False}
    loaded = reader.RLHFDataset(
        str(tmp_path / "train.parquet"), tokenizer, omegaconf.OmegaConf.create(config)
    )
    assert len(loaded) == 6
    for i, row in enumerate(loaded):
        assert row["raw_prompt"] == [{"role": "user", "content": f"{i}+1="}]
        assert (row["index"], row["extra_info"]["id"]) == (i, f"q{i}")
        truth = row["reward_model"]["ground_truth"]
        for answer, score in ((i + 1, 1.0), (i + 2, 0.0)):
            found = scorer.default_compute_score(
                row["data_source"], f"so #### {answer}", truth
            )
            assert found == score
    assert [row["group_size"] for row in loaded][1:5] == [8, 4, 2, 0]


def test_a_file_keeps_its_columns_and_gets_more(tmp_path):
    verl = planning.dataset(QUERIES, PROFILE, layout="verl").drop_columns(
        ["pass_rate", "profile_samples"]
    )
    pq.write_table(verl, tmp_path / "verl.parquet")
    ids = [q.id for q in QUERIES]
    out = tmp_path / "out.parquet"
    planning.annotate(tmp_path / "verl.parquet", ids, PROFILE, PLAN, out=out)
    table = pq.read_table(out)
    assert table.select(verl.column_names).equals(verl)
    assert table.column_names[len(verl.column_names) :] == [
        "pass_rate", "profile_samples", "group_size", "phase",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'pass_rate' already"):
        planning.add_columns(table, ids, PROFILE)
    with pytest.raises(ValueError, match="none of 6 rows is in the profile"):
        planning.add_columns(verl, ["x"] * 6, PROFILE)
    with pytest.raises(ValueError, match="has 6 rows, but 1 ids"):
        planning.annotate(tmp_path / "verl.parquet", ["q0"], PROFILE, out=out)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_pass_rates_come_in_and_go_out(tmp_path, suffix):
    path = tmp_path / f"rates{suffix}"
    rows = [
        {"id": i, "meta": {"rate": r, "n": n}}
        for i, r, n in [("a", 0.25, 8), ("b", None, 8), ("c", 1.0, 16)]
    ]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    found = read_rates(path, rate="meta.rate", samples="meta.n")
    np.testing.assert_array_equal(found.successes, [2, 0, 16])
    np.testing.assert_array_equal(found.samples, [8, 0, 16])
    assert found.source["imported"] == path.name
    assert np.isnan(found.success_rate[1])
    found.save(tmp_path / "p.parquet")
    again = read_rates(tmp_path / "p.parquet", samples="samples")
    np.testing.assert_array_equal(again.successes, found.successes)
    planning.make_plan(found)
    with pytest.raises(ValueError, match="no column 'rate'"):
        read_rates(path, rate="rate")


def test_rates_that_are_none_are_refused_by_id():
    with pytest.raises(ValueError, match=r"pass rate of 'b' is 25\.0"):
        from_rates(["a", "b"], [0.5, 25.0], samples=8, source="x")
    with pytest.raises(ValueError, match="must be numbers"):
        from_rates(["a"], ["half"], samples=8, source="x")


def test_a_file_that_is_neither_is_named(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("hello")
    with pytest.raises(ValueError, match="neither Parquet nor JSONL"):
        read_rates(path)


@pytest.mark.parametrize(
    ("verifier", "source"),
    [("gsm8k", "openai/gsm8k"), ("math", "lighteval/MATH"), ("exact", "mine")],
)
def test_verl_gets_the_name_of_a_scorer_that_reads_the_same_answers(verifier, source):
    # verl scores "math" and "math_dapo" by another format, "lighteval/MATH" by \boxed.
    query = dataclasses.replace(QUERIES[1], verifier=verifier, family="mine")
    table = planning.dataset([query], PROFILE, PLAN, layout="verl")
    assert table.column("data_source").to_pylist() == [source]


def test_the_figure_of_a_plan_and_its_table_count_alike(tmp_path):
    """Unsolved questions that are in every phase have no group size of their own."""
    from matplotlib.figure import Figure

    successes = np.repeat([4, 2, 1, 0, 8], [30, 20, 10, 40, 7])
    known = Profile(
        ids=tuple(f"q{n}" for n in range(107)),
        samples=np.full(107, 8),
        successes=successes,
    )
    plan = planning.make_plan(known)
    axes = Figure().subplots()
    figures.plot_sizes(known, plan, axes)
    _, labels = axes.get_legend_handles_labels()
    drawn = {
        label: sum(bar.get_height() for bar in bars)
        for bars, label in zip(axes.containers, labels, strict=True)
    }
    assert drawn == {
        "not trained on": 36 + 7,
        "in several phases": 4,
        "groups of 2": 30,
        "groups of 4": 20,
        "groups of 8": 10,
    }
    assert "trained on: 64, 4 of them in several phases" in str(plan)
    assert [len(phase.ids) - 4 for phase in plan.phases] == [30, 20, 10]
