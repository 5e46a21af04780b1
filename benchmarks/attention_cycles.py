"""Static estimates of the TPU kernels' cycles, with no TPU.

    python benchmarks/attention_cycles.py [--chips v5e v6e]

libtpu compiles a kernel for a chip and can then evaluate its schedule: loops unrolled,
scalar control flow followed, latencies of copies modeled. That is a model and no
measurement; it ranks variants and shows regressions. Every estimate runs in a process
of its own, since an instruction the evaluator does not know ends the process. It knows
no scalars read from memory, so items come from arithmetic on the grid step instead of
the work list; everything else is the kernel that runs.

Writes benchmarks/results/attention_cycles.json and .md; delete the former to begin
afresh after a change of the kernels.
"""

import argparse
import dataclasses
import glob
import importlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

RESULTS = pathlib.Path(__file__).parent / "results"
TOPOLOGIES = {
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
    "v7x": "tpu7x:2x2x1",
}
# Peak bfloat16 operations per cycle of one core: rate / clock. Clocks are inferred.
PEAK = {"v5e": 197e12 / 1.5e9, "v5p": 229.5e12 / 1.75e9, "v6e": 918e12 / 1.75e9}
PEAK["v7x"] = 1153.5e12 / 2.2e9
GROUP, WIDTH = 4, 128


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel on one key head; `groups` is (prefix, responses, response)."""

    chip: str
    kernel: str  # forward, backward, splash_forward or splash_backward
    query: int
    key: int
    length: int = 2048
    masked: bool = False
    groups: tuple[int, int, int] | None = None

    @property
    def name(self):
        return " ".join(str(x) for x in dataclasses.astuple(self) if x is not None)


def staircase(counts):
    """Function of w giving the step it falls on and its place there, by comparisons."""
    starts = list(itertools.accumulate(counts, initial=0))[:-1]

    def find(w):
        import jax.numpy as jnp

        step, place = jnp.int32(0), w
        for count, start in zip(counts, starts[1:], strict=False):
            step += jnp.where(w >= start, 1, 0)
            place -= jnp.where(w >= start, count, 0)
        return step, place

    return find


def dense_item(case, tiles, plan):
    """Every query tile reads every key tile; all masked, or none."""
    import jax.numpy as jnp

    from sgpo_jax.kernels.shared_prefix_attention import worklist as wl

    queries, keys = tiles
    find = staircase([keys] * queries)
    whole = len(wl.sizes(plan.key // plan.chunk)) << wl.SIZE
    parts = sum(whole << wl.PART_BITS * i for i in range(plan.query // plan.part))

    def item(w, *_):
        query, key = find(w)
        flags = jnp.where(key == 0, wl.FIRST, 0) + jnp.where(
            key == keys - 1, wl.LAST, 0
        )
        flags += jnp.where(w == 0, wl.ROW_FIRST, 0)
        flags += jnp.where(w == queries * keys - 1, wl.ROW_LAST, 0)
        flags += wl.MASKED if case.masked else 0
        return wl.Item(jnp.int32(0), query, key, flags, jnp.int32(parts))

    return item, queries * keys


def packed_item(case, plan):
    """Items of one group whose lengths are multiples of both tile sizes."""
    import jax.numpy as jnp

    from sgpo_jax.kernels.shared_prefix_attention import worklist as wl

    prefix, responses, response = case.groups
    causal = [-(-(i + 1) * case.query // case.key) for i in range(prefix // case.query)]
    before = prefix // case.key
    one = [before + n for n in causal[: response // case.query]]
    in_prefix, in_response = staircase(causal), staircase(one)
    which = staircase([sum(one)] * responses)
    total = sum(causal) + responses * sum(one)

    def item(w, *_):
        early = w < sum(causal)
        member, place = which(w - sum(causal))
        query, at = in_response(place)
        query_, at_ = in_prefix(w)
        count = jnp.int32(0)
        for i in range(len(causal)):
            count += jnp.where(query_ == i, causal[i], 0) * jnp.where(early, 1, 0)
        for i in range(len(one)):
            count += jnp.where(query == i, one[i], 0) * jnp.where(early, 0, 1)
        own = prefix // case.key + member * (response // case.key) + at - before
        first = prefix // case.query + member * (response // case.query)
        query = jnp.where(early, query_, first + query)
        key = jnp.where(early, at_, jnp.where(at < before, at, own))
        at = jnp.where(early, at_, at)
        ends = (query + 1) * case.query - key * case.key  # of the causal triangle
        masked = (early | (at >= before)) & (ends - case.query < case.key - 1)
        flags = jnp.where(at == 0, wl.FIRST, 0) + jnp.where(at == count - 1, wl.LAST, 0)
        flags += jnp.where(w == 0, wl.ROW_FIRST, 0)
        flags += jnp.where(w == total - 1, wl.ROW_LAST, 0)
        flags += jnp.where(masked, wl.MASKED, 0)
        available = wl.sizes(case.key // plan.chunk)
        parts = jnp.int32(0)
        for i in range(case.query // plan.part):
            end = ends - case.query + (i + 1) * plan.part
            size = jnp.where(end > 0, 1, 0)
            for number in available[:-1]:
                size += jnp.where(end > number * plan.chunk, 1, 0)
            parts += size << (wl.SIZE + wl.PART_BITS * i)
        return wl.Item(jnp.int32(0), query, key, flags, parts)

    return item, total


def ours(case, array):
    """Return a function of specs that runs one of our kernels, and the specs."""
    import jax.numpy as jnp

    from sgpo_jax.kernels.shared_prefix_attention import pallas, tiles

    small = case.chip in ("v5p", "v7x")
    plan = tiles.Plan(
        query=case.query,
        key=case.key,
        part=min(tiles.CHUNK, case.query),
        chunk=min(tiles.CHUNK, case.key),
        mxu_sums=case.chip in ("v6e", "v7x"),
        vmem_bytes=(57 if small else 115) * 2**20,
    )
    shape = pallas.Shape(1, case.length, 1, GROUP, WIDTH)
    count = case.length // case.query, case.length // case.key
    if case.groups is None:
        item, number = dense_item(case, count, plan)
    else:
        item, number = packed_item(case, plan)
    step = pallas.step_of(shape, plan, None, slice(0, count[1]), windowed=False)
    step = dataclasses.replace(step, item=item)
    q = array((case.length, GROUP * WIDTH), jnp.bfloat16)
    k = array((case.length, WIDTH), jnp.bfloat16)
    numbers = array((1, count[0], GROUP, case.query), jnp.float32)
    end = array((case.length // plan.chunk, 1, plan.chunk), jnp.int32)
    forward = case.kernel == "forward"
    extra = (end,) if forward else (end, q, numbers, numbers)
    run = pallas.outputs if forward else pallas.gradients

    def kernel(unread, *arrays):
        return run(arrays, (*[unread] * 5, [number]), step, shape, plan)

    return kernel, (array((8,), jnp.int32), q, k, k, *extra)


def splash(case, array):
    """Return splash attention on a dense square, the best case for its inner loop."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.pallas.ops.tpu import splash_attention as sa

    def everything(h, i, j, data_next, block_mask, mask_next, next_i=False):
        return i if next_i else j, None, True, True

    # Its loop skips blocks by scalars from memory, which the evaluator reads as "skip".
    name = "splash_attention_kernel"
    kernels = importlib.import_module(f"{sa.__name__}.{name}")
    kernels._next_nonzero = everything
    mask = sa.MultiHeadMask([sa.FullMask((case.length, case.length))] * GROUP)
    sizes = sa.BlockSizes(
        block_q=case.query,
        block_kv=case.key,
        block_kv_compute=min(case.key, 512),
        block_q_dkv=case.query,
        block_kv_dkv=case.key,
        block_kv_dkv_compute=min(case.key, 512),
        use_fused_bwd_kernel=True,
    )
    attention = sa.make_splash_mqa_single_device(mask, block_sizes=sizes)
    q = array((GROUP, case.length, WIDTH), jnp.bfloat16)
    k = array((case.length, WIDTH), jnp.bfloat16)

    def both(q, k, v, dout):
        out, vjp = jax.vjp(attention, q, k, v)
        return out, vjp(dout)

    return both, (q, k, k, q)


def estimate(case):
    """Compile one case and return the cycles of its kernel (in a fresh process)."""
    folder = tempfile.mkdtemp()
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        JAX_PLATFORMS="cpu",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        LIBTPU_INIT_ARGS=f"--xla_jf_dump_static_llo_profile_to={folder}"
        " --xla_msa_enable=false",  # it knows no copies from where this puts operands
    )
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=TOPOLOGIES[case.chip]
    )
    mesh = Mesh(np.array(topology.devices[:1]), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec())

    def array(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    build = splash if case.kernel.startswith("splash") else ours
    function, specs = build(case, array)
    with jax.set_mesh(mesh):
        jax.jit(function).lower(*specs).compile()
    found = {}
    for path in glob.glob(f"{folder}/*.textproto"):
        for block in pathlib.Path(path).read_text().split("hlo_op_estimate")[1:]:
            name = re.search(r'hlo_op_name: "([^"]+)"', block)
            cycles = re.search(r"estimated_cycles: (\d+)", block)
            if name and cycles:
                found[name[1]] = int(cycles[1])
    wanted = {"splash_forward": "fwd", "splash_backward": "dkv"}
    pattern = wanted.get(case.kernel, "shared_prefix")
    return max(c for name, c in found.items() if pattern in name)


def run(case):
    """Estimate in a process of its own; None if the evaluator gives up."""
    done = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps(dataclasses.astuple(case))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(RESULTS.parents[1])},
    )
    lines = done.stdout.strip().splitlines()
    return None if done.returncode or not lines else int(lines[-1])


DIRECTIONS = "forward", "backward"
SHAPES = (1024, 8, 512), (4096, 16, 1024), (8192, 8, 512)
EXACT = SHAPES[0]  # the evaluator takes gigabytes and hours for the others
SIZES = (512, 512), (1024, 1024)
SPLASH = 512, 1024


def cases(chips):
    """Dense tiles, masked tiles, packed rows, and splash attention."""
    for chip, direction in itertools.product(chips, DIRECTIONS):
        for query, key in SIZES:
            yield Case(chip, direction, query, key)
        yield Case(chip, direction, 512, 512, masked=True)
        length = EXACT[0] + EXACT[1] * EXACT[2]
        yield Case(chip, direction, 512, 512, length, groups=EXACT)
        for block in SPLASH:
            yield Case(chip, f"splash_{direction}", block, block)


def repeated(cycles, chip, groups):
    """Cycles of splash on every repeated sequence, at its best block per direction.

    Blocks above the diagonal are skipped for nothing, and masks and the sum of partial
    query gradients are free.
    """
    prefix, responses, response = groups
    total = 0
    for direction in DIRECTIONS:
        best = []
        for block in SPLASH:
            per_block = cycles[Case(chip, f"splash_{direction}", block, block).name]
            count = -(-(prefix + response) // block)
            best.append(per_block / (2048 / block) ** 2 * count * (count + 1) / 2)
        total += responses * min(best)
    return total


def predicted(cycles, chip, groups):
    """Cycles by items: full and masked ones cost what they cost in dense rows."""
    prefix, responses, response = (-(-x // 512) for x in groups)
    responses = groups[1]
    full = prefix * (prefix - 1) // 2
    full += responses * (response * prefix + response * (response - 1) // 2)
    masked = prefix + responses * response
    total = 0
    for direction in DIRECTIONS:
        for masks, items in ((False, full), (True, masked)):
            case = Case(chip, direction, 512, 512, masked=masks)
            total += items * cycles[case.name] / (2048 / 512) ** 2
    return total


def attended(prefix, responses, response):
    """Pairs of a query and a key that it reads."""
    own = response * (response + 1) // 2
    return prefix * (prefix + 1) // 2 + responses * (prefix * response + own)


def report(cycles, chips, version):
    """Tables of efficiency against peak, and of cycles against repeated prefixes."""
    ideal = {"forward": 4, "backward": 10}  # operations per pair, head and channel
    lines = [
        "# Static estimates of the TPU kernels",
        "",
        f"Static estimate, libtpu {version}; nothing was run on a TPU. One key head, 4",
        "query heads of width 128, bfloat16. `python benchmarks/attention_cycles.py`.",
        "",
        "Efficiency is the cycles of the multiplications at peak over those estimated;",
        "for packed rows only the pairs that are read count as work.",
        "",
        "| chip | row | kernel | tile | cycles | efficiency |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases(chips):
        found = cycles.get(case.name)
        if found is None:  # not estimated yet, or the evaluator gave up
            continue
        pairs = attended(*case.groups) if case.groups else case.length**2
        direction = case.kernel.removeprefix("splash_")
        work = ideal[direction] * pairs * GROUP * WIDTH / PEAK[case.chip]
        row = f"{case.length} dense{', all masked' if case.masked else ''}"
        if case.groups:
            row = "P{} G{} R{}".format(*case.groups)
        what = f"{case.chip} | {row} | {case.kernel} | {case.query} x {case.key}"
        lines.append(f"| {what} | {found:,} | {work / found:.0%} |")
    lines += [
        "",
        "Forward and backward, one key head, against splash attention on sequences",
        "that repeat the prefix. Both are tiles times the cycles of a dense tile:",
        "ours of 512 x 512 with masks on every diagonal tile (the packed row above",
        "checks the sum), splash at its best size, its masks, dead steps and reduction",
        "of query gradients not counted.",
        "",
        "| chip | row | ours | repeat + splash | ratio |",
        "|---|---|---|---|---|",
    ]
    complete = [c for c in chips if all(cycles.get(x.name) for x in cases([c]))]
    for chip, groups in itertools.product(complete, SHAPES):
        mine = predicted(cycles, chip, groups)
        theirs = repeated(cycles, chip, groups)
        name = "P{} G{} R{}".format(*groups)
        ratio = f"{theirs / mine:.2f}"
        lines.append(f"| {chip} | {name} | {mine:,.0f} | {theirs:,.0f} | {ratio} |")
    return "\n".join(lines) + "\n"


def main(chips):
    """Estimate what the table of this libtpu lacks, and write both files."""
    path = RESULTS / "attention_cycles.json"
    version = importlib.metadata.version("libtpu")
    table = json.loads(path.read_text()) if path.exists() else {"libtpu": None}
    cycles = table["cycles"] if table["libtpu"] == version else {}
    for case in cases(chips):
        if case.name not in cycles:
            cycles[case.name] = run(case)
            print(case.name, cycles[case.name], flush=True)
        text = json.dumps({"libtpu": version, "cycles": cycles}, indent=1)
        path.write_text(text + "\n")
        (RESULTS / "attention_cycles.md").write_text(report(cycles, chips, version))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", default=["v5e", "v6e"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        *fields, groups = json.loads(options.case)
        print(estimate(Case(*fields, tuple(groups) if groups else None)))
    else:
        main(options.chips)
