"""Cycles of the TPU attention kernels, estimated with no TPU (see static_cycles.py).

    python benchmarks/attention_cycles.py [--seconds 400]

Estimates what the table of this libtpu lacks, for as long as it may, and writes
benchmarks/results/attention_cycles.json and .md; delete the former to begin afresh
after a change of the kernels.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import time

from attention_tiles import SHAPES, attended, computed
from static_cycles import GROUP, ROOT, WIDTH, Case, run

from sgpo_jax.kernels.shared_prefix_attention import tiles

RESULTS = ROOT / "benchmarks" / "results"
CHIPS = "v5e", "v6e"
DIRECTIONS = "forward", "backward"
# Peak bfloat16 operations per cycle: rate / clock. Clocks are inferred.
PEAK = {"v5e": 197e12 / 1.5e9, "v6e": 918e12 / 1.75e9}
DENSE = (512, 1024), (1024, 1024), (512, 512), (256, 1024), (256, 256)
SPLASH = 512, 1024
COMPARED = "P1024 G8 R512", "P4096 G16 R1024", "P8192 G8 R512", "P1000 G8 R79..880"
WHOLE = "P1024 G8 R512", "P1000 G8 R79..880"
# Rows too long to estimate whole: with this many of their like responses instead.
SAMPLED, FEWER = ("P4096 G16 R1024", "P8192 G8 R512"), (2, 4)


def chosen(chip, shape):
    """Return the tiles that are chosen for a row of one group."""
    prefix, responses = SHAPES[shape]
    heads = tiles.Heads(group=GROUP, width=WIDTH, itemsize=2)
    facts = tiles.TpuCore(vmem_bytes=128 * 2**20, wide=chip == "v6e")
    return tiles.plan_for(prefix + sum(responses), heads, facts)


def packed(chip, direction, shape):
    """Return the case of one row as it is cut on a chip."""
    prefix, responses = SHAPES[shape]
    plan = chosen(chip, shape)
    query = plan.query if direction == "forward" else plan.backward_query
    group = prefix, tuple(responses)
    return Case(chip=chip, kernel=direction, query=query, key=plan.key, group=group)


def sampled(chip, direction, shape):
    """Return the cases of a row with only its first responses."""
    case = packed(chip, direction, shape)
    prefix, responses = case.group
    return [dataclasses.replace(case, group=(prefix, responses[:n])) for n in FEWER]


def whole(cycles, chip, direction, shape):
    """Cycles of a row, or of its first responses and as many more as it has."""
    if shape not in SAMPLED:
        return cycles.get(packed(chip, direction, shape).name)
    few, more = (cycles.get(c.name) for c in sampled(chip, direction, shape))
    if few is None or more is None:
        return None
    each = (more - few) / (FEWER[1] - FEWER[0])
    return few + each * (len(SHAPES[shape][1]) - FEWER[0])


def splash(chip, direction, block):
    """Return the case of splash attention with square blocks."""
    return Case(chip=chip, kernel=f"splash_{direction}", query=block, key=block)


def cases():
    """Dense tiles, masked tiles, splash attention, and packed rows."""
    for chip, direction in itertools.product(CHIPS, DIRECTIONS):
        for query, key in DENSE:
            yield Case(chip=chip, kernel=direction, query=query, key=key)
        for query, key in DENSE[:2]:
            yield Case(chip=chip, kernel=direction, query=query, key=key, masked=True)
        for block in SPLASH:
            yield splash(chip, direction, block)
    for chip, direction, shape in itertools.product(CHIPS, DIRECTIONS, WHOLE):
        yield packed(chip, direction, shape)
    for chip, direction, shape in itertools.product(CHIPS, DIRECTIONS, SAMPLED):
        yield from sampled(chip, direction, shape)


def per_pair(cycles, case):
    """Cycles of a dense row over its pairs."""
    return cycles[case.name] / case.length**2


def predicted(cycles, chip, shape):
    """Pairs that our kernels compute, times what dense rows cost per pair."""
    total, plan = 0, chosen(chip, shape)
    for direction in DIRECTIONS:
        case = packed(chip, direction, shape)
        full, masked, _ = counted(shape, case.query, case.key, plan.part, plan.chunk)
        for pairs, masks in ((full, False), (masked, True)):
            tile = {"query": case.query, "key": case.key, "masked": masks}
            total += pairs * per_pair(cycles, Case(chip=chip, kernel=direction, **tile))
    return total


def splashed(cycles, chip, pairs_at):
    """Cycles of splash at its best block per direction; `pairs_at` gives the pairs."""
    total = 0
    for direction in DIRECTIONS:
        total += min(
            pairs_at(block) * per_pair(cycles, splash(chip, direction, block))
            for block in SPLASH
        )
    return total


def repeated_pairs(shape, block):
    """Pairs of blocks on or below the diagonal when every response has the prefix."""
    prefix, responses = SHAPES[shape]
    counts = [-(-(prefix + response) // block) for response in responses]
    return sum(n * (n + 1) // 2 for n in counts) * block**2


def packed_pairs(shape, block):
    """Pairs of blocks of the packed row in which any key is read."""
    return counted(shape, block, block, block // 2, block // 4)[2] * block**2


@functools.cache
def counted(shape, query, key, part, chunk):
    """Pairs in full and in masked tiles, and items; the same on every chip."""
    plan = tiles.TilePlan(
        query=query, backward_query=query, key=key, part=part, chunk=chunk
    )
    return computed(*SHAPES[shape], plan)


HEADER = """# Static estimates of the TPU kernels

Static estimate, libtpu {version}; nothing was run on a TPU. One key head, 4
query heads of width 128, bfloat16. `python benchmarks/attention_cycles.py`.

Efficiency is the cycles of the multiplications at peak over those estimated;
for packed rows only the pairs that are read count as work. In a masked row all
tiles are masked, though every query reads every key.

| chip | row | kernel | tile | cycles | efficiency |
|---|---|---|---|---|---|
"""
RATIOS = """
Forward and backward, one key head, against splash attention: on sequences that
repeat the prefix, and on the packed row with a mask that is known when it is
compiled. All are computed pairs times the cycles per pair of a dense row; ours
at the tiles that are chosen, with masked tiles at what they cost; splash at its
best block per direction, its masks, dead grid steps and sum of partial query
gradients not counted. The ratios of these sums are too kind to us: masked tiles are
done in pieces, each of which pays its latencies. A whole row is estimated from its work
list, or where that is too long from the row with 2 and with 4 of its like responses,
of which each further one costs the same (the forward row of P1024 on v5e: 147,130 so,
146,666 whole); take the ratio of the whole row where there is one.

Tiles are chosen by these cycles: on v5p by those of v5e, from which the dense row at
512 x 1024 differs by 2 % (84,019 and 175,778), on v7x by those of v6e, for the
evaluator ends at an instruction of v7x.

| chip | row | ours | whole row | repeat + splash | ratio | of whole row \
| packed splash | ratio | of whole row |
|---|---|---|---|---|---|---|---|---|---|
"""


def report(cycles, version):
    """Tables of efficiency against peak, and of cycles against splash attention."""
    operations = {"forward": 4, "backward": 10}  # per pair, head and channel
    shapes = {packed(c, d, s).name: s for c in CHIPS for d in DIRECTIONS for s in WHOLE}
    text = HEADER.format(version=version)
    for case in cases():
        found = cycles.get(case.name)
        if found is None:  # not estimated yet, or the evaluator gave up
            continue
        shape = shapes.get(case.name)
        if case.group and shape is None:
            shape = f"P{case.group[0]} G{len(case.group[1])} R{case.group[1][0]}"
        pairs = attended(*case.group) if case.group else case.length**2
        work = operations[case.kernel.removeprefix("splash_")] * pairs * GROUP * WIDTH
        row = shape or f"{case.length} dense{', masked' if case.masked else ''}"
        efficiency = f"{work / PEAK[case.chip] / found:.1%}"
        cells = case.chip, row, case.kernel, f"{case.query} x {case.key}"
        text += f"| {' | '.join(cells)} | {found:,} | {efficiency} |\n"
    text += RATIOS
    for chip, shape in itertools.product(CHIPS, COMPARED):
        ours = predicted(cycles, chip, shape)
        rows = [whole(cycles, chip, d, shape) for d in DIRECTIONS]
        row = None if None in rows else sum(rows)
        cells = f"{chip} | {shape} | {ours:,.0f}" + (
            f" | {row:,.0f}" if row else " | -"
        )
        for count in (repeated_pairs, packed_pairs):
            theirs = splashed(cycles, chip, lambda b, c=count, s=shape: c(s, b))
            of_row = f"{theirs / row:.2f}" if row else "-"
            cells += f" | {theirs:,.0f} | {theirs / ours:.2f} | {of_row}"
        text += f"| {cells} |\n"
    return text


def main(seconds):
    """Estimate what the table of this libtpu lacks, and write both files."""
    path = RESULTS / "attention_cycles.json"
    version = importlib.metadata.version("libtpu")
    table = json.loads(path.read_text()) if path.exists() else {"libtpu": None}
    cycles = table["cycles"] if table["libtpu"] == version else {}
    started = time.monotonic()
    for case in cases():
        if case.name not in cycles and time.monotonic() - started < seconds:
            cycles[case.name] = run(case)
            print(case.name, cycles[case.name], flush=True)
        text = json.dumps({"libtpu": version, "cycles": cycles}, indent=1)
        path.write_text(text + "\n")
    (RESULTS / "attention_cycles.md").write_text(report(cycles, version))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    main(parser.parse_args().seconds)
