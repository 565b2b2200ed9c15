"""Writes a ChatGLM2 checkpoint without a tokenizer as GGUF, with the gguf package of llama.cpp's source tree.

    to_gguf.py CHECKPOINT OUT f16|bf16|q8_0|q4_0 GGUF_PY

Names and metadata are those that llama.cpp's converter writes for this architecture; the converter itself wants a tokenizer, which
a random checkpoint lacks. All matrices get the type; vectors stay fp32.
"""

import os
import sys

import numpy as np

from checkpoint import Checkpoint, widen


def main():
    folder, out, kind, package = sys.argv[1:]
    sys.path.insert(0, package)
    import gguf
    from gguf.constants import GGMLQuantizationType, LlamaFileType

    checkpoint = Checkpoint(folder)
    config = checkpoint.config
    layers = config["num_layers"]
    quantised = GGMLQuantizationType[kind.upper()]
    writer = gguf.GGUFWriter(out + ".part", "chatglm")
    writer.add_context_length(config["seq_length"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["ffn_hidden_size"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["multi_query_group_num"])
    writer.add_layer_norm_rms_eps(config["layernorm_epsilon"])
    writer.add_rope_dimension_count(config["kv_channels"] // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_add_bos_token(False)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["padded_vocab_size"])
    writer.add_file_type(LlamaFileType["MOSTLY_" + kind.upper()])

    tensors = [("token_embd.weight", "embedding.word_embeddings.weight")]
    for index in range(layers):
        ours, theirs = f"encoder.layers.{index}.", f"blk.{index}."
        tensors += [
            (theirs + "attn_norm.weight", ours + "input_layernorm.weight"),
            (theirs + "attn_qkv.weight", ours + "self_attention.query_key_value.weight"),
            (theirs + "attn_qkv.bias", ours + "self_attention.query_key_value.bias"),
            (theirs + "attn_output.weight", ours + "self_attention.dense.weight"),
            (theirs + "ffn_norm.weight", ours + "post_attention_layernorm.weight"),
            (theirs + "ffn_up.weight", ours + "mlp.dense_h_to_4h.weight"),
            (theirs + "ffn_down.weight", ours + "mlp.dense_4h_to_h.weight"),
        ]
    tensors += [("output_norm.weight", "encoder.final_layernorm.weight"), ("output.weight", "output_layer.weight")]

    def data(name):
        words = checkpoint.words(name)
        if words.ndim == 1:
            return widen(words), GGMLQuantizationType.F32
        if kind == "bf16":
            return np.ascontiguousarray(words).view(np.uint8), quantised
        pieces = [gguf.quants.quantize(widen(words[at : at + 256]), quantised) for at in range(0, len(words), 256)]
        return np.concatenate(pieces), quantised

    for name, source in tensors:
        shape = checkpoint.words(source).shape
        kept = GGMLQuantizationType.F32 if len(shape) == 1 else quantised
        if kept in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            dtype = np.dtype(np.float32 if kept == GGMLQuantizationType.F32 else np.float16)
            writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
        else:
            shape = gguf.quant_shape_to_byte_shape(shape, kept)
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, source in tensors:
        writer.write_tensor_data(data(source)[0])
    writer.close()
    os.replace(out + ".part", out)


if __name__ == "__main__":
    main()
