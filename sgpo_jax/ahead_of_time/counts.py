"""Cost analysis of a compiled module, per device: FLOPs, bytes, collectives."""

import collections
import dataclasses

from sgpo_jax.ahead_of_time import products, traffic
from sgpo_jax.ahead_of_time.collectives import Collective, collect
from sgpo_jax.ahead_of_time.hlo import Module
from sgpo_jax.ahead_of_time.loops import runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Cost of one execution of a module on one device.

    Attributes:
      flops: of matrix products outside custom calls; a multiply-add is two.
      bytes: read and written in HBM, VMEM left out.
      kernels: runs of custom calls by name.
      collectives: by network, kind and size of group.
    """

    flops: float
    bytes: float
    kernels: dict[str, int]
    collectives: tuple[Collective, ...]

    def sent(self, over: str) -> float:
        """Return the bytes a device sends over a network, `ici` or `dcn`."""
        sent = (one.wire_bytes for one in self.collectives if one.over == over)
        return sum(sent, 0.0)


def count(text: str) -> Counts:
    """Count what a module does, from its text; see `loops` for how often.

    Raises:
      ValueError: if this is not the text of a module.
    """
    module = Module(text)
    flops, bytes_ = 0.0, 0.0
    kernels: collections.Counter[str] = collections.Counter()
    found = list(runs(module))
    for home, one, times, fused in found:
        flops += times * products.flops(module.shapes[home], one)
        if not fused:
            bytes_ += times * traffic.moved(module, home, one)
        if one.op == "custom-call" and "tpu_custom_call" in one.attributes:
            kernels[one.name.rstrip("0123456789.")] += times
    return Counts(
        flops=flops,
        bytes=bytes_,
        kernels=dict(kernels),
        collectives=collect(found, module.devices),
    )
