"""Scripts that submit to clusters with a tool of their own: Cluster Toolkit, xpk."""

import shlex

from job import Job


def gcluster(job: Job) -> str:
    """Return a script that submits with Cluster Toolkit, which makes a JobSet."""
    options = {
        "--name": job.name,
        "--image": job.image,
        "--command": job.inside,
        **_env(job),
        "--compute-type": job.cloud_name,
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
        "--command": job.inside,
        **_env(job),
        "--tpu-type": job.cloud_name,
        "--num-slices": job.num_slices,
        "--max-restarts": job.restarts,
        "--termination-grace-period-seconds": job.grace,
    }
    return _script("xpk workload create", options, "--zone", mount="")


def _env(job: Job) -> dict[str, str]:
    pairs = [f"{name}={value}" for name, value in job.env.items()]
    return {"--env": pairs[0]} if pairs else {}  # a run needs one at most


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
