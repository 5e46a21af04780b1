"""`sgpo aot`: does this run fit that pod, and what will it move there?"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import tyro

from sgpo_jax import chips, packing, sampling, sharding
from sgpo_jax.ahead_of_time import facts, programs, public, report, topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aot:
    """Compile the sampler's and the training step's programs for a TPU pod.

    Needs libtpu and no TPU. Prints memory, operations and collectives per device.

    Attributes:
      topology: the slice, such as v5e-256, v5p-128 or v6e-16.
      num_slices: equal slices joined by the data centre network; the mesh's data axis
        crosses between them.
      model: a published shape by name.
      mesh: devices along each axis of the mesh.
      row_length: tokens per packed row; every length is a rung.
      rows: rows per device and micro-batch; every number is a rung.
      prompt: prompt tokens; every length is a rung of the sampler.
      response: longest response in tokens.
      shortest_response: expected length of short responses.
      lanes: lanes per shard of the sampler.
      slots: samples decoded at once per lane.
      banks: prompts a lane can hold at once.
      staged: prompts encoded ahead, per shard.
      prefill_prompts: prompts encoded at once, per shard.
      only: compile only programs whose name begins so; empty for all.
      out: file the report is written to besides being printed; empty for none.
    """

    topology: str
    num_slices: int = 1
    model: str = "qwen3-8b"
    mesh: sharding.MeshShape = sharding.MeshShape()
    row_length: tuple[int, ...] = (4096,)
    rows: tuple[int, ...] = (1,)
    prompt: tuple[int, ...] = (512,)
    response: int = 1024
    shortest_response: int = 64
    lanes: int = 2
    slots: int = 8
    banks: int = 2
    staged: int = 8
    prefill_prompts: int = 4
    only: str = ""
    out: str = ""

    def workload(self) -> programs.Workload:
        """Build the run's programs; raises ValueError on what cannot be."""
        decoder = public.find(self.model)
        found = topology.devices(
            chips.parse_slice(self.topology), num_slices=self.num_slices
        )
        mesh = topology.mesh(self.mesh, found, num_slices=self.num_slices)
        shards = sharding.rows_shards(mesh, sharding.Rules())
        return programs.Workload(
            decoder=decoder,
            mesh=mesh,
            ladder=packing.make_ladder(
                row_lengths=self.row_length,
                rows=[rows * shards for rows in self.rows],
                response_length=self.response,
                shortest_response=self.shortest_response,
            ),
            engine=sampling.Engine(
                decoder,
                lanes=self.lanes * shards,
                slots=self.slots,
                max_prompt=self.prompt,
                max_response=self.response,
                stop_tokens=(0,),
                banks=self.banks,
                staged=self.staged,
                prefill_prompts=self.prefill_prompts,
                mesh=mesh,
            ),
        )


def main(args: Sequence[str]) -> int:
    """Run the command; returns 0 if everything fits, 1 if not, 2 on a mistake."""
    options = tyro.cli(Aot, args=list(args), prog="sgpo aot")
    try:
        workload = options.workload()
    except ValueError as error:
        print(f"sgpo: error: {error}", file=sys.stderr)
        return 2
    chip = chips.parse_slice(options.topology).chip
    results = []
    for job in [*workload.step_jobs(), *workload.sampler_jobs()]:
        if job.name.startswith(options.only):
            print(f"sgpo aot: compiling {job.name}", file=sys.stderr, flush=True)
            results.append(facts.compile_job(job, workload.mesh))
    many = f"{options.num_slices} x " if options.num_slices > 1 else ""
    title = f"{options.model} on {many}{options.topology}"
    lines = list(report.write(title, workload, chip, results))
    print("\n".join(lines))
    if options.out:
        command = f"Made by `sgpo aot {' '.join(args)}`."
        text = "\n".join([lines[0], "", command, *lines[1:]])
        pathlib.Path(options.out).write_text(text + "\n")
    return 0 if all(report.fits(one, chip) for one in results) else 1
