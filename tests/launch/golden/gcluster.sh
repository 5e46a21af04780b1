#!/usr/bin/env bash
set -euo pipefail
: "${PROJECT:?set PROJECT}"
: "${CLUSTER:?set CLUSTER}"
: "${LOCATION:?set LOCATION}"
: "${BUCKET:?set BUCKET}"
gcluster job submit \
  --name demo \
  --image repo/sgpo:1 \
  --command 'exec /opt/sgpo_jax/launch/entrypoint.sh run --out /runs/demo --mesh.fsdp 16 --distributed.coordinator auto' \
  --compute-type v6e-16 \
  --num-slices 1 \
  --restarts 50 \
  --grace-period 300s \
  --queue tpu \
  --project "$PROJECT" \
  --cluster "$CLUSTER" \
  --location "$LOCATION" \
  --mount "gs://$BUCKET;/runs;rw"
