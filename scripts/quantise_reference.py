#!/usr/bin/env python3
"""An independent implementation of ModelSlim's W8A8, in NumPy, and the fixture that the engine is tested against.

    python3 scripts/quantise_reference.py make tests/fixtures/quantised     writes the fixture anew
    python3 scripts/quantise_reference.py check MODEL EXPORT                compares an export with its float model

`make` writes a random ChatGLM2 of two layers (`float/`), runs it over fixed prompts in fp32, quantises it by the formulas of
the format (`w8a8/`), and writes the logits of the quantised model (`logits.json`) and the ranges of the inputs (`ranges.json`).

`check` reads a float checkpoint and the W8A8 folder that `glmbench quantize --act-method 1` made of it. Weights, `deq_scale` and
`quant_bias` must be equal value by value. NumPy 2 is all that it needs.

Formulas: `scale = max|w| / 127` per output channel, `q = rint(w / scale)`; `S = (high - low) / 255` in fp16 and
`Z = -128 - rint(low / S)`; `deq_scale = S * scale` in fp32; `quant_bias = rint(bias / deq_scale) - Z * sum q`;
`y = (clip(rint(x / S) + Z, -128, 127) q^T + quant_bias) * deq_scale`.
"""

import json
import os
import struct
import sys

import numpy as np

TYPES = {"F16": np.float16, "F32": np.float32, "I8": np.int8, "I32": np.int32, "I64": np.int64}
NAMES = {np.dtype(t): name for name, t in TYPES.items()}
CONFIG = {
    "_name_or_path": "quantised-fixture", "model_type": "chatglm", "num_layers": 2, "hidden_size": 32,
    "ffn_hidden_size": 48, "kv_channels": 8, "num_attention_heads": 4, "multi_query_attention": True,
    "multi_query_group_num": 2, "padded_vocab_size": 64, "seq_length": 64, "layernorm_epsilon": 1e-5,
    "add_qkv_bias": True, "rmsnorm": True, "eos_token_id": 2, "torch_dtype": "float16",
}
PROMPTS = [[(7 * i * i + 3 * i + 11 * p + 5) % 64 for i in range(n)] for p, n in enumerate([24, 9, 17])]
# Left in float: one layer of each kind that ModelSlim's scripts leave.
FLOAT = ["transformer.encoder.layers.1.self_attention.query_key_value", "transformer.encoder.layers.0.mlp.dense_4h_to_h",
         "transformer.output_layer"]


def read(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(length)), file.read()
    header.pop("__metadata__", None)
    of = lambda i: np.frombuffer(data[slice(*i["data_offsets"])], TYPES[i["dtype"]]).reshape(i["shape"])
    return {name: of(info) for name, info in header.items()}


def write(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + t.nbytes]}
        data += t.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def linears(config):
    for layer in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{layer}."
        yield from (at + part for part in ["self_attention.query_key_value", "self_attention.dense",
                                           "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"])
    yield "transformer.output_layer"


def quantise_weight(weight):
    """Returns int8 weights and an fp32 scale per output channel."""
    weight = weight.astype(np.float32)
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    scale[scale == 0] = 1
    return np.rint(weight / scale[:, None]).clip(-127, 127).astype(np.int8), scale


def quantise_input(low, high):
    """Returns the fp16 scale and the offset of a range."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = np.float16((high - low) / 255 if high > low else 1.0)
    scale = max(scale, np.float16(2.0**-14))
    offset = -128 - np.rint(np.float32(low) / np.float32(scale))
    return scale, np.float32(offset).clip(-128, 127)


def derived(scale, offset, q, weight_scale, bias):
    """Returns deq_scale in fp32 and quant_bias in int32."""
    deq = (np.float32(scale) * weight_scale).astype(np.float32)
    of_bias = np.rint(bias.astype(np.float64) / deq.astype(np.float64)) if bias is not None else 0
    return deq, (of_bias - float(offset) * q.astype(np.int64).sum(axis=1)).astype(np.int32)


class Model:
    """ChatGLM2 in fp32. `linear(name, x)` computes a linear layer; `seen` collects its inputs' ranges."""

    def __init__(self, config, tensors, quantised=None):
        self.c, self.t, self.q, self.seen = config, tensors, quantised or {}, {}

    def linear(self, name, x):
        low, high = self.seen.get(name, (np.inf, -np.inf))
        self.seen[name] = (min(low, x.min()), max(high, x.max()))
        if name in self.q:
            scale, offset, q, deq, bias = self.q[name]
            xq = (np.rint(x / np.float32(scale)) + offset).clip(-128, 127).astype(np.int64)
            return ((xq @ q.astype(np.int64).T + bias) * deq.astype(np.float64)).astype(np.float32)
        bias = self.t.get(name + ".bias")
        y = x @ self.t[name + ".weight"].astype(np.float32).T
        return y + bias.astype(np.float32) if bias is not None else y

    def norm(self, name, x):
        scale = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self.c["layernorm_epsilon"]))
        return (x * scale * self.t[name + ".weight"].astype(np.float32)).astype(np.float32)

    def rotate(self, x, positions):
        half = self.c["kv_channels"] // 2
        theta = 1 / 10000 ** (np.arange(0, half, 2, dtype=np.float32) / np.float32(half))
        angle = positions[:, None].astype(np.float32) * theta.astype(np.float32)
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        out = x.copy()
        even, odd = x[..., 0:half:2], x[..., 1:half:2]
        out[..., 0:half:2], out[..., 1:half:2] = even * cos - odd * sin, odd * cos + even * sin
        return out

    def logits(self, ids):
        c, n = self.c, len(ids)
        heads, groups, width = c["num_attention_heads"], c["multi_query_group_num"], c["kv_channels"]
        positions, mask = np.arange(n), np.triu(np.full((n, n), -np.inf, np.float32), 1)
        x = self.t["transformer.embedding.word_embeddings.weight"].astype(np.float32)[ids]
        for layer in range(c["num_layers"]):
            at = f"transformer.encoder.layers.{layer}."
            qkv = self.linear(at + "self_attention.query_key_value", self.norm(at + "input_layernorm", x))
            q, k, v = np.split(qkv, [heads * width, (heads + groups) * width], axis=1)
            q = self.rotate(q.reshape(n, heads, width), positions)
            k = self.rotate(k.reshape(n, groups, width), positions)
            v, out = v.reshape(n, groups, width), np.empty_like(q)
            for head in range(heads):
                of = head // (heads // groups)
                scores = q[:, head] @ k[:, of].T / np.float32(np.sqrt(width)) + mask
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, of]
            x = x + self.linear(at + "self_attention.dense", out.reshape(n, -1))
            h = self.linear(at + "mlp.dense_h_to_4h", self.norm(at + "post_attention_layernorm", x))
            gate, up = np.split(h, 2, axis=1)
            x = x + self.linear(at + "mlp.dense_4h_to_h", gate / (1 + np.exp(-gate)) * up)
        return self.linear("transformer.output_layer", self.norm("transformer.encoder.final_layernorm", x))


def random_model(config):
    c, rng = config, np.random.default_rng(16)
    hidden, ffn, width = c["hidden_size"], c["ffn_hidden_size"], c["kv_channels"]
    q, kv = c["num_attention_heads"] * width, c["multi_query_group_num"] * width
    number = lambda *shape: (rng.standard_normal(shape) * 0.15).astype(np.float16)
    norm = lambda: (1 + rng.standard_normal(hidden) * 0.2).astype(np.float16)
    t = {"transformer.embedding.word_embeddings.weight": number(c["padded_vocab_size"], hidden),
         "transformer.encoder.final_layernorm.weight": norm(),
         "transformer.output_layer.weight": number(c["padded_vocab_size"], hidden)}
    for layer in range(c["num_layers"]):
        at = f"transformer.encoder.layers.{layer}."
        t[at + "input_layernorm.weight"], t[at + "post_attention_layernorm.weight"] = norm(), norm()
        t[at + "self_attention.query_key_value.weight"] = number(q + 2 * kv, hidden)
        t[at + "self_attention.query_key_value.bias"] = number(q + 2 * kv)
        t[at + "self_attention.dense.weight"] = number(hidden, q)
        t[at + "mlp.dense_h_to_4h.weight"] = number(2 * ffn, hidden)
        t[at + "mlp.dense_4h_to_h.weight"] = number(hidden, ffn)
    return t


def quantise(config, tensors, ranges, float_layers):
    """Returns the tensors of a W8A8 checkpoint, its description, and what `Model` needs."""
    out, words, parts = dict(tensors), {"model_quant_type": "W8A8"}, {}
    for name in linears(config):
        if name in float_layers:
            continue
        bias = tensors.get(name + ".bias")
        (scale, offset), (q, weight_scale) = quantise_input(*ranges[name]), quantise_weight(tensors[name + ".weight"])
        deq, quant_bias = derived(scale, offset, q, weight_scale, bias)
        out[name + ".weight"] = q
        out[name + ".input_scale"] = np.array([scale], np.float16)
        out[name + ".input_offset"] = np.array([offset], np.float16)
        out[name + ".deq_scale"] = deq.view(np.int32).astype(np.int64)
        out[name + ".quant_bias"] = quant_bias
        parts[name] = (scale, offset, q, deq, quant_bias)
    for name in out:
        words[name] = "W8A8" if name.rsplit(".", 1)[0] in parts else "FLOAT"
    return out, words, parts


def dump(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")


def make(folder):
    for name in ["float", "w8a8"]:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    tensors = random_model(CONFIG)
    model = Model(CONFIG, tensors)
    for prompt in PROMPTS:
        model.logits(prompt)
    ranges = {name: [float(low), float(high)] for name, (low, high) in model.seen.items()}
    out, words, parts = quantise(CONFIG, tensors, ranges, FLOAT)
    write(os.path.join(folder, "float/model.safetensors"), tensors)
    write(os.path.join(folder, "w8a8/quant_model_weight_w8a8.safetensors"), out)
    dump(os.path.join(folder, "float/config.json"), CONFIG)
    dump(os.path.join(folder, "w8a8/config.json"), CONFIG | {"quantize": "w8a8"})
    dump(os.path.join(folder, "w8a8/quant_model_description_w8a8.json"), words)
    dump(os.path.join(folder, "ranges.json"), ranges)
    logits = [Model(CONFIG, tensors, parts).logits(prompt)[-1] for prompt in PROMPTS]
    dump(os.path.join(folder, "logits.json"), {"prompts": PROMPTS, "last": [[float(x) for x in row] for row in logits]})


def check(model, export):
    tensors = read(os.path.join(model, "model.safetensors"))
    new = read(os.path.join(export, "quant_model_weight_w8a8.safetensors"))
    with open(os.path.join(export, "quant_model_description_w8a8.json"), encoding="utf-8") as file:
        words = json.load(file)
    count = 0
    # Frequencies that some checkpoints hold are computed, not read.
    tensors.pop("transformer.rotary_pos_emb.inv_freq", None)
    for name, t in tensors.items():
        linear = name.rsplit(".", 1)[0]
        if not name.endswith(".weight") or words[name] == "FLOAT":
            assert np.array_equal(new[name], t) and new[name].dtype == t.dtype, name
            continue
        q, weight_scale = quantise_weight(t)
        scale, offset = new[linear + ".input_scale"][0], np.float32(new[linear + ".input_offset"][0])
        deq, bias = derived(scale, offset, q, weight_scale, tensors.get(linear + ".bias"))
        assert np.array_equal(new[name], q), name
        assert np.array_equal(new[linear + ".deq_scale"], deq.view(np.int32).astype(np.int64)), linear + ".deq_scale"
        assert np.array_equal(new[linear + ".quant_bias"], bias), linear + ".quant_bias"
        count += 1
    assert set(words) - {"model_quant_type", "kv_cache_type"} == set(new), "the description names other tensors"
    print(f"{export}: {count} quantised linear layers are equal value by value")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "make":
        make(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "check":
        check(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
