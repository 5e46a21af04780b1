"""Every preset builds, and the claim of the quick one holds."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from sgpo_jax.pipeline.folder import flatten, unflatten
from sgpo_jax.presets import PRESETS
from tests.claims import takes_minutes

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_and_survives_its_file(name):
    config = PRESETS[name]()
    assert PRESETS[name].__doc__.count("`sgpo run") == 1
    again = unflatten(PRESETS["default"](), json.loads(json.dumps(flatten(config))))
    assert again == config


@pytest.mark.slow
@takes_minutes
def test_the_quick_preset_reaches_what_it_claims(tmp_path):
    """Other machines and versions round differently, so runs drift apart: 0.08."""
    call = "from sgpo_jax.cli import main; main()"
    args = ["run", "--preset", "quick", "--out", str(tmp_path), "--cache", ""]
    # As a user's: without the compiler settings of the tests, which run slowly.
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", call, *args], env=env, cwd=ROOT, check=True)
    doc = " ".join((PRESETS["quick"].__doc__ or "").split())
    claim = re.search(
        r"from ([\d.]+) to ([\d.]+) \(grpo_token\) and ([\d.]+) \(grpo_thin\)", doc
    )
    assert claim
    for name, number in zip(
        ("initial", "grpo_token", "grpo_thin"), claim.groups(), strict=True
    ):
        found = json.loads((tmp_path / "eval" / f"{name}.json").read_text())["mean"]
        assert found == pytest.approx(float(number.rstrip(".")), abs=0.08), name
