"""GKE: a JobSet, and the queue of Kueue that admits it."""

import json

from job import REFUSED, Job

LABEL = "kueue.x-k8s.io/queue-name"


def jobset(job: Job) -> dict:
    """Return the JobSet (v1alpha2): a Job per slice, a pod per host."""
    piece = job.piece
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
        "template": {"spec": _pod(job)},
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
        metadata["labels"] = {LABEL: job.queue}
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


def _nodes(job: Job) -> dict[str, str]:
    return {
        "cloud.google.com/gke-tpu-accelerator": job.piece.chip.gke,
        "cloud.google.com/gke-tpu-topology": job.piece.topology,
    }


def _pod(job: Job) -> dict:
    tpu = {"google.com/tpu": job.piece.chips_per_host}
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
        "nodeSelector": _nodes(job),
        "containers": [container],
    }
    if job.pvc:
        container["volumeMounts"] = [{"name": "runs", "mountPath": "/runs"}]
        claim = {"claimName": job.pvc}
        pod["volumes"] = [{"name": "runs", "persistentVolumeClaim": claim}]
    return pod


def queue(job: Job) -> list[dict]:
    """Return a queue of Kueue (v1beta1) that admits one such job at a time.

    The flavor says which nodes, the cluster queue how many chips, the local queue is
    what the job's label names. An administrator applies them once.

    Raises:
      ValueError: if the job names no queue.
    """
    if not job.queue:
        raise ValueError("a queue needs a name: --queue NAME")
    flavor = str(job.piece)
    chips = job.piece.chips * job.num_slices
    head = {"apiVersion": "kueue.x-k8s.io/v1beta1"}
    return [
        {
            **head,
            "kind": "ResourceFlavor",
            "metadata": {"name": flavor},
            "spec": {"nodeLabels": _nodes(job)},
        },
        {
            **head,
            "kind": "ClusterQueue",
            "metadata": {"name": job.queue},
            "spec": {
                "namespaceSelector": {},
                "queueingStrategy": "BestEffortFIFO",
                "resourceGroups": [
                    {
                        "coveredResources": ["google.com/tpu"],
                        "flavors": [
                            {
                                "name": flavor,
                                "resources": [
                                    {"name": "google.com/tpu", "nominalQuota": chips}
                                ],
                            }
                        ],
                    }
                ],
            },
        },
        {
            **head,
            "kind": "LocalQueue",
            "metadata": {"name": job.queue, "namespace": "default"},
            "spec": {"clusterQueue": job.queue},
        },
    ]


def manifest(job: Job) -> str:
    """Return the JobSet as text."""
    # JSON is YAML, and needs no package.
    return json.dumps(jobset(job), indent=2) + "\n"


def queue_manifest(job: Job) -> str:
    """Return the queue as text."""
    items = {"apiVersion": "v1", "kind": "List", "items": queue(job)}
    return json.dumps(items, indent=2) + "\n"
