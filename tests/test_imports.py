"""The stages import in one direction only."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "sgpo_jax"
ORDER = [
    "types",
    "bounds",
    "artefacts",
    "streams",
    "prompt_config",
    "client_config",
    "sharding",
    "chips",
    "hosts",
    "theory",
    "advantages",
    "losses",
    "optimizers",
    "kernels",
    "models",
    "ledger",
    "data",
    "rewards",
    "sampling",
    "rollouts",
    "profiling",
    "planning",
    "packing",
    "methods",
    "training",
    "config",
    "presets",
    "fleet",
    "session",
    "testing",
    "pipeline",
    "trainer",
    "report",
    "sweep",
    "ahead_of_time",
    "commands",
    "cli",
    "__main__",
]
PURE = {"theory", "advantages", "losses"}
BELOW = {"types", "bounds"}
FILES = sorted(PACKAGE.rglob("*.py"))


def stage(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_stages(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "sgpo_jax":
            names = [f"sgpo_jax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else []
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("sgpo_jax.")}
    return found - {"__version__"}


def test_the_page_of_the_package_names_the_stages_in_order():
    page = PACKAGE.parent / "docs" / "package.md"
    if not page.exists():
        pytest.skip("the documentation is not installed")
    (listed,) = re.findall(r"`(types, [^`]*)`", page.read_text())
    assert re.split(r",\s+", listed) == ORDER[:-1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = stage(path)
    if here == "__init__":
        # The front door, imported when it is asked for.
        assert imported_stages(path) == {"trainer"}
        return
    for there in imported_stages(path) - {here}:
        assert ORDER.index(there) < ORDER.index(here), f"{here} imports {there}"
        assert here not in PURE or there in ("types", "bounds"), (
            f"{here} imports {there}"
        )
