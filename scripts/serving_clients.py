"""Real clients against a running server; used by serving_clients.sh. Exits non-zero at the first difference."""

import asyncio
import json
import math
import os
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

url, glmbench, work = sys.argv[1:4]


def same(what, found, expected):
    if found != expected:
        sys.exit(f"serving_clients: {what}: found {found!r}, expected {expected!r}")
    print(f"serving_clients: {what}: as expected")


def post(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


PROMPTS = ["你好", "What is a bus? 😀", "北京是中国的首都。"]


def openai_client():
    import openai

    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    same("openai: models", [model.id for model in client.models.list()], ["demo"])
    for prompt in PROMPTS:
        chat = dict(model="demo", messages=[{"role": "user", "content": prompt}], temperature=1.2, seed=5, max_tokens=40)
        whole = client.chat.completions.create(**chat).choices[0]
        chunks = list(client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        same(f"openai: chat stream of {prompt!r}", text, whole.message.content)
        same("openai: finish", [c.choices[0].finish_reason for c in chunks if c.choices][-1], whole.finish_reason)
        same("openai: usage", chunks[-1].usage.completion_tokens > 0, True)
        completion = dict(model="demo", prompt=prompt, temperature=1.2, seed=5, max_tokens=40)
        whole = client.completions.create(**completion).choices[0].text
        same("openai: completion stream", "".join(c.choices[0].text for c in client.completions.create(**completion, stream=True)), whole)
    scored = client.completions.create(model="demo", prompt="你好", max_tokens=1, temperature=0, logprobs=2, echo=True)
    same("openai: echo", scored.choices[0].logprobs.token_logprobs[0], None)
    for kind, call in [
        (openai.NotFoundError, lambda: client.completions.create(model="gpt-4", prompt="a")),
        (openai.BadRequestError, lambda: client.completions.create(model="demo", prompt="a", n=2)),
        (openai.BadRequestError, lambda: client.chat.completions.create(model="demo", messages=[], max_tokens=1)),
    ]:
        try:
            call()
            sys.exit(f"serving_clients: openai: no {kind.__name__}")
        except kind as error:
            same(f"openai: {kind.__name__}", bool(error.body.get("message")), True)


def hub_client():
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import ValidationError

    client = InferenceClient(model=url)
    for prompt in PROMPTS:
        arguments = dict(max_new_tokens=20, do_sample=True, temperature=1.2, seed=3)
        whole = client.text_generation(prompt, **arguments, details=True)
        tokens = list(client.text_generation(prompt, **arguments, details=True, stream=True))
        same("huggingface_hub: stream", "".join(t.token.text for t in tokens), whole.generated_text)
        same("huggingface_hub: last event", tokens[-1].generated_text, whole.generated_text)
        same("huggingface_hub: tokens", len(tokens), whole.details.generated_tokens)
        same("huggingface_hub: text alone", client.text_generation(prompt, **arguments), whole.generated_text)
        chat = dict(messages=[{"role": "user", "content": prompt}], max_tokens=20, temperature=1.2, seed=3)
        text = client.chat_completion(**chat).choices[0].message.content
        parts = [c.choices[0].delta.content or "" for c in client.chat_completion(**chat, stream=True) if c.choices]
        same("huggingface_hub: chat stream", "".join(parts), text)
    try:
        client.text_generation("a", max_new_tokens=10**6, details=True)
        sys.exit("serving_clients: huggingface_hub: no ValidationError")
    except ValidationError as error:
        same("huggingface_hub: ValidationError", "context" in str(error), True)


def text_generation_client():
    from text_generation import AsyncClient, Client
    from text_generation.errors import ValidationError

    client = Client(url)
    for prompt in PROMPTS:
        whole = client.generate(prompt, max_new_tokens=20, do_sample=True, temperature=1.2, seed=3)
        events = list(client.generate_stream(prompt, max_new_tokens=20, do_sample=True, temperature=1.2, seed=3))
        same("text-generation: stream", "".join(e.token.text for e in events), whole.generated_text)
        same("text-generation: seed", whole.details.seed, 3)
        chat = client.chat(messages=[{"role": "user", "content": prompt}], max_tokens=10, temperature=0.5, seed=1)
        same("text-generation: chat", bool(chat.choices[0].message.content), True)
    answer = asyncio.run(AsyncClient(url).generate("你好", max_new_tokens=5))
    same("text-generation: async", answer.generated_text, client.generate("你好", max_new_tokens=5).generated_text)
    try:
        client.generate("a", max_new_tokens=10**6)
        sys.exit("serving_clients: text-generation: no ValidationError")
    except ValidationError:
        print("serving_clients: text-generation: ValidationError: as expected")


def tensors(path):
    """Reads the float32 tensors of a safetensors file."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(size))
        data = file.read()
    read = {}
    for name, of in head.items():
        if name != "__metadata__":
            begin, end = of["data_offsets"]
            read[name] = (of["shape"], struct.unpack(f"<{(end - begin) // 4}f", data[begin:end]))
    return read


def logprob(row, token):
    """The engine's own sum: one chain in double precision."""
    most = max(row)
    total = 0.0
    for logit in row:
        total += math.exp(logit - most)
    return row[token] - (most + math.log(total))


ITEMS = [
    {"question": "1+1=", "choices": [" 2", " 3", " 三"], "answer": 0},
    {"question": "北京是中国的", "choices": ["首都", "城市", "😀"], "answer": 0},
    {"question": "Is a bus a car? Answer:", "choices": [" yes", " no", " maybe"], "answer": 1},
    {"question": "春天的颜色", "choices": ["绿", "A", "小明"], "answer": 0},
]

TASKS = {
    "serving_choice": """task: serving_choice
dataset_path: json
dataset_kwargs: {data_files: {test: %(data)s}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "serving_generate": """task: serving_generate
dataset_path: json
dataset_kwargs: {data_files: {test: %(data)s}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "x"
generation_kwargs: {until: ["\\n", "模型"], max_gen_toks: 16, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match}]
""",
}


def lm_eval_client():
    tasks, out = os.path.join(work, "tasks"), os.path.join(work, "out")
    os.makedirs(tasks)
    data = os.path.join(work, "items.jsonl")
    with open(data, "w") as file:
        file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in ITEMS)
    for name, text in TASKS.items():
        with open(os.path.join(tasks, f"{name}.yaml"), "w") as file:
            file.write(text % {"data": data})
    arguments = f"model=demo,base_url={url}/v1/completions,tokenizer_backend=remote,num_concurrent=1,max_length=2048"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments, "--tasks", ",".join(TASKS), "--include_path", tasks,
                "--batch_size", "2", "--log_samples", "--output_path", out]
    # huggingface_hub's own client refuses any address in this mode, so only lm_eval gets it.
    offline = dict(os.environ, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    done = subprocess.run(command, capture_output=True, text=True, env=offline)
    if done.returncode != 0:
        sys.exit(f"serving_clients: lm_eval failed:\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}")
    samples = {name: [] for name in TASKS}
    for folder, _, files in os.walk(out):
        for file in files:
            for name in TASKS:
                if file.startswith(f"samples_{name}"):
                    with open(os.path.join(folder, file)) as lines:
                        samples[name] += [json.loads(line) for line in lines]
    choice_scores(sorted(samples["serving_choice"], key=lambda sample: sample["doc_id"]))
    for sample in samples["serving_generate"]:
        context = sample["arguments"]["gen_args_0"]["arg_0"]
        ids = post("/tokenize", {"prompt": context, "add_special_tokens": False})["tokens"]
        body = {"prompt": [ids], "max_tokens": 16, "temperature": 0, "stop": ["\n", "模型"]}
        same("lm_eval: generate_until", sample["resps"][0][0], post("/v1/completions", body)["choices"][0]["text"])
    same("lm_eval: generated items", len(samples["serving_generate"]), len(ITEMS))


def choice_scores(samples):
    """Compares each log-likelihood with the sum over the logits of `glmbench logits`."""
    same("lm_eval: scored items", len(samples), len(ITEMS))
    encode = lambda text: post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
    prompts, places = [], []
    for item in ITEMS:
        for choice in item["choices"]:
            whole, context = encode(item["question"] + choice), encode(item["question"])
            prompts.append(whole)
            places.append(len(context))
    ids, logits = os.path.join(work, "prompts.json"), os.path.join(work, "logits.safetensors")
    with open(ids, "w") as file:
        json.dump(prompts, file)
    subprocess.run([glmbench, "logits", "--model", "demo", "--prompts", ids, "--out", logits], check=True)
    arrays = tensors(logits)
    number = 0
    for sample, item in zip(samples, ITEMS):
        for (found, _), choice in zip((response[0] for response in sample["resps"]), item["choices"]):
            (_, vocab), values = arrays[f"prompt{number}"]
            prompt, start = prompts[number], places[number]
            rows = [values[place * vocab:(place + 1) * vocab] for place in range(len(prompt))]
            ours = sum(logprob(rows[place - 1], prompt[place]) for place in range(start, len(prompt)))
            same(f"lm_eval: log-likelihood of {choice!r} after {item['question']!r}", float(found), ours)
            number += 1


begin = time.monotonic()
for client in [openai_client, hub_client, text_generation_client, lm_eval_client]:
    client()
print(f"serving_clients: {time.monotonic() - begin:.0f} s")
