"""Nothing is written where no TPU is attached, and a fault still shows."""

import os
import subprocess
import sys

import pytest

from sgpo_jax.hosts.backends import has_tpu

START = "from sgpo_jax.hosts.backends import start_backends; start_backends()"


def start(before: str = "") -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    return subprocess.run(
        [sys.executable, "-c", before + START], env=env, capture_output=True, text=True
    )


@pytest.mark.skipif(has_tpu(), reason="a TPU is attached")
def test_the_start_is_silent_and_its_faults_are_not():
    silent = start()
    assert (silent.returncode, silent.stderr) == (0, "")
    fail = "def fail(): os.write(2, b'said by C'); raise RuntimeError('no backend')\n"
    loud = start(f"import jax, os\n{fail}jax.devices = fail\n")
    assert loud.returncode == 1
    assert "said by C" in loud.stderr
    assert "no backend" in loud.stderr


def test_a_tpu_is_known_by_its_vendor(tmp_path):
    assert not has_tpu(tmp_path)
    for address, vendor, found in (("0000:00", "0x8086", False), ("1", "0x1ae0", True)):
        (tmp_path / address).mkdir()
        (tmp_path / address / "vendor").write_text(vendor + "\n")
        assert has_tpu(tmp_path) is found
