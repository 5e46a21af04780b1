"""Compile reports: memory and cost analysis of one program, per device."""

import dataclasses
import re
import time

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from sgpo_jax.ahead_of_time.counts import Counts, count
from sgpo_jax.ahead_of_time.programs import Job, compiling_for, device_bytes
from sgpo_jax.chips import GIB


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileReport:
    """A compiled program; sizes are bytes of one device.

    Attributes:
      name: of the program.
      arguments: its inputs, parameters included.
      temporaries: activations and scratch space.
      outputs: results that do not reuse an argument's memory.
      code: the program itself.
      resident_bytes: bytes allocated besides it.
      counts: operations, bytes and collectives; None if the module cannot be read.
      seconds: processor time it took to compile.
      problem: why there is no program, or no counts.
    """

    name: str
    arguments: int = 0
    temporaries: int = 0
    outputs: int = 0
    code: int = 0
    resident_bytes: int = 0
    counts: Counts | None = None
    seconds: float = 0.0
    problem: str = ""

    @property
    def compiled(self) -> bool:
        """True if the program compiled."""
        return self.arguments > 0

    @property
    def peak(self) -> int:
        """Memory in use while it runs."""
        parts = (
            self.arguments,
            self.temporaries,
            self.outputs,
            self.code,
            self.resident_bytes,
        )
        return sum(parts)


def compile_job(job: Job) -> CompileReport:
    """Compile a program and return its memory and cost analysis.

    A program that needs more memory than the chip has is a result, not an error.
    """
    start = time.process_time()
    try:
        with compiling_for(job.mesh):
            compiled = job.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return CompileReport(
            name=job.name,
            resident_bytes=job.resident_bytes,
            seconds=time.process_time() - start,
            problem=_reason(str(error)),
        )
    seconds = time.process_time() - start
    memory = compiled.memory_analysis()
    if memory is None:
        return CompileReport(
            name=job.name,
            resident_bytes=job.resident_bytes,
            problem="no memory analysis",
        )
    counts, problem = None, ""
    try:
        counts = count(compiled.as_text() or "")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        problem = f"no counts: the module has no text ({str(error).splitlines()[0]})"
    return CompileReport(
        name=job.name,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        resident_bytes=job.resident_bytes,
        counts=counts,
        seconds=seconds,
        problem=problem,
    )


def _reason(message: str) -> str:
    """Return the memory an error reports as missing, or its first line.

    >>> _reason("Ran out of memory on HBM, the total memory required for HLO"
    ...         " temporaries (26.98G) exceeds available HBM (15.75G).")
    'needs 26.98G of 15.75G HBM, without what is held beside it'
    """
    found = re.search(r"\(([\d.]+\w)\) exceeds available (\w+) \(([\d.]+\w)\)", message)
    if found:
        needs, kind, there = found.groups()
        return f"needs {needs} of {there} {kind}, without what is held beside it"
    return message.strip().splitlines()[0][:200]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """An array that several devices hold in full or in part alike.

    Attributes:
      path: where it is in its tree.
      copies: devices along `fsdp` and `tensor` that hold the same part.
      mib: size on a device.
    """

    path: str
    copies: int
    mib: float


def copies(tree: PyTree, mesh: Mesh) -> list[Copies]:
    """Return the arrays that are not split over all of `fsdp` and `tensor`.

    Copies along `data` are what data parallelism is.
    """
    found = []
    inner = mesh.shape["fsdp"] * mesh.shape["tensor"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        whole = leaf.size * leaf.dtype.itemsize
        here = device_bytes(leaf)
        alike = round(here * inner / whole) if whole else inner
        if alike > 1:
            name = jax.tree_util.keystr(path)
            found.append(Copies(path=name, copies=alike, mib=here / 2**20))
    return found


def gib(size: int) -> str:
    """Write bytes as GiB.

    >>> gib(3 * 2**29)
    '1.500'
    """
    return f"{size / GIB:.3f}"
