r"""One description of a run, rendered for each way of launching it.

    python launch/render.py jobset --name demo --image IMAGE --slice v5e-256 \
        --queue tpu --pvc runs -- run --out /runs/demo --mesh.fsdp 256

`jobset` is a manifest; `gcluster`, `xpk` and `tpu-vm` are shell scripts. Standard
output is all it writes: pipe it to `kubectl apply -f -`, into a file, or read it.
"""

import argparse
import dataclasses
import json
import re
import shlex
import sys
import textwrap

import flags

from sgpo_jax import chips

REFUSED = (1, 2)
"""Exit codes of faults and of mistakes: doing the same again would fail again."""

RESTART = 42
"""Exit code of a run that was stopped, saved, and asks for the same command again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run on a pod.

    Attributes:
      name: of the JobSet; a DNS label.
      image: container image, built from `launch/Dockerfile`.
      slice: what each slice is, such as v5e-256.
      num_slices: equal slices.
      args: arguments of `sgpo`.
      queue: Kueue's local queue; empty for none.
      pvc: claim of the file system with the run folders, mounted at /runs.
      restarts: how often a preempted run is started again.
      grace: seconds between SIGTERM and SIGKILL; a step and a checkpoint must fit.
      flags: sets of compiler flags of `launch/flags.py`, joined by commas.
    """

    name: str
    image: str
    slice: str
    args: tuple[str, ...]
    num_slices: int = 1
    queue: str = ""
    pvc: str = ""
    restarts: int = 50
    grace: int = 300
    flags: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(f"name {self.name!r} must be a DNS label of at most 40")
        if not self.args:
            raise ValueError("say what to run after --, such as: -- run --out /runs/x")
        if self.num_slices < 1 or self.restarts < 0 or self.grace < 1:
            raise ValueError("num_slices and grace must be positive, restarts not < 0")
        piece = chips.parse_slice(self.slice)
        if self.num_slices > 1 and piece.hosts == 1:
            # GKE's page "Deploy TPU Multislices" says so.
            raise ValueError(f"{self.slice} has one host: several slices need more")
        flags.arguments(self.flags)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables of the container."""
        arguments = flags.arguments(self.flags)
        return {"LIBTPU_INIT_ARGS": arguments} if arguments else {}

    @property
    def command(self) -> list[str]:
        """Arguments of `sgpo`; several hosts are told to find each other."""
        args = list(self.args)
        many = self.num_slices * chips.parse_slice(self.slice).hosts > 1
        if many and not any(a.startswith("--distributed.") for a in args):
            args += ["--distributed.coordinator", "auto"]
        return args


def jobset(job: Job) -> dict:
    """Return the JobSet (v1alpha2): a Job per slice, a pod per host."""
    piece = chips.parse_slice(job.slice)
    tpu = {"google.com/tpu": piece.chips_per_host}
    container = {
        "name": "sgpo",
        "image": job.image,
        "args": job.command,
        "ports": [{"containerPort": 8471}, {"containerPort": 8482}],
        "resources": {"requests": tpu, "limits": tpu},
        "env": [{"name": name, "value": value} for name, value in job.env.items()],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": piece.chip.gke,
            "cloud.google.com/gke-tpu-topology": piece.topology,
        },
        "containers": [container],
    }
    if job.pvc:
        container["volumeMounts"] = [{"name": "runs", "mountPath": "/runs"}]
        claim = {"claimName": job.pvc}
        pod["volumes"] = [{"name": "runs", "persistentVolumeClaim": claim}]
    spec = {
        "parallelism": piece.hosts,
        "completions": piece.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                # The first rule that matches counts: whatever code a pod has that was
                # evicted or preempted, the job is to be started again.
                {
                    "action": "Count",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "sgpo",
                        "operator": "In",
                        "values": list(REFUSED),
                    },
                },
            ]
        },
        "template": {"spec": pod},
    }
    metadata: dict = {
        "name": job.name,
        "annotations": {
            # All pods of a slice on one node pool, and nothing else on it.
            "alpha.jobset.sigs.k8s.io/exclusive-topology": (
                "cloud.google.com/gke-nodepool"
            )
        },
    }
    if job.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": job.queue}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": job.restarts,
                "rules": [
                    {
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": job.num_slices,
                    "template": {"spec": spec},
                }
            ],
        },
    }


def gcluster(job: Job) -> str:
    """Return a script that submits with Cluster Toolkit, which makes a JobSet."""
    options = {
        "--name": job.name,
        "--image": job.image,
        "--command": _inside(job),
        **_env(job),
        "--compute-type": _cloud_name(job),
        "--num-slices": job.num_slices,
        "--restarts": job.restarts,
        "--grace-period": f"{job.grace}s",
    }
    if job.queue:
        options["--queue"] = job.queue
    return _script("gcluster job submit", options, "--location", mount="--mount")


def xpk(job: Job) -> str:
    """Return a script that submits with xpk, which retries codes 42 and 127..255."""
    options = {
        "--workload": job.name,
        "--docker-image": job.image,
        "--command": _inside(job),
        **_env(job),
        "--tpu-type": _cloud_name(job),
        "--num-slices": job.num_slices,
        "--max-restarts": job.restarts,
        "--termination-grace-period-seconds": job.grace,
    }
    return _script("xpk workload create", options, "--zone", mount="")


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
    piece = chips.parse_slice(job.slice)
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
        type=_cloud_name(job),
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


def _cloud_name(job: Job) -> str:
    """Return a slice's name as gcloud, xpk and gcluster spell it."""
    return str(chips.parse_slice(job.slice)).replace("v5e-", "v5litepod-")


def _env(job: Job) -> dict[str, str]:
    pairs = [f"{name}={value}" for name, value in job.env.items()]
    return {"--env": pairs[0]} if pairs else {}  # a run needs one at most


def _inside(job: Job) -> str:
    """Return the command inside a container whose entrypoint a launcher replaces."""
    # Without exec the launcher's shell would get SIGTERM in Python's place.
    return "exec " + shlex.join(["/opt/sgpo_jax/launch/entrypoint.sh", *job.command])


def _script(command: str, options: dict, place: str, *, mount: str) -> str:
    lines = [f"{name} {shlex.quote(str(value))}" for name, value in options.items()]
    lines += ['--project "$PROJECT"', '--cluster "$CLUSTER"', f'{place} "$LOCATION"']
    needed = ["PROJECT", "CLUSTER", "LOCATION"]
    if mount:
        needed.append("BUCKET")
        lines.append(f'{mount} "gs://$BUCKET;/runs;rw"')
    else:
        needed.append("STORAGE")
        lines.append('--storage "$STORAGE"')
    checks = [f': "${{{name}:?set {name}}}"' for name in needed]
    call = " \\\n  ".join([command, *lines])
    return "\n".join(["#!/usr/bin/env bash", "set -euo pipefail", *checks, call, ""])


def _manifest(job: Job) -> str:
    # JSON is YAML, and needs no package.
    return json.dumps(jobset(job), indent=2) + "\n"


KINDS = {"jobset": _manifest, "gcluster": gcluster, "xpk": xpk, "tpu-vm": tpu_vm}


def main(argv: list[str]) -> int:
    """Render; returns 0, or 2 on a mistake."""
    end = argv.index("--") if "--" in argv else len(argv)
    own, args = argv[:end], argv[end + 1 :]
    parser = argparse.ArgumentParser(prog="render.py")
    parser.add_argument("kind", choices=KINDS)
    for field in dataclasses.fields(Job):
        if field.name == "args":
            continue
        required = field.default is dataclasses.MISSING
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=str if required else type(field.default),
            required=required,
            default=None if required else field.default,
        )
    options = vars(parser.parse_args(own))
    kind = options.pop("kind")
    try:
        text = KINDS[kind](Job(args=tuple(args), **options))
    except ValueError as error:
        print(f"render.py: error: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
