"""Operations of matrix products, from the shapes of an instruction."""

import math
import re

from sgpo_jax.ahead_of_time.hlo import Instruction, axes


def flops(shapes: dict[str, str], one: Instruction) -> float:
    """Return 2 M K N of each product in a batch, from the three sizes.

    |lhs| |rhs| |out| = B^3 (M K N)^2 for B independent products, in whatever order
    the axes lie; TPU modules write products as convolutions.

    Args:
      shapes: of the results of its computation, by name.
      one: any instruction; 0 if it is no product.
    """
    if one.op not in ("dot", "convolution"):
        return 0.0
    three = (*(shapes[name] for name in one.operands[:2]), one.shape)
    counts = [math.prod(axes(shape)) for shape in three]
    return 2 * math.sqrt(math.prod(counts) / _batch(shapes, one))


def _batch(shapes: dict[str, str], one: Instruction) -> int:
    found = re.search(r"lhs_batch_dims=\{([\d,]*)\}", one.attributes)
    if found:
        dims = axes(shapes[one.operands[0]])
        return math.prod(dims[int(i)] for i in found.group(1).split(",") if i)
    batch = 1
    for name in ("feature_group_count", "batch_group_count"):
        found = re.search(rf"{name}=(\d+)", one.attributes)
        batch *= int(found.group(1)) if found else 1
    window = re.search(r"window=\{([^}]*)\}", one.attributes)
    fields = dict(re.findall(r"(\w+)=([\dx_-]+)", window.group(1) if window else ""))
    if "lhs_dilate" in fields:
        # A batch axis as a window that meets each of its elements once.
        dilated = fields["lhs_dilate"].split("x")
        taps = fields["size"].split("x")
        for size, dilate in zip(taps, dilated, strict=True):
            batch *= int(size) if int(dilate) > 1 else 1
    return batch
