"""Collectives of a module: their kind, who takes part, over what, and how much.

Within a slice a collective is an instruction of that name. Between slices the TPU
compiler writes a pair of transfers to the host, which carries them over the data centre
network and identifies the collective.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

from sgpo_jax.ahead_of_time.hlo import Instruction, parts, sizes
from sgpo_jax.ahead_of_time.loops import InstructionRun

_KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Collectives of one kind in groups of one size, over one network.

    Attributes:
      kind: as XLA names it.
      group: devices, or over `dcn` slices, that take part together.
      count: how often it runs.
      bytes: of its results on one device, over all runs.
      over: `ici`, the chips' own network, or `dcn`, that of the data centre.
    """

    kind: str
    group: int
    count: int
    bytes: float
    over: str = "ici"

    @property
    def wire_bytes(self) -> float:
        """Bytes a device sends on a ring: what scaling is about."""
        share = (self.group - 1) / max(self.group, 1)
        match self.kind:
            case "all-reduce":
                return 2 * share * self.bytes
            case "reduce-scatter":
                return (self.group - 1) * self.bytes
            case "all-gather" | "all-to-all":
                return share * self.bytes
            case _:  # one device to another
                return self.bytes


def collect(runs: Iterable[InstructionRun], devices: int) -> tuple[Collective, ...]:
    """Add up the collectives among instructions, for a module of so many devices."""
    seen: dict[object, Collective] = {}
    for home, one, times, _ in runs:
        found = _between_slices(one, times) or _in_a_slice(home, one, times, devices)
        if found is None:
            continue
        # A collective split into steps keeps its channel and where it is from. Those of
        # `shard_map` all have one channel, but each is from a place of its own.
        channel = re.search(r"channel_id=\d+", one.attributes)
        origin = re.search(r"metadata=\{[^}]*\}", one.attributes)
        step = channel and (channel.group(), origin and origin.group())
        key = found.over, step or (home, one.name)
        known = seen.get(key)
        if known is None or found.bytes > known.bytes:
            seen[key] = found
    return _merge(seen.values())


def _in_a_slice(
    home: str, one: Instruction, times: int, devices: int
) -> Collective | None:
    kind = one.op.removesuffix("-start")
    if kind not in _KINDS:
        return None
    made = one.shape
    if one.op.endswith("-start"):  # also holds its operand
        made = max(parts(one.shape), key=sizes, default="")
    size, group = sizes(made), group_size(one.attributes) or devices
    if home.startswith("all-reduce-scatter") and kind == "all-reduce":
        kind, size = "reduce-scatter", size // max(group, 1)
    return Collective(kind=kind, group=group, count=times, bytes=float(size * times))


def _between_slices(one: Instruction, times: int) -> Collective | None:
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.attributes)
    if one.op != "recv" or not kind:
        return None
    target = re.search(r'_xla_megascale_target="\{([^}]*)\}', one.attributes)
    return Collective(
        kind=kind.group(1).lower().replace("_", "-"),
        group=_members(target.group(1)) if target else 0,
        count=times,
        bytes=max(map(sizes, parts(one.shape)), default=0) * float(times),
        over="dcn",
    )


def _members(ranges: str) -> int:
    """Count the members of a list of numbers and ranges.

    >>> _members("1,2"), _members("0:3,7")
    (2, 5)
    """
    ends = [[int(n) for n in one.split(":")] for one in ranges.split(",") if one]
    return sum(end[-1] - end[0] + 1 for end in ends)


def group_size(attributes: str) -> int:
    """Return the devices of a replica group; 0 if not given.

    >>> group_size("replica_groups=[2,128]<=[256], x")
    128
    >>> group_size("replica_groups={{0,2},{1,3}}")
    2
    >>> group_size("replica_groups=mesh['a'=2,'b'=1,'c'=4] {'b','c'}, use")
    4
    """
    found = re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes)
    if found:
        return int(found.group(2))
    found = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes)
    if found:
        axes = {n: int(s) for n, s in re.findall(r"'(\w+)'=(\d+)", found.group(1))}
        return math.prod(axes[name] for name in re.findall(r"'(\w+)'", found.group(2)))
    found = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return len(found.group(1).split(",")) if found else 0


def _merge(found: Iterable[Collective]) -> tuple[Collective, ...]:
    total: dict[tuple[str, str, int], Collective] = {}
    for one in found:
        key = one.over, one.kind, one.group
        known = total.get(key, dataclasses.replace(one, count=0, bytes=0.0))
        total[key] = dataclasses.replace(
            known, count=known.count + one.count, bytes=known.bytes + one.bytes
        )
    order = sorted(total, key=lambda key: (key[0] == "dcn", *key))
    return tuple(total[key] for key in order)
