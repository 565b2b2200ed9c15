"""OpenVINO on a ChatGLM2 checkpoint: builds a model once, or times the figures of peers.py in one process (JSON lines).

    openvino_peer.py build CHECKPOINT MODEL.xml --weights f16|int8
    openvino_peer.py run MODEL.xml --precision bf16|f32 --work '{"prefill": 512, …}'

The graph has the forms that OpenVINO's CPU plugin fuses: stateful keys and values with a beam index, scaled dot product attention
over broadcast groups, RMSNorm, and int8 weights decompressed by one scale for each output channel. With int8 weights the inputs of
linear layers are quantised on the way, by token.
"""

import argparse
import json
import os
import time

import numpy as np
import openvino as ov
from openvino import opset13 as op

from checkpoint import Checkpoint, int8_rows, widen


def say(**record):
    print(json.dumps(record), flush=True)


def scalar(value, dtype=np.float32):
    return op.constant(np.array(value, dtype))


def ints(*values):
    return op.constant(np.array(values, np.int64))


class Builder:
    def __init__(self, checkpoint, weights):
        self.checkpoint, self.weights = checkpoint, weights
        config = checkpoint.config
        self.hidden, self.heads, self.groups = config["hidden_size"], config["num_attention_heads"], config["multi_query_group_num"]
        self.width, self.eps = config["kv_channels"], config["layernorm_epsilon"]
        self.sinks = []

    def half(self, name):
        """A float tensor as an fp16 constant, widened."""
        words = self.checkpoint.words(name)
        return op.convert(op.constant(widen(words).astype(np.float16)), "f32")

    def linear(self, x, name, bias=None):
        if self.weights == "int8":
            rows, scales = int8_rows(self.checkpoint.words(name + ".weight"))
            weight = op.multiply(op.convert(op.constant(rows), "f32"), op.constant(scales[:, None]))
        else:
            weight = self.half(name + ".weight")
        product = op.matmul(x, weight, False, True)
        return op.add(product, op.constant(self.checkpoint.floats(bias))) if bias else product

    def norm(self, x, name):
        mean = op.reduce_mean(op.power(x, scalar(2)), ints(-1), keep_dims=True)
        scale = op.divide(scalar(1), op.sqrt(op.add(mean, scalar(self.eps))))
        return op.multiply(op.constant(self.checkpoint.floats(name)), op.multiply(x, scale))

    def rotate(self, x, heads):
        """Rotates the first half of the channels of [batch, tokens, heads, width], in neighbouring pairs."""
        turned, kept = op.variadic_split(x, scalar(3, np.int64), ints(self.width // 2, self.width // 2)).outputs()
        pairs = op.reshape(turned, ints(0, 0, heads, self.width // 4, 2), True)
        even, odd = op.split(pairs, scalar(4, np.int64), 2).outputs()
        first = op.subtract(op.multiply(even, self.cos), op.multiply(odd, self.sin))
        second = op.add(op.multiply(odd, self.cos), op.multiply(even, self.sin))
        turned = op.reshape(op.concat([first, second], 4), ints(0, 0, heads, self.width // 2), True)
        return op.concat([turned, kept], 3)

    def kept(self, new, name):
        """Appends to a state [batch, groups, tokens, width], and repeats it for the heads of each group."""
        empty = op.broadcast(scalar(0.0), op.concat([self.batch, ints(self.groups, 0, self.width)], 0))
        shape = ov.PartialShape([-1, self.groups, -1, self.width])
        past = op.read_value(empty, name, ov.Type.f32, shape)
        whole = op.concat([op.gather(past, self.beams, scalar(0, np.int64)), new], 2)
        self.sinks.append(op.assign(whole, name))
        wide = op.unsqueeze(whole, ints(2))
        wide = op.broadcast(wide, ints(1, 1, self.heads // self.groups, 1, 1), broadcast_spec="BIDIRECTIONAL")
        return op.reshape(wide, ints(0, self.heads, -1, self.width), True)

    def attend(self, x, layer):
        prefix = f"encoder.layers.{layer}.self_attention."
        qkv = self.linear(x, prefix + "query_key_value", prefix + "query_key_value.bias")
        sizes = ints(self.heads * self.width, self.groups * self.width, self.groups * self.width)
        q, k, v = op.variadic_split(qkv, scalar(2, np.int64), sizes).outputs()
        order = ints(0, 2, 1, 3)
        q = self.rotate(op.reshape(q, ints(0, 0, self.heads, self.width), True), self.heads)
        k = self.rotate(op.reshape(k, ints(0, 0, self.groups, self.width), True), self.groups)
        v = op.reshape(v, ints(0, 0, self.groups, self.width), True)
        keys = self.kept(op.transpose(k, order), f"keys.{layer}")
        values = self.kept(op.transpose(v, order), f"values.{layer}")
        out = op.scaled_dot_product_attention(op.transpose(q, order), keys, values, self.mask, causal=False)
        out = op.reshape(op.transpose(out, order), ints(0, 0, self.heads * self.width), True)
        return self.linear(out, prefix + "dense")

    def feed_forward(self, x, layer):
        prefix = f"encoder.layers.{layer}.mlp."
        gate, up = op.split(self.linear(x, prefix + "dense_h_to_4h"), scalar(2, np.int64), 2).outputs()
        return self.linear(op.multiply(op.swish(gate), up), prefix + "dense_4h_to_h")

    def model(self):
        ids = op.parameter([-1, -1], ov.Type.i64, "ids")
        positions = op.parameter([-1], ov.Type.i64, "positions")
        mask = op.parameter([1, 1, -1, -1], ov.Type.f32, "mask")
        beams = op.parameter([-1], ov.Type.i32, "beams")
        self.beams, self.mask = beams, mask
        self.batch = op.gather(op.shape_of(ids), ints(0), scalar(0, np.int64))
        rotated = self.width // 2
        frequency = 10000.0 ** (-np.arange(0, rotated, 2, dtype=np.float32) / rotated)
        angles = np.arange(4096, dtype=np.float32)[:, None] * frequency
        part = lambda table: op.gather(op.constant(table[:, None, :, None]), positions, scalar(0, np.int64))
        self.cos, self.sin = part(np.cos(angles)), part(np.sin(angles))
        x = op.gather(self.half("embedding.word_embeddings.weight"), ids, scalar(0, np.int64))
        layers = self.checkpoint.config["num_layers"]
        for layer in range(layers):
            prefix = f"encoder.layers.{layer}."
            x = op.add(x, self.attend(self.norm(x, prefix + "input_layernorm.weight"), layer))
            if layer + 1 == layers:
                # Only the last position needs logits.
                x = op.gather(x, ints(-1), scalar(1, np.int64))
            x = op.add(x, self.feed_forward(self.norm(x, prefix + "post_attention_layernorm.weight"), layer))
        logits = self.linear(self.norm(x, "encoder.final_layernorm.weight"), "output_layer")
        token = op.squeeze(op.topk(logits, scalar(1, np.int64), 2, "max", "none", index_element_type="i64").output(1), ints(2))
        return ov.Model([op.result(token)], self.sinks, [ids, positions, mask, beams], "chatglm2")


def build(args):
    model = Builder(Checkpoint(args.checkpoint), args.weights).model()
    part = args.model.removesuffix(".xml") + ".part.xml"
    ov.save_model(model, part, compress_to_fp16=False)
    os.replace(part.removesuffix(".xml") + ".bin", args.model.removesuffix(".xml") + ".bin")
    os.replace(part, args.model)


def run(args):
    work = args.work
    say(version=f"OpenVINO {ov.__version__.split('-')[0]}")
    core = ov.Core()
    options = {
        "INFERENCE_NUM_THREADS": work["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": True,
        "INFERENCE_PRECISION_HINT": args.precision,
        "KV_CACHE_PRECISION": "bf16" if args.precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(2**64 - 1) if args.by_token else "32",
    }
    begun = time.perf_counter()
    compiled = core.compile_model(args.model, "CPU", options)
    say(load_s=time.perf_counter() - begun, precision=str(compiled.get_property("INFERENCE_PRECISION_HINT")))
    request = compiled.create_infer_request()
    random = np.random.default_rng(0)

    def call(ids, start):
        batch, tokens = ids.shape
        positions = np.arange(start, start + tokens)
        mask = np.where(np.arange(start + tokens)[None, :] <= positions[:, None], 0, -np.inf).astype(np.float32)
        return request.infer([ids, positions, mask[None, None], np.arange(batch, dtype=np.int32)])[0].copy()

    def timed(ids, steps):
        """Seconds of the prompt and of the steps, and all tokens."""
        request.reset_state()
        begun = time.perf_counter()
        seen = [call(ids, 0)]
        prefill = time.perf_counter()
        for step in range(steps):
            seen.append(call(seen[-1], ids.shape[1] + step))
        return prefill - begun, time.perf_counter() - prefill, np.concatenate(seen, 1)

    if args.prompt is not None:
        say(ids=timed(np.array([args.prompt], np.int64), work["steps"])[2][0].tolist())
        return
    one = random.integers(0, args.vocabulary, (1, work["prefill"]))
    many = random.integers(0, args.vocabulary, (work["batch"], work["short"]))
    # The first call of each shape builds and keeps kernels.
    timed(one, 2)
    timed(many, 2)
    for _ in range(work["repetitions"]):
        prefill, decode, _ = timed(one, work["steps"])
        say(figure="prefill", tokens_per_s=work["prefill"] / prefill)
        say(figure="decode1", tokens_per_s=work["steps"] / decode)
        decode = timed(many, work["steps"])[1]
        say(figure="decode8", tokens_per_s=work["batch"] * work["steps"] / decode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("build")
    verb.add_argument("checkpoint")
    verb.add_argument("model")
    verb.add_argument("--weights", choices=["f16", "int8"], required=True)
    verb.set_defaults(act=build)
    verb = verbs.add_parser("run")
    verb.add_argument("model")
    verb.add_argument("--precision", choices=["bf16", "f32"], required=True)
    verb.add_argument("--work", required=True, type=json.loads)
    verb.add_argument("--by-token", action=argparse.BooleanOptionalAction, default=True)
    verb.add_argument("--vocabulary", type=int, default=65024)
    verb.add_argument("--prompt", type=json.loads, help="print the greedy ids after this prompt, to compare engines")
    verb.set_defaults(act=run)
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
