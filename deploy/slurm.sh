#!/usr/bin/env bash
# A search over a Slurm allocation, in a study named after the job: docs/cluster.md.
#
#     sbatch --job-name=load deploy/slurm.sh --data load.csv --trials 500
#
# From the root of the checkout, which all nodes see, in an activated environment. What follows the
# file are flags of `python -m search.run`. Shortly before the time limit the search ends in order
# and the job is queued again; then it goes on where it was.

#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# One cluster of Ray a machine, for its ports.
#SBATCH --exclusive
# One search a study: a second job of this name waits.
#SBATCH --dependency=singleton

set -euo pipefail

num_nodes=$SLURM_JOB_NUM_NODES
node_address=$(hostname --all-ip-addresses | cut --delimiter=' ' --fields=1)
cluster_address=$node_address:6379
token=$(mktemp "$PWD/.ray-token-XXXXXXXX") # readable by its owner only

# srun hands the signal on to its nodes.
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm --force "$token"' EXIT

# Whoever reaches a Ray cluster without a token can run any code on it.
od --address-radix=n --read-bytes=32 --format=x1 /dev/urandom | tr --delete ' \n' >"$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
# Ray's own default, /tmp/ray, belongs to whichever user was there first.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/ray-$(id --user)}
(umask 077 && mkdir --parents "$RAY_TMPDIR")

start_node=(ray start --block --disable-usage-stats "--num-cpus=$SLURM_CPUS_PER_TASK")

"${start_node[@]}" --head --port=6379 "--node-ip-address=$node_address" --include-dashboard=false &
head=$!
until ray health-check --address "$cluster_address" >/dev/null 2>&1; do
    kill -0 "$head"
    sleep 1
done

if ((num_nodes > 1)); then
    srun --nodes=$((num_nodes - 1)) --ntasks=$((num_nodes - 1)) --exclude="$SLURMD_NODENAME" \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 \
        "${start_node[@]}" --address="$cluster_address" &
fi

# How many trials run at a time is settled when the search begins, so all nodes come first.
python - "$cluster_address" "$num_nodes" <<'PYTHON'
import sys
import time

import ray

address, num_nodes, until = sys.argv[1], int(sys.argv[2]), time.monotonic() + 300
ray.init(address, log_to_driver=False, logging_level="error")
while (num_joined := sum(node["Alive"] for node in ray.nodes())) < num_nodes:
    if time.monotonic() > until:
        sys.exit(
            f"error: all {num_nodes} nodes of the allocation must join within 300 s: "
            f"{num_joined} did; see above what srun said of the others"
        )
    time.sleep(1)
PYTHON

python -m search.run "$@" --study="$SLURM_JOB_NAME" --address="$cluster_address" &
search=$!
trap 'kill -TERM "$search" 2>/dev/null || true' TERM

exit_code=0
wait "$search" || exit_code=$?
while kill -0 "$search" 2>/dev/null; do # a signal has ended the wait, not the search
    exit_code=0
    wait "$search" || exit_code=$?
done

# 143: ended by the signal. A job that was cancelled, or that Slurm queues again itself, is no
# longer running.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if ((exit_code == 143)) && [[ $state == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$exit_code"
