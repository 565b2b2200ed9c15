#!/bin/sh
# Dialogue test on an Atlas 300I DUO: one question, twenty tokens, as MindIE's run_300i_duo_pa.sh does it.
#
#   scripts/run_300i_duo.sh WEIGHTS [flags of `glmbench chat`, e.g. --emulate or --prompt 你好]
#
# Variables and their defaults are those of that script. `glmbench doctor --environment` says which act here, which the
# runtime reads, and which are only written into the record.
set -eu

weights=${1:?usage: $0 WEIGHTS [flags of glmbench chat]}
shift

export BIND_CPU="${BIND_CPU:-1}"
export IS_QUANT="${IS_QUANT:-0}"
export ASCEND_RT_VISIBLE_DEVICES="${ASCEND_RT_VISIBLE_DEVICES:-0,1}"
export TP_WORLD_SIZE="${TP_WORLD_SIZE:-2}"
export MASTER_PORT="${MASTER_PORT:-20030}"
export HCCL_BUFFSIZE="${HCCL_BUFFSIZE:-110}"
export HCCL_OP_BASE_FFTS_MODE_ENABLE="${HCCL_OP_BASE_FFTS_MODE_ENABLE:-TRUE}"
export TASK_QUEUE_ENABLE="${TASK_QUEUE_ENABLE:-1}"
export ATB_LAYER_INTERNAL_TENSOR_REUSE="${ATB_LAYER_INTERNAL_TENSOR_REUSE:-1}"
export ATB_WORKSPACE_MEM_ALLOC_GLOBAL="${ATB_WORKSPACE_MEM_ALLOC_GLOBAL:-1}"
export ATB_OPERATION_EXECUTE_ASYNC="${ATB_OPERATION_EXECUTE_ASYNC:-1}"

# 1 says that the weights are quantised; their config.json says how.
case "$IS_QUANT" in
    0) ;;
    1)
        if ! grep -q '"quantize"' "$weights/config.json"; then
            echo "$0: IS_QUANT=1 was found, and $weights/config.json has no \"quantize\": make a quantised folder with \
\`glmbench quantize $weights OUT --scheme w8a8 --calibration ceval\`" >&2
            exit 2
        fi
        ;;
    *)
        echo "$0: IS_QUANT=$IS_QUANT was found, 0 or 1 was expected" >&2
        exit 2
        ;;
esac

exec "${GLMBENCH:-glmbench}" chat --model "$weights" --device 300i-duo --dtype fp16 \
    --greedy --max-new-tokens 20 --prompt "What's deep learning?" "$@"
