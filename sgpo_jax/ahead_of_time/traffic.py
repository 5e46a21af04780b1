"""Bytes that an instruction reads and writes in a device's memory."""

from sgpo_jax.ahead_of_time.hlo import Instruction, Module, parts, sizes

_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"),
    *("call", "conditional", "after-all", "partition-id", "replica-id"),
}


def moved(module: Module, home: str, one: Instruction) -> float:
    """Return bytes read and written in HBM; of what is sliced, only the slice.

    Args:
      module: holds what fusions call.
      home: the computation the instruction is in; not that of a fusion.
      one: the instruction.
    """
    if one.op in _FREE or one.op.endswith("-done"):
        return 0.0
    shapes = module.shapes[home]
    fusion = one.called("calls")
    if one.op == "dynamic-update-slice":
        return 2.0 * sizes(shapes[one.operands[1]])
    if one.op in ("dynamic-slice", "slice-start", "copy-start"):
        return 2.0 * min(sizes(shape) for shape in parts(one.shape) or [one.shape])
    if one.op in ("send", "recv"):
        # The result is the data, and handles.
        return float(max(map(sizes, parts(one.shape)), default=0))
    total = float(sizes(one.shape, hbm_only=True))
    inside = module.computations[fusion] if fusion else []
    for update in (i for i in inside if i.op == "dynamic-update-slice"):
        total -= sizes(update.shape, hbm_only=True)
        total += sizes(module.shapes[fusion][update.operands[1]])
    total = max(total, 0.0)
    for place, name in enumerate(one.operands):
        size = sizes(shapes.get(name, ""), hbm_only=True)
        total += min(size, _read(module, fusion, place, size)) if fusion else size
    return total


def _read(module: Module, name: str, place: int, size: int) -> int:
    """Return what a computation reads of its operand `place` of `size` bytes."""
    inside = module.computations[name]
    wanted = {i.name for i in inside if i.op == "parameter" and i.literal == str(place)}
    total = 0
    for one in inside:
        touched = [k for k, operand in enumerate(one.operands) if operand in wanted]
        called = one.called("calls")
        if not touched:
            continue
        if one.op == "bitcast":
            wanted.add(one.name)
        elif one.op == "dynamic-slice":
            total += sizes(one.shape)
        elif one.op == "fusion" and called:
            total += sum(_read(module, called, k, size) for k in touched)
        elif one.op != "dynamic-update-slice" or touched != [0]:
            return size
    return total
