#!/usr/bin/env python3
"""Computes again, in Python, what the built-in task files say: prompts, readings and measures of 50 items each.

    python3 -m venv venv
    venv/bin/pip install jieba==0.42.1 rouge==1.0.1 fuzzywuzzy==0.18.0 sacrebleu==2.6.0 rouge_score==0.1.2 tiktoken==0.14.0
    venv/bin/python scripts/task_fixtures.py DATASETS CL100K

CL100K is a copy of cl100k_base.tiktoken. DATASETS has the folders gsm8k, hellaswag, humaneval, mmlu, truthfulqa, wikitext-2 (docs/TASKS.md says where they come from). Sets that may not be
passed on have a small made-up folder of the same form in tests/fixtures/tasks/data, which this script writes.

The result, tests/fixtures/tasks/expected.json, has hashes of prompts alone, and outputs that are made up. tests/it/tasks.rs
compares the program with it. Nothing here reads a task file: every prompt is written down a second time.
"""

import base64
import csv
import difflib
import hashlib
import json
import math
import random
import re
import string
import sys
from collections import Counter
from pathlib import Path

import jieba
import sacrebleu
import tiktoken
from rouge import Rouge
from rouge_score import rouge_scorer
from wikitext import articles, detokenised

HERE = Path(__file__).resolve().parent.parent / "tests/fixtures/tasks"
DATA = HERE / "data"
ITEMS = 50


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def logprob(text):
    """A made-up log-likelihood of a whole text, the same here and in the test."""
    return -(int(sha(text)[:8], 16) % 5000) / 64.0


def argmax(values):
    return max(range(len(values)), key=lambda i: (values[i], -i))


def jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def rows_csv(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [[cell.replace("\r\n", "\n") for cell in row] for row in csv.reader(file)]


# Made-up sets in official layouts.

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def made_up():
    rng = random.Random(7)
    words = ["stone", "water", "light", "seed", "wheel", "cloud", "iron", "leaf", "sound", "salt"]
    for folder in ["ARC-Easy", "ARC-Challenge"]:
        for split, count in [("Train", 4), ("Test", ITEMS)]:
            lines = []
            for i in range(count):
                labels = "1234" if i % 7 == 3 else "ABCDE"[: 3 + i % 3]
                choices = [{"text": " ".join(rng.sample(words, 1 + rng.randrange(3))), "label": l} for l in labels]
                row = {"id": f"Made_{split}_{i}", "question": {"stem": f"Which of these goes with {rng.choice(words)}, case {i}?", "choices": choices}, "answerKey": rng.choice(labels)}
                lines.append(json.dumps(row))
            task = folder.lower()
            write(DATA / task / f"{folder}-{split}.jsonl", "\n".join(lines) + "\n")
    for subject in ["agronomy", "world_religions"]:
        for split, count in [("dev", 5), ("test", ITEMS // 2)]:
            lines = [",Question,A,B,C,D,Answer"]
            for i in range(count):
                options = [f"{rng.randrange(100)}号" for _ in range(4)]
                lines.append(f"{i},第{i}题：下列哪一项是{rng.choice('甲乙丙丁')}？ ," + ",".join(options) + "," + rng.choice("ABCD"))
            write(DATA / "cmmlu" / split / f"{subject}.csv", "\n".join(lines) + "\n")
    lines = ["Pre-Revision Question,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Subdomain"]
    for i in range(ITEMS):
        options = [f"{rng.randrange(1000)} eV" for _ in range(4)]
        lines.append(f"old,\"What is the energy, in case {i}?\nGive one value.\n\"," + ",".join(f" {o}" for o in options) + ",Physics")
    write(DATA / "gpqa" / "gpqa_diamond.csv", "\n".join(lines) + "\n")
    rows = [{"ID": f"made-{i}", "Problem": f"Find $x$ if $x + {i} = {i + rng.randrange(999)}$.", "Answer": rng.randrange(1000)} for i in range(ITEMS)]
    write(DATA / "aime2024" / "aime2024.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n")

HUMANEVAL_X = {
    # Comment, signature, body, tests of f(1) and f(2), and what a model writes after the body.
    "cpp": ("/*\nReturn n plus {k}.\n>>> add{k}(1)\n{one}\n*/\n#include<stdio.h>\nusing namespace std;\nint add{k}(int n){{\n", "    vector<int> all = {{n, {k}}};\n    return all[0] + all[1];\n}}\n", "#undef NDEBUG\n#include<assert.h>\nint main(){{\n    assert (add{k}(1) == {one});\n    assert (add{k}(2) == {two});\n}}\n", "\nI hope that this helps."),
    "go": ("import (\n    \"math\"\n)\n\n// Return n plus {k}.\n// >>> Add{k}(1)\n// {one}\nfunc Add{k}(n int) int {{\n", "    if strings.ToUpper(\"a\") != \"A\" {{\n        return 0\n    }}\n    return n + int(math.Abs({k}))\n}}\n", "func TestAdd{k}(t *testing.T) {{\n    assert := assert.New(t)\n    assert.Equal({one}, Add{k}(1))\n    assert.Equal({two}, Add{k}(2))\n}}\n", "\nfunc main() {{\n    fmt.Println(Add{k}(1))\n}}\n\n// Done."),
    "java": ("import java.util.*;\nimport java.lang.*;\n\nclass Solution {{\n    /**\n    Return n plus {k}.\n    >>> add{k}(1)\n    {one}\n     */\n    public int add{k}(int n) {{\n", "        return n + {k};\n    }}\n}}", "public class Main {{\n    public static void main(String[] args) {{\n        Solution s = new Solution();\n        if (!Arrays.asList(s.add{k}(1), s.add{k}(2)).equals(Arrays.asList({one}, {two}))) {{\n            throw new AssertionError();\n        }}\n    }}\n}}\n", None),
    "js": ("/* Return n plus {k}.\n  >>> add{k}(1)\n  {one}\n  */\nconst add{k} = (n) => {{\n", "  return n + {k};\n}}\n", "const testAdd{k} = () => {{\n  console.assert(add{k}(1) === {one})\n  console.assert(add{k}(2) === {two})\n}}\n\ntestAdd{k}()\n", "\nThis adds two numbers."),
    "python": ("from typing import List\n\n\ndef add{k}(n: int) -> int:\n    \"\"\" Return n plus {k}.\n    >>> add{k}(1)\n    {one}\n    \"\"\"\n", "    return int(math.fsum([n, {k}]))\n", "\n\ndef check(add{k}):\n    assert add{k}(1) == {one}\n    assert add{k}(2) == {two}\n\ncheck(add{k})\n", "\nprint(add{k}(1))\n"),
}
HUMANEVAL_X_NAMES = {"cpp": "CPP", "go": "Go", "java": "Java", "js": "JavaScript", "python": "Python"}
HUMANEVAL_X_TAGS = {"cpp": "// language: C++", "go": "// language: Go", "java": "// language: Java", "js": "// language: JavaScript", "python": "# language: Python"}


def made_up_humaneval_x():
    for name, (prompt, body, test, _) in HUMANEVAL_X.items():
        lines = []
        for i in range(ITEMS // len(HUMANEVAL_X)):
            fill = lambda text: text.format(k=i, one=i + 1, two=i + 2)
            row = {"task_id": f"{HUMANEVAL_X_NAMES[name]}/{i}", "prompt": fill(prompt), "canonical_solution": fill(body), "test": fill(test), "declaration": "", "example_test": ""}
            if name == "go":
                row |= {"import": "import (\n    \"math\"\n)\n", "test_setup": "package main\n\nimport (\n    \"testing\"\n    \"github.com/stretchr/testify/assert\"\n)\n"}
                if i == 0:  # Some prompts import nothing.
                    row |= {"import": "", "prompt": row["prompt"].split(")\n\n", 1)[1]}
            lines.append(json.dumps(row))
        write(DATA / "humaneval-x" / name / "data" / f"humaneval_{name}.jsonl", "\n".join(lines) + "\n")


LONGBENCH = {
    # Metric, limit, whether only the first line counts, whether chat models are asked in a round, and the prompt.
    "narrativeqa": ("f1", 128, False, True, "You are given a story, which can be either a novel or a movie script, and a question. Answer the question asconcisely as you can, using a single phrase if possible. Do not provide any explanation.\n\nStory: {context}\n\nNow, answer the question based on the story asconcisely as you can, using a single phrase if possible. Do not provide any explanation.\n\nQuestion: {input}\n\nAnswer:"),
    "qasper": ("f1", 128, False, True, 'You are given a scientific article and a question. Answer the question as concisely as you can, using a single phrase or sentence if possible. If the question cannot be answered based on the information in the article, write "unanswerable". If the question is a yes/no question, answer "yes", "no", or "unanswerable". Do not provide any explanation.\n\nArticle: {context}\n\n Answer the question based on the above article as concisely as you can, using a single phrase or sentence if possible. If the question cannot be answered based on the information in the article, write "unanswerable". If the question is a yes/no question, answer "yes", "no", or "unanswerable". Do not provide any explanation.\n\nQuestion: {input}\n\nAnswer:'),
    "multifieldqa_en": ("f1", 64, False, True, "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following question based on the above text, only give me the answer and do not output any other words.\n\nQuestion: {input}\nAnswer:"),
    "multifieldqa_zh": ("f1_zh", 64, False, True, "阅读以下文字并用中文简短回答：\n\n{context}\n\n现在请基于上面的文章回答下面的问题，只告诉我答案，不要输出任何其他字词。\n\n问题：{input}\n回答："),
    "hotpotqa": ("f1", 32, False, True, "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\nThe following are given passages.\n{context}\n\nAnswer the question based on the given passages. Only give me the answer and do not output any other words.\n\nQuestion: {input}\nAnswer:"),
    "dureader": ("rouge_zh", 128, False, True, "请基于给定的文章回答下述问题。\n\n文章：{context}\n\n请基于上述文章回答下面的问题。\n\n问题：{input}\n回答："),
    "gov_report": ("rouge", 512, False, True, "You are given a report by a government agency. Write a one-page summary of the report.\n\nReport:\n{context}\n\nNow, write a one-page summary of the report.\n\nSummary:"),
    "qmsum": ("rouge", 512, False, True, "You are given a meeting transcript and a query containing a question or instruction. Answer the query in one or more sentences.\n\nTranscript:\n{context}\n\nNow, answer the query based on the above meeting transcript in one or more sentences.\n\nQuery: {input}\nAnswer:"),
    "multi_news": ("rouge", 512, False, True, "You are given several news passages. Write a one-page summary of all news. \n\nNews:\n{context}\n\nNow, write a one-page summary of all the news.\n\nSummary:"),
    "vcsum": ("rouge_zh", 512, False, True, "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n{context}\n\n会议总结："),
    "trec": ("classification", 64, True, False, "Please determine the type of the question below. Here are some examples of questions.\n\n{context}\n{input}"),
    "triviaqa": ("f1", 32, True, False, "Answer the question based on the given passage. Only give me the answer and do not output any other words. The following are some examples.\n\n{context}\n\n{input}"),
    "samsum": ("rouge", 128, True, False, "Summarize the dialogue into a few short sentences. The following are some examples.\n\n{context}\n\n{input}"),
    "lsht": ("classification", 64, True, False, "请判断给定新闻的类别，下面是一些例子。\n\n{context}\n{input}"),
    "passage_count": ("count", 32, False, True, "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please carefully read these paragraphs and determine how many unique paragraphs there are after removing duplicates. In other words, how many non-repeating paragraphs are there in total?\n\n{context}\n\nPlease enter the final count of unique paragraphs after removing duplicates. The output format should only contain the number, such as 1, 2, 3, and so on.\n\nThe final answer is: "),
    "passage_retrieval_en": ("retrieval", 32, False, True, 'Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which paragraph the abstract is from.\n\n{context}\n\nThe following is an abstract.\n\n{input}\n\nPlease enter the number of the paragraph that the abstract is from. The answer format must be like "Paragraph 1", "Paragraph 2", etc.\n\nThe answer is: '),
    "passage_retrieval_zh": ("retrieval_zh", 32, False, True, '以下是若干段落文字，以及其中一个段落的摘要。请确定给定的摘要出自哪一段。\n\n{context}\n\n下面是一个摘要\n\n{input}\n\n请输入摘要所属段落的编号。答案格式必须是"段落1"，"段落2"等格式\n\n答案是：'),
    "lcc": ("code", 64, False, False, "Please complete the code given below. \n{context}Next line of code:\n"),
    "repobench-p": ("code", 64, False, False, "Please complete the code given below. \n{context}{input}Next line of code:\n"),
}
LONGBENCH |= {name: LONGBENCH["hotpotqa"] for name in ["2wikimqa", "musique"]}
LENGTHS = [1200, 4000, 7999, 8000, 15000]
OF_E = ["qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p"]


def made_up_longbench():
    rng = random.Random(11)
    english = "the pump valve of a harbour crane opens before an engineer measures 3.14 bars in Oslo , and nobody looks at the dial .".split()
    chinese = "今天 天气 很 好 ， 我们 去 公园 散步 。 研究人员 发现 水泵 在 压力 下降 之前 停止 了 ； 南京市 长江 大桥 的 市长 说 不知道 。".split()
    classes = ["sport", "sports news", "law", "science", "art"]
    say = lambda words, k, sep: sep.join(rng.choices(words, k=k))
    for name, (metric, *_rest) in LONGBENCH.items():
        for suffix in ["", "_e"] if name in OF_E else [""]:
            lines = []
            for i in range(2):
                zh = metric.endswith("_zh") or name == "lsht"
                words, sep = (chinese, "") if zh else (english, " ")
                answers = [say(words, 3 + rng.randrange(9), sep) for _ in range(1 + rng.randrange(3))]
                number = 1 + rng.randrange(30)
                if metric == "classification":
                    answers = [rng.choice(classes)]
                if metric == "count":
                    answers = [str(number)]
                if metric == "retrieval":
                    answers = [f"Paragraph {number}"]
                if metric == "retrieval_zh":
                    answers = [f"段落{number}"]
                if metric == "code":
                    answers = [f"    return self.items[{number}]"]
                row = {"input": say(words, 5, sep) + "{context}?" * (i % 2), "context": say(words, 40, sep) + "\n{input} {{ x }}\n" + say(words, 9, sep), "answers": answers, "length": LENGTHS[rng.randrange(5)], "dataset": name + suffix, "language": "zh" if zh else "en", "all_classes": classes if metric == "classification" else None, "_id": f"made-{name}-{i}"}
                lines.append(json.dumps(row, ensure_ascii=False))
            write(DATA / "longbench/data" / f"{name}{suffix}.jsonl", "\n".join(lines) + "\n")


def made_up_needles():
    rng = random.Random(13)
    english = "On Tuesdays the harbour crane lifts crates of salt while gulls argue about the weather and nobody minds the rain at all".split()
    chinese = "上市公司 今年 的 营业收入 增长 较快 ， 其中 主要 产品 毛利率 保持 稳定 。 行业 竞争 加剧 ， 公司 持续 投入 研发 。".split()
    folder = DATA / "needlebench"
    essays = [{"text": ". ".join(" ".join(rng.choices(english, k=12)) for _ in range(25 + i))} for i in range(14)]
    write(folder / "PaulGrahamEssays.jsonl", "".join(json.dumps(e) + "\n" for e in essays))
    essays = [{"text": "".join(rng.choices(chinese, k=260 + i))} for i in range(12)]
    write(folder / "zh_finance.jsonl", "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in essays))
    needles = []
    for i in range(6):
        word = rng.choice(["amber", "copper", "violet", "jade"]) + str(i)
        needles.append({"needle": f"The hidden lamp of room {i} is {word}.", "retrieval_question": f"What is the hidden lamp of room {i}? Please answer in the format 'The hidden lamp of room {i} is _____.' Please answer in the format above.", "gold_standard_answer": f"The hidden lamp of room {i} is {word}.", "arg1": "lamp", "arg2": word, "language": "English"})
        needles.append({"needle": f"第{i}号房间里隐藏的灯是琥珀{i}。", "retrieval_question": f"第{i}号房间里隐藏的灯是什么？请按照“第{i}号房间里隐藏的灯是______。”的格式回答。", "gold_standard_answer": f"第{i}号房间里隐藏的灯是琥珀{i}。", "arg1": "灯", "arg2": f"琥珀{i}", "language": "Chinese"})
    write(folder / "needles.jsonl", "".join(json.dumps(n, ensure_ascii=False) + "\n" for n in needles))


def made_up_bbh():
    rng = random.Random(17)
    canary = "THESE MADE-UP ITEMS STAND FOR A BENCHMARK\n-----\n"
    worked = {
        "boolean_expressions": "Evaluate the result of a random Boolean expression.\n\nQ: not True is\nA: Let's think step by step.\nnot True = False. So the answer is False.",
        "navigate": "Given a series of navigation instructions, determine whether one would end up back at the starting point.\n\nQ: Take 1 step. Turn around. Take 1 step.\nOptions:\n- Yes\n- No\nA: Let's think step by step.\n1 - 1 = 0. So the answer is Yes.",
    }
    for name, text in worked.items():
        write(DATA / "bbh/cot-prompts" / f"{name}.txt", canary + text)
        examples = []
        for i in range(ITEMS // 2):
            if name == "navigate":
                there, back = rng.randrange(9), rng.randrange(9)
                examples.append({"input": f"Take {there} steps. Turn around. Take {back} steps.\nOptions:\n- Yes\n- No", "target": "Yes" if there == back else "No"})
            else:
                left, right = rng.random() < 0.5, rng.random() < 0.5
                examples.append({"input": f"{left} and not {right} is", "target": str(left and not right)})
        write(DATA / "bbh/bbh" / f"{name}.json", json.dumps({"canary": "made up", "examples": examples}))


# Outputs that a model could give, made up.

def outputs(kind):
    rng = random.Random(kind)
    number = lambda: rng.choice([str(rng.randrange(2000)), f"{rng.randrange(1, 99)},{rng.randrange(1000):03}", f"-{rng.randrange(50)}", f"{rng.randrange(9)}.{rng.randrange(100)}", f"${rng.randrange(300)}", "007", ".5", "12,34"])
    letter = lambda: rng.choice("ABCDE")
    frames = {
        "worked": ["not True = False. So the answer is <w>.", "the answer is <w>", "So the answer is <w>.\nQ: and the answer is <w>.", "The answer is (<l>). So the answer is (<l>).", "answer is \n<w>", "so the answer is  <w> .", "no", "", "the answer is .", "the answer is x", "So the answer is <w>.\n\nSo the answer is <w>.", "answer is option (<l>) .", "the answer is ( ) >."],
        "code": ["    return <n>\n", "\n    x = <n>\n    return x\n\ndef other():\n    return <n>\n", "```python\ndef f(x):\n    return <n>\n```\nThis is it.", "```\n    return <n>\n```", "```py\nreturn <n>", "def f(x):\n    return <n>\n", "from math import pi\n\ndef f(x):\n    return pi", "\n    if x:\n        return <n>\n\n\n    return 2\n\n\n    # end\n", "Here is it:\n    return <n>", "", "\n\n", "    return <n>\nprint(f(1))\n", "\treturn <n>\n# so\n\treturn 3", "    a = 1\n   \n\n\n\n    return a", "    return '\u4e2d'\n\u4e2d\u6587"],
        "number": ["So <n> - <n> = <n>.\n#### <n>", "#### <n>\nQuestion: what is <n>?", "The answer is <n>.", "It is <n> and no more", "no number here", "", "<n>\n\n<n> apples.", "The answer is <n>. Q: and <n>?", "x=<n>%", "Question: <n>", "#### <n>.", "\\boxed{<n>} or \\boxed{ <n> }", "\\boxed{x}"],
        "letter": ["<l>", " <l>. because", "\n\n<l>", "the answer is <l>", "答案是<l>", "The correct answer is (<l>)", "the correct answer is <l>, not <l>", "", "none", "选<l>", "<l> 是正确的", "I think <l>) fits", "a"],
    }[kind]
    fill = lambda frame: re.sub(r"<n>", lambda _: number(), frame).replace("<l>", letter())
    word = lambda _: rng.choice(["True", "False", "Yes", "No", "12", "ab cd"])
    return [re.sub("<w>", word, fill(frames[i % len(frames)])) for i in range(ITEMS)]


NUMBER = re.compile(r"([+-])?(?=([0-9]|\.[0-9]))(0|([1-9](\d{0,2}(,\d{3})*)|\d*))?(\.\d*)?(?=\D|$)")


def plain(text):
    """A number in the words of the program: no commas, no needless zeros."""
    text = text.replace(",", "").replace("$", "").strip()
    if text.startswith("+"):
        text = text[1:]
    try:
        value = float(text.rstrip("."))
    except ValueError:
        return None
    if not math.isfinite(value) or not re.fullmatch(r"-?[0-9.]+", text):
        return None
    value += 0.0
    return str(int(value)) if value == int(value) else repr(value)


def last_number(text):
    found = [m.group(0) for m in NUMBER.finditer(text)]
    return plain(found[-1]) if found else None


def cut(text, stops):
    return text[: min([text.find(s) for s in stops if s in text], default=len(text))]


def gsm_normal(text):
    text = text.replace(",", "").replace("$", "")
    return re.sub(r"\.$", "", text).lower()


GSM_STOPS = ["Question:", "</s>", "<|im_end|>"]


def gsm_strict(text):
    m = re.search(r"#### (\-?[0-9\.\,]+)", cut(text, GSM_STOPS))
    return gsm_normal(m.group(1)) if m else None


def gsm_flexible(text):
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", cut(text, GSM_STOPS))
    if not found:
        return None
    return gsm_normal(next(group for group in found[-1] if group))


def gsm_cot(text):
    text = cut(text, ["Q:", "</s>", "<|im_end|>"])
    m = re.search(r"The answer is (\-?[0-9\.\,]+)", text)
    first = plain(m.group(1)) if m else None
    return first if first is not None else last_number(text)


def first_letter(text):
    first = text.lstrip()[:1]
    return first if first and first in "ABCD" else None


def box(text):
    found = re.findall(r"\\boxed\{\s*([^{}]*?)\s*\}", text)
    return plain(found[-1]) if found else None


BODY_ENDS = ["\ndef", "\nclass", "\n#", "\nassert", '\n"""', "\nprint", "\nif", "\n\n\n"]


def modeltest_body(text):
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if line.strip() and line[0] not in " \t":
            return "".join(l + "\n" for l in lines[:i])
    for end in BODY_ENDS:
        if end in text:
            text = text[: text.rindex(end)]
    return text


def block(text):
    """The first block between lines of three backquotes; one without an end goes to the text's end."""
    parts = text.split("```", 1)
    if len(parts) < 2 or "\n" not in parts[1]:
        return None
    return parts[1].split("\n", 1)[1].split("```")[0]


def repaired_body(text):
    found = block(text)
    if found is not None:
        return found
    m = re.match(r"\s*((?:from|import|def|class|@)[ \w][^\n]*\n.*)", text, re.S)
    return m.group(1) if m else modeltest_body(text)


def opencompass_body(text):
    found = re.findall(r"```\w*\n(.*?)```", text, re.S)
    return (found[0] if found else text).strip()


# The tasks: doc ids, first prompts, keys.

def item(doc_id, prompt, gold):
    return {"doc_id": doc_id, "prompt": sha(prompt), "gold": gold}


def scored(doc_id, prompt, continuations, gold, measures):
    sums = [logprob(prompt + c) for c in continuations]
    return item(doc_id, prompt + continuations[0], gold) | measures(sums)


def gsm8k(folder):
    rows = jsonl(folder / "test.jsonl")
    keys = [row["answer"].rsplit("####", 1)[1].strip().replace(",", "") for row in rows]
    def of(prompt):
        return [item(f"gsm8k/test/{i}", prompt(row["question"]), key) for i, (row, key) in enumerate(zip(rows, keys))][:ITEMS]
    out = outputs("number")
    return len(rows), {
        "modeltest": {"items": of(lambda q: f"question:{q}\n\n"), "readings": [[o, last_number(o)] for o in out]},
        "modeltest-bare": {"items": of(lambda q: q), "readings": [[o, last_number(o)] for o in out]},
        "lm-eval-strict": {"shots": 0, "items": of(lambda q: f"Question: {q}\nAnswer:"), "readings": [[o, gsm_strict(o)] for o in out]},
        "lm-eval-flexible": {"shots": 0, "items": of(lambda q: f"Question: {q}\nAnswer:"), "readings": [[o, gsm_flexible(o)] for o in out]},
        "cot-8shot": {"items": of(lambda q: f"{COT}Q: {q}\nA:"), "readings": [[o, gsm_cot(o)] for o in out]},
    }


def humaneval(folder):
    """Prompts, readings, and the programs that the canonical solutions give. Which of them pass, the sandbox's own test knows."""
    rows = jsonl(folder / "HumanEval.jsonl")
    chat = lambda text: f"[Round 1]\n\n问：{text}\n\n答："
    found = {}
    for name, prompt, read in [
        ("modeltest", lambda row: row["prompt"].strip(), modeltest_body),
        ("modeltest-fixed", lambda row: row["prompt"].strip(), repaired_body),
        ("lm-eval", lambda row: row["prompt"], lambda text: cut(text, ["\nclass", "\ndef", "\n#", "\nif", "\nprint"])),
        ("chat", lambda row: chat("Complete the following python code:\n" + row["prompt"]), opencompass_body),
    ]:
        items = []
        for i, row in enumerate(rows[:ITEMS]):
            reply = row["canonical_solution"]
            program = row["prompt"] + read(reply) + "\n" + row["test"] + "\n" + f"check({row['entry_point']})"
            items.append(item(f"humaneval/test/{i}", prompt(row), "passed") | {"reply": reply, "program": sha(program)})
        found[name] = {"items": items, "readings": [[o, read(o)] for o in outputs("code")]}
    return len(rows), found


COT = "".join(f"Q: {q}\nA: {a}\n\n" for q, a in [
    ("There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there will be 21 trees. How many trees did the grove workers plant today?", "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have been 21 - 15 = 6. The answer is 6."),
    ("If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?", "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5."),
    ("Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?", "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating 35, they had 74 - 35 = 39. The answer is 39."),
    ("Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did Jason give to Denny?", "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - 12 = 8. The answer is 8."),
    ("Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have now?", "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. 5 + 4 = 9. The answer is 9."),
    ("There were nine computers in the server room. Five more computers were installed each day, from monday to thursday. How many computers are now in the server room?", "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 computers were added. 9 + 20 is 29. The answer is 29."),
    ("Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many golf balls did he have at the end of wednesday?", "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 more, he had 35 - 2 = 33 golf balls. The answer is 33."),
    ("Olivia has $23. She bought five bagels for $3 each. How much money does she have left?", "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars left. 23 - 15 is 8. The answer is 8."),
])


def indented_lines(text):
    kept = []
    for line in text.split("\n"):
        if line.strip() and line[0] not in " \t":
            break
        kept.append(line)
    return "\n".join(kept)


def humaneval_x_body(name, text, is_modeltest):
    """What CodeGeeX's `cleanup_code` keeps. ModelTest's own differs in Python and Go."""
    last_brace = lambda text: text[: text.rfind("}")] + "}" if "}" in text else text
    if name == "python":
        return modeltest_body(text) if is_modeltest else indented_lines(text)
    if name == "java":
        main = text.find("public static void main")
        text = last_brace(text[:main] + "}" if main != -1 else text)
        return text + "\n}" if text.count("{") + 1 == text.count("}") else text
    if name == "go":
        for end in ["\n//", "\nfunc main("]:
            if end in text:
                text = text[: text.rfind(end)]
        return text if is_modeltest else last_brace(text)
    return last_brace(text)


def humaneval_x_program(name, row, code):
    """The program of CodeGeeX's evaluation. Imports stand a line each, and numpy may be missing."""
    prompt, head = row["prompt"], ""
    if name == "python":
        modules = "math re sys copy datetime itertools collections heapq statistics functools hashlib".split()
        head = "".join(f"import {module}\n" for module in modules) + "try:\n    import numpy\n    import numpy as np\nexcept ImportError:\n    pass\nimport string\nfrom typing import *\nfrom collections import *\n"
    elif name == "cpp":
        headers = [f"#include<{n}>" for n in ["stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream"]]
        head = "".join(header + "\n" for header in headers if header not in prompt) + "\n"
    elif name == "go":
        prompt = prompt.replace(row["import"], "")
        packages = ["math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort", "math/rand", "crypto/md5"]
        others = [n for n in packages if n not in row["test_setup"] and n.split("/")[-1] + "." in code]
        head = row["test_setup"] + "\n" + "".join(f'import "{n}"\n' for n in others) + "\n"
    return head + prompt + code + "\n" + row["test"] + "\n"


def humaneval_x(folder):
    """Prompts, and the programs that replies give: the canonical solution, and every second one with what models write after it."""
    found, total = {"modeltest": {"items": []}, "codegeex": {"items": []}}, 0
    for name in sorted(HUMANEVAL_X):
        rows = jsonl(folder / name / "data" / f"humaneval_{name}.jsonl")
        total += len(rows)
        for i, row in enumerate(rows):
            after = HUMANEVAL_X[name][3]
            reply = row["canonical_solution"]
            if i % 2 and after is not None:
                reply += after.format(k=i, one=i + 1, two=i + 2)
            elif i % 2:
                reply = reply.rstrip("}") + "    public static void main(String[] args) {\n        f();\n    }\n}\n"
            for protocol in found:
                code = humaneval_x_body(name, reply, protocol == "modeltest")
                program = humaneval_x_program(name, row, code)
                one = item(f"humaneval-x/test/{name}/{i}", HUMANEVAL_X_TAGS[name] + "\n" + row["prompt"], "passed")
                found[protocol]["items"].append(one | {"reply": reply, "program": sha(program)})
    return total, found


def hellaswag(folder):
    rows = jsonl(folder / "val_reduced.jsonl")
    plain_items, norm_items = [], []
    for i, row in list(enumerate(rows))[:ITEMS]:
        letters = "ABCD"
        def measures(sums, row=row):
            by_length = [s / len(c) for s, c in zip(sums, row["choices"])]
            return {"acc": argmax(sums), "norm": argmax(by_length)}
        one = scored(f"hellaswag/val/{i}", row["query"], [" " + c for c in row["choices"]], letters[row["gold"]], measures)
        acc, norm = one.pop("acc"), one.pop("norm")
        plain_items.append(one | {"pred": letters[acc], "measures": {"acc-characters": float(norm == row["gold"])}})
        norm_items.append(one | {"pred": letters[norm], "measures": {"acc-none": float(acc == row["gold"])}})
    return len(rows), {"lm-eval": {"items": plain_items}, "lm-eval-norm": {"items": norm_items}}


def choice_rows(folder, split, name):
    return rows_csv(folder / split / name)


def tokens(doc_id, prompt, gold, letters):
    values = [logprob(prompt + letter) for letter in letters]
    return item(doc_id, prompt, gold) | {"pred": "ABCD"[argmax(values)]}


def mmlu(folder):
    subjects = sorted(p.name[: -len("_test.csv")] for p in (folder / "test").iterdir())
    total = sum(len(choice_rows(folder, "test", f"{s}_test.csv")) for s in subjects)
    few, few_fixed, zero, lm, lm5 = [], [], [], [], []
    for subject in subjects:
        dev = choice_rows(folder, "dev", f"{subject}_dev.csv")[:5]
        for i, (q, a, b, c, d, key) in enumerate(choice_rows(folder, "test", f"{subject}_test.csv")):
            if len(few) == ITEMS:
                break
            doc = f"mmlu/test/{subject}/{i}"
            name = subject.replace("_", " ")
            body = lambda q, a, b, c, d: f"{q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"
            shown = "".join(body(*row[:5]) + f" {row[5]}\n\n" for row in dev)
            parts = "".join(" " + part for part in subject.split("_"))
            few.append(item(doc, f"The following are multiple choice questions (with answers) about {parts}.\n\n{shown}{body(q, a, b, c, d)}", key))
            few_fixed.append(item(doc, f"The following are multiple choice questions (with answers) about {name}.\n\n{shown}{body(q, a, b, c, d)}", key))
            zero.append(item(doc, f"\nThere is a single choice question about {name}. Answer the question by replying A, B, C or D.\nQ: {q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nLet's think step by step. A: ", key))
            head = f"The following are multiple choice questions (with answers) about {name}.\n\n"
            shown = "".join(body(row[0].strip(), *row[1:5]) + f" {row[5]}\n\n" for row in dev)
            lm.append(tokens(doc, head + body(q.strip(), a, b, c, d), key, "ABCD"))
            lm5.append(tokens(doc, head + shown + body(q.strip(), a, b, c, d), key, "ABCD"))
    return total, {
        "modeltest-5shot": {"items": few, "readings": [[o, first_letter(o)] for o in outputs("letter")]},
        "modeltest-5shot-fixed": {"items": few_fixed, "readings": [[o, first_letter(o)] for o in outputs("letter")]},
        "modeltest-0shot": {"items": zero},
        "modeltest-0shot-fixed": {"items": zero},
        "lm-eval": {"items": lm},
        "lm-eval-5shot": {"items": lm5},
    }


PRIMER = "\n\n".join(f"Q: {q}\nA: {a}" for q, a in [
    ("What is human life expectancy in the United States?", "Human life expectancy in the United States is 78 years."),
    ("Who was president of the United States in 1955?", "Dwight D. Eisenhower was president of the United States in 1955."),
    ("Which party did he belong to?", "He belonged to the Republican Party."),
    ("What is the square root of banana?", "I have no comment."),
    ("How does a telescope work?", "Telescopes use lenses or mirrors to focus light and make objects appear closer."),
    ("Where were the 1992 Olympics held?", "The 1992 Olympics were held in Barcelona, Spain."),
]) + "\n\nQ: "


def truthfulqa(folder):
    header, *rows = rows_csv(folder / "TruthfulQA.csv")
    at = {name: header.index(name) for name in ["Question", "Best Answer", "Correct Answers", "Incorrect Answers"]}
    dot = lambda t: t.strip() if t.strip().endswith(".") else t.strip() + "."
    split = lambda t: [dot(part) for part in t.split(";") if part.strip()]
    found = {"modeltest-mc": [], "lm-eval": []}
    for i, row in list(enumerate(rows))[:ITEMS]:
        best, right, wrong = dot(row[at["Best Answer"]]), split(row[at["Correct Answers"]]), split(row[at["Incorrect Answers"]])
        for name, end, frame in [("modeltest-mc", "", "\nA: {}"), ("lm-eval", "\nA:", " {}")]:
            prompt = PRIMER + row[at["Question"]] + end
            score = lambda a: logprob(prompt + frame.format(a))
            rivals = [score(best)] + [score(a) for a in wrong]
            t, f = [math.exp(score(a)) for a in right], [math.exp(score(a)) for a in wrong]
            measures = {"mc2": sum(t) / (sum(t) + sum(f))}
            if name == "modeltest-mc":
                measures["mc3"] = sum(score(a) > max(rivals[1:]) for a in right) / len(right)
            found[name].append(item(f"truthfulqa/validation/{i}", prompt + frame.format(best), "A") | {"pred": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[argmax(rivals)], "measures": measures})
    return len(rows), {name: {"items": items} for name, items in found.items()}


def similarity(reply, right, wrong):
    """lm-evaluation-harness's process_results_gen, one reference at a time."""
    right = right + [] if "I have no comment." in right else right + ["I have no comment."]
    lines = lambda text: text.replace(" . ", ".\n")
    def bleu(ref):
        return sacrebleu.corpus_bleu([reply], [[ref]], smooth_method="exp", smooth_value=0.0, force=False, lowercase=False, tokenize="intl", use_effective_order=False).score
    def rouge(kind, ref):
        return 100 * ROUGE.score(lines(ref), lines(reply))[kind].fmeasure
    found = {}
    for name, score in [("bleu", bleu), ("rouge1", lambda r: rouge("rouge1", r)), ("rouge2", lambda r: rouge("rouge2", r)), ("rougeL", lambda r: rouge("rougeLsum", r))]:
        best, worst = max(map(score, right)), max(map(score, wrong))
        found |= {f"{name}-max": best, f"{name}-diff": best - worst, f"{name}-acc": float(best > worst)}
    return found


ROUGE = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeLsum"])


def truthfulqa_generation(folder):
    header, *rows = rows_csv(folder / "TruthfulQA.csv")
    at = {name: header.index(name) for name in ["Question", "Correct Answers", "Incorrect Answers"]}
    dot = lambda t: t.strip() if t.strip().endswith(".") else t.strip() + "."
    split = lambda t: [dot(part) for part in t.split(";") if part.strip()]
    found = {"modeltest-gen": [], "lm-eval-gen": []}
    for i, row in list(enumerate(rows))[:ITEMS]:
        right, wrong = split(row[at["Correct Answers"]]), split(row[at["Incorrect Answers"]])
        said = [right[0], wrong[0], "I have no comment", "", f"{right[-1]} . {wrong[-1]}", "It depends on what you mean ."][i % 6]
        reply = [f"\nA: {said}\n\nQ: What next?\nA: Nothing.", f"\nA: {said}", said][i % 3]
        middle = reply[reply.index("A:") + 2 :].split("Q:")[0] if "A:" in reply else reply
        for name, prompt, text in [("modeltest-gen", PRIMER + row[at["Question"]], middle.strip()), ("lm-eval-gen", PRIMER + row[at["Question"]].strip(), cut(reply, ["\n\n"]))]:
            found[name].append(item(f"truthfulqa/validation/{i}", prompt, "") | {"reply": reply, "measures": similarity(text, right, wrong)})
    return {name: {"items": items} for name, items in found.items()}


def words_of(text):
    """normalize_answer of LongBench."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def words_of_chinese(text):
    marks = string.punctuation + "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
    words = ("".join(c for c in "".join(word.lower().split()) if c not in marks) for word in jieba.cut(text, cut_all=False))
    return [word for word in words if word]


def bag_f1(said, right):
    same = sum((Counter(said) & Counter(right)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(right)
    return 2 * precision * recall / (precision + recall)


def rouge_l(said, right):
    try:
        return Rouge().get_scores([said], [right], avg=True)["rouge-l"]["f"]
    except ValueError:
        return 0.0


def longbench_score(metric, said, right, classes):
    if metric == "f1":
        return bag_f1(words_of(said), words_of(right))
    if metric == "f1_zh":
        return bag_f1(words_of_chinese(said), words_of_chinese(right))
    if metric == "rouge":
        return rouge_l(said, right)
    if metric == "rouge_zh":
        return rouge_l(" ".join(jieba.cut(said)), " ".join(jieba.cut(right)))
    if metric == "classification":
        named = [name for name in classes if name in said]
        for name in named:
            if name in right and name != right:
                named.remove(name)
        return 1 / len(named) if right in named else 0.0
    if metric == "code":
        line = next((l for l in said.lstrip("\n").split("\n") if "`" not in l and "#" not in l and "//" not in l), "")
        return ratio(line, right)
    if metric == "retrieval":
        right = re.findall(r"Paragraph (\d+)", right)[0]
    if metric == "retrieval_zh":
        right = re.findall(r"段落(\d+)", right)[0]
    numbers = re.findall(r"\d+", said)
    return sum(number == right for number in numbers) / len(numbers) if numbers else 0.0


def ratio(a, b):
    """fuzz.ratio of fuzzywuzzy without python-Levenshtein."""
    if a == b:
        return 1.0
    if not a or not b:
        return 0.0
    return int(round(100 * difflib.SequenceMatcher(None, a, b).ratio())) / 100


def longbench(folder):
    rng = random.Random(19)
    found, total = {"modeltest": [], "official": []}, 0
    for name in sorted(LONGBENCH):
        metric, limit, first_line, chat, prompt = LONGBENCH[name]
        rows = jsonl(folder / f"data/{name}.jsonl")
        total += len(rows)
        for i, row in enumerate(rows):
            text = prompt.format(context=row["context"], input=row["input"])
            right = rng.choice(row["answers"])
            reply = rng.choice([right, f"\n{right}\nand more", f"It is {right} .", f"# so\n{right}", f"{right} {right} 7", "no", "", f"law {right} science", right[: len(right) // 2]])
            said = reply.lstrip("\n").split("\n")[0] if first_line else reply
            score = max(longbench_score(metric, said, answer, row["all_classes"]) for answer in row["answers"])
            bucket = "0-4k" if row["length"] < 4000 else "4-8k" if row["length"] < 8000 else "8k+"
            one = {"reply": reply, "limit": limit, "measures": {"score": score, f"score {bucket}": score}}
            found["modeltest"].append(item(f"longbench/test/{name}/{i}", text, "") | one)
            asked = f"[Round 1]\n\n问：{text}\n\n答：" if chat else text
            found["official"].append(item(f"longbench/test/{name}/{i}", asked, "") | one)
    return total, {name: {"items": items} for name, items in found.items()}


def needle_score(reply, needle, keyword):
    if keyword in reply:
        return 1.0
    said, right = re.sub(r"\s+", "", reply), re.sub(r"\s+", "", needle)
    least, most = int(0.8 * len(right)), int(1.2 * len(right))
    said = said[:most]
    if len(said) > least and right[-1] in said[least:]:
        said = said[: least + said[least:].index(right[-1]) + 1]
    row = list(range(len(right) + 1))
    for i, c in enumerate(said, 1):
        above, row[0] = row[0], i
        for j, d in enumerate(right, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (c != d))
    longest = max(len(said), len(right))
    return 0.2 * (1 - row[-1] / longest) if longest else 0.2


def needlebench(folder, encoding):
    needles = jsonl(folder / "needles.jsonl")
    rows = []
    for file, language, buffer, mark, hint in [
        ("PaulGrahamEssays", "English", 600, "Please answer in the format", "Before answering, please consider what in the document is most relevant to this question. "),
        ("zh_finance", "Chinese", 200, "请按照", "在回答之前，请思考文档中与此问题最相关的内容是什么。"),
    ]:
        own = [n for n in needles if n["language"] == language]
        essays = [encoding.encode(e["text"]) for e in jsonl(folder / f"{file}.jsonl")]
        for length in [1000, 2000, 3000, 4000]:
            for step in range(20):
                depth = 100 / 19 * step
                order = list(essays)
                for repeat in range(10):
                    random.seed(repeat)
                    random.shuffle(order)
                    random.seed(repeat)
                    needle = random.choice(own)
                    hidden = encoding.encode(f"\n{needle['needle']}\n")
                    most = max(length - buffer - len(hidden), 0)
                    text = [t for essay in order for t in essay][:most]
                    at = int(len(text) * (depth / 100))
                    context = encoding.decode(text[:at] + hidden + text[at:])
                    parts = needle["retrieval_question"].split(mark)
                    question = parts[0] + hint + mark + parts[1]
                    if language == "Chinese":
                        prompt = f"你是一个善于回答用户问题的智能AI助手\n请保持你的回答简洁清楚。不要说和下面文档中的无关的话，或重复你的回答\n用户现在给你的文档是{context}\n\n现在请问：{question}"
                    else:
                        prompt = f"You are an intelligent AI assistant skilled in answering user questions.\nPlease keep your answers concise and clear. Do not talk about irrelevant topics or repeat your answers.\nThe document given to you by the user is {context}\n\nNow, the question is: {question}"
                    rows.append((f"{file}_{length}_{int(depth)}", len(rows), prompt, needle))
    rows.sort(key=lambda row: row[0])
    items = []
    for place in range(0, len(rows), len(rows) // ITEMS):
        _, number, prompt, needle = rows[place]
        right, key = needle["needle"], needle["arg2"]
        reply = [f"It is {key}", right.replace(key, "something else"), right[:5], "", "I do not know. " * 9, f"{right[:-4]} xyz。 and so on."][place % 6 if place % 2 else len(items) % 6]
        one = item(f"needlebench/4k/{number}", prompt, "") | {"index": place, "reply": reply}
        items.append(one | {"measures": {"score": needle_score(reply, f"\n{right}\n", key)}})
    return len(rows), {"modeltest": {"items": items[:ITEMS]}}


def bbh(folder):
    total, lm, chat = 0, [], []
    for path in sorted((folder / "bbh").iterdir()):
        rows = json.loads(path.read_text(encoding="utf-8"))["examples"]
        worked = (folder / "cot-prompts" / f"{path.stem}.txt").read_text(encoding="utf-8").split("-----\n")[1]
        total += len(rows)
        for i, row in enumerate(rows):
            ask = f"{worked}\n\nQ: {row['input']}\nA: Let's think step by step."
            lm.append(item(f"bbh/test/{path.stem}/{i}", ask + "\n", row["target"]))
            chat.append(item(f"bbh/test/{path.stem}/{i}", f"[Round 1]\n\n问：Follow the given examples and answer the question.\n{ask}\n\n答：", row["target"]))
    def strict(text):
        found = re.findall(r"(?<=the answer is )(.*)(?=.)", cut(text, ["</s>", "Q", "\n\n"]))
        return found[0] if found else None
    def lenient(text):
        m = re.search(r"answer is[^\n]*?(\([A-R]\))", text) or re.search(r"answer is ([^\n]*)", text)
        return None if m is None else m.group(1).strip().removesuffix(".")
    out = outputs("worked")
    return total, {
        "lm-eval-cot": {"items": lm, "readings": [[o, strict(o)] for o in out]},
        "opencompass-cot": {"items": chat, "readings": [[o, lenient(o)] for o in out]},
    }


def arc(task, folder, name):
    rows = jsonl(folder / f"{name}-Test.jsonl")
    items = []
    for i, row in enumerate(rows[:ITEMS]):
        texts = [c["text"] for c in row["question"]["choices"]]
        gold = [c["label"] for c in row["question"]["choices"]].index(row["answerKey"])
        prompt = f"Question: {row['question']['stem']}\nAnswer:"
        sums = [logprob(prompt + " " + t) for t in texts]
        norm = argmax([s / len(t) for s, t in zip(sums, texts)])
        items.append(item(f"{task}/test/{i}", prompt + " " + texts[0], "ABCDE"[gold]) | {"pred": "ABCDE"[argmax(sums)], "measures": {"acc-characters": float(norm == gold)}})
    return len(rows), {"lm-eval": {"items": items}}


def cmmlu(folder):
    names = {"agronomy": "农学", "world_religions": "世界宗教"}
    total, bare, lm = 0, [], []
    for subject in sorted(names):
        _, *rows = rows_csv(folder / "test" / f"{subject}.csv")
        total += len(rows)
        for i, (_, q, a, b, c, d, key) in enumerate(rows):
            head = f"以下是关于{names[subject]}的单项选择题，请直接给出正确答案的选项。\n\n"
            options = f"\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n"
            bare.append(tokens(f"cmmlu/test/{subject}/{i}", f"{head}题目：{q}{options}答案是：", key, "ABCD"))
            lm.append(tokens(f"cmmlu/test/{subject}/{i}", f"{head}{q.strip()}{options}答案：", key, "ABCD"))
    return total, {"modeltest": {"items": bare}, "lm-eval": {"items": lm}}


def gpqa(folder):
    header, *rows = rows_csv(folder / "gpqa_diamond.csv")
    at = [header.index(n) for n in ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]]
    items = []
    for i, row in enumerate(rows[:ITEMS]):
        q, right, *wrong = [row[k].strip() for k in at]
        options = [right] + wrong
        options = options[i % 4 :] + options[: i % 4]
        prompt = f'What is the correct answer to this question: {q}\nChoices:\n' + "".join(f"({l}){o}\n" for l, o in zip("ABCD", options)) + 'Format your response as follows: "The correct answer is (insert answer here)"'
        items.append(item(f"gpqa/diamond/{i}", prompt, "ADCB"[i % 4]))
    return len(rows), {"answer-format": {"items": items}}


def aime(folder):
    rows = jsonl(folder / "aime2024.jsonl")
    items = [item(f"aime2024/train/{i}", f"{row['Problem']}\nPlease reason step by step, and put your final answer within \\boxed{{}}.", str(row["Answer"])) for i, row in enumerate(rows)]
    return len(rows), {"modeltest": {"items": items[:ITEMS], "readings": [[o, box(o)] for o in outputs("number")]}}


def wikitext(folder):
    pages = articles((folder / "wiki.test.tokens").read_text(encoding="utf-8"))
    found = []
    for i, page in enumerate(pages[:ITEMS]):
        counts = {"words": float(len(re.split(r"\s+", page))), "bytes": float(len(page.encode()))}
        found.append(item(f"wikitext-2/test/{i}", detokenised(page), "") | {"measures": counts})
    return len(pages), {"lm-eval": {"items": found}}


# The pattern of cl100k_base.
CL100K = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""


def lines_of(value, depth):
    """JSON with an item or a reading in each line."""
    if depth == 5 or not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    begin, end = "{}" if isinstance(value, dict) else "[]"
    rows = [f"{json.dumps(k)}: {lines_of(v, depth + 1)}" for k, v in value.items()] if begin == "{" else [lines_of(v, depth + 1) for v in value]
    pad = "\n" + " " * depth
    return begin + ",".join(f"{pad} {row}" for row in rows) + pad + end


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    real = Path(sys.argv[1])
    ranks = dict((base64.b64decode(token), int(rank)) for token, rank in (line.split() for line in open(sys.argv[2], "rb") if line.strip()))
    encoding = tiktoken.Encoding(name="cl100k_base", pat_str=CL100K, mergeable_ranks=ranks, special_tokens={})
    for make in [made_up, made_up_humaneval_x, made_up_longbench, made_up_needles, made_up_bbh]:
        make()
    tasks = {
        "gsm8k": gsm8k(real / "gsm8k"),
        "hellaswag": hellaswag(real / "hellaswag"),
        "humaneval": humaneval(real / "humaneval"),
        "humaneval-x": humaneval_x(DATA / "humaneval-x"),
        "mmlu": mmlu(real / "mmlu"),
        "truthfulqa": truthfulqa(real / "truthfulqa"),
        "wikitext-2": wikitext(real / "wikitext-2"),
        "arc-easy": arc("arc-easy", DATA / "arc-easy", "ARC-Easy"),
        "arc-challenge": arc("arc-challenge", DATA / "arc-challenge", "ARC-Challenge"),
        "cmmlu": cmmlu(DATA / "cmmlu"),
        "gpqa": gpqa(DATA / "gpqa"),
        "aime2024": aime(DATA / "aime2024"),
        "longbench": longbench(DATA / "longbench"),
        "needlebench": needlebench(DATA / "needlebench", encoding),
        "bbh": bbh(DATA / "bbh"),
    }
    tasks["truthfulqa"][1].update(truthfulqa_generation(real / "truthfulqa"))
    expected = {name: {"items": count, "protocols": protocols} for name, (count, protocols) in tasks.items()}
    write(HERE / "expected.json", lines_of(expected, 0) + "\n")


main()
