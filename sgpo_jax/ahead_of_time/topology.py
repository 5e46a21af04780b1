"""Devices of a TPU slice that need not exist, and meshes over them."""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import Mesh

from sgpo_jax import chips, sharding

# The compiler of libtpu looks for a TPU's environment, and for other processes.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def devices(piece: chips.Slice, *, num_slices: int = 1) -> list[jax.Device]:
    """Return the devices of `num_slices` equal slices, for compilation only.

    Raises:
      ValueError: if libtpu is not installed or does not know the slice.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {} if num_slices == 1 else {"num_slices": num_slices}
    if piece.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{piece.chip.name}:{piece.topology}",
            **options,
        ).devices
    except Exception as error:
        raise ValueError(
            f"no compiler for {piece}: {str(error).splitlines()[0]}; install the libtpu"
            " that pairs with this jax, pip install 'jax[tpu]'"
        ) from error
    return list(found)


def sampling_mesh(
    shape: sharding.MeshShape, piece: chips.Slice, whole: Mesh, *, num_slices: int = 1
) -> Mesh:
    """Return the mesh a run samples on: that of training, or a host's of many.

    Each host of several samples its own share on its own devices, whose number bounds
    the parts that parameters are split into.
    """
    if num_slices * piece.hosts == 1:
        return whole
    found = devices(piece.host)
    return sharding.make_mesh(shape.of_one_host(len(found)), found)


def mesh(
    shape: sharding.MeshShape, found: list[jax.Device], *, num_slices: int = 1
) -> Mesh:
    """Lay a mesh over devices; over several slices, `data` crosses between them.

    The data axis is the only one whose collectives are few and may be slow: one sum of
    gradients per update. So it is the one that goes over the data centre network.

    Raises:
      ValueError: if the shape does not fit, or its data axis cannot be split over the
        slices.
    """
    if num_slices == 1:
        return sharding.make_mesh(shape, found)
    data, fsdp, tensor = shape.resolve(len(found))
    if data % num_slices:
        raise ValueError(
            f"mesh data={data} must be a multiple of the {num_slices} slices: the"
            " data axis is what crosses between them"
        )
    try:
        array = mesh_utils.create_hybrid_device_mesh(
            (data // num_slices, fsdp, tensor), (num_slices, 1, 1), devices=found
        )
    except NotImplementedError:
        # No exact tori for these sizes: order within a slice is the devices' own.
        inside = sorted(found, key=lambda d: (d.slice_index, d.id))
        array = np.array(inside).reshape(data, fsdp, tensor)
    return Mesh(array, sharding.MESH_AXES)
