"""Sets of compiler flags for libtpu, each switched on by name: `render.py --flags`.

None is on by default: no set has been timed on hardware with this program. The names
and values are those of public MaxText and torchax launch scripts. Which generations a
set is for is said with it, and the paired libtpu compiles for each of them with all its
sets (`tests/launch/test_flags.py`).
"""

GATHER = {
    # Fully sharded parameters are gathered layer by layer: the TensorCore computes
    # while the collective runs.
    "xla_tpu_overlap_compute_collective_tc": "true",
    # Start and end of an all-gather are separate, so that work fits between them.
    "xla_enable_async_all_gather": "true",
}

# libtpu 0.0.50 refuses it on all chips but v5e: "incorrect results, hang".
FUSION = {
    # Collectives are fused with the layers' computation that hides them.
    "xla_tpu_enable_async_collective_fusion": "true",
    # All-gathers take part, not only reductions.
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    # A collective may span several fused steps of computation.
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
}

SLICES = {
    # The gradients' all-reduce over slices is slow: start it while others are computed.
    "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
    # Gradients are of many sizes.
    "xla_tpu_data_parallel_opt_different_sized_ops": "true",
}

VMEM = {
    # Larger fusions: an operation may use 96 of the chip's 128 MiB, the rest is for
    # what the next one needs.
    "xla_tpu_scoped_vmem_limit_kib": "98304",
}

SPARSE_CORE = {
    # The chip's sparse cores, idle here otherwise, move the data of collectives.
    "xla_tpu_enable_sparse_core_collective_offload_all_gather": "true",
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": "true",
    "xla_tpu_enable_sparse_core_collective_offload_all_reduce": "true",
    # What they move has the TensorCore's layout, and all of them take part.
    "xla_tpu_use_tc_device_shape_on_sc": "true",
    "xla_sc_disable_megacore_partitioning": "true",
}

SETS = {
    "gather": GATHER,
    "fusion": FUSION,
    "slices": SLICES,
    "vmem": VMEM,
    "sparse-core": SPARSE_CORE,
}

GENERATIONS = {
    "v5e": ("gather", "fusion", "slices", "vmem"),
    "v5p": ("gather", "slices"),
    "v6e": ("gather", "slices", "vmem", "sparse-core"),
    "tpu7x": ("gather", "slices", "sparse-core"),
}
"""Sets by chip: v5p and tpu7x have 64 MiB of VMEM per core, v5e no sparse cores."""


def arguments(names: str, chip: str) -> str:
    """Return the value of LIBTPU_INIT_ARGS for sets joined by commas.

    Raises:
      ValueError: for a set that is not there, or not for the chip; says which are.

    >>> arguments("slices", "v5e").split()[0]
    '--xla_tpu_enable_data_parallel_all_reduce_opt=true'
    """
    flags: dict[str, str] = {}
    for name in filter(None, names.split(",")):
        if name not in GENERATIONS[chip]:
            raise ValueError(
                f"no set of flags {name!r} for {chip}; known:"
                f" {', '.join(GENERATIONS[chip])}"
            )
        flags |= SETS[name]
    return " ".join(f"--{name}={value}" for name, value in flags.items())
