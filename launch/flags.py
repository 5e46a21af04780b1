"""Sets of compiler flags for libtpu, each switched on by name: `render.py --flags`.

None is on by default: no set has been timed on hardware with this program. The names
and values are those of public MaxText and torchax launch scripts for v5e, v5p and v6e;
the paired libtpu accepts them (`tests/launch/test_flags.py`).
"""

GATHER = {
    # Fully sharded parameters are gathered layer by layer: hide it behind the layers.
    "xla_tpu_enable_async_collective_fusion": "true",
    # All-gathers take part, not only reductions.
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    # A collective may span several fused steps of computation.
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    # The TensorCore computes while the collective runs.
    "xla_tpu_overlap_compute_collective_tc": "true",
    # Start and end of an all-gather are separate, so that work fits between them.
    "xla_enable_async_all_gather": "true",
}

SLICES = {
    # The gradients' all-reduce over slices is slow: start it while others are computed.
    "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
    # Gradients are of many sizes.
    "xla_tpu_data_parallel_opt_different_sized_ops": "true",
}

SETS = {"gather": GATHER, "slices": SLICES}


def arguments(names: str) -> str:
    """Return the value of LIBTPU_INIT_ARGS for sets joined by commas.

    Raises:
      ValueError: for an unknown set; says which there are.

    >>> arguments("slices").split()[0]
    '--xla_tpu_enable_data_parallel_all_reduce_opt=true'
    """
    flags: dict[str, str] = {}
    for name in filter(None, names.split(",")):
        if name not in SETS:
            raise ValueError(f"no set of flags {name!r}; known: {', '.join(SETS)}")
        flags |= SETS[name]
    return " ".join(f"--{name}={value}" for name, value in flags.items())
