#!/bin/sh
# Dialogue test on an Atlas 800I A2 with paged attention: one question, twenty tokens, as MindIE's script of this name.
#
#   scripts/run_800i_a2_pa.sh WEIGHTS [flags of `glmbench chat`, e.g. --emulate or --prompt 你好]
#
# Variables and their defaults are those of that script. `glmbench doctor --environment` says which act here, which the
# runtime reads, and which are only written into the record.
set -eu

weights=${1:?usage: $0 WEIGHTS [flags of glmbench chat]}
shift

export IS_BF16="${IS_BF16:-false}"
export IS_QUANT="${IS_QUANT:-0}"
export ASCEND_RT_VISIBLE_DEVICES="${ASCEND_RT_VISIBLE_DEVICES:-0}"
export TP_WORLD_SIZE="${TP_WORLD_SIZE:-1}"
export MASTER_PORT="${MASTER_PORT:-20030}"
export HCCL_OP_BASE_FFTS_MODE_ENABLE="${HCCL_OP_BASE_FFTS_MODE_ENABLE:-TRUE}"
export LCCL_ENABLE_FALLBACK="${LCCL_ENABLE_FALLBACK:-1}"
export TASK_QUEUE_ENABLE="${TASK_QUEUE_ENABLE:-1}"
export ATB_LAYER_INTERNAL_TENSOR_REUSE="${ATB_LAYER_INTERNAL_TENSOR_REUSE:-1}"
export ATB_WORKSPACE_MEM_ALLOC_GLOBAL="${ATB_WORKSPACE_MEM_ALLOC_GLOBAL:-1}"
export ATB_OPERATION_EXECUTE_ASYNC="${ATB_OPERATION_EXECUTE_ASYNC:-1}"

case "$IS_BF16" in
    true) dtype=bf16 ;;
    false) dtype=fp16 ;;
    *)
        echo "$0: IS_BF16=$IS_BF16 was found, true or false was expected" >&2
        exit 2
        ;;
esac

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

exec "${GLMBENCH:-glmbench}" chat --model "$weights" --device 800i-a2 --dtype "$dtype" \
    --greedy --max-new-tokens 20 --prompt "What's deep learning?" "$@"
