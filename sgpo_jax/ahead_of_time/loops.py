"""Execution counts of the instructions of a module, trip counts included.

XLA's own cost analysis counts the body of a loop once, and scanned layers are a loop.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sgpo_jax.ahead_of_time.hlo import Instruction, Module

_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%([\w.-]+)")
_PLAIN = ("parameter", "get-tuple-element", "constant", "fusion", "bitcast")


class InstructionRun(NamedTuple):
    """An instruction with its execution count.

    Attributes:
      home: the computation it is in.
      one: the instruction.
      times: executions in one execution of the module.
      fused: whether it is part of a fusion, whose inner results stay on the chip.
    """

    home: str
    one: Instruction
    times: int
    fused: bool


def runs(module: Module) -> Iterator[InstructionRun]:
    """Yield every executed instruction.

    A loop whose length depends on data, such as that over decode steps, counts once.
    """
    yield from _walk(module, module.entry, 1, False)


def _walk(
    module: Module, name: str, times: int, fused: bool
) -> Iterator[InstructionRun]:
    for one in module.computations[name]:
        yield InstructionRun(name, one, times, fused)
        if one.op == "while":
            count = trips(module, one) or 1
            yield from _walk(module, one.called("body"), times * count, fused)
        elif called := one.called("calls"):
            yield from _walk(module, called, times, True)
        elif one.op == "call":
            yield from _walk(module, one.called("to_apply"), times, fused)


def trips(module: Module, loop: Instruction) -> int | None:
    """Return how often a loop runs; None if that depends on data."""
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if found:
        return int(found.group(1))
    inside = [
        one
        for called in _reached(module, loop.called("condition"))
        for one in module.computations[called]
    ]
    computed = [one for one in inside if one.op not in _PLAIN]
    limits = [one.number for one in inside if one.number is not None]
    counts_up = [one for one in computed if "direction=LT" in one.attributes]
    if counts_up and counts_up == computed and limits:
        return -(-max(limits) // _stride(module, loop, inside))
    return None


def _stride(module: Module, loop: Instruction, condition: list[Instruction]) -> int:
    """Return what a turn adds to the counter: 2 where turns are joined in pairs."""
    body = {one.name: one for one in module.computations[loop.called("body")]}
    (results,) = [one.operands for one in body.values() if one.root]
    for one in condition:
        place = re.search(r"index=(\d+)", one.attributes)
        if one.op == "get-tuple-element" and place:
            added = body[results[int(place.group(1))]].operands
            numbers = [body[name].number for name in added if name in body]
            return max((n for n in numbers if n is not None), default=1)
    return 1


def _reached(module: Module, name: str) -> list[str]:
    """Return a computation and all it calls."""
    if name not in module.computations:
        return []
    called = [
        inner
        for one in module.computations[name]
        for outer in _CALLED.findall(one.attributes)
        for inner in _reached(module, outer)
    ]
    return [name, *called]
