"""Profiles and plans without a run: no model, no device, no data but a file."""

import json
import os
import subprocess
import sys
import webbrowser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sgpo_jax
from sgpo_jax import cli, data, planning
from sgpo_jax.hosts import folder_lock
from sgpo_jax.profiling import Profile
from tests.sampling.test_server import answer, serve

pytestmark = pytest.mark.slow

RATES = [0.0, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, None]


def sgpo(capsys, *args):
    code = cli.run_command([*map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def rates(tmp_path):
    """A file of questions with pass rates of somebody else."""
    path = tmp_path / "rates.jsonl"
    rows = [
        {"question": f"{i}+1=", "answer": i + 1, "stats": {"rate": rate, "n": 16}}
        for i, rate in enumerate(RATES)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def imported(tmp_path, capsys, rates):
    folder = tmp_path / "imported"
    code, out, err = sgpo(
        capsys, "profile", "--import", rates, "--column", "stats.rate",
        "--samples", "stats.n", "--out", folder,
    )  # fmt: skip
    assert code == 0, err
    assert "learnable" in out
    return folder


def test_a_column_becomes_the_profile_of_the_questions_a_run_has(imported, rates):
    profile = Profile.load(imported / "profile.parquet")
    queries, _ = data.load(str(rates), held_out=0, verbose=False)
    assert profile.ids == tuple(q.id for q in queries)
    assert profile.prompts == tuple(q.prompt for q in queries)
    np.testing.assert_array_equal(profile.samples, [16] * 7 + [0])
    np.testing.assert_array_equal(profile.successes, [0, 0, 2, 4, 8, 12, 16, 0])


def test_rates_are_matched_to_the_questions_of_a_run(tmp_path, capsys, rates):
    rows = [{"problem": f"{i}+1=", "answer": i + 1} for i in (4, 6, 40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = sgpo(
        capsys, "profile", "--import", rates, "--column", "stats.rate",
        "--data", tmp_path / "mine.jsonl", "--out", tmp_path / "matched",
    )  # fmt: skip
    assert code == 0, err
    assert "1 of 3 questions have no pass rate" in out
    profile = Profile.load(tmp_path / "matched" / "profile.parquet")
    queries, _ = data.load(str(tmp_path / "mine.jsonl"), held_out=0, verbose=False)
    assert profile.ids == tuple(q.id for q in queries)
    np.testing.assert_array_equal(profile.successes, [4, 8, 0])
    np.testing.assert_array_equal(profile.samples, [8, 8, 0])


def test_a_plan_needs_no_backend(imported):
    command = [sys.executable, "-c", "from sgpo_jax.cli import main; main()", "plan"]
    command += ["--profile", str(imported), "--allocate", "knapsack,mean=4"]
    environment = {**os.environ, "JAX_PLATFORMS": "there_is_none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Knapsack(mean=4.0" in done.stdout
    assert "+1=" in done.stdout
    profile = Profile.load(imported / "profile.parquet")
    plan = planning.Plan.load(imported / "plan.json", ids=profile.ids)
    assert plan.prediction is not None
    assert plan.profile == profile.fingerprint()
    assert (imported / "plan.png").stat().st_size > 1000


def test_planning_again_with_other_rules_replaces_the_plan(capsys, imported):
    hashes = set()
    for allocate in ("inverse", "fixed,size=4", "best-advantage,sizes=2+3+5"):
        code, _, err = sgpo(
            capsys, "plan", "--profile", imported, "--allocate", allocate
        )
        assert code == 0, err
        hashes.add(planning.Plan.load(imported / "plan.json").hash)
    assert len(hashes) == 3


def test_a_plan_of_nothing_solved_predicts_no_saving(capsys, tmp_path):
    """A tenth of the queries costs a tenth, and teaches as little."""
    never = Profile(ids=tuple("abcdefghij"), samples=[8] * 10, successes=[0] * 10)
    never.save(tmp_path / "profile.parquet")
    code, out, _ = sgpo(capsys, "plan", "--profile", tmp_path)
    assert code == 0 and "there is nothing to learn from" in out
    assert "times less" not in out
    assert sgpo_jax.plan(never).prediction is None


def test_all_allocators_side_by_side(capsys, tmp_path, imported):
    code, out, err = sgpo(
        capsys, "plan", "--profile", imported / "profile.parquet", "--compare",
        "--against", "grpo,group=16", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, err
    assert all(name in out for name in planning.ALLOCATORS)
    found = json.loads((tmp_path / "out" / "allocators.json").read_text())
    assert found["baseline"] == "grpo,group=16"
    assert [row["name"] for row in found["allocators"]] == list(planning.ALLOCATORS)
    assert (tmp_path / "out" / "allocators.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--allocate", "knapsak"), "there are fixed, inverse"),
        (("--allocate", "knapsack,men=3"), "no setting 'men=3'; it has mean=8.0"),
        (("--allocate", "knapsack,mean=x"), "mean must be like 8.0"),
        (("--allocate", "knapsack,mean=1"), "mean must be between"),
        (("--filter", "hard"), "there are drop-trivial"),
        (("--curriculum", "easy"), "there are easy-to-hard"),
        (("--against", "ppo"), "a baseline is"),
        (("--passes", "0"), "passes"),
        (("--model", "hf:/nowhere/at-all"), "nowhere"),
    ],
)
def test_mistakes_of_a_plan_are_one_line(capsys, imported, options, message):
    code, _, err = sgpo(capsys, "plan", "--profile", imported, *options)
    assert code == 2
    assert message in err and err.count("\n") == 1


def test_missing_and_damaged_profiles_are_named(capsys, tmp_path, imported):
    code, _, err = sgpo(capsys, "plan", "--profile", tmp_path / "none")
    assert code == 2 and "sgpo profile" in err
    path = imported / "profile.parquet"
    path.write_bytes(path.read_bytes()[:200])
    code, _, err = sgpo(capsys, "plan", "--profile", imported)
    assert code == 2 and "is not a profile" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--column", "rate"), "'rate'"),
        (("--column", "question"), "pass rates must be numbers"),
        (("--samples", "stats.m"), "'stats.m'"),
        (("--samples", "0"), "holds no pass rate"),
    ],
)
def test_mistakes_of_an_import_are_one_line(capsys, tmp_path, rates, options, message):
    given = {"--column": "stats.rate", **dict([options])}
    flat = [part for pair in given.items() for part in pair]
    out = tmp_path / "bad"
    code, _, err = sgpo(capsys, "profile", "--import", rates, *flat, "--out", out)
    assert code == 2
    assert message in err and err.count("\n") == 1
    assert not (out / "profile.parquet").exists()


@pytest.mark.parametrize("layout", ["trl", "verl", "prime-rl", "datasets"])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_exports_of_a_profile_folder(capsys, tmp_path, imported, layout, suffix):
    sgpo(capsys, "plan", "--profile", imported)
    target = tmp_path / f"set{suffix}"
    code, out, err = sgpo(
        capsys, "profile", "--export", layout, "--out", imported, "--to", target
    )
    assert code == 0, err
    assert "8 questions, 7 with a pass rate, plan" in out
    if suffix == ".parquet":
        rows = pq.read_table(target).to_pylist()
    else:
        rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["pass_rate"] for row in rows] == RATES
    assert rows[2]["group_size"] == 8 and rows[4]["group_size"] == 2
    assert rows[7]["group_size"] == 0


def test_verls_file_is_kept_intact(capsys, tmp_path, imported):
    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": f"{i}+1="}],
            "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
            "extra_info": {"index": i, "odd": {"nested": [i]}},
        }
        for i in (6, 4, 50)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "verl.parquet")
    code, _, err = sgpo(
        capsys, "profile", "--export", "verl", "--out", imported,
        "--data", tmp_path / "verl.parquet", "--to", tmp_path / "new.parquet",
    )  # fmt: skip
    assert code == 0, err
    found = pq.read_table(tmp_path / "new.parquet")
    kept = found.select(["data_source", "prompt", "reward_model", "extra_info"])
    assert kept.to_pylist() == rows
    assert found["pass_rate"].to_pylist() == [1.0, 0.5, None]


def test_a_folder_with_a_profile_only_is_reported(capsys, imported, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda page: not opened.append(page))
    sgpo(capsys, "plan", "--profile", imported)
    code, _, err = sgpo(capsys, "report", "--out", imported, "--open")
    assert code == 0, err
    assert opened == [(imported / "report.html").as_uri()]
    page = (imported / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    text = (imported / "report.md").read_text()
    for part in ("2+1=", "Never solved: 2", "Plan of plan", "knapsack", "Posteriors"):
        assert part in text and part in page, part
    for name in ("profile", "calibration", "plan_plan", "allocators"):
        assert (imported / "figures" / f"{name}.png").exists()


@pytest.mark.parametrize("typo", [["--nonsense", "3"], ["--out"]])
def test_a_typo_in_the_report_of_a_profile_is_refused(capsys, imported, typo):
    code, _, err = sgpo(capsys, "report", "--out", imported, *typo)
    assert code == 2 and err.startswith("sgpo: error: ") and typo[0] in err


@pytest.mark.parametrize("command", ["report", "run"])
def test_an_option_without_its_value_is_refused(capsys, command):
    code, _, err = sgpo(capsys, command, "--out")
    assert code == 2 and err.startswith("sgpo: error: ") and "--out" in err


def solver(body, attempt):
    """Answer n+1 rightly if the seed is odd and n is below 3."""
    del attempt
    number = int(body["prompt"].removesuffix("+1="))
    right = body["seed"] % 2 and number < 3
    return answer(str(number + 1) if right else "no")


def by_server(url, rates, out, *options):
    return (
        "profile", "--server", url, "--data", rates, "--out", out,
        "--model", "m", "--limits.attempts", "1", "--limits.concurrency", "1",
        "--chunk", "3", "--completions", *options,
    )  # fmt: skip


def test_a_server_profiles_and_an_interruption_resumes(capsys, tmp_path, rates):
    calls = 0

    def failing(body, attempt):
        nonlocal calls
        calls += 1
        return solver(body, attempt) if calls <= 15 else (500, {})

    with serve(solver) as (url, _, _):
        whole = tmp_path / "whole"
        code, out, err = sgpo(capsys, *by_server(url, rates, whole, "--samples", "4"))
        assert code == 0, err
        assert "success rate" in out
    profile = Profile.load(whole / "profile.parquet")
    assert profile.samples.tolist() == [4] * 8
    assert profile.successes[3:].tolist() == [0] * 5
    assert 0 < profile.successes[:3].sum() < 12
    texts = pq.read_table(whole / "completions.parquet").to_pylist()
    assert len(texts) == 32
    assert sum(row["reward"] for row in texts) == profile.successes.sum()

    again = tmp_path / "again"
    with serve(failing) as (url, _, _):
        code, _, err = sgpo(capsys, *by_server(url, rates, again, "--samples", "4"))
        assert code == 1 and "the same command resumes" in err
    with serve(solver) as (url, seen, _):
        code, _, err = sgpo(capsys, *by_server(url, rates, again, "--samples", "4"))
        assert code == 0, err
        assert len(seen) == 4 * 5
    assert Profile.load(again / "profile.parquet") == profile
    assert pq.read_table(again / "completions.parquet").to_pylist() == texts


def test_a_sequential_rule_keeps_the_budget_and_says_what_it_expects(
    capsys, tmp_path, rates
):
    with serve(solver) as (url, seen, _):
        out = tmp_path / "rounds"
        code, _, err = sgpo(
            capsys,
            *by_server(url, rates, out, "--samples", "6"),
            "--rule", "sequential,first=2,batch=2,most=16",
        )  # fmt: skip
        assert code == 0, err
        assert len(seen) <= 6 * 8
    assert "round 2" in err and "more decisions right" in " ".join(err.split())
    profile = Profile.load(out / "profile.parquet")
    assert profile.drawn.sum() == len(seen)
    assert profile.drawn.min() >= 2 and len(set(profile.drawn.tolist())) > 1
    assert len(pq.read_table(out / "completions.parquet")) == len(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rule", "clever"), "there are flat"),
        (("--server", "localhost:1"), "error: --server 'localhost:1' must begin"),
        (("--tokenizer", "hf:/nowhere/at-all"), "nowhere"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--limits.token", "NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
    ],
)
def test_mistakes_of_a_server_are_one_line(capsys, tmp_path, rates, options, message):
    out = tmp_path / "out"
    given = {"--server": "http://127.0.0.1:9/v1", "--data": rates, "--out": out}
    given |= dict([options])
    flat = [part for pair in given.items() for part in pair]
    code, _, err = sgpo(capsys, "profile", *flat)
    assert code == 2
    assert message in err and err.count("\n") == 1
    assert not (out / "profile.parquet").exists()


def test_drift_against_a_later_profile(capsys, tmp_path, imported):
    first = Profile.load(imported / "profile.parquet")
    later = Profile(ids=first.ids, samples=[8] * 8, successes=[8, 6, 7, 3, 1, 0, 2, 0])
    later.save(tmp_path / "later.parquet")
    code, out, err = sgpo(
        capsys, "profile", "--drift", tmp_path / "later.parquet", "--out", imported
    )
    assert code == 0, err
    assert "success of 7 queries" in out
    found = json.loads((imported / "drift.json").read_text())
    assert found["correlation"] < 0 and found["queries"] == 7
    code, _, err = sgpo(capsys, "profile", "--drift", tmp_path, "--out", imported)
    assert code == 2 and "there is no profile" in err


def test_a_folder_in_use_gets_no_file(imported, tmp_path, capsys):
    """Neither a plan nor a report nor a comparison: a run writes them there itself."""
    before = {path.name for path in imported.iterdir()}
    commands = (
        ("plan", "--profile", imported),
        ("report", "--out", imported),
        ("profile", "--drift", imported, "--out", imported),
    )
    with folder_lock(imported):
        for command in commands:
            code, _, err = sgpo(capsys, *command)
            assert code == 2 and "is in use by process" in err, command
        there = {path.name for path in imported.iterdir()} - {"lock.json"}
        assert there == before
        elsewhere = tmp_path / "elsewhere"
        assert sgpo(capsys, *commands[0], "--out", elsewhere)[0] == 0
    for command in commands:
        code, _, err = sgpo(capsys, *command)
        assert code == 0, err
    assert (imported / "report.md").exists() and (imported / "drift.json").exists()
