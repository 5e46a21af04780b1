"""Report on a workload as Markdown: memory, cost, collectives, and remedies."""

import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sgpo_jax import sharding
from sgpo_jax.ahead_of_time.compile_report import CompileReport, copies, gib
from sgpo_jax.ahead_of_time.programs import Workload, device_bytes
from sgpo_jax.chips import GIB, Chip

RESERVED = 0.06
"""Share of a chip's memory that the runtime keeps, by libtpu's own messages."""


def resident_memory(workload: Workload) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of the arrays resident on a device for the whole run."""
    state = workload.state()
    params = device_bytes(state.params)
    yield "parameters, float32", params
    yield "gradients while they add up", params
    yield "optimizer", device_bytes(state) - params
    yield (
        "parameters as the sampler reads them",
        device_bytes(workload.sampler_params()),
    )
    for name, tree in workload.caches().items():
        yield f"key-value {name}", device_bytes(tree)


def fits(program: CompileReport, chip: Chip) -> bool:
    """Return whether a program runs in a device's memory."""
    return program.compiled and program.peak <= chip.hbm_gib * GIB * (1 - RESERVED)


def advice(program: CompileReport, chip: Chip, workload: Workload) -> str:
    """Return a remedy for a program that does not fit in memory."""
    if fits(program, chip):
        return ""
    if program.name.startswith(("prefill", "decode")):
        return _advice_on_sampling(workload)
    mesh, state = workload.mesh.shape, workload.state()
    split = mesh["fsdp"] * mesh["tensor"]
    wider = f"raise --mesh.fsdp (now {mesh['fsdp']}) or --mesh.tensor"
    wider += f" (now {mesh['tensor']})"
    if mesh["data"] == 1:
        wider = f"take a larger slice (all {split} devices share the state already)"
    kept = device_bytes(state) + device_bytes(state.params)
    room = chip.hbm_gib * GIB * (1 - RESERVED)
    if kept > room or program.name == "update":
        least = 1 << (math.ceil(split * kept / room) - 1).bit_length()
        return (
            f"parameters, gradients and optimizer take {gib(kept)} GiB per device,"
            f" split over {split}; {least} would do: {wider}"
        )
    return f"{_advice_on_rows(program, workload)}, or {wider}"


def _advice_on_rows(program: CompileReport, workload: Workload) -> str:
    decoder, shapes = workload.decoder, workload.buckets.shapes
    name = "gradients {0.rows} x {0.row_length}"
    shape = next((s for s in shapes if program.name == name.format(s)), shapes[-1])
    rows = shape.rows // sharding.rows_shards(workload.mesh, sharding.Rules())
    less = "lower --rows or --row-length"
    if rows == 1:  # and no axis of the mesh splits a row
        less = (
            f"lower --row-length (now {shape.row_length}; it need only hold a prompt"
            " and a response)"
        )
    less += ": more micro-batches cost no memory"
    if decoder.remat == "offload":
        return less
    width = decoder.embed_dim * jnp.dtype(decoder.dtype).itemsize
    inputs = decoder.num_layers * rows * shape.row_length * width
    return (
        f"{less}; or take --remat offload: the inputs of layers, {gib(inputs)} GiB per"
        " device that no axis of the mesh splits, are kept by the host"
    )


def _advice_on_sampling(workload: Workload) -> str:
    mesh = workload.sampling_mesh
    tensor, less = mesh.shape["tensor"], "lower --lanes, --slots or --response"
    if tensor < mesh.size:
        return (
            f"raise --mesh.tensor (the sampler splits parameters over {tensor} of the"
            f" {mesh.size} devices it has); or {less}"
        )
    return (
        f"{less}, or take a chip with more memory: the sampler splits parameters over"
        f" all {tensor} devices it has"
    )


def write(
    title: str,
    workload: Workload,
    chip: Chip,
    results: Sequence[CompileReport],
    notes: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"# {title}"
    yield ""
    yield f"Mesh: {_sizes(workload.mesh)}. {chip.name}: {chip.hbm_gib:g} GiB and"
    yield f"{chip.peak_tflops:g} TFLOP/s (bfloat16) per device. Compiled with jax"
    yield f"{jax.__version__}, no device; everything is per device."
    if workload.sampling_mesh.size < workload.mesh.size:
        yield "Each host samples on its own devices, as"
        yield f"{_sizes(workload.sampling_mesh)}."
    yield ""
    yield from notes
    yield from [""] if notes else []
    yield "| held | GiB |"
    yield "|---|---:|"
    for name, size in resident_memory(workload):
        yield f"| {name} | {gib(size)} |"
    yield ""
    yield from _memory(chip, results)
    yield ""
    yield from _work(results)
    yield ""
    yield from _collectives(results)
    yield ""
    yield from _splits(workload)
    wrong = [one for one in results if not fits(one, chip)]
    yield ""
    yield "Everything fits." if not wrong else "Does not fit:"
    for one in wrong:
        why = one.problem or f"needs {gib(one.peak)} of {chip.hbm_gib:g} GiB"
        yield f"* {one.name}: {why}; {advice(one, chip, workload)}"


def _sizes(mesh: Mesh) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())


def _memory(chip: Chip, results: Sequence[CompileReport]) -> Iterator[str]:
    yield (
        "| program | arguments | activations, temporaries | new results | code"
        " | held beside | sum, GiB | of HBM | compile, CPU s |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for one in results:
        if not one.compiled:
            yield f"| {one.name} | | {one.problem} | | | | | | {one.seconds:.0f} |"
            continue
        parts = (
            one.arguments,
            one.temporaries,
            one.outputs,
            one.code,
            one.resident_bytes,
        )
        cells = " | ".join(map(gib, (*parts, one.peak)))
        share = one.peak / (chip.hbm_gib * GIB)
        yield f"| {one.name} | {cells} | {share:.0%} | {one.seconds:.0f} |"


def _work(results: Sequence[CompileReport]) -> Iterator[str]:
    yield "| program | TFLOP in products | GB of HBM traffic | kernel calls |"
    yield "|---|---:|---:|---|"
    for one in results:
        if one.counts is None:
            yield f"| {one.name} | {one.problem} | | |"
            continue
        kernels = ", ".join(f"{n} x {k}" for k, n in one.counts.kernels.items())
        flops, moved = one.counts.flops / 1e12, one.counts.bytes / 1e9
        yield f"| {one.name} | {flops:.3f} | {moved:.2f} | {kernels} |"
    yield ""
    yield "Products include rematerialisation, not those inside the attention kernel."
    yield "Loops count as often as they run, that over decode steps once: `decode`"
    yield "is a call of one step, with what is done once per call: on TPU that includes"
    yield "slicing and casting the weights of each layer. Traffic is the sum of"
    yield "operands and results of every fusion outside VMEM, an upper estimate."


def _collectives(results: Sequence[CompileReport]) -> Iterator[str]:
    yield ("| program | over | collective | together | times | MB results | MB sent |")
    yield "|---|---|---|---:|---:|---:|---:|"
    for one in results:
        for c in one.counts.collectives if one.counts else ():
            yield (
                f"| {one.name} | {c.over} | {c.kind} | {c.group} | {c.count}"
                f" | {c.bytes / 1e6:.2f} | {c.wire_bytes / 1e6:.2f} |"
            )
    yield ""
    yield "Over `ici`, the chips' own network, that many devices take part together;"
    yield "over `dcn`, the data centre's, that many slices."


def _splits(workload: Workload) -> Iterator[str]:
    state = workload.state()
    leaves = len(jax.tree.leaves((state.params, state.opt_state)))
    found = copies(
        {"params": state.params, "optimizer": state.opt_state}, workload.mesh
    )
    yield f"Of {leaves} arrays of parameters and optimizer, {leaves - len(found)} are"
    yield "split over all of `fsdp` and `tensor`. The others, with the number of"
    yield "devices that hold the same part:"
    yield ""
    yield "| array | copies | MiB per device |"
    yield "|---|---:|---:|"
    for one in found:
        yield f"| `{one.path}` | {one.copies} | {one.mib:.3f} |"
