#!/usr/bin/env python3
"""Reference values for crates/metrics, from the Python originals.

    python3 -m venv venv
    venv/bin/pip install jieba==0.42.1 rouge==1.0.1 fuzzywuzzy==0.18.0 python-Levenshtein==0.27.5 \
        rouge_score==0.1.2 sacrebleu==2.6.0 tiktoken==0.14.0 numpy==2.4.6
    venv/bin/python scripts/metrics_fixtures.py LONGBENCH CL100K crates/metrics/tests/fixtures

LONGBENCH is a checkout of THUDM/LongBench (its metrics.py is imported). CL100K is a copy of cl100k_base.tiktoken, whose
SHA-256 tiktoken checks. Each file has at least 50 cases of each metric. All texts are made here.
"""

import base64
import difflib
import importlib.util
import itertools
import json
import math
import pathlib
import random
import re
import sys
from decimal import Decimal
from fractions import Fraction

import jieba
import numpy as np
import sacrebleu
import tiktoken
from fuzzywuzzy import fuzz
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import _get_tokenizer

CASES = 60

ENGLISH = """the a an The reactor valve opens before pump starts because pressure falls under limit when nobody looks at
dial . , ; engineers measured 3.14 bars and 1,200 litres (twice) in Oslo's harbour ; U.S. rules say "no" & don't ask :
x-ray GPT-4.5 v1.2.3 50% e-mail re-run C++ A/B 7-8 1990s naïve café Ångström … — “quoted” it's o'clock $5.00 a.m.""".split()

CHINESE = """今天 天气 很 好 ， 我们 去 公园 散步 。 研究人员 发现 水泵 在 压力 下降 之前 就 停止 了 ； 据 报道 ， 二〇二四年 产量
增长 12.5% ， 约 3.6 万 吨 。 南京市 长江 大桥 的 市长 江大桥 说 ： “ 不知道 ” ！ 小明 硕士 毕业 于 中国 科学院 计算所 GPT-4.5 模型
v1.2.3 版本 T恤 卡拉OK 4S店 AA制 e-mail a_b.c abc-def 50% C++ 𠮷野家 饕餮 魑魅魍魉 艽野 尘梦 王小二 李雷 韩梅梅 吃 了 一 只 北京 烤鸭""".split()

HOSTILE = ["", " ", "\n", "\t \u3000", ".", "...", "。", "a", "the", "A the an", "🙂", "👩‍👩‍👧‍👦 family", "e\u0301a\u0301 the\u0301",
           "\u0301", "\u0301\u0301 a", "x\x1cy\x1dz\x1e \x1f", "\u00a0nbsp\u00a0", "\r\n\r\n", "a\r\nb", "٣٤ ٥", "İstanbul ΑΣ ΣΑΣ",
           "ﬁne ﬂow", "Ⅷ ② ½", "中", "中a1.5-b_c%文", "a-b", "a--b-", "1.2.3.4%", "-a.b_c-", "..a..", "%%5%", "𠮷", "㐀㐁", "鿕鿖鿿", "한국어 テスト",
           "<skipped>&quot;&amp;lt;&gt;-\nend", "a.b,c 1.5,6 7-8 -9", "``` code", "# comment\nx = 1", "// c\n\ny=2", "…—“”‘’", "©®™ + = ~ ^"]


class Texts:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def english(self, least=1, most=40):
        return " ".join(self.random.choices(ENGLISH, k=self.random.randint(least, most)))

    def chinese(self, least=1, most=30):
        words = self.random.choices(CHINESE, k=self.random.randint(least, most))
        return "".join(w + (" " if self.random.random() < 0.1 else "") for w in words)

    def changed(self, text):
        """A text that shares parts with another: words dropped, doubled, swapped."""
        parts = re.findall(r"\S+\s*", text) if " " in text.strip() else list(text)
        changed = []
        for part in parts:
            dice = self.random.random()
            if dice < 0.15:
                continue
            changed.append(part)
            if dice > 0.92:
                changed.append(self.random.choice(parts))
        if self.random.random() < 0.3 and len(changed) > 2:
            at = self.random.randrange(len(changed) - 1)
            changed[at], changed[at + 1] = changed[at + 1], changed[at]
        return "".join(changed)

    def pairs(self, make, count):
        pairs = []
        for _ in range(count):
            first = make()
            second = self.changed(first) if self.random.random() < 0.7 else make()
            pairs.append((second, first))
        hostile = [tuple(self.random.choices(HOSTILE, k=2)) for _ in range(count // 3)]
        return pairs + hostile + [(h, h) for h in HOSTILE] + [(h, "a word .") for h in HOSTILE]


def load_longbench(folder):
    spec = importlib.util.spec_from_file_location("longbench_metrics", pathlib.Path(folder) / "metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def longbench(module):
    texts = Texts(1)
    english = texts.pairs(texts.english, CASES)
    summaries = texts.pairs(lambda: texts.english(20, 120), CASES)
    chinese = texts.pairs(texts.chinese, CASES)
    number = lambda word: f"{texts.random.choice(['', 'maybe ', 'not '])}{word}{texts.random.randint(1, 30)}"
    answers = lambda word: ", ".join(number(word) for _ in range(texts.random.randint(0, 4)))
    classes = ["City", "City state", "state", "State", "Food", "Date", "other date", "Food and drink", "drink"]
    code = lambda: "\n".join(
        texts.random.choice(["x = foo(bar)", "return None", "# note", "// note", "", "```python", "for i in range(10):", "    total += i"])
        for _ in range(texts.random.randint(1, 4)))
    long_code = lambda: "".join(texts.random.choices("abcdef ()=.", k=texts.random.randint(150, 400)))
    code_pairs = [(code(), texts.random.choice(code().split("\n"))) for _ in range(CASES)]
    code_pairs += [(texts.changed(line), line) for line in (long_code() for _ in range(CASES // 2))]
    code_pairs += [(h, h) for h in HOSTILE] + [(h, "x = 1") for h in HOSTILE]

    def first_line(prediction):
        lines = prediction.lstrip("\n").split("\n")
        return next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")

    def with_difflib(prediction, reference):
        """fuzz.ratio where python-Levenshtein is missing."""
        line = first_line(prediction)
        if line == reference:
            return 1.0
        if not line or not reference:
            return 0.0
        return int(round(100 * difflib.SequenceMatcher(None, line, reference).ratio())) / 100

    pick = lambda: [texts.random.sample(classes, k=texts.random.randint(1, 6)) for _ in range(CASES * 2)]
    classified = [(texts.random.choice(["", "It is ", "City "]) + ", ".join(texts.random.sample(classes, k=texts.random.randint(0, 4))),
                   texts.random.choice(named), named) for named in pick()]
    paragraph = lambda word: [(answers(texts.random.choice([word, ""])), number(word)) for _ in range(CASES)]
    value = lambda score, pairs: [{"prediction": p, "reference": r, "value": float(score(p, r))} for p, r in pairs]
    return {
        "f1": value(module.qa_f1_score, english),
        "f1_chinese": value(module.qa_f1_zh_score, chinese + english),
        "rouge_l": value(module.rouge_score, english + summaries),
        "rouge_l_chinese": value(module.rouge_zh_score, chinese + summaries[:20]),
        "count": value(module.count_score, [(answers(""), str(texts.random.randint(1, 30))) for _ in range(CASES)] + [(h, "5") for h in HOSTILE]),
        "retrieval": value(module.retrieval_score, paragraph("Paragraph ")),
        "retrieval_chinese": value(module.retrieval_zh_score, paragraph("段落")),
        "code_indel": value(module.code_sim_score, code_pairs),
        "code_difflib": value(with_difflib, code_pairs),
        "classification": [{"prediction": p, "reference": r, "classes": c, "value": float(module.classification_score(p, r, all_classes=c))}
                           for p, r, c in classified],
    }


def jieba_words():
    texts = Texts(2)
    made = [texts.chinese(3, 60) for _ in range(CASES * 3)] + [texts.english() for _ in range(CASES)]
    ascii_runs = ["".join(texts.random.choices("ab12.-_%+#&中文学", k=texts.random.randint(2, 14))) for _ in range(CASES * 3)]
    rare = ["".join(chr(texts.random.randint(0x4E00, 0x9FFF)) for _ in range(12)) for _ in range(CASES)]
    return [{"text": text, "words": list(jieba.cut(text))} for text in made + HOSTILE + ascii_runs + rare]


def rouge():
    texts = Texts(3)
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(kinds)
    lines = lambda: "\n".join(texts.english(0, 15) for _ in range(texts.random.randint(1, 5)))
    pairs = texts.pairs(texts.english, CASES) + texts.pairs(lines, CASES)
    cases = []
    for prediction, reference in pairs:
        scores = scorer.score(reference, prediction)
        cases.append({"prediction": prediction, "reference": reference, **{kind: float(scores[kind].fmeasure) for kind in kinds}})
    return cases


def bleu():
    texts = Texts(4)
    names = ["13a", "intl", "zh"]
    tokenizers = {name: _get_tokenizer(name)() for name in names}
    lines = [texts.english() for _ in range(CASES)] + [texts.chinese() for _ in range(CASES)] + HOSTILE
    lines += ["".join(texts.random.choices("ab12.,-/&;'\"<>()[]{}%$#@!~`|\\^_=+:? \n，。—", k=20)) for _ in range(CASES)]
    # The first code points beyond each border of the ranges of `zh`.
    borders = [0x2000, 0x2001, 0x2a6d, 0x2a6e, 0x2f80, 0x2f81, 0x2fa1, 0x2fa2, 0x33ff, 0x3400, 0x4db5, 0x4db6, 0x9fbb, 0x9fbc, 0xfe0f, 0xfe10, 0xffef, 0xfff0, 0x20000]
    lines += ["".join(f"x{chr(c)}y" for c in borders)]
    tokens = {name: [{"line": line, "words": tokenizers[name](line.rstrip()).split()} for line in lines] for name in names}
    scores = []
    for make, name in itertools.product([texts.english, texts.chinese], names):
        for prediction, reference in texts.pairs(make, CASES // 2):
            references = [reference] + [make() for _ in range(texts.random.randint(0, 2))]
            score = sacrebleu.corpus_bleu([prediction], [[r] for r in references], tokenize=name).score
            scores.append({"prediction": prediction, "references": references, "tokenizer": name, "value": score})
    corpora = []
    for _ in range(CASES):
        pairs = [(texts.changed(r), r) for r in (texts.english(4, 30) for _ in range(texts.random.randint(1, 6)))]
        score = sacrebleu.corpus_bleu([p for p, _ in pairs], [[r for _, r in pairs]]).score
        corpora.append({"pairs": pairs, "value": score})
    return {"tokens": tokens, "scores": scores, "corpora": corpora}


def truthfulqa():
    texts = Texts(5)
    choices, generations = [], []
    for _ in range(CASES):
        draw = lambda count: [-texts.random.expovariate(0.1) for _ in range(count)]
        right, wrong = draw(texts.random.randint(1, 6)), draw(texts.random.randint(1, 6))
        p_right, p_wrong = np.exp(np.array(right)), np.exp(np.array(wrong))
        choices.append({
            "right": right, "wrong": wrong,
            "mc1": bool(right[0] > max(wrong)),
            "mc2": float(sum(p_right / (sum(p_right) + sum(p_wrong)))),
            "mc3": float(np.mean(np.array(right) > max(wrong))),
        })
    # The arguments are those of lm_eval/tasks/truthfulqa/utils.py.
    score_bleu = lambda reply, reference: sacrebleu.corpus_bleu(
        [reply], [[reference]], smooth_method="exp", smooth_value=0.0, force=False, lowercase=False, tokenize="intl", use_effective_order=False).score
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeLsum"])
    lines = lambda text: text.replace(" . ", ".\n")
    for _ in range(CASES):
        right = [texts.english(2, 20) for _ in range(texts.random.randint(1, 4))] + ["I have no comment."]
        wrong = [texts.english(2, 20) for _ in range(texts.random.randint(1, 4))]
        reply = texts.changed(texts.random.choice(right + wrong))
        case = {"reply": reply, "right": right, "wrong": wrong}
        for side, references in (("right", right), ("wrong", wrong)):
            case[f"bleu_{side}"] = float(np.nanmax([score_bleu(reply, r) for r in references]))
            for kind in ("rouge1", "rouge2", "rougeLsum"):
                case[f"{kind}_{side}"] = float(np.nanmax([scorer.score(lines(r), lines(reply))[kind].fmeasure * 100 for r in references]))
        generations.append(case)
    return {"choices": choices, "generations": generations}


def pass_at_k():
    draw = random.Random(6)
    cases = []
    for _ in range(CASES * 2):
        n = draw.choice([1, 2, 5, 10, 20, 200, 1000])
        c, k = draw.randint(0, n), draw.randint(1, n)
        cases.append({"samples": n, "passed": c, "k": k, "value": float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))})
    return cases


def answers():
    texts = Texts(7)
    number = re.compile(r"([+-])?(?=([0-9]|\.[0-9]))(0|([1-9](\d{0,2}(,\d{3})*)|\d*))?(\.\d*)?(?=\D|$)")
    spell = lambda: texts.random.choice(["", "+", "-", "$", "$-"]) + texts.random.choice(
        ["0", "007", "1,234", "1,23", "1234,567", "12,345,678.90", ".5", "5.", "3.14", "1.0001", "2.0001", "1e5", "10%", "1.2.3", "0,5", "18", "2", "1", "٣", "5٣",
         "123456789012345678901234567890.00005"])
    reply = lambda: " ".join(texts.random.choice([spell(), spell(), texts.english(0, 4), "#### " + spell(), "####" + spell(), "\n"]) for _ in range(texts.random.randint(1, 5)))

    def modeltest(text):
        found = [m.group(0) for m in number.finditer(text)]
        return found[-1].replace(",", "").replace("+", "") if found else None

    def agree(prediction, reference):
        first, second = modeltest(prediction), modeltest(reference)
        return first is not None and second is not None and abs(Decimal(first) - Decimal(second)) <= Decimal("0.0001")

    def filtered(pattern, at, text):
        found = re.compile(pattern).findall(text)
        if not found:
            return "[invalid]"
        found = found[at]
        if isinstance(found, tuple):
            found = [part for part in found if part]
            found = found[0] if found else "[invalid]"
        return found.strip()

    def normalised(text):
        for pattern in (",", r"\$", "(?s).*#### ", r"\.$"):
            text = re.sub(pattern, "", text)
        return text.lower()

    replies = [reply() for _ in range(CASES * 3)] + HOSTILE
    pairs = [(spell(), spell()) for _ in range(CASES * 4)] + [("1.0001", "1"), ("2.0001", "2"), ("2.00011", "2"), ("-0.00005", "0.00005"), ("-0.00006", "0.00005"), ("-0", "0"), ("99999999999999999999.0001", "99999999999999999999")]
    ends = ["5.", "5.\n", "5..", ".", "5 #### 6.", "#### \n7", "A$,b.", "x####  y"]
    return {
        "modeltest_number": [{"text": t, "value": modeltest(t)} for t in replies],
        "modeltest_agree": [{"prediction": p, "reference": r, "value": agree(p, r)} for p, r in pairs],
        "strict": [{"text": t, "value": filtered(r"#### (\-?[0-9\.\,]+)", 0, t)} for t in replies],
        "flexible": [{"text": t, "value": filtered(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1, t)} for t in replies],
        "normalised": [{"text": t, "value": normalised(t)} for t in replies + ends],
    }


def perplexity():
    texts = Texts(8)
    cases = []
    for _ in range(CASES):
        pages = [texts.random.choice(["", " ", "\n"]) + texts.english() + texts.random.choice(["", " \n ", "\x1c"]) for _ in range(texts.random.randint(1, 5))]
        sums = [-texts.random.expovariate(0.01) for _ in pages]
        words = [len(re.split(r"\s+", page)) for page in pages]
        sizes = [len(page.encode()) for page in pages]
        by = lambda units: math.exp(-sum(sums) / sum(units))
        cases.append({"pages": pages, "log_likelihoods": sums, "words": words, "word_perplexity": by(words), "byte_perplexity": by(sizes),
                      "bits_per_byte": -sum(sums) / sum(sizes) / math.log(2)})
    return cases


def tokens(vocabulary):
    texts = Texts(9)
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in open(vocabulary, "rb").read().splitlines()}
    assert len(ranks) == 100_256, len(ranks)
    # The pattern of tiktoken_ext/openai_public.py, without the tokens that it would fetch.
    from tiktoken_ext import openai_public
    openai_public.load_tiktoken_bpe = lambda *_, **__: ranks
    encoding = tiktoken.Encoding(**openai_public.cl100k_base())
    spaces = ["  \n \t x", "a" * 600, "\n\n\n  y ", "I'LL we've <|endoftext|> it's", " " * 300 + "z", "1234567890 12.5"]
    made = [texts.english() for _ in range(CASES)] + [texts.chinese() for _ in range(CASES)] + HOSTILE + spaces
    cut = lambda ids: [ids[:n] for n in {1, len(ids) // 2}]
    cases = [{"text": text, "tokens": encoding.encode_ordinary(text)} for text in made]
    parts = [{"tokens": ids, "text": encoding.decode(ids)} for case in cases[::3] for ids in cut(case["tokens"])]
    return {"encode": cases, "decode": parts}


def needle():
    texts = Texts(10)

    def distance(first, second):
        row = list(range(len(second) + 1))
        for i, a in enumerate(first):
            above, row = row, [i + 1]
            for j, b in enumerate(second):
                row.append(min(above[j + 1] + 1, row[j] + 1, above[j] + (a != b)))
        return row[-1]

    def score(reply, text, keyword):
        if keyword in reply:
            return 1.0
        reply, text = (re.sub(r"\s+", "", part) for part in (reply, text))
        low, high = int(0.8 * len(text)), int(1.2 * len(text))
        cut = reply[:high]
        if len(cut) > low and text[-1] in cut[low:]:
            cut = cut[: low + cut[low:].index(text[-1]) + 1]
        longest = max(len(cut), len(text))
        return 0.2 * (1 - distance(cut, text) / longest if longest else 1.0)

    cases = []
    for make in (texts.english, texts.chinese):
        for reply, text in texts.pairs(make, CASES):
            keyword = texts.random.choice(["harbour", "烤鸭", "no such word"])
            cases.append({"reply": reply, "needle": text, "keyword": keyword, "value": score(reply, text, keyword)})
    return cases


def main():
    longbench_folder, vocabulary, folder = sys.argv[1:]
    jieba.setLogLevel(60)
    assert fuzz.SequenceMatcher is not difflib.SequenceMatcher, "python-Levenshtein is missing"
    files = {
        "longbench": longbench(load_longbench(longbench_folder)), "jieba": jieba_words(), "rouge": rouge(), "bleu": bleu(),
        "truthfulqa": truthfulqa(), "pass_at_k": pass_at_k(), "answers": answers(), "perplexity": perplexity(), "tokens": tokens(vocabulary),
        "needle": needle(),
    }
    for name, cases in files.items():
        path = pathlib.Path(folder) / f"{name}.json"
        path.write_text(json.dumps(cases, ensure_ascii=True, separators=(",", ":")) + "\n")


main()
