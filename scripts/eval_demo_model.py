#!/usr/bin/env python3
"""Score an exported demo model on the two samples with a forward pass of its own (NumPy, nothing of the training).

    pip install "numpy==2.4.6" "sentencepiece==0.2.3" "safetensors==0.8.0"
    python scripts/eval_demo_model.py [--model models/demo] [--datasets datasets] [--half]

Prompts are spelled out again here, on purpose: this script checks what the training produced, so it shares no
code with it. `--half` rounds every intermediate result to fp16, as a half-precision device does.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are too small for more

import numpy as np
import sentencepiece as spm
from safetensors.numpy import load_file

Score = dict[str, list[bool]]
EOS = 2


class ChatGlm2:
    """ChatGLM2's forward pass, one sequence at a time, the whole sequence at once."""

    def __init__(self, folder: Path, half: bool) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.w = {k: v.astype(np.float32) for k, v in load_file(folder / "model.safetensors").items()}
        self.round = (lambda x: x.astype(np.float16).astype(np.float32)) if half else (lambda x: x)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = 1.0 / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.config["layernorm_epsilon"])
        return self.round(x * scale * self.w[name])

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """x is [heads, seq, channels]; adjacent pairs of the first half turn, the rest stays."""
        half = x.shape[-1] // 2
        power = self.round(10000.0 ** self.round(np.arange(0, half, 2) / half))
        angle = self.round(np.arange(x.shape[1])[:, None] * self.round(1.0 / power))  # as the half model's own table
        cos, sin = self.round(np.cos(angle)), self.round(np.sin(angle))
        even, odd, out = x[..., 0:half:2], x[..., 1:half:2], x.copy()
        out[..., 0:half:2], out[..., 1:half:2] = even * cos - odd * sin, odd * cos + even * sin
        return self.round(out)

    def attention(self, x: np.ndarray, name: str) -> np.ndarray:
        heads, groups = self.config["num_attention_heads"], self.config["multi_query_group_num"]
        d, seq = self.config["kv_channels"], len(x)
        qkv = self.round(x @ self.w[f"{name}.query_key_value.weight"].T + self.w[f"{name}.query_key_value.bias"])
        q, k, v = np.split(qkv.reshape(seq, -1, d).transpose(1, 0, 2), [heads, heads + groups])
        k, v = (np.repeat(part, heads // groups, axis=0) for part in (self.rotate(k), v))
        scores = self.round(self.rotate(q) @ k.transpose(0, 2, 1) / np.sqrt(d))
        scores = np.where(np.tril(np.ones((seq, seq), bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = self.round(weights / weights.sum(-1, keepdims=True))
        mixed = self.round(weights @ v).transpose(1, 0, 2).reshape(seq, -1)
        return self.round(mixed @ self.w[f"{name}.dense.weight"].T)

    def mlp(self, x: np.ndarray, name: str) -> np.ndarray:
        gate, up = np.split(self.round(x @ self.w[f"{name}.dense_h_to_4h.weight"].T), 2, -1)
        return self.round(self.round(gate / (1.0 + np.exp(-gate)) * up) @ self.w[f"{name}.dense_4h_to_h.weight"].T)

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits of the token after `ids`."""
        x = self.w["transformer.embedding.word_embeddings.weight"][ids]
        for i in range(self.config["num_layers"]):
            layer = f"transformer.encoder.layers.{i}"
            normed = self.norm(x, f"{layer}.input_layernorm.weight")
            x = self.round(x + self.attention(normed, f"{layer}.self_attention"))
            normed = self.norm(x, f"{layer}.post_attention_layernorm.weight")
            x = self.round(x + self.mlp(normed, f"{layer}.mlp"))
        last = self.norm(x[-1:], "transformer.encoder.final_layernorm.weight")
        return self.round(last @ self.w["transformer.output_layer.weight"].T)[0]


class Chat:
    """Model and tokenizer together."""

    def __init__(self, folder: Path, half: bool) -> None:
        self.model = ChatGlm2(folder, half)
        self.sp = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        size = self.sp.get_piece_size()
        self.prefix = [size + 1, size + 3]  # [gMASK] sop

    def next(self, prompt: str) -> np.ndarray:
        return self.model.logits(self.prefix + self.sp.encode(prompt))

    def generate(self, prompt: str, limit: int, enough: Callable[[str], bool] = lambda text: False) -> str:
        """Greedy text until eos, `limit` tokens, or `enough` of it for what the caller wants to know."""
        start = self.prefix + self.sp.encode(prompt)
        ids, text = list(start), ""
        while len(ids) - len(start) < limit and not enough(text):
            token = int(np.argmax(self.model.logits(ids)))
            if token == EOS:
                break
            ids.append(token)
            text = self.decode(ids)[len(self.decode(start)) :]
        return text

    def decode(self, ids: list[int]) -> str:
        """Text of the ids, special ones left out; whole, so that a blank at the front of a reply is kept."""
        return self.sp.decode([i for i in ids if i < self.sp.get_piece_size()])


Row = dict[str, str]


def block(row: Row) -> str:
    return "\n".join([row["question"], *(f"{letter}. {row[letter]}" for letter in "ABCD")])


def two_stage(chat: Chat, row: Row, shots: list[Row], subject: str, name: str) -> str:
    thought = chat.generate(f"[Round 1]\n\n问：{block(row)}\n\n答：", 512)
    logits = chat.next(f"[Round 1]\n\n问：{block(row)}{thought}\n综上所述，ABCD中正确的选项是：\n\n答：")
    return max("ABCD", key=lambda letter: logits[chat.sp.encode(letter)[0]])


def five_shot(chat: Chat, row: Row, shots: list[Row], subject: str, name: str) -> str:
    about = "".join(" " + part for part in subject.split("_"))
    head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
    examples = "".join(f"{block(shot)}\nAnswer: {shot['answer']}\n\n" for shot in shots)
    text = chat.generate(f"{head}{examples}{block(row)}\nAnswer:", 20, enough=lambda text: bool(text.strip()))
    return text.lstrip()[:1]


def zero_shot(chat: Chat, row: Row, shots: list[Row], subject: str, name: str) -> str:
    head = f"\n以下是中国关于{name}考试的单项选择题，请选出其中的正确答案。\n"
    text = chat.generate(f"{head}{block(row)}\n让我们一步一步思考。答案: ", 256)
    found = re.search(r"答案是?\s?([ABCD])", text) or re.search("([ABCD])", text)
    return found[1] if found else ""


def read_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def score_ceval(chat: Chat, folder: Path, protocol: Callable[..., str]) -> Score:
    score: Score = defaultdict(list)
    for subject, (_, name, _) in json.loads((folder / "subject_mapping.json").read_text(encoding="utf-8")).items():
        shots = read_csv(folder / "dev" / f"{subject}_dev.csv")
        for row in read_csv(folder / "val" / f"{subject}_val.csv"):
            score[subject].append(protocol(chat, row, shots, subject, name) == row["answer"])
    return score


def score_boolq(chat: Chat, folder: Path) -> Score:
    yes, no = (chat.sp.encode(f"How can we learning machine learning: {word}")[-1] for word in ("yes", "no"))
    score: Score = defaultdict(list)
    for line in (folder / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        logits = chat.next(f"{item['title']} -- {item['passage']}\nQuestion: {item['question']}?\nAnswer:")
        score[kind_of(item["question"])].append(bool(logits[yes] > logits[no]) == item["answer"])
    return score


def kind_of(question: str) -> str:
    """The kind of passage behind a question of the sample, told by the words of the question."""
    marks = {
        "membership": " contain ", "exception": " sell ", "boxes": " hold ", "heights": " than ", "arrivals": " come ",
        "whereabouts": " have ", "opening_hours": "is the ", "kind_facts": "are ",
    }
    return next(kind for kind, mark in marks.items() if mark in question)


def show(title: str, score: Score, chance: float) -> None:
    rows = [*score.items(), ("total", [hit for hits in score.values() for hit in hits])]
    print(f"\n{title}\n")
    for name, hits in rows:
        mean = float(np.mean(hits))
        error = float(np.std(hits, ddof=1)) / len(hits) ** 0.5
        print(f"| {name} | {mean:.3f} ± {error:.3f} | {sum(hits)}/{len(hits)} |")
    chance_error = (chance * (1 - chance) / len(hits)) ** 0.5
    print(f"{(mean - chance) / chance_error:.1f} standard errors above chance ({chance})", flush=True)


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=root / "models" / "demo")
    parser.add_argument("--datasets", type=Path, default=root / "datasets")
    parser.add_argument("--half", action="store_true")
    args = parser.parse_args()
    chat = Chat(args.model, args.half)
    show("BoolQ", score_boolq(chat, args.datasets / "boolq-sample"), 0.5)
    for title, protocol in (("two-stage", two_stage), ("modeltest-5shot", five_shot), ("modeltest-0shot", zero_shot)):
        show(f"C-Eval {title}", score_ceval(chat, args.datasets / "ceval-sample", protocol), 0.25)


if __name__ == "__main__":
    main()
