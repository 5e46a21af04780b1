#!/usr/bin/env bash
# demo.sh create [--spot] | wait | each COMMAND | run | fetch FOLDER | delete
set -euo pipefail
: "${ZONE:?set ZONE to the zone of the TPU}"
verb="${1:?create, wait, each, run, fetch or delete}"
shift
on_all() {
  gcloud compute tpus tpu-vm ssh demo --zone "$ZONE" --worker all --command "$1"
}
case "$verb" in
  create)
    gcloud compute tpus queued-resources create demo --node-id demo \
      --zone "$ZONE" --accelerator-type v5litepod-16 \
      --runtime-version v2-alpha-tpuv5-lite "$@"
    ;;
  wait)
    while true; do
      state=$(gcloud compute tpus queued-resources describe demo --zone "$ZONE" \
        --format 'value(state.state)')
      case "$state" in
        ACTIVE) break ;;
        FAILED | SUSPENDED)
          echo "demo is $state: delete, then create" >&2
          exit 1
          ;;
      esac
      sleep "${PERIOD:-30}"
    done
    ;;
  each) on_all "$1" ;;
  run)
    # shellcheck disable=SC2016 # expanded on the workers
    on_all 'mountpoint -q /runs || { echo '"'"'mount a shared /runs first'"'"' >&2; exit 2; }
left=2
while code=0; sudo docker run --rm --privileged --net=host --stop-timeout=300 -v /runs:/runs repo/sgpo:1 run --out /runs/demo --mesh.fsdp 16 --distributed.coordinator auto || code=$?
  [ "$code" -eq 42 ] && [ "$left" -gt 0 ]
do left=$((left - 1)); done
exit "$code"'
    ;;
  fetch)
    gcloud compute tpus tpu-vm scp --recurse --zone "$ZONE" --worker 0 \
      demo:"$1" .
    ;;
  delete)
    gcloud compute tpus queued-resources delete demo --zone "$ZONE" \
      --force --quiet
    ;;
  *)
    echo "no verb $verb" >&2
    exit 2
    ;;
esac
