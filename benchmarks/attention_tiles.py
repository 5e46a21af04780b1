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
    MASKED,
    read_part,
    work_list,
)

RESULTS = pathlib.Path(__file__).parent / "results"
HEADS = tile_sizes.Heads(group=4, width=128, itemsize=2)
CHIPS = {
    "v5e": tile_sizes.TpuCore(vmem_bytes=128 * 2**20, wide=False),
    "v6e": tile_sizes.TpuCore(vmem_bytes=128 * 2**20, wide=True),
}


def shapes():
    """Prefix and responses of one row by name; ragged lengths are drawn from seed 0."""
    generator = np.random.default_rng(0)

    def ragged(prefix, count, low, high):
        return prefix, generator.integers(low, high, count).tolist()

    return {
        "P1024 G8 R512": (1024, [512] * 8),
        "P4096 G16 R1024": (4096, [1024] * 16),
        "P8192 G8 R512": (8192, [512] * 8),
        "P1000 G8 R79..880": ragged(1000, 8, 79, 880),
        "P4000 G16 R66..995": ragged(4000, 16, 66, 995),
        "P2000 G16 R64..2048": ragged(2000, 16, 64, 2048),
    }


SHAPES = shapes()


def attended(prefix, lengths):
    """Pairs of a query and a key that it reads."""
    own = sum(r * (r + 1) // 2 for r in lengths)
    return prefix * (prefix + 1) // 2 + prefix * sum(lengths) + own


def computed(prefix, lengths, plan):
    """Pairs computed in full tiles and in masked ones, and the number of items."""
    length = prefix + sum(lengths)
    length += -length % plan.unit
    layout = from_lengths([[(prefix, lengths)]], length=length)
    keys = slice(0, length // plan.key)
    work = jax.jit(lambda layout: work_list(layout, plan, keys=keys))(layout)
    number = int(work.number[0])
    masked = np.asarray(work.flags[:number]) & MASKED != 0
    chunks = 0
    for index in range(plan.query // plan.part):
        _, count, tail = (
            np.asarray(x)[masked] for x in read_part(work.parts[:number], index)
        )
        chunks += int((2 * count - tail).sum())
    full = int((~masked).sum()) * plan.query * plan.key
    return full, chunks * plan.chunk * plan.part // 2, number


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
        plan = tile_sizes.plan_for(length, HEADS, CHIPS["v5e"])
        return work_list(layout, plan, keys=slice(0, length // plan.key))

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
        "head, tiles that `plan_for` chooses. Pairs of a query and a key that are",
        "computed, forward and backward, over those that are read.",
        "",
        "| row | chip | tile, forward | backward | items | computed / read | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in SHAPES.items():
        for chip, facts in CHIPS.items():
            plan = tile_sizes.plan_for(group[0] + sum(group[1]), HEADS, facts)
            found = [computed(*group, p) for p in (plan, plan.backward)]
            ratios = [
                f"{(full + some) / attended(*group):.3f}" for full, some, _ in found
            ]
            sizes = f"{plan.query} x {plan.key} | {plan.backward_query} x {plan.key}"
            items = " + ".join(str(number) for *_, number in found)
            cells = f"{name} | {chip} | {sizes} | {items} | {' | '.join(ratios)}"
            lines.append(f"| {cells} |")
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
