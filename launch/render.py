r"""One description of a run, rendered as a JobSet for GKE.

    python launch/render.py jobset --name demo --image IMAGE --slice v5e-256 \
        --queue tpu --pvc runs -- run --out /runs/demo --mesh.fsdp 256

Standard output is all it writes: pipe it to `kubectl apply -f -`, or read it.
"""

import argparse
import dataclasses
import json
import re
import sys

from sgpo_jax import chips

REFUSED = (1, 2)
"""Exit codes of faults and of mistakes: doing the same again would fail again."""


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

    def __post_init__(self):
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(f"name {self.name!r} must be a DNS label of at most 40")
        if not self.args:
            raise ValueError("say what to run after --, such as: -- run --out /runs/x")
        if self.num_slices < 1 or self.restarts < 0 or self.grace < 1:
            raise ValueError("num_slices and grace must be positive, restarts not < 0")
        chips.parse_slice(self.slice)


def jobset(job: Job) -> dict:
    """Return the JobSet (v1alpha2): a Job per slice, a pod per host."""
    piece = chips.parse_slice(job.slice)
    tpu = {"google.com/tpu": piece.chips_per_host}
    container = {
        "name": "sgpo",
        "image": job.image,
        "args": list(job.args),
        "ports": [{"containerPort": 8471}, {"containerPort": 8482}],
        "resources": {"requests": tpu, "limits": tpu},
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
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "sgpo",
                        "operator": "In",
                        "values": list(REFUSED),
                    },
                }
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


def main(argv: list[str]) -> int:
    """Render; returns 0, or 2 on a mistake."""
    end = argv.index("--") if "--" in argv else len(argv)
    own, args = argv[:end], argv[end + 1 :]
    parser = argparse.ArgumentParser(prog="render.py")
    parser.add_argument("kind", choices=["jobset"])
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
    options.pop("kind")
    try:
        job = Job(args=tuple(args), **options)
    except ValueError as error:
        print(f"render.py: error: {error}", file=sys.stderr)
        return 2
    # JSON is YAML, and needs no package.
    print(json.dumps(jobset(job), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
