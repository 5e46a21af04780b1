#!/usr/bin/env bash
# Start a run in a container. `exec` makes Python process 1 of the container, so that
# SIGTERM reaches it and its exit code is the container's (42 asks to be restarted).
set -euo pipefail
exec "${PYTHON:-python3}" -c 'from sgpo_jax.cli import main; main()' "$@"
