"""Rematerialization of layers and offloading of their inputs."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

LAYER_INPUT = "layer_input"
"""Name of the values that "offload" moves to the host."""


def rematerialized(layer: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """Return `layer` with the rematerialization policy `remat`."""
    policies = jax.checkpoint_policies
    match remat:
        case "dots":
            policy = policies.dots_with_no_batch_dims_saveable
            return jax.checkpoint(layer, policy=policy)
        case "everything":
            return jax.checkpoint(layer)
        case "offload":
            policy = policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=[LAYER_INPUT],
                offload_src="device",
                offload_dst="pinned_host",
            )
            return jax.checkpoint(layer, policy=policy)
    return layer


def check_offload(remat: str, devices: Iterable[jax.Device]) -> None:
    """Refuse to offload where the host's memory is not a place of its own.

    Raises:
      ValueError: naming the platform and the alternative.
    """
    if remat != "offload":
        return
    for device in devices:
        kinds = {memory.kind for memory in device.addressable_memories()}
        if device.platform == "cpu" or "pinned_host" not in kinds:
            raise ValueError(
                f"remat 'offload' needs a TPU or GPU with pinned host memory, not"
                f" {device.platform}; use 'everything'"
            )
