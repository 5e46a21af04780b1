"""Wrong rewards end a command with exit code 2 before anything expensive."""

import json

import pytest

from sgpo_jax import cli, hosts
from sgpo_jax.commands import stages

pytestmark = pytest.mark.slow

REWARD = """
def good(completion, reference):
    return 0.25

def three(a, b, c):
    return 1.0

raise_later = lambda completion, reference: 1 / 0
"""


@pytest.fixture
def questions(tmp_path):
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(12)]
    rows[4]["answer"] = "five"
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_reward.py").write_text(REWARD)
    return path


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("gsm8k", "questions.jsonl:5: reference 'five': gsm8k compares single numbers"),
        ("{folder}/my_reward.py:missing", "my_reward.py has no function 'missing'"),
        ("{folder}/other.py:good", "there is no file"),
        ("{folder}/my_reward.py:three", "fails on query"),
        ("{folder}/my_reward.py:raise_later", "ZeroDivisionError"),
        ("nowhere.at_all:reward", "No module named 'nowhere'"),
        ("format:(", "is no expression of RE2"),
    ],
)
def test_wrong_rewards_exit_2_and_leave_no_folder(
    questions, tmp_path, capsys, verifier, message
):
    out = tmp_path / "run"
    verifier = verifier.format(folder=tmp_path)
    source = f"{questions},verifier={verifier}"
    assert cli.run_command(["profile", "--data", source, "--out", str(out)]) == 2
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert last.startswith("sgpo: error: ") and message in last
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",verifier={folder}/my_reward.py:good", "no right answer to imitate"),
        (",answer=,verifier={folder}/my_reward.py:good", "no right answer to imitate"),
        (",answer=", "exact has nothing to compare with"),
        ("", "no column 'answer'"),
    ],
)
def test_questions_without_answers_are_not_imitated(
    questions, tmp_path, capsys, options, message
):
    """A reward of one's own needs no answers; supervised fine-tuning does."""
    questions.write_text("".join(f'{{"prompt": "{n}!"}}\n' for n in range(12)))
    source = f"{questions}{options.format(folder=tmp_path)}"
    command = ["run", "--dry-run", "--data", source, "--out", str(tmp_path / "run")]
    assert cli.run_command(command) == 2
    assert message in capsys.readouterr().err
    if "verifier" in options:
        assert cli.run_command([*command, "--sft.steps", "0"]) == 0
    assert not (tmp_path / "run").exists()


def test_the_corrected_command_is_accepted(questions, tmp_path, capsys):
    """Dense rewards count as successes from the stated threshold on."""
    out = ["--out", str(tmp_path / "run"), "--cache", "", "--preset", "quick"]
    out += ["--sft.steps", "1", "--profile.samples", "2"]
    wrong = f"{questions},verifier={tmp_path}/my_reward.py:missing"
    right = f"{questions},verifier={tmp_path}/my_reward.py:good"
    more = ["--reward.solved-at", "0.2"]
    assert cli.run_command(["profile", "--data", wrong, *out]) == 2
    assert cli.run_command(["profile", "--data", right, *out, *more]) == 0
    said = capsys.readouterr().err
    assert "a reward of at least 0.2" in " ".join(said.split())
    assert "1.00" in said and "0.25" in said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (KeyboardInterrupt(), 130),
        (hosts.Stopped("SIGTERM"), hosts.RESTART),
        (FloatingPointError("updates stay non-finite"), 1),
    ],
)
def test_what_could_not_be_scored_is_shown_on_every_way_out(
    questions, tmp_path, capsys, monkeypatch, error, code
):
    def scored_then_ended(name, run):
        run.session.worker.score(["1", "2"], [run.train[0]] * 2)
        if error is not None:
            raise error

    (tmp_path / "my_reward.py").write_text(
        "def at_times(completion, reference):\n"
        "    return None if completion == '2' else 1.0\n"
    )
    monkeypatch.setattr(stages, "do", scored_then_ended)
    source = f"{questions},verifier={tmp_path}/my_reward.py:at_times"
    out = ["--out", str(tmp_path / "run"), "--cache", "", "--preset", "quick"]
    assert cli.run_command(["profile", "--data", source, *out]) == code
    assert "1 unscorable: none" in " ".join(capsys.readouterr().err.split())
