"""The example of a method of one's own, as its README runs it."""

import pathlib
import re
import subprocess
import sys

import pytest

from sgpo_jax import methods

FOLDER = pathlib.Path(__file__).parent.parent.parent / "examples" / "own_method"


@pytest.mark.slow
def test_the_script_trains():
    command = [sys.executable, str(FOLDER / "train.py"), "--steps", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"(step \d+: reward \d\.\d{3}\n){2}", run.stdout)


def test_the_parts_are_short_and_the_readme_names_what_is_there():
    source = (FOLDER / "own.py").read_text()
    parts = re.split(r"\n\n\n", source)[1:]
    assert len(parts) == 4
    assert all(len(part.strip().splitlines()) <= 15 for part in parts)
    readme = (FOLDER / "README.md").read_text()
    for path in re.findall(r"examples/own_method/\w+\.py", readme):
        assert (FOLDER / path.rpartition("/")[2]).exists()
    assert "own.py:mine" in readme


def test_a_method_is_named_by_its_file_or_its_module_in_the_current_folder(
    tmp_path, monkeypatch
):
    """As rewards are; no variable has to be set."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    source = "from sgpo_jax import methods\nmine = methods.Method(minibatches=2)\n"
    (tmp_path / "sgpo_lab_a.py").write_text(source)
    (tmp_path / "sgpo_lab_b.py").write_text(source)
    (tmp_path / "json.py").write_text(source)
    assert methods.named(f"{tmp_path}/sgpo_lab_a.py:mine").minibatches == 2
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if path != str(tmp_path)]
    )
    with pytest.raises(ValueError, match="in the current folder"):
        methods.named("sgpo_lab_b:mine")
    monkeypatch.chdir(tmp_path)
    assert methods.named("sgpo_lab_b:mine").minibatches == 2
    with pytest.raises(ValueError, match="another module is called json"):
        methods.named("json.py:mine")
    with pytest.raises(ValueError, match="no such file"):
        methods.named("nothing_here.py:mine")
