#!/usr/bin/env bash
# Runs a suite as an array of 4 on a Slurm of one node. It kills one task with -9, requeues another, merges, and compares the
# result with an unsharded run. Then the same with GNU parallel over ssh, on three hosts that are namespaces of this machine.
# Where it has none, three folders stand for hosts. Installs nothing: where packages are missing, it says so and ends with 0
# (Debian: slurm-wlm munge parallel openssh-server). Everything lives in a folder of its own, with its own munge, ports and
# no systemd, and is stopped by process id.
#
#   scripts/slurm_test.sh            GLMBENCH=target/release/glmbench by default; ONLY_PARALLEL=1 leaves Slurm out, and
#                                    SSHD names an sshd elsewhere than in PATH
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
glmbench=${GLMBENCH:-$root/target/release/glmbench}

fail() {
  echo "slurm_test: FAILED: $1" >&2
  for log in "${work:-}"/{task*.log,joblog,shards/*.log}; do [ ! -s "$log" ] || { echo "-- $log"; tail -5 "$log"; } >&2; done
  exit 1
}
[ -x "$glmbench" ] || fail "$glmbench is not there; cargo build --release makes it"

work=$(mktemp -d /tmp/gbslurm.XXXXXX)
pids=()
stop() {
  local file pid
  if [ -n "${SLURM_CONF:-}" ]; then scancel --user="$(id -un)" 2>/dev/null || true; sleep 1; fi
  for file in "$work"/run/*.pid; do
    [ -e "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
  done
  for pid in "${pids[@]:-}"; do [ -n "$pid" ] && kill "$pid" 2>/dev/null || true; done
  sleep 1
  if [ -z "${KEEP:-}" ]; then rm -rf "$work"; else echo "kept: $work"; fi
}
trap stop EXIT

# The suite: all items of the samples, and timed cases that last long enough to catch a task while it runs.
cat > "$work/suite.toml" <<SUITE
schema = 1
name = "cluster"
[[accuracy]]
task = "ceval"
dataset = "$root/datasets/ceval-sample"
protocol = "two-stage"
[[accuracy]]
task = "boolq"
dataset = "$root/datasets/boolq-sample"
protocol = "modeltest"
[[performance]]
batch = [1, 2, 3, 4]
lengths = [[64, 256], [128, 256]]
repetitions = 8
SUITE
model=$root/models/demo

# The journals without times and checksums.
plain() { sed -E 's/"[a-z_]+_ns":[0-9]+//g; s/"sum":"[0-9a-f]+"//' "$1"; }
# Case, number and output of every timed repetition, without its times.
outputs() { sed -nE 's/.*"case_id":"([^"]*)","kind":"timed","repetition":([0-9]+).*"output_hash":"([0-9a-f]+)".*/\1 \2 \3/p' "$1"; }
compare() {
  local file
  cmp <(outputs "$1/requests.jsonl") <(outputs "$2/requests.jsonl") || fail "the timed repetitions of $1 and $2 differ"
  [ "$(outputs "$1/requests.jsonl" | wc -l)" -eq 64 ] || fail "$1 has not all timed repetitions"
  for file in samples.jsonl prompts.jsonl; do
    cmp <(plain "$1/$file") <(plain "$2/$file") || fail "$file of $1 and $2 differ"
    [ -s "$1/$file" ] || fail "$1/$file is empty"
  done
}

echo "slurm_test: an unsharded run"
"$glmbench" run "$work/suite.toml" --model "$model" --threads 1 --out "$work/whole" > "$work/whole.log" 2>&1 || fail "the unsharded run: $(tail -3 "$work/whole.log")"
whole=$(echo "$work"/whole/*)

slurm_part() {
  local missing="" tool
  for tool in munged slurmctld slurmd sbatch scontrol squeue scancel; do command -v "$tool" > /dev/null || missing="$missing $tool"; done
  if [ -n "$missing" ]; then echo "slurm_test: Slurm NOT RUN: missing$missing"; return; fi
  if [ "$(id -u)" -ne 0 ]; then echo "slurm_test: Slurm NOT RUN: a Slurm of its own needs root"; return; fi
  local host port
  host=$(hostname -s)
  port=$((26000 + RANDOM % 3000))
  mkdir -p "$work"/{munge,state,spool,run,log}
  chmod 0700 "$work/munge"
  dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 2>/dev/null
  chmod 0400 "$work/munge/key"
  munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/run/munged.pid" \
    --log-file="$work/log/munged.log" --seed-file="$work/munge/seed" 2>> "$work/log/munged.err" || fail "munged: $(tail -2 "$work/log/munged.err")"
  cat > "$work/slurm.conf" <<CONF
ClusterName=glmbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/run/slurmctld.pid
SlurmdPidFile=$work/run/slurmd.pid
SlurmctldLogFile=$work/log/slurmctld.log
SlurmdLogFile=$work/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$work/log/jobcomp.txt
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=5
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$work/slurm.conf GLMBENCH=$glmbench
  slurmctld -f "$SLURM_CONF"
  slurmd -f "$SLURM_CONF" -N "$host"
  wait_for 60 "the node is idle" eval 'sinfo -h -o %T | grep -q idle'

  "$glmbench" slurm "$work/suite.toml" --shards 4 --time 00:20:00 --out "$work/shards" --merged "$work/merged" \
    -- --model "$model" --threads 1 > "$work/job.sh"
  bash "$work/job.sh" | tee "$work/submitted"
  local array merge
  array=$(sed -E 's/^array ([0-9]+), merge ([0-9]+).*/\1/' "$work/submitted")
  merge=$(sed -E 's/^array ([0-9]+), merge ([0-9]+).*/\2/' "$work/submitted")

  # Task 1 dies as by the kernel's hand: its run says who writes it.
  wait_for 120 "shard 1 has lines" eval 'has_lines 1'
  kill -9 "$(writer 1)"
  wait_for 60 "task 1 has failed" eval "state ${array}_1 | grep -Eq 'FAILED|COMPLETED'"
  state "${array}_1" | grep -q FAILED || fail "task 1 was not caught while it ran"
  scontrol requeue "${array}_1"
  # Task 2 is requeued while it runs: SIGTERM, exit code 3, and again.
  wait_for 120 "shard 2 has lines" eval 'has_lines 2'
  scontrol requeue "${array}_2"
  sleep 8
  # Slurm would wait two minutes.
  for task in 1 2; do
    wait_for 60 "task $task is pending" eval "state ${array}_$task | grep -Eq 'PENDING|RUNNING|COMPLETED'"
    scontrol update JobId="${array}_$task" StartTime=now 2>/dev/null || true
  done
  "$glmbench" status "$work/shards" || true
  wait_for 600 "all shards are done" eval '"$glmbench" status "$work/shards" > "$work/status"'
  cat "$work/status"
  wait_for 120 "the merge has ended" eval "! squeue -h -j $merge -t PENDING,RUNNING,COMPLETING 2>/dev/null | grep -q ."
  grep -h . "$work"/shards/merge-*.log | tail -3 || true
  [ -d "$work/merged" ] || fail "the merge job made no run"
  compare "$work/merged" "$whole"
  local resumed
  resumed=$(grep -l '"resumed": [1-9]' "$work"/shards/*/run.json | wc -l)
  [ "$resumed" -ge 2 ] || fail "$resumed shards were resumed; expected two or more"
  echo "slurm_test: Slurm: the merged run equals the unsharded one; $resumed shards were resumed"
}

# Returns the run directory of a shard.
run_of() { ls -d "$work"/shards/*-"$1"of4 2>/dev/null | head -1; }
has_lines() { local run; run=$(run_of "$1"); [ -n "$run" ] && [ -s "$run/samples.jsonl" ] && [ -s "$run/writer.json" ]; }
writer() { sed -E 's/.*"pid":([0-9]+).*/\1/' "$(run_of "$1")/writer.json"; }
state() { scontrol show job "$1" 2>/dev/null | sed -nE 's/.*JobState=([A-Z]+).*/\1/p' | head -1; }
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "waited in vain until $what"
    sleep 0.2
  done
}

# Makes three hosts: each has a name, processes, a network and a folder `local` of its own. GNU parallel reaches them over
# ssh, whose server runs within the host's namespaces. Fails where they cannot be had.
make_hosts() {
  local sshd
  sshd=${SSHD:-$(command -v sshd || true)}
  if [ "$(id -u)" -ne 0 ] || [ -z "$sshd" ]; then echo "slurm_test: hosts need root and sshd"; return 1; fi
  mkdir -p "$work/local" "$work/sshd" /run/sshd
  cat > "$work/enter" <<ENTER
#!/bin/bash
# usage: enter HOST COMMAND...
host=\$1
shift
exec unshare --uts --net --pid --mount --fork --kill-child --mount-proc bash -c \\
  'hostname "\$1" && mount --bind "$work/\$1" "$work/local" && shift && exec "\$@"' enter "\$host" "\$@"
ENTER
  chmod +x "$work/enter"
  chmod 0700 "$work" "$work/sshd"
  for key in host user; do ssh-keygen -q -t ed25519 -N "" -f "$work/sshd/$key" || return 1; done
  printf '%s\n' "HostKey $work/sshd/host" "AuthorizedKeysFile $work/sshd/user.pub" "StrictModes no" "UsePAM no" \
    "PermitRootLogin prohibit-password" > "$work/sshd/server"
  printf '%s\n' "Host host*" "  ProxyCommand $work/enter %h $sshd -i -f $work/sshd/server" "  IdentityFile $work/sshd/user" \
    "  User root" "  StrictHostKeyChecking no" "  UserKnownHostsFile /dev/null" "  BatchMode yes" "  LogLevel ERROR" > "$work/sshd/client"
  export PARALLEL_SSH="ssh -F $work/sshd/client"
  timeout 60 $PARALLEL_SSH host1 true
}

# Returns the process of a shard, seen from outside its host.
process_of() {
  local pid
  for pid in $(pgrep -x glmbench); do
    if tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q -- "--shard $1/4 .*--out $work/ssh "; then echo "$pid"; fi
  done
}
on_host() { local runs; runs=$(ls -d "$work"/ssh/*-"$1"of4 2>/dev/null) && [ -s "$runs/samples.jsonl" ]; }

parallel_part() {
  local n line first
  command -v parallel > /dev/null || { echo "slurm_test: GNU parallel NOT RUN: missing parallel"; return; }
  for n in 1 2 3; do
    mkdir -p "$work/host$n"
    cp -r "$model" "$work/host$n/model"
  done
  if ! make_hosts; then
    echo "slurm_test: no hosts in namespaces here: three folders stand for hosts, each with its own copy of the model"
    line='cd '"$work"'/host{%} && if [ {} = 2 ] && [ ! -e ../failed ]; then touch ../failed; exit 9; fi; '"$glmbench"' run ../suite.toml --model model --threads 1 --shard {}/4 --resume --out ../ssh > ../task{}.log 2>&1'
    # Shard 2 fails at first. The same line again runs that one only.
    parallel --will-cite -j3 --joblog "$work/joblog" "$line" ::: 1 2 3 4 && fail "the failure of shard 2 was not reported" || true
    "$glmbench" merge "$work/early" "$work/ssh" 2> "$work/early.log" && fail "a shard was missing" || true
    grep -q 'shard 2 of 4 is missing' "$work/early.log" || fail "the refusal does not name shard 2: $(cat "$work/early.log")"
    parallel --will-cite -j3 --joblog "$work/joblog" --resume-failed "$line" ::: 1 2 3 4 || fail "GNU parallel: $(cat "$work"/task*.log | tail -3)"
  else
    echo "slurm_test: three namespaces are hosts, each with its own copy of the model"
    line="$glmbench run $work/suite.toml --model $work/local/model --threads 1 --shard {}/4 --resume --out $work/ssh > $work/task{}.log 2>&1"
    parallel --will-cite --joblog "$work/joblog" -S 1/host1,1/host2,1/host3 "$line" ::: 1 2 3 4 &
    first=$!
    pids+=("$first")
    # The process of shard 2 dies on its host. No other host can see that it is gone.
    wait_for 300 "shard 2 has lines" eval 'on_host 2 || ! kill -0 "$first" 2>/dev/null'
    kill -9 "$(process_of 2)" || fail "shard 2 was not caught while it ran"
    wait "$first" && fail "the failure of shard 2 was not reported" || true
    "$glmbench" merge "$work/early" "$work/ssh" 2> "$work/early.log" && fail "a shard was not whole" || true
    grep -Eq 'shard 2 of 4 .*(is being written by|is incomplete)' "$work/early.log" || fail "the refusal does not name shard 2: $(cat "$work/early.log")"
    # The same line again runs that one only, as soon as the writer counts as gone.
    parallel --will-cite --joblog "$work/joblog" --resume-failed -S 1/host1,1/host2,1/host3 "$line" ::: 1 2 3 4 || fail "GNU parallel: $(cat "$work"/task*.log | tail -3)"
    n=$(sed -nE 's/.*"host": "(host[123])".*/\1/p' "$work"/ssh/*/run.json | sort -u | wc -l)
    [ "$n" -ge 2 ] || fail "the shards ran on $n hosts; expected two or more"
  fi
  "$glmbench" merge "$work/from-hosts" "$work/ssh" > /dev/null 2>&1 || fail "the merge of the hosts' shards"
  compare "$work/from-hosts" "$whole"
  echo "slurm_test: GNU parallel: the merged run equals the unsharded one"
}

${ONLY_PARALLEL:+:} slurm_part
parallel_part
