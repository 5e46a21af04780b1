"""`sgpo aot`: does this run fit that pod, and what will it move there?"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import jax

from sgpo_jax import chips, methods, models, packing, sampling, session, sharding
from sgpo_jax.ahead_of_time import (
    compile_report,
    planned,
    programs,
    public,
    report,
    topology,
)
from sgpo_jax.bounds import Size, bounded
from sgpo_jax.commands.options import parse_dataclass


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Aot:
    """Compile the sampler's and the training step's programs for a TPU pod.

    Needs libtpu and no TPU. Prints memory, operations and collectives per device.

    Attributes:
      topology: the slice, such as v5e-256, v5p-128 or v6e-16.
      num_slices: equal slices joined by the data centre network; the mesh's data axis
        crosses between them.
      model: a published shape by name, or the path of a config.json.
      method: the algorithm: a name of `sgpo methods`, or package.module:function.
      plan: a run folder after `sgpo plan`: its settings, and of its shapes those that
        a rehearsal of its methods uses. Replaces all options below but --mesh.
      mesh: devices along each axis of the mesh.
      row_length: tokens per packed row; every length is a bucket.
      remat: what the backward pass recomputes, as --model.remat of a run.
      rows: rows per device and micro-batch; every number is a bucket.
      prompt: prompt tokens; every length is a bucket of the sampler.
      response: longest response in tokens.
      shortest_response: expected length of short responses.
      lanes: lanes per shard of the sampler.
      slots: samples decoded at once per lane.
      prefixes_per_lane: prompts a lane can hold at once, in its prefix cache.
      staged: prompts encoded ahead, per shard.
      prefill_prompts: prompts encoded at once, per shard.
      only: compile only programs with this prefix of the name; empty for all.
      out: file the report is written to besides being printed; empty for none.
    """

    topology: str
    num_slices: Size = 1
    model: str = ""
    plan: str = ""
    method: str = "grpo_token"
    mesh: sharding.MeshShape = sharding.MeshShape()
    row_length: tuple[Size, ...] = (4096,)
    remat: models.Remat = "everything"
    rows: tuple[Size, ...] = (1,)
    prompt: tuple[Size, ...] = (512,)
    response: Size = 1024
    shortest_response: Size = 64
    lanes: Size = 2
    slots: Size = 8
    prefixes_per_lane: Size = 2
    staged: Size = 8
    prefill_prompts: Size = 4
    only: str = ""
    out: str = ""

    @property
    def name(self) -> str:
        """Model and topology, in words."""
        many = f"{self.num_slices} x " if self.num_slices > 1 else ""
        what = self.model or ("the policy" if self.plan else MODEL)
        planned = f" as planned in {self.plan}" if self.plan else ""
        return f"{what}{planned} on {many}{self.topology}"

    def workload(self) -> tuple[programs.Workload, list[str]]:
        """Build the run's programs, and lines on those left out.

        Raises:
          ValueError: on what cannot be.
        """
        piece = chips.parse_slice(self.topology)
        run = planned.read(pathlib.Path(self.plan)) if self.plan else None
        if run and not self.model:
            decoder = run.decoder
        else:
            decoder = public.find(self.model or MODEL)
            decoder = dataclasses.replace(decoder, remat=self.remat)
        found = topology.devices(piece, num_slices=self.num_slices)
        mesh = topology.mesh(self.mesh, found, num_slices=self.num_slices)
        host = topology.sampling_mesh(
            self.mesh, piece, mesh, num_slices=self.num_slices
        )
        shards, lines = sharding.rows_shards(mesh, sharding.Rules()), []
        if run:
            buckets = session.make_buckets(
                run.config.pack,
                run.config.sampler,
                longest_prompt=run.run.session.longest_prompt,
                shards=shards,
            )
            buckets, lines = _used(run, buckets)
            engine = session.make_engine(
                run.config.sampler,
                decoder,
                longest_prompt=run.run.session.longest_prompt,
                stop_tokens=run.run.tokenizer.stop_ids,
                shards=sharding.rows_shards(host, sharding.Rules()),
                hosts=self.num_slices * piece.hosts,
                mesh=host,
            )
        else:
            buckets = packing.make_buckets(
                row_lengths=self.row_length,
                rows=[rows * shards for rows in self.rows],
                response_length=self.response,
                shortest_response=self.shortest_response,
            )
            engine = self._engine(decoder, host)
        made = programs.Workload(
            decoder=decoder,
            mesh=mesh,
            buckets=buckets,
            engine=engine,
            method=methods.named(self.method),
        )
        return made, lines

    def _engine(self, decoder, mesh) -> sampling.Engine:
        return sampling.Engine(
            decoder,
            lanes=self.lanes * sharding.rows_shards(mesh, sharding.Rules()),
            slots=self.slots,
            max_prompt=self.prompt,
            max_response=self.response,
            stop_tokens=(0,),
            prefixes_per_lane=self.prefixes_per_lane,
            staged=self.staged,
            prefill_prompts=self.prefill_prompts,
            mesh=mesh,
        )


MODEL = "qwen3-8b"
"""Default model."""


def _used(
    run: planned.PlannedRun, buckets: packing.Buckets
) -> tuple[packing.Buckets, list[str]]:
    """Return the shapes a rehearsal uses, and a table of its counts."""
    lines = ["Micro-batches of each shape in a rehearsal of 16 steps:", ""]
    names = [f"{shape.rows} x {shape.row_length}" for shape in buckets.shapes]
    lines += ["| method | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    total = {shape: 0 for shape in buckets.shapes}
    for method, counts in run.rehearse(buckets).items():
        total = {shape: total[shape] + counts[shape] for shape in total}
        cells = " | ".join(str(counts[shape]) for shape in buckets.shapes)
        lines.append(f"| {method} | {cells} |")
    used = packing.Buckets(tuple(shape for shape in buckets.shapes if total[shape]))
    if len(used.shapes) < len(buckets.shapes):
        lines += ["", "Shapes that no method uses were not compiled."]
    return used, lines


def main(args: Sequence[str]) -> int:
    """Run the command; returns 0 if everything fits, 1 if not, 2 on a mistake."""
    # What a compiler without a device wrote, it cannot read again.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        options = parse_dataclass(Aot, list(args), prog="sgpo aot")
        workload, notes = options.workload()
        jobs = [*workload.step_jobs(), *workload.sampler_jobs()]
        chosen = [job for job in jobs if job.name.startswith(options.only)]
        if not chosen:
            names = ", ".join(job.name for job in jobs)
            raise ValueError(f"--only {options.only}: no program is called so: {names}")
    except ValueError as error:
        print(f"sgpo: error: {error}", file=sys.stderr)
        return 2
    chip = chips.parse_slice(options.topology).chip
    results = []
    for job in chosen:
        print(f"sgpo aot: compiling {job.name}", file=sys.stderr, flush=True)
        results.append(compile_report.compile_job(job))
    lines = list(report.write(options.name, workload, chip, results, notes))
    print("\n".join(lines))
    if options.out:
        command = f"Made by `sgpo aot {' '.join(args)}`."
        text = "\n".join([lines[0], "", command, *lines[1:]])
        pathlib.Path(options.out).write_text(text + "\n")
    return 0 if all(report.fits(one, chip) for one in results) else 1
