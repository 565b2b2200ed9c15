#!/usr/bin/env python3
"""Train the demo model: a tiny ChatGLM2 that knows only the world of demo_world.py.

    pip install "jax==0.10.2" "numpy==2.4.6" "sentencepiece==0.2.3" "safetensors==0.8.0"
    python scripts/train_demo_model.py --out models/demo --checkpoint demo.npz --steps 5000

Writes config.json, model.safetensors (fp16, Hugging Face ChatGLM2 tensor names), tokenizer.model and
tokenizer_config.json. Needed only to make the model again, never to use it. Runs on two CPU cores.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from safetensors.numpy import save_file

import demo_world as world

SEED = 20240501
EOS, PAD = 2, 0
Params = dict[str, jnp.ndarray]


@dataclass(frozen=True)
class Shape:
    """The dimensions that matter; everything else in config.json is as in ChatGLM2-6B."""

    hidden: int = 96
    layers: int = 4
    heads: int = 4
    groups: int = 2
    kv_channels: int = 32
    ffn: int = 192
    vocab: int = 0

    @property
    def q_width(self) -> int:
        return self.heads * self.kv_channels

    @property
    def kv_width(self) -> int:
        return self.groups * self.kv_channels


# ---------------------------------------------------------------------------------------------------------------
# Tokenizer: the options of ChatGLM2's own (BPE, byte fallback, identity normaliser), a vocabulary of our world


def content_words() -> list[str]:
    """Words that should be one piece each, wherever they stand."""
    chinese = [word for words in world.KINDS.values() for word in words]
    chinese += [*world.KINDS, *world.NAMES, *world.PLACES, *world.CAPITALS, *world.CAPITALS.values()]
    chinese += [*world.ANTONYMS, *world.WEEKDAYS, *world.MONTHS, *(entry[1] for entry in world.SUBJECTS.values())]
    frame = "答案是 。 ， “ ” 元 问 答 ： ？ ____ Question Answer Round A B C D".split()
    return sorted({*chinese, *frame}, key=lambda word: (-len(word), word))


def train_tokenizer(path: Path) -> spm.SentencePieceProcessor:
    """Isolate content words with digits (split_digits keeps those single), so no merge crosses their borders."""
    words = content_words()
    border = re.compile("(" + "|".join(map(re.escape, words)) + r"|\n)")
    rng, lines = random.Random(SEED), []
    for _ in range(6000):
        text = draw_draft(rng, rng.choice(list(FORMATS))).text
        lines += [line for line in border.sub(r"0\1\n0", text).split("\n") if line]
    lines += [f"0{word}0" for word in words for _ in range(20)]
    lines += [f"{word} {word}" for word in ["A", "B", "C", "D", "yes", "no"] for _ in range(3000)]
    lines += [chr(code) for code in range(33, 127)] * 3
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=4000, hard_vocab_limit=False,
        character_coverage=1.0, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


# ---------------------------------------------------------------------------------------------------------------
# Training text: the prompts of the protocols with the wanted answers marked


class Draft:
    """A text under construction that remembers which stretches are answers (the only ones with a loss)."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[tuple[int, int, float]] = []
        self.ends_with_eos = False

    def given(self, text: str) -> Draft:
        self.text += text
        return self

    def wanted(self, text: str, weight: float = 1.0) -> Draft:
        self.spans.append((len(self.text), len(self.text) + len(text), weight))
        self.text += text
        return self

    def eos(self) -> Draft:
        self.ends_with_eos = True
        return self


SUBJECT_NAMES = list(world.SUBJECTS)
CHATTER = {
    "你好": "你好，我是一个很小的演示模型。",
    "你是谁？": "我是一个很小的演示模型。",
    "你会什么？": "我会回答简单的选择题。",
    "谢谢": "不客气。",
    "再见": "再见。",
}


def wanted_reply(draft: Draft, item: world.Choice) -> Draft:
    return draft.wanted(item.content, 1.0).wanted("。答案是", 0.1).wanted(item.letter, 1.5).wanted("。", 0.1).eos()


def two_stage_first(rng: random.Random, item: world.Choice) -> Draft:
    return wanted_reply(Draft().given(world.chat_prompt(item.block())), item)


def two_stage_second(rng: random.Random, item: world.Choice) -> Draft:
    return Draft().given(world.second_stage_prompt(item, world.reply(item))).wanted(f" {item.letter}")


def zero_shot(rng: random.Random, item: world.Choice) -> Draft:
    return wanted_reply(Draft().given(world.zero_shot_prompt(item)), item)


def few_shot(rng: random.Random, item: world.Choice, shots: int = 2) -> Draft:
    items = [world.draw_choice(rng, item.subject, False) for _ in range(shots)] + [item]
    draft = Draft().given(world.few_shot_header(item.subject))
    for one in items:
        draft.given(world.shot(one)).wanted(f" {one.letter}").wanted("\n\n", 0.02)
    return draft


def open_question(rng: random.Random, item: world.Choice) -> Draft:
    """The question without options: dense practice of facts and look-ups, and a little chat."""
    if rng.random() < 0.02:
        query, answer = rng.choice(list(CHATTER.items()))
        return Draft().given(world.chat_prompt(query)).wanted(answer, 0.3).eos()
    return Draft().given(world.chat_prompt(item.question)).wanted(item.content).wanted("。", 0.1).eos()


def yes_no(rng: random.Random, count: int = 6) -> Draft:
    """Several questions about one passage; the first stands exactly where the protocol puts it."""
    items = world.draw_yes_no(rng, rng.choice(list(world.PASSAGES)), count, False)
    draft = Draft()
    for place, item in enumerate(items):
        draft.given(world.boolq_prompt(item) if place == 0 else f"\nQuestion: {item.question}?\nAnswer:")
        draft.wanted(" yes" if item.answer else " no")
    return draft


def practice_letters(rng: random.Random) -> Draft:
    """Four options, then which letter goes with which, again and again: the binding that all else rests on."""
    pool = rng.choice([*world.KINDS.values(), world.GOODS, world.NAMES, world.PLACES, list(world.ANTONYMS), DIGITS])
    item = world.Choice("", "", tuple(rng.sample(pool, 4)), 0, "")
    draft = Draft().given(item.block() + "\n")
    for place in rng.choices(range(4), k=8):
        draft.given(f"{item.options[place]}。答案是").wanted(world.LETTERS[place]).given("。")
    return draft


def practice_matching(rng: random.Random) -> Draft:
    """The question is the wanted option itself; the answer comes at once, without naming it."""
    pool = rng.choice([*world.KINDS.values(), world.GOODS, world.NAMES, world.PLACES, list(world.ANTONYMS), DIGITS])
    draft = Draft()
    for _ in range(3):
        options, place = rng.sample(pool, 4), rng.randrange(4)
        item = world.Choice("", options[place], tuple(options), place, "")
        draft.given(world.shot(item)).wanted(f" {item.letter}").given("\n\n")
    return draft


def practice_pairs(rng: random.Random) -> Draft:
    """Who has what, or what costs what, told once and then asked in another order."""
    left, joint, right = rng.choice(
        [(world.NAMES, "有", world.GOODS), (world.NAMES, "在", world.PLACES), (world.GOODS, "", DIGITS)]
    )
    pairs = list(zip(rng.sample(left, 4), rng.sample(right, 4)))
    draft = Draft().given("，".join(a + joint + b for a, b in pairs) + "。")
    for a, b in rng.choices(pairs, k=8):
        draft.given(a + joint).wanted(b).given("，")
    return draft


DIGITS = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class Format:
    """One kind of training text: its function, rows a batch, and its share of the batches at each of KNOTS."""

    draw: Callable[..., Draft]
    rows: int
    shares: tuple[float, ...]


# Practice first; then the protocols; then, once look-ups work, answering at once instead of by way of the content.
KNOTS = (0, 1500, 2500, 2600, 3000, 3100)  # steps; between them the shares move in straight lines
FORMATS: dict[str, Format] = {
    "practice_letters": Format(practice_letters, 24, (0.06, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "practice_matching": Format(practice_matching, 24, (0.14, 0.0, 0.0, 0.14, 0.14, 0.05)),
    "practice_pairs": Format(practice_pairs, 24, (0.14, 0.02, 0.02, 0.0, 0.0, 0.0)),
    "yes_no": Format(yes_no, 20, (0.30, 0.38, 0.38, 0.34, 0.34, 0.34)),
    "two_stage_first": Format(two_stage_first, 32, (0.18, 0.28, 0.28, 0.24, 0.24, 0.26)),
    "two_stage_second": Format(two_stage_second, 24, (0.02, 0.03, 0.03, 0.02, 0.02, 0.02)),
    "zero_shot": Format(zero_shot, 24, (0.02, 0.05, 0.05, 0.04, 0.04, 0.04)),
    "few_shot": Format(few_shot, 12, (0.02, 0.14, 0.14, 0.15, 0.15, 0.22)),
    "open_question": Format(open_question, 48, (0.12, 0.10, 0.10, 0.07, 0.07, 0.07)),
}
CLOSED_ONLY = {"number_sense", "kinds_of_things", "odd_one_out"}  # no sense without the options
OPEN_TO_THE_WORLD = {"practice_letters", "practice_matching", "practice_pairs", "yes_no"}  # draw their own items


def shares_at(step: int) -> list[float]:
    return [float(np.interp(step, KNOTS, form.shares)) for form in FORMATS.values()]


def draw_draft(rng: random.Random, name: str) -> Draft:
    if name in OPEN_TO_THE_WORLD:
        return FORMATS[name].draw(rng)
    subjects = [subject for subject in SUBJECT_NAMES if name != "open_question" or subject not in CLOSED_ONLY]
    return FORMATS[name].draw(rng, world.draw_choice(rng, rng.choice(subjects), False))


class Encoder:
    """Text to ids exactly as the engine does it, and answer stretches to positions."""

    def __init__(self, processor: spm.SentencePieceProcessor) -> None:
        self.sp = processor
        size = processor.get_piece_size()
        self.prefix = [size + 1, size + 3]  # [gMASK] sop; the order is [MASK] [gMASK] [sMASK] sop eop
        self.lengths = np.array([1 if processor.is_byte(i) else len(processor.id_to_piece(i)) for i in range(size)])

    def encode(self, draft: Draft) -> tuple[list[int], np.ndarray]:
        """Ids, and for each id the weight of the loss on predicting it."""
        ids = self.sp.encode(draft.text)
        starts = np.concatenate([[0], np.cumsum(self.lengths[ids])]) - 1  # -1: the dummy prefix
        assert starts[-1] == len(draft.text), "a character of the world is missing from the vocabulary"
        weights = np.zeros(len(ids) + 1, np.float32)
        for start, end, weight in draft.spans:
            weights[np.searchsorted(starts, start) : np.searchsorted(starts, end)] = weight
        if draft.ends_with_eos:
            ids, weights[-1] = [*ids, EOS], 0.1
        return self.prefix + ids, np.concatenate([[0, 0], weights[: len(ids)]])


Batch = dict[str, np.ndarray]


def make_batch(rng: random.Random, encoder: Encoder, form: str) -> Batch:
    """Right-padded rows (causal attention never looks at the padding) and the flat list of supervised places."""
    rows = [encoder.encode(draw_draft(rng, form)) for _ in range(FORMATS[form].rows)]
    width = -(-max(len(ids) for ids, _ in rows) // 16) * 16
    tokens = np.zeros((len(rows), width), np.int32)
    places, targets, weights = [], [], []
    for row, (ids, loss) in enumerate(rows):
        tokens[row, : len(ids)] = ids
        (at,) = np.nonzero(loss)
        places += list(row * width + at - 1)
        targets += [ids[i] for i in at]
        weights += list(loss[at])
    room = -(-len(places) // 128) * 128 - len(places)
    return {
        "tokens": tokens,
        "places": np.array(places + [0] * room, np.int32),
        "targets": np.array(targets + [0] * room, np.int32),
        "weights": np.array(weights + [0.0] * room, np.float32),
    }


# ---------------------------------------------------------------------------------------------------------------
# The model: ChatGLM2, with two-dimensional matrix products (those are what the CPU back end is fast at)


ID, ONE, TWO, THREE = 0, 1, 2, 3  # quarters of the residual stream: the word itself, and the words 1, 2, 3 back

# What each head of layers 1.. starts with, as (query, key, value, target) quarters; None: leave it random.
# Heads of a group share key and value.
Wires = tuple[int, int, int, int | None]
WIRING: dict[int, list[Wires | None]] = {
    1: [(TWO, ID, THREE, ID), (ID, ID, THREE, None), (ONE, TWO, ID, None), (ID, TWO, ID, None)],
    2: [(ID, ID, ONE, None), (ONE, ID, ONE, None), (ID, ONE, ID, None), (ONE, ONE, ID, None)],
    3: [(ID, ID, TWO, None), (TWO, ID, TWO, None), None, None],
}


def init_params(shape: Shape) -> Params:
    """Random but not blind: a first draft of the circuits that look-ups need.

    Trained from blind weights, matching words and binding letters to options appear only after a long plateau,
    too long for two CPU cores. So layer 0 starts out copying the last three words into quarters of the residual
    stream (rotary attention under constant query and key biases scores by distance alone), and later heads start
    out looking for equal words. Nothing is frozen; the training is free to keep or drop all of it.
    """
    rng = np.random.default_rng(SEED)
    h, width = shape.hidden, shape.q_width + 2 * shape.kv_width

    def normal(*size: int, std: float) -> np.ndarray:
        return (std * rng.standard_normal(size)).astype(np.float32)

    words = normal(shape.vocab, h // 4, std=1.0)
    embedding = normal(shape.vocab, h, std=0.05)
    embedding[:, : h // 4] = words / np.sqrt(np.mean(words**2, -1, keepdims=True))
    params = {"embedding": embedding, "output": 0.2 * embedding, "final_norm": np.ones(h, np.float32)}
    for i in range(shape.layers):
        params |= {
            f"{i}.norm1": np.ones(h, np.float32),
            f"{i}.qkv": normal(width, h, std=0.3 * h**-0.5),
            f"{i}.bias": np.zeros(width, np.float32),
            f"{i}.dense": normal(h, shape.q_width, std=0.3 * shape.q_width**-0.5),
            f"{i}.norm2": np.ones(h, np.float32),
            f"{i}.up": normal(2 * shape.ffn, h, std=h**-0.5),
            f"{i}.down": normal(h, shape.ffn, std=0.3 * shape.ffn**-0.5),
        }
    wire_first_layer(params, shape)
    for layer, heads in WIRING.items():
        wire_layer(params, shape, layer, heads)
    return {name: jnp.asarray(value) for name, value in params.items()}


def quarter(shape: Shape, index: int) -> slice:
    return slice(index * shape.hidden // 4, (index + 1) * shape.hidden // 4)


def wire_first_layer(params: dict[str, np.ndarray], shape: Shape) -> None:
    """Heads 0, 1, 2 copy the word 1, 2, 3 tokens back into its quarter; head 3 stays random."""
    d, size, w, b = shape.kv_channels, shape.hidden // 4, params["0.qkv"], params["0.bias"]
    theta = 10000.0 ** (-np.arange(0, d // 2, 2) / (d // 2))[:4]  # the four fastest pairs tell distances apart
    for group in range(shape.groups):
        key, value = shape.q_width + group * d, shape.q_width + shape.kv_width + group * d
        b[key : key + 8 : 2] = 8.0
        w[key : key + d] = 0.0
        w[value : value + size, quarter(shape, ID)] = 0.5 * np.eye(size)
    for head, back in ((0, ONE), (1, TWO), (2, THREE)):
        b[head * d : head * d + 8 : 2] = 8.0 * np.cos(back * theta)
        b[head * d + 1 : head * d + 8 : 2] = -8.0 * np.sin(back * theta)
        params["0.dense"][quarter(shape, back), head * d : head * d + size] += np.eye(size)


def wire_layer(params: dict[str, np.ndarray], shape: Shape, layer: int, heads: list[Wires | None]) -> None:
    """Matching heads: score by the likeness of a quarter here and a quarter there, on channels that hardly turn."""
    d, size, gain = shape.kv_channels, shape.hidden // 4, 1.6
    w, per_group, first = params[f"{layer}.qkv"], shape.heads // shape.groups, shape.kv_channels - shape.hidden // 4
    for head, wires in enumerate(heads):
        if wires is None:
            continue
        query, key, value, target = wires
        group = head // per_group
        at_key, at_value = shape.q_width + group * d, shape.q_width + shape.kv_width + group * d
        w[head * d + first : (head + 1) * d, quarter(shape, query)] = gain * np.eye(size)
        w[at_key + first : at_key + d, quarter(shape, key)] = gain * np.eye(size)
        w[at_value : at_value + size, quarter(shape, value)] = 0.7 * np.eye(size)
        if target is not None:
            params[f"{layer}.dense"][quarter(shape, target), head * d : head * d + size] += 1.5 * np.eye(size)


def rms_norm(x: jnp.ndarray, weight: jnp.ndarray) -> jnp.ndarray:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * weight


def rotate(x: jnp.ndarray, cos: jnp.ndarray, sin: jnp.ndarray) -> jnp.ndarray:
    """Rotary embedding of the first half of the channels, adjacent pairs; x is [batch, seq, heads, channels]."""
    half = x.shape[-1] // 2
    pairs = x[..., :half].reshape(*x.shape[:-1], half // 2, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    return jnp.concatenate([turned.reshape(*x.shape[:-1], half), x[..., half:]], -1)


def attention(x: jnp.ndarray, params: Params, i: int, shape: Shape, batch: int) -> jnp.ndarray:
    d, seq = shape.kv_channels, x.shape[0] // batch
    mixed = x @ params[f"{i}.qkv"].T + params[f"{i}.bias"]
    q, k, v = jnp.split(mixed, [shape.q_width, shape.q_width + shape.kv_width], -1)
    theta = 10000.0 ** (-jnp.arange(0, d // 2, 2) / (d // 2))
    angle = (jnp.arange(seq)[:, None] * theta)[:, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    q = rotate(q.reshape(batch, seq, shape.heads, d), cos, sin)
    k = rotate(k.reshape(batch, seq, shape.groups, d), cos, sin)
    v = v.reshape(batch, seq, shape.groups, d)
    q = q.reshape(batch, seq, shape.groups, -1, d).transpose(0, 2, 3, 1, 4).reshape(batch * shape.groups, -1, d)
    k = k.transpose(0, 2, 1, 3).reshape(batch * shape.groups, seq, d)
    v = v.transpose(0, 2, 1, 3).reshape(batch * shape.groups, seq, d)
    scores = (q @ k.transpose(0, 2, 1) * d**-0.5).reshape(batch * shape.groups, -1, seq, seq)
    causal = jnp.tril(jnp.ones((seq, seq), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -1e9), -1).reshape(batch * shape.groups, -1, seq)
    mixed = (weights @ v).reshape(batch, shape.groups, -1, seq, d).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(batch * seq, shape.q_width) @ params[f"{i}.dense"].T


def hidden_states(params: Params, tokens: jnp.ndarray, shape: Shape) -> jnp.ndarray:
    batch = tokens.shape[0]
    x = params["embedding"][tokens.reshape(-1)]
    for i in range(shape.layers):
        x = x + attention(rms_norm(x, params[f"{i}.norm1"]), params, i, shape, batch)
        gate, up = jnp.split(rms_norm(x, params[f"{i}.norm2"]) @ params[f"{i}.up"].T, 2, -1)
        x = x + (jax.nn.silu(gate) * up) @ params[f"{i}.down"].T
    return rms_norm(x, params["final_norm"])


def loss_of(params: Params, batch: dict[str, jnp.ndarray], shape: Shape) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Mean loss and hit rate over the supervised places; logits are made for those alone."""
    logits = hidden_states(params, batch["tokens"], shape)[batch["places"]] @ params["output"].T
    targets, weights = batch["targets"], batch["weights"]
    nll = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, targets[:, None], -1)[:, 0]
    heavy = weights >= 1.0  # answers proper, without the words around them
    hits = jnp.sum((jnp.argmax(logits, -1) == targets) * heavy) / jnp.sum(heavy)
    return jnp.sum(nll * weights) / jnp.sum(weights), hits


# ---------------------------------------------------------------------------------------------------------------
# AdamW


def decays(name: str) -> bool:
    return not any(part in name for part in ("norm", "bias", "embedding"))


Moments = tuple[Params, Params]


def adam_step(
    params: Params, state: Moments, grads: Params, rate: float, step: float, decay: float = 0.05
) -> tuple[Params, Moments]:
    mean, square = state
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
    clip = jnp.minimum(1.0, 1.0 / (norm + 1e-9))
    grads = {k: g * clip for k, g in grads.items()}
    mean = {k: 0.9 * mean[k] + 0.1 * g for k, g in grads.items()}
    square = {k: 0.98 * square[k] + 0.02 * g * g for k, g in grads.items()}
    fix1, fix2 = 1 - 0.9**step, 1 - 0.98**step

    def move(k: str) -> jnp.ndarray:
        update = (mean[k] / fix1) / (jnp.sqrt(square[k] / fix2) + 1e-8)
        return params[k] - rate * (update + (decay * params[k] if decays(k) else 0.0))

    return {k: move(k) for k in params}, (mean, square)


# ---------------------------------------------------------------------------------------------------------------
# Export


def to_hugging_face(params: Params, shape: Shape) -> dict[str, np.ndarray]:
    names = {
        "norm1": "input_layernorm.weight", "qkv": "self_attention.query_key_value.weight",
        "bias": "self_attention.query_key_value.bias", "dense": "self_attention.dense.weight",
        "norm2": "post_attention_layernorm.weight", "up": "mlp.dense_h_to_4h.weight",
        "down": "mlp.dense_4h_to_h.weight",
    }
    top = {
        "embedding": "transformer.embedding.word_embeddings.weight", "output": "transformer.output_layer.weight",
        "final_norm": "transformer.encoder.final_layernorm.weight",
    }
    tensors = {top[k]: params[k] for k in top}
    for i in range(shape.layers):
        tensors |= {f"transformer.encoder.layers.{i}.{long}": params[f"{i}.{short}"] for short, long in names.items()}
    half = shape.kv_channels // 2
    tensors["transformer.rotary_pos_emb.inv_freq"] = 10000.0 ** (-np.arange(0, half, 2) / half)
    return {name: np.asarray(value, np.float16) for name, value in tensors.items()}


def config(shape: Shape) -> dict[str, object]:
    """Every key of ChatGLM2-6B's config.json, our dimensions."""
    python = "modeling_chatglm.ChatGLMForConditionalGeneration"
    return {
        "_name_or_path": "glmbench/demo", "model_type": "chatglm", "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig", "AutoModel": python,
                     "AutoModelForCausalLM": python, "AutoModelForSeq2SeqLM": python,
                     "AutoModelForSequenceClassification": "modeling_chatglm.ChatGLMForSequenceClassification"},
        "add_bias_linear": False, "add_qkv_bias": True, "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "ffn_hidden_size": shape.ffn,
        "fp32_residual_connection": False, "hidden_dropout": 0.0, "hidden_size": shape.hidden,
        "kv_channels": shape.kv_channels, "layernorm_epsilon": 1e-05, "multi_query_attention": True,
        "multi_query_group_num": shape.groups, "num_attention_heads": shape.heads, "num_layers": shape.layers,
        "original_rope": True, "padded_vocab_size": shape.vocab, "post_layer_norm": True, "rmsnorm": True,
        "seq_length": 2048, "use_cache": True, "torch_dtype": "float16", "transformers_version": "4.27.1",
        "tie_word_embeddings": False, "eos_token_id": EOS, "pad_token_id": PAD,
    }


TOKENIZER_CONFIG = {
    "name_or_path": "glmbench/demo", "remove_space": False, "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer",
    "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
}


def export(params: Params, shape: Shape, out: Path) -> None:
    save_file(to_hugging_face(params, shape), out / "model.safetensors", metadata={"format": "pt"})
    for name, content in (("config.json", config(shape)), ("tokenizer_config.json", TOKENIZER_CONFIG)):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------


def rate_at(step: int, steps: int, peak: float) -> float:
    """Warm-up, a plateau, and a straight way down to zero over the last third."""
    return peak * min(1.0, step / 200, 3.0 * (steps - step) / steps + 0.001)


Checkpoint = tuple[int, Params, Moments]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    step, params, (mean, square) = checkpoint
    parts = {"params": params, "mean": mean, "square": square}
    np.savez(path, step=step, **{f"{part}/{k}": v for part, group in parts.items() for k, v in group.items()})


def load_checkpoint(path: Path) -> Checkpoint:
    stored = np.load(path)

    def part(name: str) -> Params:
        return {key.split("/")[1]: jnp.asarray(stored[key]) for key in stored.files if key.startswith(name + "/")}

    return int(stored["step"]), part("params"), (part("mean"), part("square"))


def fresh_checkpoint(shape: Shape) -> Checkpoint:
    params = init_params(shape)
    mean, square = ({k: jnp.zeros_like(v) for k, v in params.items()} for _ in range(2))
    return 0, params, (mean, square)


def train(shape: Shape, encoder: Encoder, out: Path, kept: Path, steps: int, peak: float) -> None:
    """Every batch is a function of its step number alone, so a resumed run sees what an unbroken one sees."""

    @jax.jit
    def update(params: Params, state: Moments, batch: Batch, rate: float, step: float):  # -> the new two, loss, hits
        (loss, hits), grads = jax.value_and_grad(loss_of, has_aux=True)(params, batch, shape)
        return *adam_step(params, state, grads, rate, step), loss, hits

    done, params, state = load_checkpoint(kept) if kept.exists() else fresh_checkpoint(shape)
    recent: dict[str, list[tuple[float, float]]] = {name: [] for name in FORMATS}
    started = time.time()
    for step in range(done + 1, steps + 1):
        rng = random.Random(f"{SEED}/{step}")
        (name,) = rng.choices(list(FORMATS), shares_at(step))
        batch = make_batch(rng, encoder, name)
        params, state, loss, hits = update(params, state, batch, rate_at(step, steps, peak), float(step))
        recent[name].append((loss, hits))
        if step % 100 == 0:
            report(step, time.time() - started, recent)
        if step % 250 == 0 or step == steps:
            save_checkpoint(kept, (step, params, state))
            export(params, shape, out)


def report(step: int, seconds: float, recent: dict[str, list[tuple[float, float]]]) -> None:
    parts = []
    for form, pairs in recent.items():
        if pairs:
            loss, hits = np.mean([[float(a), float(b)] for a, b in pairs], 0)
            parts.append(f"{form} {loss:.3f}/{hits:.2f}")
            pairs.clear()
    print(f"{step:6d} {seconds:5.0f}s", *parts, sep="  ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--checkpoint", type=Path, required=True, help="npz file to resume from and to write")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(train_tokenizer(args.out / "tokenizer.model"))
    shape = Shape(vocab=-(-(encoder.sp.get_piece_size() + 5) // 64) * 64)
    print(encoder.sp.get_piece_size(), "pieces;", shape, flush=True)
    train(shape, encoder, args.out, args.checkpoint, args.steps, args.rate)


if __name__ == "__main__":
    main()
