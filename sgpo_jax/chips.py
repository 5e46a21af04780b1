"""Facts of accelerators: what a name like `v5p-128` means, memory and peak per device.

Nothing here imports JAX, so that manifests can be rendered on a laptop.
"""

import dataclasses
import math

GIB = 2**30
"""Bytes of a gibibyte."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of accelerator, per device as JAX counts devices.

    Attributes:
      name: as in slice names.
      kind: `jax.Device.device_kind`, or its beginning.
      hbm_gib: memory of a device in GiB.
      peak_tflops: dense bfloat16 products per second, in 10^12, of a device.
      per_chip: devices of a chip.
      cores: what slice names count per chip: TensorCores, or 1 where they count chips.
      torus: axes of the interconnect, 2 or 3; 0 where slices are not supported.
      gke: value of the node label `cloud.google.com/gke-tpu-accelerator`.
      machine: GKE machine type without its number of chips.
    """

    name: str
    kind: str
    hbm_gib: float
    peak_tflops: float
    per_chip: int = 1
    cores: int = 1
    torus: int = 0
    gke: str = ""
    machine: str = ""


# v4 is here for its peak only: libtpu's compiler sees its two cores as two devices.
# Sources: Google Cloud's TPU system architecture pages and GKE's "Plan TPUs"; NVIDIA's
# data sheets (dense, without sparsity).
CHIPS = (
    Chip(
        name="v4",
        kind="TPU v4",
        hbm_gib=32.0,
        peak_tflops=275.0,
    ),
    Chip(
        name="v5e",
        kind="TPU v5 lite",
        hbm_gib=16.0,
        peak_tflops=197.0,
        torus=2,
        gke="tpu-v5-lite-podslice",
        machine="ct5lp-hightpu",
    ),
    Chip(
        name="v5p",
        kind="TPU v5",
        hbm_gib=95.0,
        peak_tflops=459.0,
        cores=2,
        torus=3,
        gke="tpu-v5p-slice",
        machine="ct5p-hightpu",
    ),
    Chip(
        name="v6e",
        kind="TPU v6 lite",
        hbm_gib=32.0,
        peak_tflops=918.0,
        torus=2,
        gke="tpu-v6e-slice",
        machine="ct6e-standard",
    ),
    Chip(
        name="tpu7x",
        kind="TPU7x",
        hbm_gib=96.0,
        peak_tflops=1153.5,
        per_chip=2,
        cores=2,
        torus=3,
        gke="tpu7x",
        machine="tpu7x-standard",
    ),
    Chip(name="A100", kind="NVIDIA A100", hbm_gib=80.0, peak_tflops=312.0),
    Chip(name="H100", kind="NVIDIA H100", hbm_gib=80.0, peak_tflops=989.0),
    Chip(name="H200", kind="NVIDIA H200", hbm_gib=141.0, peak_tflops=989.0),
)
"""TPU generations that are known."""


def of_kind(device_kind: str) -> Chip | None:
    """Return the chip of a `jax.Device.device_kind`; None if it is not in the table.

    >>> of_kind("TPU v5 lite").name, of_kind("TPU v5").name, of_kind("cpu")
    ('v5e', 'v5p', None)
    """
    kinds = [chip for chip in CHIPS if device_kind.startswith(chip.kind)]
    # "TPU v5" also begins "TPU v5 lite".
    return max(kinds, key=lambda chip: len(chip.kind), default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of a pod whose chips are joined by their own interconnect.

    Attributes:
      chip: its chips.
      layout: chips along each axis.
    """

    chip: Chip
    layout: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.layout)

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return self.chips * self.chip.per_chip

    @property
    def chips_per_host(self) -> int:
        """Chips of one host: 4, but up to 8 in a v5e or v6e slice of one host."""
        if self.chip.torus == 2 and self.chips <= 8:
            return self.chips
        return 4

    @property
    def hosts(self) -> int:
        """Hosts, each of which runs one process."""
        return self.chips // self.chips_per_host

    @property
    def host(self) -> "Slice":
        """The part of the slice on one host.

        >>> str(parse_slice("v5e-256").host), str(parse_slice("v5p-128").host)
        ('v5e-4', 'v5p-8')
        """
        layout = _layout(self.chips_per_host, self.chip.torus)
        return Slice(chip=self.chip, layout=layout)

    @property
    def topology(self) -> str:
        """Layout as GKE and Cloud TPU spell it.

        >>> parse_slice("v5p-128").topology
        '4x4x4'
        """
        return "x".join(map(str, self.layout))

    @property
    def machine(self) -> str:
        """GKE machine type.

        >>> parse_slice("v6e-16").machine
        'ct6e-standard-4t'
        """
        return f"{self.chip.machine}-{self.chips_per_host}t"

    def __str__(self) -> str:
        """Name of the slice, as in `parse_slice`."""
        return f"{self.chip.name}-{self.chips * self.chip.cores}"


def parse_slice(name: str) -> Slice:
    """Return the slice of a name; v5p and tpu7x count TensorCores, two per chip.

    Sizes are powers of two, laid out as Cloud TPU does by default.

    Raises:
      ValueError: if there is no such slice; the message lists them.

    >>> parse_slice("v5e-256").layout, parse_slice("v5p-128").chips
    ((16, 16), 64)
    >>> parse_slice("v5e-256").hosts, parse_slice("v5e-8").hosts
    (64, 1)
    """
    tpus = {chip.name: chip for chip in CHIPS if chip.torus}
    kind, _, size = name.partition("-")
    if kind == "v5litepod":
        kind = "v5e"
    if kind not in tpus or not size.isdigit():
        raise ValueError(
            f"no TPU slice {name!r}: write one of {', '.join(tpus)}, a hyphen and a"
            " size, as in v5e-256"
        )
    chip = tpus[kind]
    sizes = {chips * chip.cores: chips for chips in _sizes(chip)}
    if int(size) not in sizes:
        raise ValueError(
            f"no TPU slice {name!r}: {kind} comes in sizes"
            f" {', '.join(map(str, sizes))}"
            + (" (TensorCores, two per chip)" if chip.cores == 2 else "")
        )
    return Slice(chip=chip, layout=_layout(sizes[int(size)], chip.torus))


def _sizes(chip: Chip) -> list[int]:
    if chip.torus == 2:
        return [2**k for k in range(9) if k != 1]
    return [2**k for k in range(2, 12)]


def _layout(chips: int, axes: int) -> tuple[int, ...]:
    """Return the most nearly equal powers of two, the smallest first.

    >>> _layout(8, 2), _layout(4, 3), _layout(128, 3)
    ((2, 4), (2, 2, 1), (4, 4, 8))
    """
    if axes == 3 and chips == 4:
        return (2, 2, 1)
    exponent = chips.bit_length() - 1
    return tuple(2 ** ((exponent + axis) // axes) for axis in range(axes))
