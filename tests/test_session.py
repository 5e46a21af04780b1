"""What sessions share: compiled programs, also between processes."""

import jax
import pytest

from sgpo_jax import testing
from sgpo_jax.config import SamplerConfig
from sgpo_jax.session import cache_programs, make_engine

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


@pytest.mark.parametrize(
    ("lanes", "shards", "block", "staged"),
    [(1, 1, 1, 16), (3, 1, 3, 48), (24, 1, 24, 240), (32, 1, 32, 256), (40, 2, 20, 240),
     (100, 1, 32, 256)],
)  # fmt: skip
def test_few_lanes_encode_and_stage_few_prompts(lanes, shards, block, staged):
    engine = make_engine(
        SamplerConfig(lanes=lanes, max_response=4),
        testing.TINY,
        longest_prompt=8,
        stop_tokens=(0,),
        shards=shards,
        hosts=1,
        mesh=None,
    )
    assert engine.lanes >= lanes
    assert (engine.prefill_prompts, engine.staged) == (block, staged)
