"""What a person who mistypes sees: one line, exit code 2, and nothing started."""

import re
import subprocess
import sys

import pytest

from sgpo_jax import cli


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "--nonsense", "3"], "--nonsense"),
        (["walk"], "unknown command 'walk'; see"),
        (["rn"], "unknown command 'rn'; did you mean run?"),
        (["run", "--train.step", "3"], "unknown options: --train.step, 3"),
        (["run", "--methods", "grppo"], "unknown method 'grppo'; did you mean grpo?"),
        (
            ["run", "--methods.grpo_token.prompts.group-size", "-3"],
            "group_size must be a whole number from 1 to 4096, got -3",
        ),
        (
            ["run", "--methods.grpo_thin.prompts.group-size", "many"],
            "must be a whole number",
        ),
        (["run", "--mesh.tensor", "3"], "does not fit 8 device"),
        (["run", "--preset", "none"], "unknown preset 'none'"),
        (["run", "--preset"], "--preset needs a value"),
        (["run", "--data", "nowhere:x"], "nowhere:x"),
        (["run", "--data", "gsm8k:/nonexistent"], "/nonexistent"),
        (["run", "--methods.sgpo.prompts.allocate.minimum", "9"], "minimum"),
        (
            ["run", "--sft.noise", "2.0"],
            "--sft.noise must be numbers",
        ),
        (
            ["train", "--train.steps", "-1"],
            "--train.steps must be a whole",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, capsys, tmp_path):
    out = tmp_path / "run"
    extra = ["--out", str(out), "--cache", ""] if args[-1] != "--preset" else []
    assert cli.run_command([*args, *extra]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("sgpo: error: ")
    assert message in err
    assert not out.exists()


def test_the_version_is_shown_and_help_has_two_names(capsys):
    import sgpo_jax

    assert cli.run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"sgpo_jax {sgpo_jax.__version__}\n"
    assert cli.run_command(["help"]) == cli.run_command([]) == 0
    shown = capsys.readouterr().out
    assert shown == 2 * shown[: len(shown) // 2]


def test_an_interruption_before_a_run_is_one_line(capsys, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_command", interrupted)
    with pytest.raises(SystemExit) as end:
        cli.main(["run"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "sgpo: interrupted\n"


@pytest.mark.parametrize("args", [["run", "--help"], ["--version"]])
def test_a_reader_that_ends_early_is_no_fault(args):
    """As in `sgpo run --help | head -1`; also where all of it fits into the pipe."""
    code = (
        "import sys; sys.stdin.read(); from sgpo_jax import cli; cli.main(sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()  # begins, and has no reader
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_broken_pipe_elsewhere_is_not_hidden(monkeypatch):
    def broken(argv):
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr(cli, "run_command", broken)
    with open("/dev/null", "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        with pytest.raises(BrokenPipeError, match="a worker's"):
            cli.main(["run"])


def test_the_package_is_the_command():
    args = [sys.executable, "-m", "sgpo_jax", "--version"]
    shown = subprocess.run(args, check=True, capture_output=True, text=True).stdout
    assert shown.startswith("sgpo_jax ")


def test_an_unwritable_folder_is_refused(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.run_command(["run", "--out", str(blocked / "run"), "--cache", ""]) == 2
    assert "cannot write the run folder" in capsys.readouterr().err


def test_dry_run_prints_and_starts_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    args = ["run", "--dry-run", "--out", str(out), "--cache", "", "--seed", "5"]
    assert cli.run_command(args) == 0
    captured = capsys.readouterr()
    assert "seed = 5" in captured.out
    assert "predicted cost" in captured.err
    assert not out.exists()


def test_a_dry_run_predicts_methods_by_their_parts(tmp_path, capsys):
    """A reference costs a forward pass, a further update a whole one."""
    names = ("grpo_token", "grpo", "cppo")
    args = ["run", "--dry-run", "--out", str(tmp_path / "run"), "--cache", ""]
    assert cli.run_command([*args, "--methods", *names]) == 0
    printed, table = capsys.readouterr()
    assert "methods.grpo.kl = KL(coef=0.04" in printed
    assert max(map(len, printed.splitlines())) < 250
    assert "profile" not in table
    cost = [float(re.search(rf" {name} .* ([\d.]+) ", table)[1]) for name in names]
    assert cost[0] < cost[1] < cost[2]


def test_help_names_every_command_and_option(capsys):
    assert cli.run_command(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*cli.STAGES, *cli.MACHINE_COMMANDS))
    with pytest.raises(SystemExit) as exit_:
        cli.run_command(["plan", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    further = ("--preset NAME", "--methods NAME", "--dry-run")
    of_methods = ("--methods.sgpo.kl.coef", "--methods.grpo-thin.optimizer.clip-norm")
    for option in ("--train.steps", "--mesh.fsdp", "--seed", *further, *of_methods):
        assert option in text


def test_a_typo_is_answered_without_importing_jax():
    code = (
        "import sys; from sgpo_jax import cli;"
        "assert cli.run_command(['walk']) == 2; assert 'orbax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["plan", "eval", "report"])
def test_a_folder_without_a_run_is_not_begun(command, tmp_path, capsys):
    """Most likely --out is misspelled."""
    from sgpo_jax import cli

    out = tmp_path / "typo"
    assert cli.run_command([command, "--out", str(out)]) == 2
    assert "holds no run: look at --out" in capsys.readouterr().err
    assert not out.exists()


def test_methods_are_listed_and_described(capsys):
    """Every name whole at 80 columns; with a name its equation and parts."""
    from sgpo_jax import cli, methods

    assert cli.run_command(["methods"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in methods.ZOO)
    assert cli.run_command(["methods", "dapo"]) == 0
    shown = capsys.readouterr().out
    assert "arXiv:2503.14476" in shown
    assert "refill: Refill(max_rounds=4)" in shown
    assert cli.run_command(["methods", "dappo"]) == 2
    assert "unknown method 'dappo'" in capsys.readouterr().err
