"""Static estimates of one kernel's cycles on a TPU, with no TPU.

libtpu compiles a kernel for a chip and can then evaluate its schedule: loops unrolled,
scalar control flow followed, latencies of copies modeled. That is a model and no
measurement; it ranks variants and shows regressions. Every estimate runs in a process
of its own, since an instruction the evaluator does not know ends the process:

    python benchmarks/static_cycles.py '{"chip": "v5e", "kernel": "forward", ...}'

It knows no scalars read from memory, so a kernel finds the items of the work list by
comparing the grid step with constants; everything else is the kernel that runs.
"""

import dataclasses
import functools
import glob
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
TOPOLOGIES = {
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
    "v7x": "tpu7x:2x2x1",
}
VMEM_MIB = {"v5e": 128, "v5p": 64, "v6e": 128, "v7x": 64}
WIDE = "v6e", "v7x"
GROUP, WIDTH = 4, 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel on one key head.

    Attributes:
      chip: name of the chip.
      kernel: forward, backward, splash_forward or splash_backward.
      query: queries per tile.
      key: keys per tile.
      length: of a row in which every query tile reads every key tile, ...
      masked: ... all of them masked, though nothing is, or none.
      group: instead, the prefix and the responses of one packed row.
    """

    chip: str
    kernel: str
    query: int
    key: int
    length: int = 2048
    masked: bool = False
    group: tuple[int, tuple[int, ...]] | None = None

    @property
    def name(self) -> str:
        """Return the fields as the table of cycles lists them."""
        tile = f"{self.query}x{self.key}"
        what = f"{self.length}{' masked' if self.masked else ''}"
        if self.group:
            prefix, responses = self.group
            what = f"P{prefix} " + "+".join(map(str, responses))
        return f"{self.chip} {self.kernel} {tile} {what}"


def run(case: Case) -> int | None:
    """Estimate in a process of its own; None if the evaluator gives up."""
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(dataclasses.asdict(case))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return int(lines[-1])


def parse(text: str) -> Case:
    """Read a case as `run` writes it."""
    fields = json.loads(text)
    if fields.get("group"):
        prefix, responses = fields["group"]
        fields["group"] = prefix, tuple(responses)
    return Case(**fields)


def estimate(case: Case) -> int:
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
    array = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
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


def plan_of(case: Case):
    """Return the tiles of a case as the kernels take them."""
    from sgpo_jax.kernels.shared_prefix_attention import tiles

    return tiles.TilePlan(
        query=case.query,
        backward_query=case.query,
        key=case.key,
        part=256,
        chunk=tiles.LANES,
        mxu_sums=case.chip in WIDE,
        vmem_bytes=int(0.9 * VMEM_MIB[case.chip] * 2**20),
    )


def ours(case: Case, array):
    """Return a function of specs that runs one of our kernels, and the specs."""
    import jax.numpy as jnp

    from sgpo_jax.kernels.shared_prefix_attention import pallas
    from sgpo_jax.kernels.shared_prefix_attention.scores import Scores

    plan = plan_of(case)
    length, work = packed(case, plan) if case.group else dense(case, plan)
    shape = pallas.AttentionShape(1, length, 1, GROUP, WIDTH)
    keys, scores = slice(0, length // case.key), Scores(scale=WIDTH**-0.5)
    step = pallas.step_of(shape, plan, scores, keys, windowed=False)
    step = dataclasses.replace(step, item=tabulated(work))
    pallas.specs_of = contiguous(pallas.specs_of)
    q = array((length // case.query, GROUP, case.query, WIDTH), jnp.bfloat16)
    k = array((1, 1, length, WIDTH), jnp.bfloat16)
    numbers = array((1, 1, GROUP, length), jnp.float32)
    end = array((length // plan.chunk, 1, plan.chunk), jnp.int32)
    forward = case.kernel == "forward"
    extra = (end,) if forward else (end, q, numbers, numbers)
    kernel = pallas.outputs if forward else pallas.gradients

    def call(unread, *arrays):
        unread = *[unread] * 5, [len(work)]
        return kernel(arrays, unread, step, shape, plan)

    return call, (array((8,), jnp.int32), q, k, k, *extra)


def contiguous(specs_of):
    """Let query tiles be whole in memory: the evaluator knows no copies in pieces."""
    from jax.experimental import pallas as pl

    def changed(shape, step):
        tile = None, shape.group, step.query_tile, shape.width
        query = pl.BlockSpec(tile, lambda h, w, *work: (step.item(w).query, 0, 0, 0))
        specs = specs_of(shape, step)
        return specs._replace(query=query, inputs=(query, *specs.inputs[1:]))

    return changed


def dense(case: Case, plan):
    """Every query tile reads every key tile; all masked, or none."""
    from sgpo_jax.kernels.shared_prefix_attention import worklist as wl

    queries, keys = case.length // case.query, case.length // case.key
    whole = (case.key // plan.chunk) << wl.COUNT
    parts = sum(whole << wl.PART_BITS * i for i in range(plan.query // plan.part))
    work = []
    for query in range(queries):
        for key in range(keys):
            flags = wl.MASKED if case.masked else 0
            flags |= wl.FIRST if key == 0 else 0
            flags |= wl.LAST if key == keys - 1 else 0
            flags |= wl.ROW_FIRST if (query, key) == (0, 0) else 0
            flags |= wl.ROW_LAST if (query, key) == (queries - 1, keys - 1) else 0
            work.append((query, key, flags, parts))
    return case.length, work


def packed(case: Case, plan):
    """Return the length of the row of a group and its work list."""
    import numpy as np

    from sgpo_jax.kernels.shared_prefix_attention import from_lengths
    from sgpo_jax.kernels.shared_prefix_attention.worklist import work_list

    prefix, responses = case.group
    length = prefix + sum(responses)
    length += -length % max(case.query, case.key)
    layout = from_lengths([[(prefix, responses)]], length=length)
    work = work_list(layout, plan, keys=slice(0, length // case.key))
    columns = (np.asarray(x)[: int(work.number[0])] for x in work[1:5])
    return length, list(zip(*(x.tolist() for x in columns), strict=True))


def tabulated(work):
    """Return a function of the grid step that finds its item by comparisons."""
    import jax.numpy as jnp

    from sgpo_jax.kernels.shared_prefix_attention.worklist import WorkItem

    def signed(x):
        return (x + 2**31) % 2**32 - 2**31

    words = [
        (query | key << 8 | flags << 16, signed(parts))
        for query, key, flags, parts in work
    ]

    def item(w, *_):
        tiles, parts = (jnp.int32(x) for x in words[0])
        for n in range(1, len(words)):
            if words[n][0] != words[n - 1][0]:
                tiles = jnp.where(w >= n, words[n][0], tiles)
            if words[n][1] != words[n - 1][1]:
                parts = jnp.where(w >= n, words[n][1], parts)
        return WorkItem(jnp.int32(0), tiles & 255, tiles >> 8 & 255, tiles >> 16, parts)

    return item


def splash(case: Case, array):
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


if __name__ == "__main__":
    print(estimate(parse(sys.argv[1])))
