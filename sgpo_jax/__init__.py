"""Difficulty-aware reinforcement learning from verifiable rewards on JAX.

`Trainer`, `profile` and `plan` are the front door. Import the stage you need; nothing
heavier is loaded than that stage uses:

>>> from sgpo_jax import advantages, losses
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgpo_jax.trainer import Trainer as Trainer
    from sgpo_jax.trainer import plan as plan
    from sgpo_jax.trainer import profile as profile

__version__ = "0.1.0"

_FRONT = ("Trainer", "plan", "profile")


def __getattr__(name: str) -> Any:
    if name in _FRONT:
        import importlib

        return getattr(importlib.import_module("sgpo_jax.trainer"), name)
    raise AttributeError(f"module 'sgpo_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FRONT])
