"""`sgpo profile --predict` on a finished run."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from sgpo_jax import cli
from sgpo_jax.profiling import Profile

pytestmark = pytest.mark.slow  # for the run it is of


@pytest.fixture
def folder(finished, tmp_path):
    for name in ("policy", "profile.parquet", "config.json", "manifest.json"):
        place = finished / name
        copy = shutil.copytree if place.is_dir() else shutil.copy
        copy(place, tmp_path / name)
    return tmp_path


def predict(folder, *more):
    command = ["profile", "--predict", folder / "new.jsonl", "--out", folder, *more]
    return cli.run_command([*map(str, command)])


@pytest.fixture
def new(folder):
    profile = Profile.load(folder / "profile.parquet")
    prompt = profile.prompts[0]
    rows = [{"question": prompt.replace(prompt[0], x, 1), "answer": "1"} for x in "01"]
    rows += [{"question": text, "answer": "1"} for text in profile.prompts[:4]]
    unique = {row["question"]: row for row in rows}
    (folder / "new.jsonl").write_text("\n".join(map(json.dumps, unique.values())))
    return [*unique]


def test_questions_nobody_sampled_get_a_rate(folder, new, capsys):
    assert predict(folder, "--next", "1", "--screen.sure", "0.99") == 0
    printed = capsys.readouterr().out
    assert "queries it did not see" in printed and "GFLOP" in printed
    table = pq.read_table(folder / "predicted.parquet").to_pydict()
    assert sorted(table["prompt"]) == sorted(new)
    low, rate, high = (np.array(table[n]) for n in ("low", "pass_rate", "high"))
    assert ((low <= high) & (rate > 0) & (rate < 1)).all()
    assert sum(table["next"]) == 1
    assert not np.any(np.array(table["next"]) & ~np.array(table["profile"]))


def test_what_is_skipped_is_not_chosen(folder, new):
    assert predict(folder) == 0
    table = pq.read_table(folder / "predicted.parquet").to_pydict()
    hard = np.array(table["unsolvable"])
    order = np.argsort(-hard)  # what will be skipped comes first
    lines = [json.dumps({"question": table["prompt"][i], "answer": "1"}) for i in order]
    (folder / "new.jsonl").write_text("\n".join(lines))
    between = np.sort(hard)[[1, 2]].mean()
    options = ("--screen.sure", between, "--screen.trivial", 1, "--next", 2)
    assert predict(folder, *options) == 0
    table = pq.read_table(folder / "predicted.parquet").to_pydict()
    assert sum(table["profile"]) == 2 and not table["profile"][0]
    assert table["next"] == table["profile"]


def test_the_same_prompt_has_the_same_rate_whatever_else_is_asked(folder, new):
    assert predict(folder) == 0
    first = pq.read_table(folder / "predicted.parquet").to_pydict()
    lines = (folder / "new.jsonl").read_text().splitlines()
    (folder / "new.jsonl").write_text("\n".join(lines[::-1][:3]))
    assert predict(folder, "--to", str(folder / "some.parquet")) == 0
    some = pq.read_table(folder / "some.parquet").to_pydict()
    known = dict(zip(first["prompt"], first["pass_rate"], strict=True))
    assert len(some["prompt"]) == 3
    for prompt, rate in zip(some["prompt"], some["pass_rate"], strict=True):
        np.testing.assert_allclose(rate, known[prompt], rtol=1e-4)


def test_what_cannot_be_predicted_is_one_line(folder, new, capsys, tmp_path_factory):
    assert predict(folder, "--next", "99") == 2
    assert "only" in capsys.readouterr().err
    assert predict(folder, "--screen.trivial", "0.01") == 2
    assert "unsolvable must be below trivial" in capsys.readouterr().err
    profile = Profile.load(folder / "profile.parquet")
    profile.source["policy"] = "another"
    profile.save(folder / "profile.parquet")
    assert predict(folder) == 2
    assert "another policy (another)" in capsys.readouterr().err
    (folder / "config.json").unlink()
    assert predict(folder) == 2
    assert capsys.readouterr().err.count("\n") == 1
