"""Identity of verifiers by the source of their functions."""

import hashlib
import importlib.util
import pathlib
from collections.abc import Iterable

from .conventions import CONVENTIONS
from .names import BUILT_IN, terms


def sources(names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the file each verifier's function is in, 16 digits, by name.

    Empty for built-in verifiers and for functions of a notebook, whose names carry the
    hash of their code. Nothing is imported but the packages a module is in.

    Args:
      names: of verifiers; weighted sums give their parts.

    Example:
      >>> sources(["exact", "0.5*gsm8k + 0.5*sgpo_jax.theory:rates"])["gsm8k"]
      ''
    """
    found = {}
    for name in sorted(set(names)):
        for _, part in terms(name):
            place = _place(part)
            path = _file(place) if place else None
            found[part] = "" if path is None else _digest(path)
    return found


def _place(name: str) -> str:
    """Return the module or file a verifier's function is in, "" if there is none."""
    kind, _, rest = name.partition(":")
    if kind in BUILT_IN or kind in ("reasoning_gym", "function"):
        return ""
    return rest.partition(":")[0] if kind in CONVENTIONS else kind


def _file(place: str) -> pathlib.Path | None:
    if place.endswith(".py"):
        return pathlib.Path(place).expanduser()
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        return None
    return pathlib.Path(spec.origin) if spec and spec.origin else None


def _digest(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""
