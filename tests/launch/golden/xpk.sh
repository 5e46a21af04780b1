#!/usr/bin/env bash
set -euo pipefail
: "${PROJECT:?set PROJECT}"
: "${CLUSTER:?set CLUSTER}"
: "${LOCATION:?set LOCATION}"
: "${STORAGE:?set STORAGE}"
xpk workload create \
  --workload demo \
  --docker-image repo/sgpo:1 \
  --command 'exec /opt/sgpo_jax/launch/entrypoint.sh run --out /runs/demo --mesh.fsdp 16 --distributed.coordinator auto' \
  --env 'LIBTPU_INIT_ARGS=--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true' \
  --tpu-type v5litepod-16 \
  --num-slices 2 \
  --max-restarts 50 \
  --termination-grace-period-seconds 300 \
  --project "$PROJECT" \
  --cluster "$CLUSTER" \
  --zone "$LOCATION" \
  --storage "$STORAGE"
