#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]; on a CPU the processes talk gloo
set -euo pipefail
export MMKD_COMMAND="bash $0 $*"
config=$1 processes=$2; shift 2

python "$(dirname "$0")/torchrun.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
