"""Logical axes, one table of rules, and the mesh they are mapped to.

Parameters and activations name their axes in the model's words (`"embed"`, `"heads"`,
`"rows"`); a :class:`Rules` table says which mesh axis each word is split over. Models
never see a mesh; only the command line, launch scripts and tests build one.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from sgpo_jax.bounds import Range, Size, bounded

MESH_AXES = ("data", "fsdp", "tensor")
"""Axes of a mesh, slowest first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """Logical axis rules: the mesh axes each logical axis is split over, or None.

    Rows of a batch are split over `data` and `fsdp` together; parameters over `fsdp`
    along the model width and over `tensor` along heads, hidden width or vocabulary
    (Megatron-style tensor parallelism inside fully sharded data parallelism).

    >>> Rules().spec(("embed", "heads", "head_dim"))
    P('fsdp', 'tensor', None)
    """

    rows: str | tuple[str, ...] | None = ("data", "fsdp")
    embed: str | None = "fsdp"
    heads: str | None = "tensor"
    kv_heads: str | None = "tensor"
    mlp: str | None = "tensor"
    vocab: str | None = "tensor"

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """Map logical axes to a partition spec.

        Axes that the table does not name (`layers`, `head_dim`, ...) stay whole.

        Raises:
          ValueError: if two axes of one array map to the same mesh axis.
        """
        table = dataclasses.asdict(self)
        entries = [table.get(axis) if axis else None for axis in axes]
        used = [
            name
            for entry in entries
            if entry
            for name in ([entry] if isinstance(entry, str) else entry)
        ]
        if len(used) != len(set(used)):
            raise ValueError(f"axes {tuple(axes)} use a mesh axis twice: {entries}")
        return PartitionSpec(*entries)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class MeshShape:
    """Number of devices along each mesh axis.

    Attributes:
      data: pure data parallelism; -1 takes all devices the other axes leave.
      fsdp: fully sharded data parallelism.
      tensor: tensor parallelism.
    """

    data: Annotated[int, Range(-1, 2**20)] = -1
    fsdp: Size = 1
    tensor: Size = 1

    def __post_init__(self):
        if self.data == 0:
            raise ValueError("data must be at least 1, or -1 for what is left; got 0")

    def resolve(self, num_devices: int) -> tuple[int, int, int]:
        """Return the sizes for `num_devices` devices, or say why it cannot be."""
        fixed = self.fsdp * self.tensor
        data = num_devices // fixed if self.data == -1 else self.data
        if data * fixed != num_devices:
            raise ValueError(
                f"mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} does not"
                f" fit {num_devices} device(s): choose sizes whose product is"
                f" {num_devices}, or data=-1 with fsdp*tensor dividing it"
            )
        return data, self.fsdp, self.tensor

    def of_one_host(self, num_devices: int) -> "MeshShape":
        """Return the shape for the devices of one host of several.

        They hold one copy of the parameters, or as few as `tensor` and their number
        allow: what sampling needs so as not to wait for another host.

        >>> MeshShape(fsdp=32, tensor=8).of_one_host(4)
        MeshShape(data=-1, fsdp=1, tensor=4)
        """
        return MeshShape(tensor=math.gcd(self.tensor, num_devices))


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device]) -> Mesh:
    """Build the mesh over `devices`; raises ValueError if the shape does not fit."""
    sizes = shape.resolve(len(devices))
    if devices[0].platform == "cpu":
        return Mesh(np.asarray(devices).reshape(sizes), MESH_AXES)
    return jax.make_mesh(
        sizes,
        MESH_AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def named(mesh: Mesh, *spec: Any) -> NamedSharding:
    """Return the sharding of `spec` on `mesh`."""
    return NamedSharding(mesh, PartitionSpec(*spec))


def put(x: Any, to: NamedSharding) -> Array:
    """Bring an array to devices, of which other processes may hold a part.

    Every process gives the same array; each sends its own devices' shards.
    """
    if to.is_fully_addressable or (
        isinstance(x, jax.Array) and not x.is_fully_addressable
    ):
        return jax.device_put(x, to)
    whole = np.asarray(x)
    return jax.make_array_from_callback(
        whole.shape, to, lambda index: np.asarray(whole[index])
    )


def fetch(x: Array) -> np.ndarray:
    """Bring an array to the host, whole; every process calls it at the same time."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def dividing(mesh: Mesh, axis: str | None, size: int) -> str | None:
    """Return a mesh axis if it divides a size, else None: then that is kept whole.

    An axis that the mesh does not have is one of a single device.

    >>> mesh = make_mesh(MeshShape(), jax.devices()[:1])
    >>> dividing(mesh, "tensor", 17), dividing(mesh, "pipeline", 17)
    ('tensor', None)
    """
    return axis if axis in mesh.shape and size % mesh.shape[axis] == 0 else None


def tree_shardings(
    axes: PyTree, shapes: PyTree, rules: Rules, mesh: Mesh
) -> PyTree[NamedSharding]:
    """Map trees of logical axes and of shapes to a tree of shardings.

    An axis that its mesh axis does not divide stays whole: a vocabulary of 17 cannot be
    split in two, and padding it would change the model.
    """

    def one(
        shape: jax.ShapeDtypeStruct, names: tuple[str | None, ...]
    ) -> NamedSharding:
        entries = [
            dividing(mesh, entry, size)
            for size, entry in zip(shape.shape, rules.spec(names), strict=True)
        ]
        return NamedSharding(mesh, PartitionSpec(*entries))

    return jax.tree.map(one, shapes, axes)


_ACTIVE: list[tuple[Mesh, Rules]] = []


@contextlib.contextmanager
def activations(mesh: Mesh | None, rules: Rules) -> Iterator[None]:
    """Make :func:`constrain` effective while a program is traced.

    Without an active mesh `constrain` does nothing, so that models run unchanged in a
    notebook. The pair is read at trace time only.
    """
    if mesh is None or mesh.size == 1:
        yield
        return
    _ACTIVE.append((mesh, rules))
    try:
        yield
    finally:
        _ACTIVE.pop()


def constrain(x: Array, axes: Sequence[str | None]) -> Array:
    """Constrain an activation to the active rules; a no-op without a mesh."""
    if not _ACTIVE:
        return x
    mesh, rules = _ACTIVE[-1]
    sharding = NamedSharding(mesh, rules.spec(axes))
    return jax.lax.with_sharding_constraint(x, sharding)


def lookup(table: Array, tokens: Array, dtype: Any) -> Array:
    """Return `table[tokens]` in a type, split by rows under the active rules.

    Each device looks up its part of the width for the rows of all its neighbours along
    that axis, and they exchange the parts. The gradient of the table is then added up
    where its part is, and summed over the other axes of `rows`; a compiler left to
    itself sums all of it everywhere once there are several slices.

    Args:
      table: an array of rows, [V, D].
      tokens: which of them, [N, L].
      dtype: of the result, [N, L, D].

    >>> table = jax.numpy.array([[1, 2], [3, 4]])
    >>> lookup(table, jax.numpy.array([[1, 0, 1]]), "float32")[0, :, 0]
    Array([3., 1., 3.], dtype=float32)
    """

    def plain(table: Array, tokens: Array) -> Array:
        return table[tokens].astype(dtype)

    if not _ACTIVE:
        return plain(table, tokens)
    mesh, rules = _ACTIVE[-1]
    rows = (rules.rows,) if isinstance(rules.rows, str) else rules.rows or ()
    width = dividing(mesh, rules.embed, table.shape[1])
    alone = width not in rows or mesh.shape[width] == 1
    if alone or tokens.shape[0] % rows_shards(mesh, rules):
        return plain(table, tokens)

    def local(table: Array, tokens: Array) -> Array:
        found = plain(table, jax.lax.all_gather(tokens, width, tiled=True))
        return jax.lax.all_to_all(found, width, 0, 2, tiled=True)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(None, width), PartitionSpec(rows)),
        out_specs=PartitionSpec(rows),
        axis_names=set(rows),
        check_vma=False,
    )(table, tokens)


def rows_shards(mesh: Mesh, rules: Rules) -> int:
    """Return over how many devices a batch's rows are split."""
    names = rules.rows
    if names is None:
        return 1
    sizes: Mapping[str, int] = dict(mesh.shape)
    return math.prod(sizes[n] for n in ([names] if isinstance(names, str) else names))
