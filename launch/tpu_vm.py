"""A slice of TPU VMs without a cluster: create, run, fetch, delete."""

import shlex
import textwrap

from job import RESTART, Job

RUNTIMES = {
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Software of TPU VMs, as public scripts that create queued resources name it."""


def tpu_vm(job: Job) -> str:
    """Return a script of verbs around one slice of TPU VMs: create, wait, run, delete.

    Raises:
      ValueError: for several slices, and for chips that TPU VMs do not have.
    """
    piece = job.piece
    if job.num_slices > 1 or piece.chip.name not in RUNTIMES:
        raise ValueError(
            f"tpu-vm renders one slice of {', '.join(RUNTIMES)}, not"
            f" {job.num_slices} of {job.slice}: use jobset"
        )
    docker = ["sudo", "docker", "run", "--rm", "--privileged", "--net=host"]
    # The first process of the container is Python: docker stop sends it SIGTERM.
    docker += [f"--env={name}={value}" for name, value in job.env.items()]
    docker += [f"--stop-timeout={job.grace}", "-v", "/runs:/runs", job.image]
    remote = (
        "mountpoint -q /runs || { echo 'mount a shared /runs first' >&2; exit 2; }\n"
        f"left={job.restarts}\n"
        f"while code=0; {shlex.join([*docker, *job.command])} || code=$?\n"
        f'  [ "$code" -eq {RESTART} ] && [ "$left" -gt 0 ]\n'
        "do left=$((left - 1)); done\n"
        'exit "$code"'
    )
    return TPU_VM.format(
        name=job.name,
        type=job.cloud_name,
        runtime=RUNTIMES[piece.chip.name],
        remote=shlex.quote(remote),
    )


TPU_VM = textwrap.dedent(
    """\
    #!/usr/bin/env bash
    # {name}.sh create [--spot] | wait | each COMMAND | run | fetch FOLDER | delete
    set -euo pipefail
    : "${{ZONE:?set ZONE to the zone of the TPU}}"
    verb="${{1:?create, wait, each, run, fetch or delete}}"
    shift
    on_all() {{
      gcloud compute tpus tpu-vm ssh {name} --zone "$ZONE" --worker all --command "$1"
    }}
    case "$verb" in
      create)
        gcloud compute tpus queued-resources create {name} --node-id {name} \\
          --zone "$ZONE" --accelerator-type {type} \\
          --runtime-version {runtime} "$@"
        ;;
      wait)
        while true; do
          state=$(gcloud compute tpus queued-resources describe {name} --zone "$ZONE" \\
            --format 'value(state.state)')
          case "$state" in
            ACTIVE) break ;;
            FAILED | SUSPENDED)
              echo "{name} is $state: delete, then create" >&2
              exit 1
              ;;
          esac
          sleep "${{PERIOD:-30}}"
        done
        ;;
      each) on_all "$1" ;;
      run)
        # shellcheck disable=SC2016 # expanded on the workers
        on_all {remote}
        ;;
      fetch)
        gcloud compute tpus tpu-vm scp --recurse --zone "$ZONE" --worker 0 \\
          {name}:"$1" .
        ;;
      delete)
        gcloud compute tpus queued-resources delete {name} --zone "$ZONE" \\
          --force --quiet
        ;;
      *)
        echo "no verb $verb" >&2
        exit 2
        ;;
    esac
    """
)
