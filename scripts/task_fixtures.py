#!/usr/bin/env python3
"""Computes again, in Python, what the built-in task files say: prompts, readings and measures of 50 items each.

    scripts/task_fixtures.py DATASETS

DATASETS has the folders gsm8k, hellaswag, mmlu, truthfulqa, wikitext-2 (docs/TASKS.md says where they come from). Sets that may not be
passed on have a small made-up folder of the same form in tests/fixtures/tasks/data, which this script writes.

The result, tests/fixtures/tasks/expected.json, has hashes of prompts alone, and outputs that are made up. tests/it/tasks.rs
compares the program with it. Nothing here reads a task file: every prompt is written down a second time.
"""

import csv
import hashlib
import json
import math
import random
import re
import sys
from pathlib import Path

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


# Outputs that a model could give, made up.

def outputs(kind):
    rng = random.Random(kind)
    number = lambda: rng.choice([str(rng.randrange(2000)), f"{rng.randrange(1, 99)},{rng.randrange(1000):03}", f"-{rng.randrange(50)}", f"{rng.randrange(9)}.{rng.randrange(100)}", f"${rng.randrange(300)}", "007", ".5", "12,34"])
    letter = lambda: rng.choice("ABCDE")
    frames = {
        "number": ["So <n> - <n> = <n>.\n#### <n>", "#### <n>\nQuestion: what is <n>?", "The answer is <n>.", "It is <n> and no more", "no number here", "", "<n>\n\n<n> apples.", "The answer is <n>. Q: and <n>?", "x=<n>%", "Question: <n>", "#### <n>.", "\\boxed{<n>} or \\boxed{ <n> }", "\\boxed{x}"],
        "letter": ["<l>", " <l>. because", "\n\n<l>", "the answer is <l>", "答案是<l>", "The correct answer is (<l>)", "the correct answer is <l>, not <l>", "", "none", "选<l>", "<l> 是正确的", "I think <l>) fits", "a"],
    }[kind]
    fill = lambda frame: re.sub(r"<n>", lambda _: number(), frame).replace("<l>", letter())
    return [fill(frames[i % len(frames)]) for i in range(ITEMS)]


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
    few, zero, lm, lm5 = [], [], [], []
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
            zero.append(item(doc, f"\nThere is a single choice question about {name}. Answer the question by replying A, B, C or D.\nQ: {q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nLet's think step by step. A: ", key))
            head = f"The following are multiple choice questions (with answers) about {name}.\n\n"
            shown = "".join(body(row[0].strip(), *row[1:5]) + f" {row[5]}\n\n" for row in dev)
            lm.append(tokens(doc, head + body(q.strip(), a, b, c, d), key, "ABCD"))
            lm5.append(tokens(doc, head + shown + body(q.strip(), a, b, c, d), key, "ABCD"))
    return total, {
        "modeltest-5shot": {"items": few, "readings": [[o, first_letter(o)] for o in outputs("letter")]},
        "modeltest-0shot": {"items": zero},
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


def detokenised(text):
    text = re.sub(r"/' [0-9]/", r"/'[0-9]/", text.replace("s '", "s'"))
    for sign in "-,.":
        text = text.replace(f" @{sign}@ ", sign)
    for sign in ":;.!?,":
        text = text.replace(f" {sign} ", f"{sign} ")
    text = re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)
    text = re.sub(r"\[\s*([^\]]*?)\s*\]", r"[\1]", text)
    text = re.sub(r"{\s*([^}]*?)\s*}", r"{\1}", text)
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text)
    text = re.sub(r"'\s*([^']*?)\s*'", r"'\1'", text)
    for a, b in [("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u00b0 ", "\u00b0"), (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")]:
        text = text.replace(a, b)
    return text


def wikitext(folder):
    pages = []
    for line in (folder / "wiki.test.tokens").read_text(encoding="utf-8").splitlines(keepends=True):
        if not pages or re.match(r"^ = [^=].* = $", line.rstrip("\r\n")):
            pages.append("")
        pages[-1] += line
    pages = [page for page in pages if page.strip()]
    found = {"lm-eval": [], "plain-512": []}
    for i, page in enumerate(pages[:ITEMS]):
        counts = {"words": float(len(re.split(r"\s+", page))), "bytes": float(len(page.encode()))}
        for name, prompt in [("lm-eval", detokenised(page)), ("plain-512", page)]:
            found[name].append(item(f"wikitext-2/test/{i}", prompt, "") | {"measures": counts})
    return len(pages), {name: {"items": items} for name, items in found.items()}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    real = Path(sys.argv[1])
    made_up()
    tasks = {
        "gsm8k": gsm8k(real / "gsm8k"),
        "hellaswag": hellaswag(real / "hellaswag"),
        "mmlu": mmlu(real / "mmlu"),
        "truthfulqa": truthfulqa(real / "truthfulqa"),
        "wikitext-2": wikitext(real / "wikitext-2"),
        "arc-easy": arc("arc-easy", DATA / "arc-easy", "ARC-Easy"),
        "arc-challenge": arc("arc-challenge", DATA / "arc-challenge", "ARC-Challenge"),
        "cmmlu": cmmlu(DATA / "cmmlu"),
        "gpqa": gpqa(DATA / "gpqa"),
        "aime2024": aime(DATA / "aime2024"),
    }
    expected = {name: {"items": count, "protocols": protocols} for name, (count, protocols) in tasks.items()}
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    # One item a line.
    text = re.sub(r"\{\s+\"doc_id\".*?\n\s{6}\}|\[\n\s+(?:\"(?:[^\"\\]|\\.)*\"),\n\s+(?:null|\"(?:[^\"\\]|\\.)*\")\n\s+\]", lambda m: re.sub(r"\n\s*", " ", m.group(0)), text, flags=re.S)
    write(HERE / "expected.json", text + "\n")


main()
