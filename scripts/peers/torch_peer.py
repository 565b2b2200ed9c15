"""One process of torch or zentorch: times the figures of peers.py on a ChatGLM2 checkpoint, and prints them as JSON lines.

    torch_peer.py CHECKPOINT --engine torch|zentorch --dtype bf16|fp16|int8 --work '{"prefill": 512, …}'

The model is plain PyTorch in eager mode. Its linear layers are those of the engine: torch's own (oneDNN below), or zentorch's
operators on weights that zentorch packed beforehand. A decode step lasts tens of milliseconds and calls some hundred operators, so
the interpreter's share is below 1 %. Keys and values are not repeated for the query heads of a group: when decoding, the heads of
a group are the rows of one attention.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F

from checkpoint import Checkpoint


def say(**record):
    print(json.dumps(record), flush=True)


def tensor(checkpoint, name, dtype):
    return torch.from_numpy(checkpoint.words(name)).view(torch.bfloat16).to(dtype)


def int8_rows(weight):
    """Symmetric int8 with one scale for each output channel; rows in pieces that stay in the cache."""
    rows, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(weight.shape[0])
    for piece, out, scale in zip(weight.split(64), rows.split(64), scales.split(64)):
        piece = piece.float()
        torch.amax(piece.abs(), 1, out=scale)
        scale.clamp_min_(1e-8).div_(127)
        out.copy_(piece.div_(scale[:, None]).round_())
    return rows, scales


class TorchLinear:
    """torch's product by oneDNN, whose kernels get a weight that they packed beforehand, as in a frozen compiled model."""

    def __init__(self, weight, bias=None):
        self.packed = weight.dtype == torch.bfloat16
        self.weight, self.bias = weight.clone(), bias
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)

    def __call__(self, x):
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)


class TorchInt8Linear:
    """torch's dynamic quantisation: int8 weights by output channel, inputs 8 bit by tensor, fp32 between the layers."""

    def __init__(self, weight, bias=None):
        rows, scales = int8_rows(weight)
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        rows = torch._make_per_channel_quantized_tensor(rows, scales.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(rows, bias)

    def __call__(self, x):
        return torch.ops.quantized.linear_dynamic(x, self.packed)


class ZenLinear:
    """zentorch's product with a packed weight."""

    def __init__(self, weight, bias=None):
        self.weight = torch.ops.zentorch.zentorch_weight_prepack_for_linear(weight)
        self.bias = bias

    def __call__(self, x):
        return torch.ops.zentorch.zentorch_linear_unary(x, self.weight, self.bias, is_weight_prepacked=True)

    def silu_times(self, x, other):
        return torch.ops.zentorch.zentorch_linear_unary_binary(
            x, self.weight, other, self.bias, is_weight_prepacked=True, post_op_1="silu", post_op_2="mul"
        )


class ZenInt8Linear:
    """zentorch's product of int8 weights (by output channel) and inputs quantised on the way (int8 by token)."""

    # Whether the weight is packed, and whether the operator adds the bias; the first that computes right is taken.
    forms = [(True, True), (True, False), (False, True), (False, False)]

    def __init__(self, weight, bias=None, packed=True, adds=True):
        rows, scale = int8_rows(weight)
        self.packed, self.scale = packed, scale.to(torch.bfloat16)
        self.weight = torch.ops.zentorch.zentorch_weight_prepack_for_dynamic_qlinear(rows) if packed else rows
        self.inner, self.outer = (bias, None) if adds else (None, bias)

    def __call__(self, x):
        out = torch.ops.zentorch.zentorch_dynamic_qlinear(
            x, self.weight, self.scale, self.inner, is_weight_prepacked=self.packed
        )
        return out if self.outer is None else out + self.outer


class Verified:
    """Makes linear layers of a kind. The first of each shape is held against fp32; a kind that computes wrong is not timed."""

    def __init__(self, kind):
        self.kind, self.chosen = kind, {}
        self.forms = getattr(kind, "forms", [()])
        self.fused = hasattr(kind, "silu_times")

    def __call__(self, weight, bias=None):
        shape = tuple(weight.shape)
        if shape in self.chosen:
            return self.kind(weight, bias, *self.chosen[shape])
        errors = []
        for form in self.forms:
            linear = self.kind(weight, bias, *form)
            errors.append(self.error(linear, weight, bias))
            if errors[-1] < 0.03:
                self.chosen[shape] = form
                if form != self.forms[0]:
                    print(f"{shape}: form {form}, as the errors of the forms before are {errors[:-1]}", file=sys.stderr)
                return linear
        sys.exit(f"wrong products of weights {shape}: relative errors {', '.join(f'{error:.2g}' for error in errors)}")

    def error(self, linear, weight, bias):
        """The largest relative error over some numbers of rows; infinite if a result is not a number."""
        worst = 0.0
        floats, bias = weight.float(), None if bias is None else bias.float()
        for rows in (1, 8, 40):
            x = torch.randn(1, rows, weight.shape[1]).to(weight.dtype)
            want = F.linear(x.float(), floats, bias)
            error = ((linear(x).float() - want).norm() / want.norm()).item()
            worst = max(worst, error if error == error else float("inf"))
        return worst


LINEARS = {
    ("torch", "bf16"): TorchLinear,
    ("torch", "fp16"): TorchLinear,
    ("torch", "int8"): TorchInt8Linear,
    ("zentorch", "bf16"): ZenLinear,
    ("zentorch", "fp16"): ZenLinear,
    ("zentorch", "int8"): ZenInt8Linear,
}


class Layer:
    def __init__(self, checkpoint, index, linear, dtype):
        config = checkpoint.config
        prefix = f"encoder.layers.{index}."
        part = lambda name: tensor(checkpoint, prefix + name, dtype)
        self.heads, self.groups = config["num_attention_heads"], config["multi_query_group_num"]
        self.width, self.eps = config["kv_channels"], config["layernorm_epsilon"]
        self.norm1, self.norm2 = part("input_layernorm.weight"), part("post_attention_layernorm.weight")
        self.qkv = linear(part("self_attention.query_key_value.weight"), part("self_attention.query_key_value.bias"))
        self.dense = linear(part("self_attention.dense.weight"))
        self.down = linear(part("mlp.dense_4h_to_h.weight"))
        gate_up = part("mlp.dense_h_to_4h.weight")
        self.fused = linear.fused
        if self.fused:
            gate, up = gate_up.chunk(2)
            self.gate, self.up = linear(gate.contiguous()), linear(up.contiguous())
        else:
            self.gate_up = linear(gate_up)

    def rotate(self, x, cos, sin):
        """Rotates the first half of a head's channels, in neighbouring pairs."""
        half = self.width // 2
        even, odd = x[..., 0:half:2], x[..., 1:half:2]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
        return torch.cat((turned, x[..., half:]), -1)

    def attend(self, x, cache, start, cos, sin):
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).split([self.heads * self.width, self.groups * self.width, self.groups * self.width], -1)
        q = self.rotate(q.view(batch, tokens, self.heads, self.width), cos, sin)
        k = self.rotate(k.view(batch, tokens, self.groups, self.width), cos, sin)
        keys, values = cache
        keys[:, :, start : start + tokens] = k.transpose(1, 2)
        values[:, :, start : start + tokens] = v.view(batch, tokens, self.groups, self.width).transpose(1, 2)
        keys, values = keys[:, :, : start + tokens], values[:, :, : start + tokens]
        if tokens == 1:
            rows = q.view(batch, self.groups, self.heads // self.groups, self.width)
            out = F.scaled_dot_product_attention(rows, keys, values).reshape(batch, 1, -1)
        else:
            assert start == 0
            out = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, is_causal=True, enable_gqa=True)
            out = out.transpose(1, 2).reshape(batch, tokens, -1)
        return self.dense(out)

    def __call__(self, x, cache, start, cos, sin, last):
        x = x + self.attend(F.rms_norm(x, x.shape[-1:], self.norm1, self.eps), cache, start, cos, sin)
        if last:
            x = x[:, -1:]
        h = F.rms_norm(x, x.shape[-1:], self.norm2, self.eps)
        if self.fused:
            h = self.gate.silu_times(h, self.up(h))
        else:
            gate, up = self.gate_up(h).chunk(2, -1)
            h = F.silu(gate) * up
        return x + self.down(h)


class Model:
    def __init__(self, checkpoint, linear, dtype):
        config = checkpoint.config
        self.config, self.dtype = config, dtype
        self.embedding = tensor(checkpoint, "embedding.word_embeddings.weight", dtype)
        self.layers = [Layer(checkpoint, index, linear, dtype) for index in range(config["num_layers"])]
        self.norm = tensor(checkpoint, "encoder.final_layernorm.weight", dtype)
        self.head = linear(tensor(checkpoint, "output_layer.weight", dtype))
        rotated = config["kv_channels"] // 2
        frequency = 10000.0 ** (-torch.arange(0, rotated, 2).float() / rotated)
        angles = torch.arange(4096).float()[:, None] * frequency
        self.cos, self.sin = angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]

    def caches(self, batch, tokens):
        shape = (batch, self.config["multi_query_group_num"], tokens, self.config["kv_channels"])
        return [(torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype)) for _ in self.layers]

    def __call__(self, ids, caches, start):
        """The greedy next token of each sequence, after `ids` at positions from `start`."""
        x = F.embedding(ids, self.embedding)
        cos, sin = self.cos[start : start + ids.shape[1]], self.sin[start : start + ids.shape[1]]
        for index, (layer, cache) in enumerate(zip(self.layers, caches)):
            x = layer(x, cache, start, cos, sin, index + 1 == len(self.layers))
        return self.head(F.rms_norm(x, x.shape[-1:], self.norm, self.config["layernorm_epsilon"])).argmax(-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--engine", choices=["torch", "zentorch"], required=True)
    parser.add_argument("--dtype", choices=["bf16", "fp16", "int8"], required=True)
    parser.add_argument("--work", required=True, type=json.loads)
    parser.add_argument("--prompt", type=json.loads, help="print the greedy ids after this prompt, to compare engines")
    args = parser.parse_args()
    work = args.work
    torch.set_num_threads(work["threads"])
    version = f"torch {torch.__version__}"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}[args.dtype]
    if args.engine == "zentorch":
        import zentorch

        version = f"zentorch {zentorch.__version__}, {version}"
        if args.dtype == "fp16" and not torch.ops.zentorch.zentorch_is_fp16_supported():
            sys.exit("zentorch computes fp16 with AVX512-FP16 only, which this processor lacks")
    elif args.dtype == "int8":
        dtype = torch.float32
    say(version=version)
    torch.manual_seed(0)
    with torch.inference_mode():
        begun = time.perf_counter()
        checkpoint = Checkpoint(args.checkpoint)
        model = Model(checkpoint, Verified(LINEARS[args.engine, args.dtype]), dtype)
        say(load_s=time.perf_counter() - begun)
        vocabulary = checkpoint.config["padded_vocab_size"]

        def timed(ids, steps):
            """Seconds of the prompt and of the steps, and all tokens."""
            caches = model.caches(ids.shape[0], ids.shape[1] + steps)
            begun = time.perf_counter()
            seen = [model(ids, caches, 0)]
            prefill = time.perf_counter()
            for step in range(steps):
                seen.append(model(seen[-1], caches, ids.shape[1] + step))
            return prefill - begun, time.perf_counter() - prefill, torch.cat(seen, 1)

        if args.prompt is not None:
            say(ids=timed(torch.tensor([args.prompt]), work["steps"])[2][0].tolist())
            return
        one = torch.randint(vocabulary, (1, work["prefill"]))
        many = torch.randint(vocabulary, (work["batch"], work["short"]))
        # The first call of each shape builds and keeps oneDNN's kernels.
        timed(one, 2)
        timed(many, 2)
        for _ in range(work["repetitions"]):
            prefill, decode, _ = timed(one, work["steps"])
            say(figure="prefill", tokens_per_s=work["prefill"] / prefill)
            say(figure="decode1", tokens_per_s=work["steps"] / decode)
            decode = timed(many, work["steps"])[1]
            say(figure="decode8", tokens_per_s=work["batch"] * work["steps"] / decode)


if __name__ == "__main__":
    main()
