"""One finished run for all tests of runs, whichever process they are in."""

import contextlib
import fcntl
import pathlib

import pytest


@contextlib.contextmanager
def _alone(path: pathlib.Path):
    """Hold a lock on a file among the processes of the session."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder that all processes of the session see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "pipeline"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache(shared):
    """Where initial policies are kept."""
    return shared / "cache"


@pytest.fixture(scope="session")
def finished(shared, cache):
    """A finished run of three methods; copy it to change it."""
    from tests.pipeline.test_run import run

    out = shared / "whole"
    with _alone(shared / "lock"):
        if not (shared / "made").exists():
            assert run("run", out, cache) == 0
            (shared / "made").touch()
    return out
