"""Pairs the TPU kernels compute against pairs that are read, and work lists at scale.

    python benchmarks/attention_tiles.py

Writes benchmarks/results/attention_tiles.md.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pathlib
import time

import jax
import numpy as np

from sgpo_jax.kernels.shared_prefix_attention import from_lengths
from sgpo_jax.kernels.shared_prefix_attention import tiles as tile_sizes
from sgpo_jax.kernels.shared_prefix_attention.worklist import (
    LOW,
    MASKED,
    PART_BITS,
    SIZE,
    sizes,
    work_list,
)

RESULTS = pathlib.Path(__file__).parent / "results"
HEADS = tile_sizes.Heads(group=4, width=128, itemsize=2)
CHIPS = {
    "v5e": tile_sizes.Chip(vmem_bytes=128 * 2**20, wide=False),
    "v6e": tile_sizes.Chip(vmem_bytes=128 * 2**20, wide=True),
}


def shapes():
    """Prefix and responses of one row by name; ragged lengths are drawn from seed 0."""
    generator = np.random.default_rng(0)

    def ragged(prefix, count, low, high):
        lengths = generator.integers(low, high, count).tolist()
        return f"P{prefix} G{count} R{low}..{high}", prefix, lengths

    yield "P1024 G8 R512", 1024, [512] * 8
    yield "P4096 G16 R1024", 4096, [1024] * 16
    yield "P8192 G8 R512", 8192, [512] * 8
    yield ragged(1000, 8, 79, 880)
    yield ragged(4000, 16, 66, 995)
    yield ragged(2000, 16, 64, 2048)


def attended(prefix, lengths):
    own = sum(r * (r + 1) // 2 for r in lengths)
    return prefix * (prefix + 1) // 2 + prefix * sum(lengths) + own


def computed(prefix, lengths, plan):
    """Pairs computed by the kernels, and the number of items."""
    length = prefix + sum(lengths)
    length += -length % max(plan.query, plan.key)
    layout = from_lengths([[(prefix, lengths)]], length=length)
    work = work_list(layout, plan, keys=slice(0, length // plan.key))
    number = int(work.number[0])
    flags, parts = (np.asarray(x[:number]) for x in (work.flags, work.parts))
    taken = np.array([0, *sizes(plan.key // plan.chunk)]) * plan.chunk
    pairs = np.zeros(number, np.int64)
    for part in range(plan.query // plan.part):
        code = parts >> PART_BITS * part
        pairs += taken[(code >> SIZE) & LOW] * plan.part
    return int(np.where(flags & MASKED, pairs, plan.query * plan.key).sum()), number


def seconds_of_work_list(rows, length):
    """Best of three: a row is a prefix of half its length and eight responses."""
    generator = np.random.default_rng(0)
    groups = [
        [(length // 2, generator.integers(1, length // 16, 8).tolist())]
        for _ in range(rows)
    ]
    start = time.perf_counter()
    layout = from_lengths(groups, length=length)
    host = time.perf_counter() - start

    @jax.jit
    def build(layout):
        plan = tile_sizes.Plan(query=512, key=512, part=256, chunk=256)
        return work_list(layout, plan, keys=slice(0, length // 512))

    jax.block_until_ready(build(layout))
    found = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(build(layout))
        found.append(time.perf_counter() - start)
    return host, min(found)


def main():
    lines = [
        "# Tiles of the TPU kernels",
        "",
        "`python benchmarks/attention_tiles.py`. 4 query heads of width 128 on a key",
        "head. Tiles are those that `plan_for` chooses; a masked tile counts the",
        "chunks of keys in which any is read.",
        "",
        "| row | chip | tile | chunk | items | computed / attended |",
        "|---|---|---|---|---|---|",
    ]
    for name, prefix, lengths in shapes():
        for chip, facts in CHIPS.items():
            plan = tile_sizes.plan_for(prefix + sum(lengths), HEADS, facts)
            pairs, items = computed(prefix, lengths, plan)
            ratio = pairs / attended(prefix, lengths)
            tile = f"{plan.query} x {plan.key}"
            lines.append(
                f"| {name} | {chip} | {tile} | {plan.chunk} | {items} | {ratio:.2f} |"
            )
    lines += [
        "",
        "Layout on the host (numpy) and work list in jit, on this machine's CPU:",
        "",
        "| tokens | rows | layout, s | work list, s |",
        "|---|---|---|---|",
    ]
    for rows, length in ((8, 8192), (128, 8192), (32, 32768)):
        host, device = seconds_of_work_list(rows, length)
        tokens = f"{rows * length:,}"
        lines.append(f"| {tokens} | {rows} | {host:.3f} | {device:.3f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "attention_tiles.md").write_text(text)


if __name__ == "__main__":
    main()
