"""The lock file is of this project: every dependency, at a version that is allowed."""

import pathlib
import tomllib

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent
REMEDY = "make it again with the command of CONTRIBUTING.md"


def wanted(project, extra=None):
    """Requirements of the base, or of an extra and of the extras it names."""
    optional = project["optional-dependencies"]
    for text in optional[extra] if extra else project["dependencies"]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == canonicalize_name(project["name"]):
            for name in sorted(requirement.extras):
                yield from wanted(project, name)
        else:
            yield requirement


def test_the_lock_file_holds_every_dependency_of_the_tests():
    locked: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        # One pinned version per line, and no address of where it came from.
        requirement = Requirement(line)
        assert requirement.url is None
        assert [one.operator for one in requirement.specifier] == ["=="], line
        locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    # What is pinned is what Python 3.11 gets; later ones may get another version.
    python = {
        **default_environment(),
        "python_version": "3.11",
        "python_full_version": "3.11.0",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in (*wanted(project), *wanted(project, "dev")):
        found = [
            next(iter(one.specifier)).version
            for one in locked.get(canonicalize_name(requirement.name), [])
            if one.marker is None or one.marker.evaluate(python)
        ]
        assert len(found) == 1, f"{requirement} is not in requirements.lock; {REMEDY}"
        allowed = requirement.specifier.contains(found[0], prereleases=True)
        assert allowed, f"{requirement} is locked at {found[0]}; {REMEDY}"
