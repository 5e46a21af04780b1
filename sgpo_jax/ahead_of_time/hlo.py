"""The text of an optimised HLO module, read into instructions."""

import dataclasses
import functools
import math
import re

_BITS = {"pred": 8, "bf16": 16, "s4": 4, "u4": 4, "f8e4m3fn": 8, "f8e5m2": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%([\w.-]+) = (.*)$")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of its result.
      op: what it does.
      shape: text of its result's shape.
      operands: names of what it reads.
      literal: the text between the parentheses: a constant, or a parameter's number.
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

    @property
    def number(self) -> int | None:
        """The value of a constant that is a whole number."""
        plain = self.op == "constant" and self.literal.isdigit()
        return int(self.literal) if plain else None

    def called(self, role: str) -> str:
        """Return the computation it calls in a role: `calls`, `body`, ...; or ''."""
        found = re.search(rf"\b{role}=%([\w.-]+)", self.attributes)
        return found.group(1) if found else ""


class Module:
    """A module's computations by name, its entry, and for how many devices it is.

    Raises:
      ValueError: if the text is not that of a module.
    """

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

    @functools.cached_property
    def shapes(self) -> dict[str, dict[str, str]]:
        """Shapes of results, by computation and name."""
        return {
            home: {one.name: one.shape for one in lines}
            for home, lines in self.computations.items()
        }


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
        total += math.ceil(math.prod(_numbers(dims)) * bits / 8)
    return total


def axes(shape: str) -> list[int]:
    """Return the sizes of a shape's axes; of a tuple, those of its first part.

    >>> axes("f32[2,3]{1,0}"), axes("pred[]")
    ([2, 3], [])
    """
    found = _SHAPE.search(shape)
    return _numbers(found.group(2)) if found else []


def parts(shape: str) -> list[str]:
    """Return the parts of a tuple that are no scalars, without layouts.

    >>> parts("(f32[2,3]{1,0}, u32[])")
    ['f32[2,3]']
    """
    return [f"{kind}[{dims}]" for kind, dims, _ in _SHAPE.findall(shape) if dims]


def _numbers(dims: str) -> list[int]:
    return [int(d) for d in dims.split(",") if d]


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
