#!/usr/bin/env python3
"""Other CPU engines beside glmbench: llama.cpp, ZenDNN (zentorch), torch and OpenVINO on the same random checkpoint.

    scripts/peers/peers.py run --work DIR --checkpoint-tool make_random_chatglm2.py        (installs and converts what is missing)
    scripts/peers/peers.py setup --work DIR [--peers llama,zentorch,torch,openvino]         only the installation, about 15 minutes
    scripts/peers/peers.py prepare --work DIR --checkpoint-tool FILE [--layers 8]           only the checkpoint and its conversions
    scripts/peers/peers.py check --work DIR --layers 2                                      do our models of the peers compute the same?

DIR keeps everything: virtual environment, sources, builds, models (about 6 GB for the packages; at 8 layers 19 GB of models). Nothing
of it belongs into the repository. Needed: Python 3.10 with venv, a C++ compiler, a package index, Linux with `taskset`.

What is timed, in tokens/s: `prefill`, a prompt of 512 tokens up to its first token; `decode1`, the steps after it; `decode8`, the
steps of eight sequences after prompts of 16 tokens. All engines run the 6B shape of ChatGLM2 with the same number of layers.

How: each run is a process of its own on the given cores. Peers are taken two at a time, in the order ours, p, q, q, p, ours, so
that a drift of the machine acts on all alike (A B B A). A ratio compares a peer with our runs of the same six. Other
processes' use of the cores, and time stolen by the host, are read from /proc/stat around each process.

An engine that cannot be installed or run stays in the table, with the reason. Output: peers.md, peers.csv and the logs, in --out.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import platform
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LLAMA, TORCH, ZENTORCH, OPENVINO = "0.3.36", "2.14.0", "2.14.0.1", "2026.4.1"  # zentorch is built for one version of torch
PEERS = ["llama", "zentorch", "torch", "openvino"]
TITLES = {"ours": "glmbench", "llama": "llama.cpp", "zentorch": "ZenDNN (zentorch)", "torch": "torch", "openvino": "OpenVINO"}
FIGURES = {"prefill": "prefill 512", "decode1": "decode, batch 1", "decode8": "decode, batch 8"}

# How each engine holds the weights of a type, and computes with them.
FORMS = {
    "bf16": {
        "ours": "`--dtype bf16`",
        "llama": "bf16",
        "zentorch": "bf16, packed",
        "torch": "bf16, packed for oneDNN",
        "openvino": "fp16 file, bf16 inference",
    },
    "fp16": {
        "ours": "`--dtype fp16`",
        "llama": "f16",
        "zentorch": "fp16",
        "torch": "fp16",
        "openvino": "fp16 file, fp32 inference",
    },
    "int8": {
        "ours": "`--dtype w8a8-dynamic`",
        "llama": "Q8_0",
        "zentorch": "int8 by channel, inputs int8 by token",
        "torch": "int8 by channel, inputs 8 bit by tensor (quantized.linear_dynamic)",
        "openvino": "int8 by channel, inputs quantised on the way",
    },
    "int4": {"ours": "`--dtype w4a8-dynamic`", "llama": "Q4_0"},
}
LLAMA_FILES = {"bf16": "bf16", "fp16": "f16", "int8": "q8_0", "int4": "q4_0"}
OPENVINO_FILES = {"bf16": ("f16", "bf16"), "fp16": ("f16", "f32"), "int8": ("int8", "bf16")}
OUR_TYPES = {"bf16": "bf16", "fp16": "fp16", "int8": "w8a8-dynamic", "int4": "w4a8-dynamic"}
# Runs of minutes that decide nothing; --slow includes them.
SLOW = {("torch", "fp16"): "no fast fp16 product without AVX512-FP16, a minute for each prompt; `--slow` runs it"}

# Least ratio to the best peer (or to one peer).
TARGETS = [
    ("bf16", "prefill", None, 1.05),
    ("bf16", "decode1", None, 1.0),
    ("bf16", "decode8", None, 1.15),
    ("fp16", "prefill", "llama", 1.15),
    ("fp16", "decode8", "llama", 1.4),
    ("int8", "prefill", None, 1.2),
    ("int8", "decode1", None, 1.35),
]


def note(text):
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


class Failed(Exception):
    """Why an engine has no figures."""


class Place:
    """The working folder, and what is in it."""

    def __init__(self, args):
        self.root = pathlib.Path(args.work).resolve()
        self.venv = self.root / "venv"
        self.python = self.venv / "bin/python"
        self.source = self.root / f"llama_cpp_python-{LLAMA}"
        self.build = self.root / "llama-build"
        self.bench = self.build / "bin/llama-batched-bench"
        self.models = self.root / f"models-{args.layers}"
        self.checkpoint = self.models / "checkpoint"
        self.logs = self.root / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def call(self, name, command, **options):
        """Runs a command with its output in a log; raises with the log's last line."""
        log = self.logs / f"{name}.log"
        note(f"{name} (log: {log})")
        with open(log, "w") as file:
            code = subprocess.run([str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, **options).returncode
        if code != 0:
            raise Failed(f"{name} failed: {last_line(log.read_text(errors='replace'))}")

    def pip(self, name, *packages):
        if not self.python.exists():
            self.call("venv", [sys.executable, "-m", "venv", self.venv])
        self.call(name, [self.python, "-m", "pip", "install", "--disable-pip-version-check", *packages])

    def has(self, module):
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        return self.python.exists() and subprocess.run([self.python, "-c", code]).returncode == 0


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


# Installation


def setup_llama(place):
    if not all(place.has(module) for module in ["cmake", "ninja", "numpy", "scikit_build_core", "yaml"]):
        place.pip("pip-llama", "cmake", "ninja", "numpy", "scikit-build-core", "pyyaml")
    if place.bench.exists():
        return
    if not place.source.exists():
        # Unpacks the source package alone; nothing of it is installed.
        download = [place.python, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-python"]
        path = f"{place.venv / 'bin'}:{os.environ['PATH']}"
        place.call("llama-source", [*download, "-d", place.root, f"llama-cpp-python=={LLAMA}"], env={**os.environ, "PATH": path})
        shutil.unpack_archive(place.root / f"llama_cpp_python-{LLAMA}.tar.gz", place.root)
    tools = place.venv / "bin"
    off = ["LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER", "LLAMA_CURL", "LLAMA_OPENSSL", "BUILD_SHARED_LIBS"]
    flags = [f"-D{name}=OFF" for name in off]
    flags += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON"]
    place.call("llama-cmake", [tools / "cmake", "-S", place.source / "vendor/llama.cpp", "-B", place.build, *flags])
    place.call("llama-build", [tools / "ninja", "-C", place.build, "llama-batched-bench"])


def setup_torch(place):
    if not place.has("torch") or not place.has("numpy"):
        place.pip("pip-torch", f"torch=={TORCH}", "numpy")


def setup_zentorch(place):
    setup_torch(place)
    if not place.has("zentorch"):
        place.pip("pip-zentorch", f"zentorch=={ZENTORCH}", f"torch=={TORCH}")


def setup_openvino(place):
    if not place.has("openvino"):
        place.pip("pip-openvino", f"openvino=={OPENVINO}", "numpy")


SETUP = {"llama": setup_llama, "zentorch": setup_zentorch, "torch": setup_torch, "openvino": setup_openvino}


def setup(place, args, reasons):
    for peer in args.peers:
        try:
            SETUP[peer](place)
        except Failed as failed:
            reasons[peer] = str(failed)


# Models


def prepare(place, args, reasons):
    """Makes the checkpoint and the files of each peer that are missing."""
    if not (place.checkpoint / "config.json").exists():
        if not args.checkpoint_tool:
            raise SystemExit(f"{place.checkpoint} is missing; give --checkpoint-tool make_random_chatglm2.py to make it")
        if not place.has("numpy"):
            place.pip("pip-numpy", "numpy")
        part = place.models / "checkpoint.part"
        shutil.rmtree(part, ignore_errors=True)
        place.call("checkpoint", [place.python, args.checkpoint_tool, part, "--layers", args.layers, "--dtype", "BF16"])
        # Timed lengths need no text, but a checkpoint has a tokenizer.
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(HERE.parent.parent / "models/demo" / name, part / name)
        part.rename(place.checkpoint)
    for kind in args.types:
        try:
            gguf = place.models / f"{LLAMA_FILES[kind]}.gguf"
            if "llama" in args.peers and "llama" not in reasons and not gguf.exists():
                package = place.source / "vendor/llama.cpp/gguf-py"
                command = [place.python, HERE / "to_gguf.py", place.checkpoint, gguf, LLAMA_FILES[kind], package]
                place.call(f"gguf-{kind}", command)
        except Failed as failed:
            reasons["llama", kind] = str(failed)
        try:
            weights = OPENVINO_FILES.get(kind, (None,))[0]
            model = place.models / f"openvino-{weights}.xml"
            if weights and "openvino" in args.peers and "openvino" not in reasons and not model.exists():
                command = [place.python, HERE / "openvino_peer.py", "build", place.checkpoint, model, "--weights", weights]
                place.call(f"openvino-{kind}", command)
        except Failed as failed:
            reasons["openvino", kind] = str(failed)


# One process


def busy():
    """Seconds of all cores since the start of the machine: busy, stolen by the host."""
    words = [int(word) for word in open("/proc/stat").readline().split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, steal = words[:8]
    return (user + nice + system + irq + softirq) / tick, steal / tick


class Runner:
    def __init__(self, place, args):
        self.place, self.args, self.count = place, args, 0
        self.cores = [int(core) for core in args.cores.split(",")]
        self.work = {"threads": len(self.cores), "prefill": 512, "steps": args.steps, "batch": 8, "short": 16}
        self.work["repetitions"] = args.repetitions
        self.versions, self.rows = {}, []
        self.seconds = self.others = self.stolen = 0

    def pinned(self, name, command):
        """Runs a pinned process; returns its output, and what it says of its figures as JSON lines."""
        self.count += 1
        log = self.place.logs / f"run-{self.count:02}-{name}.log"
        command = ["taskset", "-c", self.args.cores, *[str(word) for word in command]]
        threads = str(len(self.cores))
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_PROC_BIND": "close", "OMP_WAIT_POLICY": "active"}
        environment["THP_MEM_ALLOC_ENABLE"] = "1"  # huge pages for torch's tensors, where the kernel leaves it to the program
        before, own = busy(), resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        try:
            with open(log, "w") as errors:
                done = subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, timeout=self.args.limit
                )
        except subprocess.TimeoutExpired:
            raise Failed(f"took longer than {self.args.limit} s") from None
        wall = time.monotonic() - begun
        after, owned = busy(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(log, "a") as errors:
            errors.write(done.stdout)
        if done.returncode != 0:
            raise Failed(last_line(log.read_text(errors="replace").removesuffix(done.stdout)))
        spent = owned.ru_utime + owned.ru_stime - own.ru_utime - own.ru_stime
        self.seconds += wall
        self.others = max(self.others, (after[0] - before[0] - spent) / wall)
        self.stolen = max(self.stolen, (after[1] - before[1]) / wall)
        return done.stdout

    def lines(self, engine, output):
        figures = {}
        for line in output.splitlines():
            if not line.startswith("{"):
                continue
            record = json.loads(line)
            if "version" in record:
                self.versions[engine] = record["version"]
            if "figure" in record:
                figures.setdefault(record["figure"], []).append(record["tokens_per_s"])
        return figures

    def ours(self, kind):
        work, out = self.work, self.place.root / "ours"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        case = "[[performance]]\nbatch = [{}]\nlengths = [[{}, {}]]\nrepetitions = {}\nmax_warmups = 1\n"
        suite = 'schema = 1\nname = "peers"\nabout = "The figures of scripts/peers."\n\n'
        suite += case.format(1, work["prefill"], work["steps"] + 1, work["repetitions"])
        suite += "\n" + case.format(work["batch"], work["short"], work["steps"] + 1, work["repetitions"])
        path = out / "peers.toml"
        path.write_text(suite)
        command = [self.args.glmbench, "run", path, "--model", self.place.checkpoint, "--dtype", OUR_TYPES[kind]]
        command += ["--threads", work["threads"], "--bind", "--out", out]
        self.pinned(f"ours-{kind}", command)
        figures = {}
        (journal,) = out.glob("*/requests.jsonl")
        for line in journal.read_text().splitlines():
            record = json.loads(line)
            if record["kind"] != "timed":
                continue
            if record.get("error"):
                raise Failed(record["error"])
            prefill = (record["first_token_ns"] - record["start_ns"]) / 1e9
            decode = (record["end_ns"] - record["first_token_ns"]) / 1e9
            batch = record["batch"]
            if batch == 1:
                figures.setdefault("prefill", []).append(work["prefill"] / prefill)
            figures.setdefault(f"decode{batch}", []).append(batch * work["steps"] / decode)
        return figures

    def llama(self, kind):
        work, figures = self.work, {}
        mask = hex(sum(1 << core for core in self.cores))
        for batch, prompt, context in [(1, work["prefill"], 1024), (work["batch"], work["short"], 256 * work["batch"])]:
            prompts = ",".join([str(prompt)] * work["repetitions"])
            command = [self.place.bench, "-m", self.place.models / f"{LLAMA_FILES[kind]}.gguf", "-c", context, "-t", work["threads"]]
            command += ["--cpu-mask", mask, "--cpu-strict", 1, "-npp", prompts, "-ntg", work["steps"], "-npl", batch]
            output = self.pinned(f"llama-{kind}-{batch}", [*command, "--output-format", "jsonl"])
            for line in output.splitlines():
                if line.startswith("{"):
                    record = json.loads(line)
                    if batch == 1:
                        figures.setdefault("prefill", []).append(record["speed_pp"])
                    figures.setdefault(f"decode{batch}", []).append(record["speed_tg"])
        if "llama" not in self.versions:
            said = subprocess.run([self.place.bench, "--version"], capture_output=True, text=True)
            said = (said.stdout + said.stderr).replace("version: ", "").splitlines()
            self.versions["llama"] = f"llama.cpp {', '.join(said[:2])}, of llama-cpp-python {LLAMA}"
        return figures

    def of_torch(self, engine, kind):
        command = [self.place.python, HERE / "torch_peer.py", self.place.checkpoint, "--engine", engine, "--dtype", kind]
        return self.lines(engine, self.pinned(f"{engine}-{kind}", [*command, "--work", json.dumps(self.work)]))

    def torch(self, kind):
        return self.of_torch("torch", kind)

    def zentorch(self, kind):
        return self.of_torch("zentorch", kind)

    def openvino(self, kind):
        weights, precision = OPENVINO_FILES[kind]
        command = [self.place.python, HERE / "openvino_peer.py", "run", self.place.models / f"openvino-{weights}.xml"]
        output = self.pinned(f"openvino-{kind}", [*command, "--precision", precision, "--work", json.dumps(self.work)])
        return self.lines("openvino", output)

    def greedy(self, engine, kind, prompt, count):
        """The ids that an engine chooses after a prompt."""
        if engine == "ours":
            asked, written = self.place.root / "prompts.json", self.place.root / "logits.safetensors"
            asked.write_text(json.dumps([prompt]))
            command = [self.args.glmbench, "logits", "--model", self.place.checkpoint, "--dtype", OUR_TYPES[kind]]
            self.pinned(f"check-ours-{kind}", [*command, "--prompts", asked, "--out", written, "--decode", count])
            data = written.read_bytes()
            length = struct.unpack_from("<Q", data)[0]
            at = json.loads(data[8 : 8 + length])["greedy0"]["data_offsets"][0]
            return list(struct.unpack_from(f"<{count}i", data, 8 + length + at))
        words = ["--work", json.dumps({**self.work, "steps": count - 1}), "--prompt", json.dumps(prompt)]
        if engine == "openvino":
            weights, precision = OPENVINO_FILES[kind]
            command = [self.place.python, HERE / "openvino_peer.py", "run", self.place.models / f"openvino-{weights}.xml"]
            command += ["--precision", precision]
        else:
            command = [self.place.python, HERE / "torch_peer.py", self.place.checkpoint, "--engine", engine, "--dtype", kind]
        output = self.pinned(f"check-{engine}-{kind}", [*command, *words])
        return next(json.loads(line)["ids"] for line in output.splitlines() if line.startswith('{"ids"'))

    def run(self, engine, kind, group, turn, reasons):
        if (engine, kind) in reasons or engine in reasons:
            return
        self.seconds = self.others = self.stolen = 0
        try:
            figures = getattr(self, engine)(kind)
        except Failed as failed:
            reasons[engine, kind] = str(failed)
            note(f"{kind} {engine}: {failed}")
            return
        said = ", ".join(f"{figure} {statistics.median(values):.4g}" for figure, values in figures.items())
        note(f"{kind} {engine}: {said} ({self.seconds:.0f} s)")
        for figure, values in figures.items():
            for value in values:
                row = dict(type=kind, engine=engine, figure=figure, group=group, turn=turn, tokens_per_s=value)
                self.rows.append({**row, "others_cores": round(self.others, 3), "stolen_cores": round(self.stolen, 3)})


def measure(runner, args, reasons):
    for kind in args.types:
        peers = []
        for peer in args.peers:
            if peer not in FORMS[kind]:
                reasons[peer, kind] = "not run in this type"
            elif (peer, kind) in SLOW and not args.slow:
                reasons[peer, kind] = SLOW[peer, kind]
            elif peer not in reasons and (peer, kind) not in reasons:
                peers.append(peer)
        for at in range(0, max(1, len(peers)), 2):
            pair = peers[at : at + 2]
            for round in range(args.rounds):
                order = ["ours", *pair, *reversed(pair), "ours"]
                for turn, engine in enumerate(order):
                    runner.run(engine, kind, at // 2, round * len(order) + turn, reasons)


def check(place, args, reasons):
    """Whether the models written here compute what ours does: greedy ids after one prompt. They may part by rounding, late."""
    runner = Runner(place, args)
    prompt = [(7 + 7919 * at) % 65000 for at in range(40)]
    for kind in args.types:
        for engine in ["ours", *(peer for peer in args.peers if peer != "llama" and peer in FORMS[kind])]:
            if engine in reasons or (engine, kind) in reasons:
                continue
            try:
                print(f"{kind:5} {engine:9} {runner.greedy(engine, kind, prompt, 8)}", flush=True)
            except Failed as failed:
                reasons[engine, kind] = str(failed)


# The table


def cpu():
    try:
        lines = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout.splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return platform.processor() or "unknown"
    known = ["amx_tile", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2"]
    flags = [flag for flag in known if flag in fields.get("Flags", "").split()]
    family = f"family {fields.get('CPU family', '?')}, model {fields.get('Model', '?')}"
    return f"{fields.get('Model name', 'unknown')} ({family}; {', '.join(flags)}), {fields.get('Hypervisor vendor', 'no hypervisor seen')}"


class Table:
    def __init__(self, rows):
        self.rows = rows

    def values(self, kind, engine, figure, group=None):
        return [
            row["tokens_per_s"]
            for row in self.rows
            if (row["type"], row["engine"], row["figure"]) == (kind, engine, figure) and group in (None, row["group"])
        ]

    def groups(self, kind, engine):
        return {row["group"] for row in self.rows if (row["type"], row["engine"]) == (kind, engine)}

    def ratio(self, kind, peer, figure):
        """Median of ours over median of the peer, within the peer's group, and the least and largest it could be."""
        for group in self.groups(kind, peer):
            ours, theirs = self.values(kind, "ours", figure, group), self.values(kind, peer, figure, group)
            if ours and theirs:
                middle = statistics.median(ours) / statistics.median(theirs)
                return middle, min(ours) / max(theirs), max(ours) / min(theirs)
        return None

    def best(self, kind, figure, only=None):
        """The peer that comes closest to us, or passes us most: (ratio, low, high, peer)."""
        found = []
        for peer in [only] if only else PEERS:
            ratio = self.ratio(kind, peer, figure)
            if ratio:
                found.append((*ratio, peer))
        return min(found) if found else None


def cell(values):
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{statistics.median(values):.4g} ({low:.4g}–{high:.4g})"


def markdown(runner, args, reasons, took, load):
    table, out = Table(runner.rows), []
    config = json.loads((runner.place.checkpoint / "config.json").read_text())
    out += [f"# glmbench beside other engines, {datetime.date.today()}", ""]
    out += [f"- Machine: {cpu()}; cores {args.cores}; {platform.system()} {platform.release()}"]
    inner = config["num_layers"] * layer_weights(config)
    head = config["padded_vocab_size"] * config["hidden_size"]
    out += [
        f"- Model: the 6B shape of ChatGLM2 with **{config['num_layers']} of its 28 layers** for every engine, random weights. The "
        f"output layer is {100 * head / (inner + head):.0f} % of the weights that a decode step reads (28 layers: "
        f"{100 * head / (28 * layer_weights(config) + head):.0f} %)."
    ]
    work = runner.work
    out += [
        f"- Figures: tokens/s, median (least–largest). Prompt of {work['prefill']}; {work['steps']} decode steps after it; {work['steps']} "
        f"steps of {work['batch']} sequences after prompts of {work['short']}. Order: ours, p, q, q, p, ours; each in its own process, "
        f"pinned; {args.rounds} round(s), {args.repetitions} timed repetition(s) each after a warm-up."
    ]
    others = max((row["others_cores"] for row in runner.rows), default=0)
    stolen = max((row["stolen_cores"] for row in runner.rows), default=0)
    out += [
        f"- Quiet: load average before {load:.2f}; other processes took at most {others:.2f} cores during a run, the host stole at "
        f"most {stolen:.2f}{' – **not a quiet machine**' if others + stolen > 0.1 else ''}. Whole measurement: {took:.0f} s."
    ]
    out += [f"- {TITLES[engine]}: {version}" for engine, version in sorted(runner.versions.items())]
    for kind in args.types:
        out += ["", f"## {kind}", "", "| engine | weights | " + " | ".join(FIGURES.values()) + " | ours / it |", "|---|---|--:|--:|--:|---|"]
        for engine in ["ours", *args.peers]:
            form = FORMS[kind].get(engine, "")
            reason = reasons.get((engine, kind)) or reasons.get(engine)
            if not table.groups(kind, engine):
                out += [f"| {TITLES[engine]} | {form} | – | – | – | {reason or 'no result'} |"]
                continue
            cells = [cell(table.values(kind, engine, figure)) for figure in FIGURES]
            ratios = [table.ratio(kind, engine, figure) for figure in FIGURES] if engine != "ours" else []
            ratios = " · ".join(f"{ratio[0]:.2f}" if ratio else "–" for ratio in ratios)
            failed = f" (then: {reason})" if reason else ""
            out += [f"| {TITLES[engine]} | {form} | {' | '.join(cells)} | {ratios}{failed} |"]
    out += ["", "## ours / best peer", "", "| type | figure | peer | ratio (least–largest) | target | met |", "|---|---|---|---|--:|---|"]
    targets = {(kind, figure): (only, least) for kind, figure, only, least in TARGETS}
    for kind in args.types:
        for figure, title in FIGURES.items():
            only, least = targets.get((kind, figure), (None, None))
            best = table.best(kind, figure, only)
            if best is None:
                continue
            ratio, low, high, peer = best
            met = "" if least is None else ("yes" if low >= least else "**NO**" if high < least else f"{'yes' if ratio >= least else 'no'}, within the spread")
            target = f"≥ {least}" if least else ""
            out += [f"| {kind} | {title} | {TITLES[peer]} | {ratio:.3f} ({low:.3f}–{high:.3f}) | {target} | {met} |"]
    return "\n".join(out) + "\n"


def layer_weights(config):
    hidden, heads = config["hidden_size"], config["num_attention_heads"] * config["kv_channels"]
    qkv = heads + 2 * config["multi_query_group_num"] * config["kv_channels"]
    return hidden * (qkv + heads + 3 * config["ffn_hidden_size"])


def run(place, args, reasons):
    if not args.glmbench.exists():
        raise SystemExit(f"{args.glmbench} is missing; build it with `cargo build --release`, or give --glmbench")
    out = pathlib.Path(args.out or place.root / f"results-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    out.mkdir(parents=True, exist_ok=True)
    place.logs = out / "logs"
    place.logs.mkdir(exist_ok=True)
    runner = Runner(place, args)
    said = subprocess.run([args.glmbench, "--version"], capture_output=True, text=True).stdout.strip()
    runner.versions["ours"] = said
    load, begun = os.getloadavg()[0], time.monotonic()
    try:
        measure(runner, args, reasons)
    finally:
        if runner.rows:
            with open(out / "peers.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, list(runner.rows[0]))
                writer.writeheader()
                writer.writerows(runner.rows)
        text = markdown(runner, args, reasons, time.monotonic() - begun, load)
        (out / "peers.md").write_text(text)
        print(text)
        note(f"written: {out}")


def words(known):
    def read(text):
        chosen = text.split(",")
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"found {word!r}; expected some of {','.join(known)}")
        return chosen

    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "setup", "prepare", "check"])
    parser.add_argument("--work", required=True, metavar="DIR", help="keeps packages, builds and models")
    parser.add_argument("--peers", type=words(PEERS), default=PEERS, metavar="NAME,…", help="default: all")
    parser.add_argument("--types", type=words(list(FORMS)), default=["bf16", "fp16", "int8"], metavar="TYPE,…", help="also int4")
    parser.add_argument("--layers", type=int, default=8, metavar="N", help="of the 28, for every engine (default 8)")
    parser.add_argument("--glmbench", type=pathlib.Path, default=HERE.parent.parent / "target/release/glmbench", metavar="PATH")
    parser.add_argument("--checkpoint-tool", type=pathlib.Path, metavar="FILE", help="make_random_chatglm2.py")
    parser.add_argument("--cores", default="0,1", metavar="N,…", help="one thread on each (default 0,1)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="times the whole order")
    parser.add_argument("--repetitions", type=int, default=1, metavar="N", help="timed, in each process")
    parser.add_argument("--steps", type=int, default=24, metavar="N", help="decode steps")
    parser.add_argument("--limit", type=float, default=180, metavar="S", help="longest time of a process")
    parser.add_argument("--slow", action="store_true", help="also run what takes minutes")
    parser.add_argument("--out", metavar="DIR", help="default: DIR/results-TIME in --work")
    args = parser.parse_args()
    place, reasons = Place(args), {}
    if args.verb in ("run", "setup"):
        setup(place, args, reasons)
    if args.verb != "setup":
        prepare(place, args, reasons)
    if args.verb == "check":
        check(place, args, reasons)
    if args.verb == "run":
        run(place, args, reasons)
    for what, reason in reasons.items():
        note(f"{what if isinstance(what, str) else ' '.join(what)}: {reason}")


if __name__ == "__main__":
    main()
