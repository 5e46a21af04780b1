"""Read an optimised HLO module: products, bytes and collectives of one device.

XLA's own cost analysis counts the body of a loop once, and scanned layers are a loop.
Here every instruction counts as often as the loops around it run. A loop whose length
depends on data, such as that over decode steps, counts once.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "bf16": 16, "s4": 4, "u4": 4, "f8e4m3fn": 8, "f8e5m2": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%([\w.-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%([\w.-]+)")
_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"),
    *("call", "conditional", "after-all", "partition-id", "replica-id"),
}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of its result.
      op: what it does.
      shape: text of its result's shape.
      operands: names of what it reads.
      literal: what stands between the parentheses: a constant, or a parameter's number.
      attributes: the rest of the line.
      root: whether it is the computation's result.
    """

    name: str
    op: str
    shape: str
    operands: tuple[str, ...]
    literal: str
    attributes: str
    root: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Collectives of one kind in groups of one size.

    Attributes:
      kind: as XLA names it.
      group: devices that take part together; 0 if not said.
      count: how often it runs.
      bytes: of its results on one device, over all runs.
    """

    kind: str
    group: int
    count: int
    bytes: float

    @property
    def wire_bytes(self) -> float:
        """Bytes a device sends on a ring: what scaling is about."""
        share = (self.group - 1) / max(self.group, 1)
        match self.kind:
            case "all-reduce":
                return 2 * share * self.bytes
            case "reduce-scatter":
                return (self.group - 1) * self.bytes
            case "collective-permute":
                return self.bytes
            case _:
                return share * self.bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What one run of a module does on one device.

    Attributes:
      flops: of matrix products outside custom calls; a multiply-add is two.
      bytes: read and written in HBM, VMEM left out.
      kernels: runs of custom calls by name.
      collectives: by kind and size of group.
    """

    flops: float
    bytes: float
    kernels: dict[str, int]
    collectives: tuple[Collective, ...]


def sizes(shape: str, *, hbm_only: bool = False) -> int:
    """Return the bytes of a shape, which may be a tuple.

    >>> sizes("(f32[2,3]{1,0}, bf16[4]{0:T(128)S(1)})"), sizes("pred[]")
    (32, 1)
    >>> sizes("(f32[2,3]{1,0}, bf16[4]{0:T(128)S(1)})", hbm_only=True)
    24
    """
    total = 0
    for kind, dims, layout in _SHAPE.findall(shape):
        if hbm_only and "S(" in layout:
            continue
        digits = re.search(r"\d+", kind)
        bits = _BITS.get(kind) or (int(digits.group()) if digits else 0)
        total += math.ceil(_elements(dims) * bits / 8)
    return total


def _elements(dims: str) -> int:
    return math.prod(int(d) for d in dims.split(",") if d)


def _parse_line(line: str) -> Instruction | None:
    found = _LINE.match(line)
    if not found:
        return None
    root, name, rest = found.groups()
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
        shape, rest = rest[:end], rest[end:].lstrip()
    else:
        shape, _, rest = rest.partition(" ")
    op, _, tail = rest.partition("(")
    end = _closing("(" + tail, 0)
    inside = tail[: end - 1]
    operands = tuple(re.findall(r"%([\w.-]+)", inside))
    return Instruction(name, op, shape, operands, inside, tail[end:], bool(root))


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)


class Module:
    """A module's computations, by name."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        found = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
        self.devices = int(found.group(1)) if found else 1
        current: list[Instruction] = []
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                current = self.computations.setdefault(head.group(2), [])
                self.entry = head.group(2) if head.group(1) else self.entry
            elif (instruction := _parse_line(line)) is not None:
                current.append(instruction)
        if not self.entry:
            raise ValueError("this is not the text of an HLO module: no ENTRY")

    def counts(self) -> Counts:
        """Count products, bytes and collectives of one run."""
        flops, moved = 0.0, 0.0
        kernels: collections.Counter[str] = collections.Counter()
        seen: dict[object, tuple[str, int, int, int]] = {}
        for home, one, times, fused in self._walk(self.entry, 1, False):
            flops += times * self._flops(home, one)
            if not fused and one.op not in _FREE and not one.op.endswith("-done"):
                moved += times * self._moved(home, one)
            if one.op == "custom-call" and "tpu_custom_call" in one.attributes:
                kernels[one.name.rstrip("0123456789.")] += times
            kind = one.op.removesuffix("-start")
            if kind in _COLLECTIVES:
                # A collective split into steps keeps its channel.
                channel = re.search(r"channel_id=(\d+)", one.attributes)
                key = channel.group() if channel else (home, one.name)
                made = sizes(_result(one))
                group = _group(one.attributes) or self.devices
                if home.startswith("all-reduce-scatter") and kind == "all-reduce":
                    kind, made = "reduce-scatter", made // max(group, 1)
                known = seen.get(key)
                if known is None or made * times > known[2] * known[3]:
                    seen[key] = kind, group, made, times
        return Counts(
            flops=flops,
            bytes=moved,
            kernels=dict(kernels),
            collectives=_merge(list(seen.values())),
        )

    def _walk(
        self, name: str, times: int, fused: bool
    ) -> Iterator[tuple[str, Instruction, int, bool]]:
        for one in self.computations[name]:
            yield name, one, times, fused
            called = dict(
                re.findall(r"(calls|to_apply|body)=%([\w.-]+)", one.attributes)
            )
            if one.op == "while":
                count = self._trips(one) or 1
                yield from self._walk(called["body"], times * count, fused)
            elif "calls" in called:
                yield from self._walk(called["calls"], times, True)
            elif one.op == "call":
                yield from self._walk(called["to_apply"], times, fused)

    def _trips(self, loop: Instruction) -> int | None:
        """Return how often a loop runs; None if that depends on data."""
        found = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if found:
            return int(found.group(1))
        condition = re.search(r"condition=%([\w.-]+)", loop.attributes)
        inside = [
            one
            for called in self._reached(condition.group(1) if condition else "")
            for one in self.computations[called]
        ]
        computed = [
            one
            for one in inside
            if one.op
            not in ("parameter", "get-tuple-element", "constant", "fusion", "bitcast")
        ]
        limits = [int(i.literal) for i in inside if _is_number(i)]
        counts_up = [i for i in computed if "direction=LT" in i.attributes]
        if counts_up and counts_up == computed and limits:
            return -(-max(limits) // self._stride(loop, inside))
        return None

    def _stride(self, loop: Instruction, condition: list[Instruction]) -> int:
        """Return what a turn adds to the counter: 2 where turns are joined in pairs."""
        found = re.search(r"body=%([\w.-]+)", loop.attributes)
        body = {i.name: i for i in self.computations[found.group(1) if found else ""]}
        (results,) = [i.operands for i in body.values() if i.root]
        for one in condition:
            place = re.search(r"index=(\d+)", one.attributes)
            if one.op == "get-tuple-element" and place:
                steps = [
                    int(body[name].literal)
                    for name in body[results[int(place.group(1))]].operands
                    if name in body and _is_number(body[name])
                ]
                return max(steps, default=1)
        return 1

    def _reached(self, name: str) -> list[str]:
        if name not in self.computations:
            return []
        called = [
            inner
            for one in self.computations[name]
            for outer in _CALLED.findall(one.attributes)
            for inner in self._reached(outer)
        ]
        return [name, *called]

    @functools.cached_property
    def _shapes(self) -> dict[str, dict[str, str]]:
        return {
            home: {one.name: one.shape for one in lines}
            for home, lines in self.computations.items()
        }

    def _flops(self, home: str, one: Instruction) -> float:
        """Return 2 M K N of each product in a batch, from the three sizes.

        |lhs| |rhs| |out| = B^3 (M K N)^2 for B independent products, in whatever order
        the axes lie; TPU modules write products as convolutions.
        """
        if one.op not in ("dot", "convolution"):
            return 0.0
        shapes = self._shapes[home]
        counts = [
            _elements(found.group(2)) if (found := _SHAPE.search(shape)) else 0
            for shape in (*(shapes[name] for name in one.operands[:2]), one.shape)
        ]
        batch = self._batch(home, one)
        return 2 * math.sqrt(math.prod(counts) / batch)

    def _batch(self, home: str, one: Instruction) -> int:
        axes = re.search(r"lhs_batch_dims=\{([\d,]*)\}", one.attributes)
        if axes:
            shape = _SHAPE.search(self._shapes[home][one.operands[0]])
            dims = shape.group(2).split(",") if shape else []
            return math.prod(int(dims[int(i)]) for i in axes.group(1).split(",") if i)
        batch = 1
        for name in ("feature_group_count", "batch_group_count"):
            found = re.search(rf"{name}=(\d+)", one.attributes)
            batch *= int(found.group(1)) if found else 1
        window = re.search(r"window=\{([^}]*)\}", one.attributes)
        fields = dict(
            re.findall(r"(\w+)=([\dx_-]+)", window.group(1) if window else "")
        )
        if "lhs_dilate" in fields:
            # A batch axis as a window that meets each of its elements once.
            dilated = fields["lhs_dilate"].split("x")
            taps = fields["size"].split("x")
            for size, dilate in zip(taps, dilated, strict=True):
                batch *= int(size) if int(dilate) > 1 else 1
        return batch

    def _moved(self, home: str, one: Instruction) -> float:
        """Return bytes read and written in HBM; of what is sliced, only the slice."""
        shapes = self._shapes[home]
        called = re.search(r"calls=%([\w.-]+)", one.attributes)
        fusion = called.group(1) if called else ""
        if one.op == "dynamic-update-slice":
            return 2.0 * sizes(shapes[one.operands[1]])
        if one.op in ("dynamic-slice", "slice-start", "copy-start"):
            made = [f"{kind}[{dims}]" for kind, dims, _ in _SHAPE.findall(one.shape)]
            return 2.0 * min(sizes(shape) for shape in made if "[]" not in shape)
        total = float(sizes(one.shape, hbm_only=True))
        inside = self.computations[fusion] if fusion else []
        for update in (i for i in inside if i.op == "dynamic-update-slice"):
            total -= sizes(update.shape, hbm_only=True)
            total += sizes(self._shapes[fusion][update.operands[1]])
        total = max(total, 0.0)
        for place, name in enumerate(one.operands):
            size = sizes(shapes.get(name, ""), hbm_only=True)
            total += min(size, self._read(fusion, place, size)) if fusion else size
        return total

    def _read(self, name: str, place: int, size: int) -> int:
        """Return what a computation reads of its operand `place` of `size` bytes."""
        inside = self.computations[name]
        wanted = {
            i.name for i in inside if i.op == "parameter" and i.literal == str(place)
        }
        total = 0
        for one in inside:
            touched = [k for k, operand in enumerate(one.operands) if operand in wanted]
            called = re.search(r"calls=%([\w.-]+)", one.attributes)
            if not touched:
                continue
            if one.op == "bitcast":
                wanted.add(one.name)
            elif one.op == "dynamic-slice":
                total += sizes(one.shape)
            elif one.op == "fusion" and called:
                total += sum(self._read(called.group(1), k, size) for k in touched)
            elif one.op != "dynamic-update-slice" or touched != [0]:
                return size
        return total


def _is_number(one: Instruction) -> bool:
    return one.op == "constant" and one.literal.isdigit()


def _result(one: Instruction) -> str:
    """Return the result's shape; a start also holds its operand."""
    if not one.op.endswith("-start"):
        return one.shape
    shapes = _SHAPE.findall(one.shape)
    large = [f"{kind}[{dims}]" for kind, dims, _ in shapes if dims]
    return max(large, key=sizes, default="")


def _group(attributes: str) -> int:
    """Return the devices of a replica group.

    >>> _group("replica_groups=[2,128]<=[256], x")
    128
    >>> _group("replica_groups={{0,2},{1,3}}")
    2
    >>> _group("replica_groups=mesh['a'=2,'b'=1,'c'=4] {'b','c'}, use")
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


def _merge(found: list[tuple[str, int, int, int]]) -> tuple[Collective, ...]:
    total: dict[tuple[str, int], tuple[int, float]] = {}
    for kind, group, made, times in found:
        count, size = total.get((kind, group), (0, 0.0))
        total[kind, group] = count + times, size + made * times
    return tuple(
        Collective(kind=kind, group=group, count=count, bytes=size)
        for (kind, group), (count, size) in sorted(total.items())
    )
