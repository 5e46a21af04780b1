"""`sgpo doctor`: is this machine ready to run, and if not, what to do about it."""

import dataclasses
import json
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

from sgpo_jax import chips
from sgpo_jax.chips import GIB
from sgpo_jax.commands import options
from sgpo_jax.commands.packages import (
    Finding,
    extras,
    installed_versions,
    libtpu_bytes,
    needs,
    versions,
)
from sgpo_jax.config import Experiment
from sgpo_jax.sharding import MeshShape

HOSTS = (
    *("TPU_", "MEGASCALE_", "SLURM_JOB", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM"),
    *("JAX_COORDINATOR", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
)
# In a process of its own: a wrong flag aborts it, an absent peer hangs it, and the
# chips are free again afterwards.
_PROBE = """
import json, sys, jax
from sgpo_jax import sharding
devices = jax.devices()
found = dict(platform=devices[0].platform, kind=devices[0].device_kind,
             count=len(devices), processes=jax.process_count(), mesh="")
try:
    mesh = sharding.make_mesh(sharding.MeshShape(**json.loads(sys.argv[1])), devices)
    found["mesh"] = " x ".join(f"{k} {v}" for k, v in mesh.shape.items())
except (ValueError, NotImplementedError) as error:
    found["mesh_problem"] = str(error)
print(json.dumps(found))
"""


def flags(env: Mapping[str, str], known: bytes | None) -> Iterator[Finding]:
    """Check variables that change what XLA and JAX do.

    Args:
      env: the environment.
      known: the contents of libtpu.so, which names its flags; None if not installed.
    """
    for name in sorted(env):
        if name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS") or name.startswith("JAX_"):
            yield Finding("flags", f"{name}={env[name]}")
    for flag in env.get("XLA_FLAGS", "").split():
        if flag.startswith(("--xla_tpu", "--xla_jf", "--megascale")):
            yield Finding(
                "flags",
                f"{flag} in XLA_FLAGS: JAX's own XLA does not know it and aborts",
                "move it to LIBTPU_INIT_ARGS",
            )
    for flag in env.get("LIBTPU_INIT_ARGS", "").split():
        name = flag.lstrip("-").partition("=")[0]
        if known is not None and name.encode() not in known:
            yield Finding(
                "flags",
                f"{flag} in LIBTPU_INIT_ARGS: libtpu has no such flag and aborts",
                "check its spelling against the installed libtpu",
            )
    if env.get("JAX_DISABLE_JIT", "0").lower() in ("1", "true"):
        yield Finding("flags", "nothing is compiled", "unset JAX_DISABLE_JIT")
    if env.get("JAX_ENABLE_X64", "0").lower() in ("1", "true"):
        yield Finding(
            "flags", "64-bit numbers: slow, and TPUs lack them", "unset JAX_ENABLE_X64"
        )


def devices(shape: MeshShape, *, timeout: float = 120) -> Iterator[Finding]:
    """Check the devices of JAX and build the mesh of the settings."""
    command = [sys.executable, "-c", _PROBE, json.dumps(dataclasses.asdict(shape))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        yield Finding(
            "devices",
            f"no answer within {timeout:g} s",
            "start every host of the slice; end other processes that hold the chips"
            " (lsof /dev/accel* /dev/vfio/*)",
        )
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        yield Finding("devices", f"JAX does not start: {last}", "see the message")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    chip = chips.of_kind(found["kind"])
    about = f", {chip.hbm_gib:g} GiB, {chip.peak_tflops:g} TFLOP/s each" if chip else ""
    yield Finding(
        "devices",
        f"{found['count']} x {found['kind']} ({found['platform']}{about}),"
        f" {found['processes']} process(es)",
    )
    if found["platform"] == "cpu" and _tpu_here():
        yield Finding(
            "devices",
            "there is a TPU in this machine and JAX does not use it",
            "pip install 'sgpo_jax[tpu]', unset JAX_PLATFORMS",
        )
    if found["mesh"]:
        yield Finding("mesh", found["mesh"])
    else:
        yield Finding(
            "mesh",
            found["mesh_problem"],
            "set --mesh.data, --mesh.fsdp and --mesh.tensor",
        )


def _tpu_here() -> bool:
    return any(pathlib.Path("/dev").glob("accel*")) or "TPU_WORKER_ID" in os.environ


def hosts(env: Mapping[str, str]) -> Iterator[Finding]:
    """Check the settings of distributed initialization."""
    yield Finding(
        "host",
        f"{socket.gethostname()}, process {os.getpid()}, clock"
        f" {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC",
    )
    for name in sorted(env):
        if name.startswith(HOSTS):
            yield Finding("host", f"{name}={env[name]}")
    names = [n for n in env.get("TPU_WORKER_HOSTNAMES", "").split(",") if n]
    worker = env.get("TPU_WORKER_ID", "")
    if len(names) > 1 and not (worker.isdigit() and int(worker) < len(names)):
        yield Finding(
            "host",
            f"TPU_WORKER_HOSTNAMES names {len(names)} hosts but TPU_WORKER_ID is"
            f" {worker!r}",
            f"set TPU_WORKER_ID to 0..{len(names) - 1}, a different one on each host",
        )
    slices = (
        "MEGASCALE_NUM_SLICES",
        "MEGASCALE_SLICE_ID",
        "MEGASCALE_COORDINATOR_ADDRESS",
    )
    absent = [name for name in slices if name not in env]
    if 0 < len(absent) < len(slices):
        yield Finding(
            "host",
            f"several slices are announced without {', '.join(absent)}",
            "set all of MEGASCALE_NUM_SLICES, _SLICE_ID and _COORDINATOR_ADDRESS",
        )
    first = pathlib.Path("/proc/1/comm")
    shell = first.exists() and first.read_text().strip() in ("sh", "bash", "dash")
    if shell and "KUBERNETES_SERVICE_HOST" in env:
        yield Finding(
            "host",
            "process 1 of this container is a shell, which keeps SIGTERM to itself: a"
            " preempted run will not save",
            "start the run with `exec` in the container's script",
        )


def folders(config: Experiment, *, state_bytes: int) -> Iterator[Finding]:
    """Check that the run folder and the cache can be written, and have room."""
    if "://" in config.out:
        yield Finding(
            "run folder",
            f"{config.out} is an address, and runs write to files",
            "mount the bucket (gcsfuse) and give the path of the mount",
        )
    else:
        kept = 4 * state_bytes  # three checkpoints, and one being written
        yield from _writable("run folder", config.out, room=kept, option="--out")
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or config.cache
    if not cache:
        yield Finding("cache", "none: every start compiles everything")
        return
    if "://" in cache:
        yield Finding("cache", f"{cache}, not looked into")
        return
    yield from _writable("cache", cache, room=GIB, option="--cache")
    path = pathlib.Path(cache).expanduser()
    if path.exists() and path.stat().st_mode & stat.S_IWOTH:
        yield Finding(
            "cache",
            f"{path} can be written by everyone, and its entries are programs",
            f"chmod o-w {path}",
        )


def _writable(topic: str, folder: str, *, room: int, option: str) -> Iterator[Finding]:
    path = pathlib.Path(folder).expanduser().absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        yield Finding(
            topic,
            f"{path} cannot be written: {error.strerror}",
            f"choose another {option}, or the rights of {there}",
        )
        return
    free = shutil.disk_usage(there).free
    yield Finding(topic, f"{path} can be written, {free / GIB:.1f} GiB free")
    if free < room:
        yield Finding(
            topic,
            f"{path} has {free / GIB:.2f} GiB free and needs {room / GIB:.2f}",
            f"make room, or choose another {option}",
        )


def policy(config: Experiment) -> tuple[int, list[Finding]]:
    """Return the size of the training state, and what keeps the policy from opening."""
    try:
        return state_bytes(config), []
    except (ValueError, ImportError) as error:
        text = " ".join(str(error).split())
        return 0, [Finding("policy", text, "see the message; check --model and --data")]


def state_bytes(config: Experiment) -> int:
    """Return the size of parameters and Adam's moments, float32."""
    import jax

    from sgpo_jax import models
    from sgpo_jax.pipeline import open_policy

    leaves = jax.tree.leaves(models.shapes(open_policy(config).config))
    return 3 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def main(args: Sequence[str]) -> int:
    """Examine the machine for an experiment; returns 0 if all is well, 1 if not."""
    try:
        config = options.experiment("doctor", list(args))
    except ValueError as error:
        print(f"sgpo: error: {error}", file=sys.stderr)
        return 2
    env = os.environ
    size, problems = policy(config)
    known = libtpu_bytes() if env.get("LIBTPU_INIT_ARGS") else None
    findings = [
        *versions(installed_versions()),
        *flags(env, known),
        *devices(config.mesh),
        *hosts(env),
        *problems,
        *folders(config, state_bytes=size),
        *needs(config),
        *extras(),
    ]
    for one in findings:
        if not one.remedy:
            print(f"{one.topic:>10}  {one.found}")
    wrong = [one for one in findings if one.remedy]
    for one in wrong:
        print(f"\n{one.topic}: {one.found}\n  remedy: {one.remedy}")
    print(f"\n{len(wrong)} problem(s)" if wrong else "\nno problems")
    return 1 if wrong else 0
