"""SmolLM2 from its GGUF, dequantised to fp32: as a Llama of transformers, as a ChatGLM2 checkpoint, and in float64.

Needs torch, transformers, numpy, gguf, sentencepiece, protobuf. lm_eval_agreement.py and perplexity_agreement.py use it.
"""

import json

import numpy as np
import smollm2_checkpoint
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def llama(gguf, out):
    """Returns the folder of the Llama in the form of transformers, fp32."""
    if not (out / "config.json").exists():
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # What was read from a GGUF refuses to be saved.
        config = LlamaConfig(**{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
        model = LlamaForCausalLM(config).float()
        model.load_state_dict(read.state_dict())
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
        model.save_pretrained(out)
    return out


def chatglm2(gguf, source, out):
    """Writes the same weights in ChatGLM2's form, with the Llama's own tokenizer."""
    _, meta, weights = smollm2_checkpoint.read(gguf)
    rows = len(weights["token_embd.weight"])
    out.mkdir(parents=True, exist_ok=True)
    smollm2_checkpoint.save(out / "model.safetensors", smollm2_checkpoint.tensors(weights, meta, rows), np.float32)
    config = smollm2_checkpoint.config(meta, rows) | {"torch_dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (out / name).write_bytes((source / name).read_bytes())


class Float64:
    """The Llama in float64, in plain operations."""

    def __init__(self, folder):
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.config = model.config
        self.weights = {name.removeprefix("model."): tensor.double() for name, tensor in model.state_dict().items()}
        self.known = ([], None)

    def norm(self, x, name):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.config.rms_norm_eps) * self.weights[name]

    def rotated(self, x, angles):
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], dim=-1)

    @torch.no_grad()
    def logits(self, ids):
        """Returns the logits behind each token."""
        config, weights = self.config, self.weights
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        size = config.hidden_size // heads
        base = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
        frequencies = base["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.arange(len(ids), dtype=torch.float64)[:, None] * frequencies
        past = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        x = weights["embed_tokens.weight"][torch.tensor(ids)]
        for layer in range(config.num_hidden_layers):
            of = lambda name: weights[f"layers.{layer}.{name}.weight"]
            normed = self.norm(x, f"layers.{layer}.input_layernorm.weight")
            split = lambda name, count: (normed @ of(f"self_attn.{name}").T).view(len(ids), count, size).transpose(0, 1)
            query, key = (self.rotated(split(name, count), angles) for name, count in [("q_proj", heads), ("k_proj", kv_heads)])
            key, value = (part.repeat_interleave(heads // kv_heads, dim=0) for part in [key, split("v_proj", kv_heads)])
            scores = (query @ key.transpose(1, 2) / size**0.5).masked_fill(~past, float("-inf"))
            x = x + (scores.softmax(-1) @ value).transpose(0, 1).reshape(len(ids), -1) @ of("self_attn.o_proj").T
            normed = self.norm(x, f"layers.{layer}.post_attention_layernorm.weight")
            x = x + (torch.nn.functional.silu(normed @ of("mlp.gate_proj").T) * (normed @ of("mlp.up_proj").T)) @ of("mlp.down_proj").T
        return self.norm(x, "norm.weight") @ weights["lm_head.weight"].T

    def loglikelihood(self, context, whole):
        """Returns the log-likelihood of the tokens behind the context's."""
        # Choices of one token follow the same ids.
        if self.known[0] != whole[:-1]:
            self.known = (whole[:-1], self.logits(whole[:-1]).log_softmax(-1))
        logprobs = self.known[1]
        return sum(float(logprobs[at - 1, whole[at]]) for at in range(len(context), len(whole)))
