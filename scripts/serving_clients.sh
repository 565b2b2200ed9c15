#!/usr/bin/env bash
# Runs real clients against `glmbench serve --model demo`: openai, huggingface_hub, text-generation, lm_eval.
#
# usage: scripts/serving_clients.sh [VENV]    a folder for the virtual environment, kept if given
#
# Exits with 0 if all results are as expected, or if Python or the package registry is missing (said aloud), else with 1.
# GLMBENCH names the program; target/release/glmbench unless set. SERVING_CLIENTS_TIMEOUT bounds the installation, seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "serving_clients: SKIPPED: $1"
    exit 0
}

work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

glmbench=${GLMBENCH:-target/release/glmbench}
[ -x "$glmbench" ] || skip "$glmbench is not built"
command -v python3 >/dev/null || skip "there is no python3"
python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || skip "python3 is older than 3.10 or has no venv"

venv=${1:-$work/venv}
if [ ! -x "$venv/bin/lm_eval" ]; then
    python3 -m venv "$venv" || skip "no virtual environment can be made"
    timeout "${SERVING_CLIENTS_TIMEOUT:-600}" "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 \
        openai==3.57.0 huggingface_hub==0.36.2 text-generation==0.7.0 'lm_eval[api]==0.4.13' ||
        skip "the clients cannot be installed from the package registry"
fi

"$glmbench" serve --model demo --port 0 --log "$work/serve.log" >"$work/url" &
server=$!
for _ in $(seq 100); do
    [ -s "$work/url" ] && break
    sleep 0.1
done
[ -s "$work/url" ] || { echo "serving_clients: the server did not start"; exit 1; }

HF_HOME="$work/hf" OPENAI_API_KEY=none \
    timeout 300 "$venv/bin/python" scripts/serving_clients.py "$(cat "$work/url")" "$glmbench" "$work"

kill -TERM "$server"
wait "$server" || { echo "serving_clients: the server ended with exit code $?"; exit 1; }
server=
echo "serving_clients: all clients are content"
