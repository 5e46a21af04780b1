"""What sessions share: compiled programs, also between processes."""

import jax
import pytest

from sgpo_jax.session import cache_programs

NAME = "jax_compilation_cache_dir"


@pytest.fixture
def no_cache(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update(NAME, None)
    yield
    jax.config.update(NAME, before)


def test_programs_are_kept_in_the_users_cache(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cache_programs()
    folder = tmp_path / ".cache" / "sgpo_jax" / "programs"
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_a_cache_that_the_user_chose_stays(no_cache, tmp_path, monkeypatch):
    cache_programs("")
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "variable"))
    cache_programs()
    # jax has read the variable when it was imported.
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update(NAME, str(tmp_path / "own"))
    cache_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
