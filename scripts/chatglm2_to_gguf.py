#!/usr/bin/env python3
"""Writes a ChatGLM2 checkpoint with its tokenizer as GGUF, for llama.cpp. Needs numpy and gguf.

usage: scripts/chatglm2_to_gguf.py CHECKPOINT OUT.gguf [--type f16|f32] [--rope-scaling base]

CHECKPOINT is a folder with config.json, tokenizer.model and *.safetensors in fp16, bf16 or fp32.

The file says that the model is a Llama, because llama.cpp's own ChatGLM graph wants heads of hidden_size / heads. The two are the
same computation but for the rotation: ChatGLM2 rotates the first half of a head, Llama the whole head. `rope_freqs.weight` divides
the angle of each pair. It makes the angles of the first half those of ChatGLM2, and those of the second half zero.

Matrices get the type, vectors stay fp32, as in llama.cpp's own converter.
"""

import argparse
import json
import os
import pathlib
import struct

import gguf
import numpy as np

SPECIAL = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]
# Divides an angle to zero at every position.
STILL = 1e30


class Checkpoint:
    """The tensors of a folder's safetensors files, each read when it is asked for."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.places = {}
        for path in sorted(folder.glob("*.safetensors")):
            with open(path, "rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    self.places[name] = (path, 8 + length + entry["data_offsets"][0], entry)
        if not self.places:
            raise SystemExit(f"{folder}: no *.safetensors file with tensors; expected a ChatGLM2 checkpoint")

    def floats(self, name):
        """A tensor in fp32."""
        if name not in self.places:
            raise SystemExit(f"the checkpoint has no tensor {name}; expected the names of ChatGLM2")
        path, offset, entry = self.places[name]
        types = {"F16": np.float16, "F32": np.float32, "BF16": np.uint16}
        if entry["dtype"] not in types:
            raise SystemExit(f"{path}: {name} is {entry['dtype']}, expected one of {', '.join(types)}")
        words = np.memmap(path, types[entry["dtype"]], "r", offset, tuple(entry["shape"]))
        if entry["dtype"] == "BF16":
            return (words.astype(np.uint32) << 16).view(np.float32)
        return words.astype(np.float32)


def fields(data):
    """The fields of a protobuf message: number, and an integer or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 2: None, 5: 4}[kind]
        size = varint() if size is None else size
        yield key >> 3, data[at : at + size]
        at += size


def pieces(model):
    """The pieces of a SentencePiece model with scores and types, and whether it puts a space before a text."""
    found, space = [], True
    for number, value in fields(model):
        if number == 1:
            piece = {1: b"", 2: b"\0\0\0\0", 3: 1} | dict(fields(value))
            found.append((piece[1], struct.unpack("<f", piece[2])[0], piece[3]))
        if number == 3:
            space = dict(fields(value)).get(3, 1) != 0
    return found, space


def add_tokenizer(writer, folder, config):
    found, space = pieces((folder / "tokenizer.model").read_bytes())
    size = config["padded_vocab_size"]
    if len(found) + len(SPECIAL) > size:
        raise SystemExit(f"tokenizer.model has {len(found)} pieces; expected at most padded_vocab_size {size} less {len(SPECIAL)}")
    control, unused = int(gguf.TokenType.CONTROL), int(gguf.TokenType.UNUSED)
    found += [(word.encode(), 0.0, control) for word in SPECIAL]
    found += [(f"[PAD{at}]".encode(), 0.0, unused) for at in range(len(found), size)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in found])
    writer.add_token_scores([score for _, score, _ in found])
    writer.add_token_types([kind for _, _, kind in found])
    ends = config.get("eos_token_id", 2)
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(space)


def rotary(head, base):
    """Divisors of Llama's angles, base^(-2i/head), that make them ChatGLM2's: base^(-2i/(head/2)), then none."""
    pair = np.arange(head // 4, dtype=np.float64)
    rotated = base ** (2 * pair / (head // 2)) / base ** (2 * pair / head)
    return np.concatenate([rotated, np.full(head // 2 - head // 4, STILL)]).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--type", choices=["f16", "f32"], default="f16")
    parser.add_argument("--rope-scaling", choices=["base"], help="what rope_ratio does, where the folder has one")
    args = parser.parse_args()
    checkpoint = Checkpoint(args.checkpoint)
    config = checkpoint.config
    ratio = config.get("rope_ratio", 1.0)
    if ratio != 1.0 and args.rope_scaling is None:
        raise SystemExit(f"rope_ratio is {ratio}; give --rope-scaling base if it multiplies the base of the rotary table")
    base, head = 10000.0 * ratio, config["kv_channels"]
    heads, groups, layers = config["num_attention_heads"], config["multi_query_group_num"], config["num_layers"]
    inner = config["ffn_hidden_size"]

    part = args.out.with_name(args.out.name + ".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(args.checkpoint.resolve().name)
    writer.add_context_length(config["seq_length"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(base)
    writer.add_layer_norm_rms_eps(config["layernorm_epsilon"])
    writer.add_vocab_size(config["padded_vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if args.type == "f16" else gguf.LlamaFileType.ALL_F32)
    add_tokenizer(writer, args.checkpoint, config)

    def add(name, values):
        matrix = values.ndim > 1 and args.type == "f16"
        if matrix and not np.all(np.abs(values) <= np.finfo(np.float16).max):
            raise SystemExit(f"{name}: a weight is not finite or too large for fp16; give --type f32")
        writer.add_tensor(name, np.ascontiguousarray(values, np.float16 if matrix else np.float32))

    def weight(name):
        return checkpoint.floats("transformer." + name)

    add("rope_freqs.weight", rotary(head, base))
    add("token_embd.weight", weight("embedding.word_embeddings.weight"))
    for index in range(layers):
        ours, theirs = f"encoder.layers.{index}.", f"blk.{index}."
        attention = ours + "self_attention."
        add(theirs + "attn_norm.weight", weight(ours + "input_layernorm.weight"))
        sizes = [heads * head, (heads + groups) * head]
        for kind in ["weight", "bias"]:
            if kind == "bias" and not config.get("add_qkv_bias", True):
                continue
            parts = np.split(weight(attention + "query_key_value." + kind), sizes)
            for letter, values in zip("qkv", parts):
                add(f"{theirs}attn_{letter}.{kind}", values)
        add(theirs + "attn_output.weight", weight(attention + "dense.weight"))
        add(theirs + "ffn_norm.weight", weight(ours + "post_attention_layernorm.weight"))
        gate, up = np.split(weight(ours + "mlp.dense_h_to_4h.weight"), [inner])
        add(theirs + "ffn_gate.weight", gate)
        add(theirs + "ffn_up.weight", up)
        add(theirs + "ffn_down.weight", weight(ours + "mlp.dense_4h_to_h.weight"))
    add("output_norm.weight", weight("encoder.final_layernorm.weight"))
    add("output.weight", weight("output_layer.weight"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, args.out)
    print(f"{args.out}: {layers} layers, {args.type}, rotary base {base:g}")


if __name__ == "__main__":
    main()
