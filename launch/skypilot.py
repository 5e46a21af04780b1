"""SkyPilot: a managed job that finds a slice, and finds another when it is lost."""

import shlex
import textwrap

import tpu_vm
from job import KILLED, RESTART, Job


def task(job: Job) -> str:
    """Return the task, for `sky jobs launch --env BUCKET=NAME`.

    It installs the working tree it is launched from; the image plays no part, since
    SkyPilot wants one it can be root in.

    Raises:
      ValueError: for several slices, and for chips that TPU VMs do not have.
    """
    piece = job.piece
    if job.num_slices > 1 or piece.chip.name not in tpu_vm.RUNTIMES:
        raise ValueError(
            f"sky renders one slice of {', '.join(tpu_vm.RUNTIMES)}, not"
            f" {job.num_slices} of {job.slice}: use jobset"
        )
    exports = [
        f"export {name}={shlex.quote(value)}\n" for name, value in job.env.items()
    ]
    run = "".join([*exports, shlex.join(["exec", "sgpo/bin/sgpo", *job.command])])
    return TASK.format(
        name=job.name,
        accelerator=f"tpu-{job.cloud_name}",
        runtime=tpu_vm.RUNTIMES[piece.chip.name],
        restart=", ".join(map(str, (RESTART, *KILLED))),
        run=textwrap.indent(run, "  "),
    )


TASK = """\
# sky jobs launch --env BUCKET=NAME {name}.yaml, from the root of the repository
name: {name}
workdir: .
resources:
  infra: gcp
  accelerators: {accelerator}
  accelerator_args:
    tpu_vm: true
    runtime_version: {runtime}
  use_spot: true
  job_recovery:
    max_restarts_on_errors: 0
    recover_on_exit_codes: [{restart}]
envs:
  BUCKET: null
file_mounts:
  /runs:
    source: gs://${{BUCKET}}
    mode: MOUNT
setup: |
  command -v uv || pip install uv
  uv venv --allow-existing --python 3.11 sgpo
  uv pip install --python sgpo/bin/python --constraint requirements.lock '.[tpu]'
run: |
{run}
"""
