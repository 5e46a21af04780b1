"""The functional part stays importable from any JAX trainer, and light."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import jax, jax.numpy, jaxtyping, numpy
%s
roots = lambda: {name.split(".")[0] for name in sys.modules}
before = roots()
import sgpo_jax.%s
print(*sorted(roots() - before - set(sys.stdlib_module_names)))
"""


@pytest.mark.parametrize(
    ("stage", "more"),
    # Roots and special functions; jax itself depends on scipy.
    [("losses", ""), ("advantages", ""), ("theory", "import scipy.optimize")],
)
def test_import_loads_jax_numpy_and_jaxtyping_only(stage, more):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (more, stage)],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["sgpo_jax"]
