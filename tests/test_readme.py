"""What the README shows is true."""

import pathlib
import re

import numpy as np

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    # By hand: ratio e^0.1 lies inside the clip, so each token's loss is -e^0.1 A.
    advantage, mask = np.asarray(names["advantage"]), np.asarray(names["mask"])
    expected = -(1.1051709 * advantage[:, None] * mask).sum() / mask.sum()
    assert abs(float(names["loss"]) - float(expected)) < 1e-5


def test_every_command_it_names_exists():
    from sgpo_jax import cli

    named = set(re.findall(r"`?sgpo (\w+)", README))
    known = {*cli.COMMANDS, *cli.MACHINE_COMMANDS}
    assert named <= known
    assert known - {"run"} <= named


def test_every_link_to_a_file_leads_somewhere():
    root = pathlib.Path(__file__).parent.parent
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (root / target).exists(), target


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
