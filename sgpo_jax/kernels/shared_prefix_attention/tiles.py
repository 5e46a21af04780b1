"""Tile sizes of the TPU kernels, from static cycles and an inventory of VMEM."""

import dataclasses
import itertools
import math
from typing import Any

from jax.experimental.pallas import tpu as pltpu

LANES = 128
# Static estimates of cycles, forward and backward, by tile (queries, keys): a row of
# 2048 tokens that all read each other, one key head with 4 query heads of width 128.
# Narrow matrix units (v5e) first. From benchmarks/results/attention_cycles.json.
DENSE_CYCLES = {
    False: {
        (512, 1024): (85795, 178350),
        (1024, 1024): (87460, 178276),
        (512, 512): (91377, 182352),
        (256, 1024): (88658, 183516),
        (256, 256): (148138, 214947),
    },
    True: {
        (512, 1024): (43935, 85555),
        (1024, 1024): (44385, 84974),
        (512, 512): (49966, 92057),
        (256, 1024): (48962, 90991),
        (256, 256): (100192, 163914),
    },
}
MAX_PARTS, MAX_CHUNKS = 4, 8  # what a number of the work list has bits for
PART = 256  # queries at a time where some pairs are masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Tile sizes of the kernels, and their compiler settings.

    Attributes:
      query: queries per tile, forward.
      backward_query: queries per tile, backward.
      key: keys per tile.
      part: queries at a time in a tile of which some pairs are masked.
      chunk: unit in which such a part finds the keys it reads.
      mxu_sums: sum probabilities in the matrix unit, in columns it has to spare.
      key_ranges: parts in which the backward pass takes the keys of a row, so that
        their gradients fit in VMEM.
      vmem_bytes: limit for the compiler.
      interpret: run without a TPU; False, True or `pltpu.InterpretParams`.
    """

    query: int
    backward_query: int
    key: int
    part: int
    chunk: int
    mxu_sums: bool = False
    key_ranges: int = 1
    vmem_bytes: int = 96 * 2**20
    interpret: Any = False

    def __post_init__(self):
        for query in (self.query, self.backward_query):
            if query % self.part or query > MAX_PARTS * self.part:
                raise ValueError(
                    f"part {self.part} must divide query tile {query} into at most "
                    f"{MAX_PARTS}"
                )
        if self.key % self.chunk or self.key > MAX_CHUNKS * self.chunk:
            raise ValueError(
                f"chunk {self.chunk} must divide key tile {self.key} into at most "
                f"{MAX_CHUNKS}"
            )

    @property
    def unit(self) -> int:
        """Multiple to which rows are padded."""
        return math.lcm(self.query, self.backward_query, self.key)

    @property
    def backward(self) -> "TilePlan":
        """The plan with the query tiles of the backward pass."""
        return dataclasses.replace(self, query=self.backward_query)

    def ranges(self, length: int) -> list[slice]:
        """Split the key tiles of a row into ranges of equal size, the last smaller."""
        tiles = length // self.key
        size = -(-tiles // self.key_ranges)
        return [slice(i, min(i + size, tiles)) for i in range(0, tiles, size)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuCore:
    """Properties of a TPU core that decide tile sizes.

    Attributes:
      vmem_bytes: size of VMEM.
      wide: whether the matrix unit is 256 wide (v6e, v7x) rather than 128.
    """

    vmem_bytes: int
    wide: bool

    @classmethod
    def current(cls) -> "TpuCore":
        """Return the core that is compiled for.

        Raises:
          ValueError: if that is no TPU. To compile ahead of time, enter
            `jax.set_mesh` with a mesh of the topology's devices, or `over_mesh`.
        """
        info = pltpu.get_tpu_info()
        wide = info.mxu_column_size > LANES
        return cls(vmem_bytes=info.vmem_capacity_bytes, wide=wide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """One key head and the query heads that read it.

    Attributes:
      group: query heads.
      width: of a head, padded to whole lanes.
      itemsize: bytes of a number.
    """

    group: int
    width: int
    itemsize: int


def plan_for(length: int, heads: Heads, chip: TpuCore) -> TilePlan:
    """Choose the cheapest tiles that fit.

    Raises:
      ValueError: if no tiles fit, which takes heads wider than any in use.
    """
    budget = int(0.75 * chip.vmem_bytes)  # the compiler needs room of its own
    plans = []
    for (query, key), (backward_query, same) in itertools.product(
        DENSE_CYCLES[chip.wide], repeat=2
    ):
        if key != same or max(query, backward_query, key) > max(length, PART):
            continue
        tile = backward_bytes(backward_query, key, 0, heads)
        resident = backward_bytes(backward_query, key, key, heads) - tile
        held = (budget - tile) // resident  # key tiles whose gradients fit
        if held < 1 or forward_bytes(query, key, heads) > budget:
            continue
        plan = TilePlan(
            query=query,
            backward_query=backward_query,
            key=key,
            part=PART,
            chunk=LANES,
            mxu_sums=chip.wide,
            key_ranges=math.ceil(length / key / held),
            vmem_bytes=int(0.9 * chip.vmem_bytes),
        )
        plans.append((cost(plan, chip), plan))
    if not plans:
        raise ValueError(f"no tiles of {heads} fit in {chip.vmem_bytes} bytes of VMEM")
    return min(plans, key=lambda priced: priced[0])[1]


def cost(plan: TilePlan, chip: TpuCore) -> float:
    """Compare plans: cycles of a dense row forward and backward, and of more ranges.

    With parts of one size, tiles compute the same pairs of any layout: what differs is
    what a pair costs. A further range reads and writes the query gradients once more,
    about a twentieth of the work of a row that is long enough to need it.
    """
    cycles = DENSE_CYCLES[chip.wide]
    forward, _ = cycles[plan.query, plan.key]
    _, backward = cycles[plan.backward_query, plan.key]
    return forward + backward * (1 + 0.05 * (plan.key_ranges - 1))


def forward_bytes(query: int, key: int, heads: Heads) -> int:
    """Count the VMEM of the forward kernel."""
    rows = heads.group * query
    tiles = 2 * 2 * rows * heads.width * heads.itemsize  # q and o, double-buffered
    tiles += 2 * 2 * key * heads.width * heads.itemsize  # k and v, double-buffered
    running = rows * (2 * LANES + heads.width) * 4  # maximum, sum, weighted values
    scores = 2 * query * key * (4 + 4 + heads.itemsize)  # s and p of two heads, p cast
    return tiles + running + scores


def backward_bytes(query: int, key: int, keys: int, heads: Heads) -> int:
    """Count the VMEM of the backward kernel with the gradients of `keys` keys."""
    rows = heads.group * query
    tiles = 3 * 2 * rows * heads.width * heads.itemsize  # q, do and dq
    tiles += 2 * 2 * key * heads.width * heads.itemsize  # k and v
    resident = 2 * keys * heads.width * (4 + heads.itemsize)  # dk, dv: sum, output
    running = rows * heads.width * 4  # dq
    scores = query * key * (4 * 4 + 2 * heads.itemsize)  # s, p, dp, ds; two cast
    return tiles + resident + running + scores
