"""What the README shows is true."""

import pathlib
import re

import numpy as np

from sgpo_jax import methods

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_program_runs(capsys):
    """As it stands: five steps of a policy, and an evaluation."""
    program, _ = examples()
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line[0].isdigit()][
        -5:
    ] == list("12345")
    assert "success " in shown


def test_the_loss_is_the_one_by_hand():
    _, example = examples()
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    # By hand: ratio e^0.1 lies inside the clip, so each token's loss is -e^0.1 A.
    advantage, mask = np.asarray(names["advantage"]), np.asarray(names["mask"])
    expected = -(1.1051709 * advantage[:, None] * mask).sum() / mask.sum()
    assert abs(float(names["loss"]) - float(expected)) < 1e-5


def test_it_is_short_and_names_every_method():
    assert len(re.findall(r"\S*\w\S*", README)) <= 650
    (table,) = re.findall(r"^\| family .*?\n\n", README, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", table)) == set(methods.ZOO)
    assert f"{len(methods.ZOO)} named methods" in README


def test_every_command_it_names_exists():
    from sgpo_jax import cli

    named = set(re.findall(r"`?sgpo (\w+)", README))
    known = {*cli.STAGES, *cli.MACHINE_COMMANDS}
    assert named <= known
    assert known - {"run"} <= named


def test_every_link_to_a_file_leads_somewhere():
    root = pathlib.Path(__file__).parent.parent
    pages = [
        page
        for page in (root / "docs").rglob("*.md")
        if not {"_repository", "_generated", "_build"} & set(page.parts)
    ]
    for page in (root / "README.md", *pages):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            if "_generated/" in target or "api/" in target:
                continue  # made when the site is built, which checks them
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_its_two_commands_are_what_ci_runs():
    section = README.split("## Two commands")[1]
    (block, *_) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    commands = [line.split("  ")[0] for line in block.strip().splitlines()]
    assert len(commands) == 2
    script = (pathlib.Path(__file__).parent.parent / ".ci" / "run").read_text()
    for name, command in zip(("job", "dev"), commands, strict=True):
        # The first thing that is installed in an environment of its own.
        (after,) = re.findall(rf"^fresh {name}\n(.*?)^fresh ", script, re.DOTALL | re.M)
        installs = [line.strip() for line in after.splitlines() if "install" in line]
        assert installs[0] == command
