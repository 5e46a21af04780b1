"""Strict settings for every test, and what makes compilation cheap.

`sgpo_jax` must not be imported here at module level: the jaxtyping hook has to be
installed before the package is first imported, and pytest reads this file earlier.
"""

import contextlib
import fcntl
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

DEVICES = "--xla_force_host_platform_device_count=8"
# Compilation is most of the time of the tests, and LLVM's passes most of compilation;
# they change no property. A user's XLA_FLAGS are left as they are.
_FLAGS = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Later versions neither have the flag nor need it.
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join([*_FLAGS, DEVICES]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# One cache of compiled programs for all workers and the processes they start.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_OWN_CACHE = None if _CACHE in os.environ else tempfile.mkdtemp(prefix="sgpo_jax_test_")
if _OWN_CACHE:
    os.environ[_CACHE] = _OWN_CACHE
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A loaded machine fails no test: what hangs is ended by pytest-timeout.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# A process decides at its first compilation whether it keeps programs; one for a TPU
# that is not there would decide against it.
jax.jit(lambda x: x)(0)


def pytest_collection_finish():
    # Modules and tests stay; the garbage collector need not look at them again.
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    # Workers find the variable set, so only the process that made it removes it.
    if _OWN_CACHE:
        shutil.rmtree(_OWN_CACHE, ignore_errors=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


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
    """One finished run of three methods, for all processes; copy it to change it."""
    from tests.pipeline.test_run import run

    out = shared / "whole"
    with _alone(shared / "lock"):
        if not (shared / "made").exists():
            assert run("run", out, cache) == 0
            (shared / "made").touch()
    return out
