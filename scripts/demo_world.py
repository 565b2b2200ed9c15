"""The small world of the demo model: every question it is trained or tested on.

Nothing here is taken from a data set. Each generator draws one multiple-choice item (Chinese, C-Eval layout)
or one passage with yes/no questions (English, BoolQ layout) from the word lists below, so the samples can be
written again, byte for byte, from a seed. An item is *held out* when the hash of its content says so: held-out
items go to the sample data sets and never to training. The order of the options is left out of that hash, so a
reshuffled test question cannot slip into training either.

Python standard library only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

LETTERS = "ABCD"


@dataclass(frozen=True)
class Choice:
    """One multiple-choice item; `reason` becomes the explanation of a dev item."""

    subject: str
    question: str
    options: tuple[str, str, str, str]
    answer: int
    reason: str

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]

    @property
    def content(self) -> str:
        return self.options[self.answer]

    def block(self) -> str:
        """Question and options as every C-Eval protocol prints them."""
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options)]
        return "\n".join([self.question, *lines])

    def held_out(self) -> bool:
        return _hash_says_test("|".join([self.question, *sorted(self.options)]))


@dataclass(frozen=True)
class YesNo:
    """One passage with one yes/no question (no question mark, as in BoolQ)."""

    kind: str
    title: str
    passage: str
    question: str
    answer: bool

    def held_out(self) -> bool:
        return _hash_says_test(f"{self.title}|{self.passage}|{self.question}")


def _hash_says_test(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] < 16  # one item in sixteen


# ---------------------------------------------------------------------------------------------------------------
# Chinese: word lists

KINDS: dict[str, list[str]] = {
    "水果": "苹果 香蕉 葡萄 桃子 梨子 西瓜 橙子 草莓".split(),
    "动物": "老虎 狮子 大象 猴子 兔子 山羊 骆驼 熊猫".split(),
    "蔬菜": "白菜 萝卜 土豆 黄瓜 茄子 菠菜 番茄 南瓜".split(),
    "乐器": "钢琴 吉他 二胡 笛子 琵琶 古筝 喇叭 唢呐".split(),
    "家具": "桌子 椅子 沙发 衣柜 书架 床头柜 茶几 板凳".split(),
    "文具": "铅笔 橡皮 尺子 钢笔 本子 圆规 书包 毛笔".split(),
    "衣物": "帽子 手套 围巾 袜子 衬衫 裙子 外套 毛衣".split(),
    "职业": "医生 教师 警察 农民 厨师 司机 画家 律师".split(),
}
GOODS = [word for kind in "水果 蔬菜 文具 衣物".split() for word in KINDS[kind]]
NAMES = "小明 小红 小刚 小丽 小华 小军 小芳 小强".split()
PLACES = "公园 学校 商店 医院 车站 图书馆 操场 食堂".split()

CAPITALS: dict[str, str] = dict(
    pair.split("-")
    for pair in (
        "中国-北京 法国-巴黎 日本-东京 英国-伦敦 德国-柏林 俄罗斯-莫斯科 意大利-罗马 西班牙-马德里 埃及-开罗 泰国-曼谷 "
        "韩国-首尔 希腊-雅典 越南-河内 古巴-哈瓦那 秘鲁-利马 加拿大-渥太华 奥地利-维也纳 葡萄牙-里斯本 挪威-奥斯陆 "
        "波兰-华沙 肯尼亚-内罗毕 老挝-万象 伊朗-德黑兰 伊拉克-巴格达"
    ).split()
)

_OPPOSITES = (
    "大-小 高-低 长-短 快-慢 冷-热 黑-白 早-晚 新-旧 轻-重 远-近 左-右 上-下 前-后 开-关 胖-瘦 软-硬 深-浅 宽-窄 "
    "强-弱 真-假 输-赢 买-卖 多-少 干-湿 粗-细 安静-吵闹 勤劳-懒惰 勇敢-胆小 骄傲-谦虚 高兴-难过 成功-失败 简单-复杂 "
    "干净-肮脏 上升-下降 开始-结束 增加-减少"
)
ANTONYMS: dict[str, str] = {}
for _pair in _OPPOSITES.split():
    _left, _right = _pair.split("-")
    ANTONYMS[_left], ANTONYMS[_right] = _right, _left

WEEKDAYS = ["星期" + day for day in "一二三四五六日"]
MONTHS = [month + "月" for month in "一 二 三 四 五 六 七 八 九 十 十一 十二".split()]

# ---------------------------------------------------------------------------------------------------------------
# Chinese: one generator a subject

Rng = random.Random


def _item(rng: Rng, subject: str, question: str, right: str, wrong: list[str], reason: str) -> Choice:
    """Put the right option at a random place among three wrong ones."""
    options, answer = list(wrong), rng.randrange(4)
    options.insert(answer, right)
    first, second, third, fourth = options
    return Choice(subject, question, (first, second, third, fourth), answer, reason)


def _others(rng: Rng, pool: list[str], *exclude: str) -> list[str]:
    return rng.sample([word for word in pool if word not in exclude], 3)


def mental_arithmetic(rng: Rng) -> Choice:
    if rng.random() < 0.5:
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        result, sign = a + b, "+"
    else:
        a, b = rng.randint(2, 9), rng.randint(1, 9)
        a, b = max(a, b), min(a, b)
        result, sign = a - b, "-"
    question = rng.choice([f"{a}{sign}{b}=____", f"计算{a}{sign}{b}的结果是____。"])
    near = [n for n in range(max(0, result - 4), result + 5) if n != result]
    wrong = [str(n) for n in rng.sample(near, 3)]
    return _item(rng, "mental_arithmetic", question, str(result), wrong, f"{a}{sign}{b}={result}")


def number_sense(rng: Rng) -> Choice:
    kind = rng.choice(["最大", "最小", "后面", "前面"])
    if kind in ("最大", "最小"):
        numbers = rng.sample(range(10), 4)
        right = max(numbers) if kind == "最大" else min(numbers)
        question, reason = f"下列数中{kind}的是____。", f"四个数中{kind}的是{right}"
        wrong = [str(n) for n in numbers if n != right]
    else:
        n = rng.randint(1, 8)
        right = n + 1 if kind == "后面" else n - 1
        question, reason = f"数数时，{n}的{kind}一个数是____。", f"{n}的{kind}一个数是{right}"
        wrong = _others(rng, [str(d) for d in range(10)], str(right))
    return _item(rng, "number_sense", question, str(right), wrong, reason)


def calendar_reckoning(rng: Rng) -> Choice:
    names, unit = (WEEKDAYS, "天") if rng.random() < 0.5 else (MONTHS, "个月")
    day, (word, step) = rng.randrange(len(names)), rng.choice([("后一", 1), ("前一", -1), ("后两", 2)])
    right = names[(day + step) % len(names)]
    question = f"{names[day]}的{word}{unit}是____。"
    reason = question.replace("____。", right)
    return _item(rng, "calendar_reckoning", question, right, _others(rng, names, right), reason)


def world_capitals(rng: Rng) -> Choice:
    country = rng.choice(list(CAPITALS))
    capital = CAPITALS[country]
    if rng.random() < 0.6:
        question = rng.choice([f"{country}的首都是____。", f"下列城市中，哪一个是{country}的首都？"])
        right, wrong = capital, _others(rng, list(CAPITALS.values()), capital)
    else:
        question = f"{capital}是哪个国家的首都？"
        right, wrong = country, _others(rng, list(CAPITALS), country)
    return _item(rng, "world_capitals", question, right, wrong, f"{country}的首都是{capital}")


def market_prices(rng: Rng) -> Choice:
    goods, prices = rng.sample(GOODS, 4), rng.sample(range(1, 10), 4)
    story = "，".join(f"{good}{price}元" for good, price in zip(goods, prices)) + "。"
    pick, kind = rng.randrange(4), rng.choice(["price", "good", "dearest"])
    if kind == "dearest":
        word, extreme = rng.choice([("最贵", max), ("最便宜", min)])
        pick = prices.index(extreme(prices))
        question, words = f"{story}{word}的是____。", goods
    elif kind == "price":
        question, words = f"{story}{goods[pick]}的价格是____。", [f"{price}元" for price in prices]
    else:
        question, words = f"{story}价格是{prices[pick]}元的是____。", goods
    return _from_story(rng, "market_prices", question, words, pick, f"{goods[pick]}的价格是{prices[pick]}元")


def _from_story(rng: Rng, subject: str, question: str, words: list[str], pick: int, reason: str) -> Choice:
    """All four options stand in the text; only the look-up tells them apart."""
    wrong = [word for place, word in enumerate(words) if place != pick]
    rng.shuffle(wrong)
    return _item(rng, subject, question, words[pick], wrong, reason)


def short_reading(rng: Rng) -> Choice:
    names = rng.sample(NAMES, 4)
    things, verb, what = rng.choice([(GOODS, "有", "什么"), (PLACES, "在", "哪里")])
    held, pick = rng.sample(things, 4), rng.randrange(4)
    story = "，".join(f"{name}{verb}{thing}" for name, thing in zip(names, held)) + "。"
    reason = f"{names[pick]}{verb}{held[pick]}"
    if rng.random() < 0.6:
        return _from_story(rng, "short_reading", f"{story}{names[pick]}{verb}{what}？", held, pick, reason)
    return _from_story(rng, "short_reading", f"{story}谁{verb}{held[pick]}？", names, pick, reason)


def antonym_pairs(rng: Rng) -> Choice:
    word = rng.choice(list(ANTONYMS))
    right = ANTONYMS[word]
    question = rng.choice([f"“{word}”的反义词是____。", f"与“{word}”意思相反的词是____。"])
    pool = [other for other in ANTONYMS if len(other) == len(word)]
    return _item(rng, "antonym_pairs", question, right, _others(rng, pool, word, right), f"“{word}”的反义词是“{right}”")


def kinds_of_things(rng: Rng) -> Choice:
    kind = rng.choice(list(KINDS))
    word = rng.choice(KINDS[kind])
    others = _others(rng, list(KINDS), kind)
    if rng.random() < 0.6:
        question = rng.choice([f"下列属于{kind}的是____。", f"下面哪一个是{kind}？"])
        right, wrong = word, [rng.choice(KINDS[other]) for other in others]
    else:
        question, right, wrong = f"{word}属于____。", kind, others
    return _item(rng, "kinds_of_things", question, right, wrong, f"{word}属于{kind}")


def odd_one_out(rng: Rng) -> Choice:
    kind, other = rng.sample(list(KINDS), 2)
    right, wrong = rng.choice(KINDS[other]), rng.sample(KINDS[kind], 3)
    question = rng.choice([f"下列不属于{kind}的是____。", "下列与其他三项不同类的是____。"])
    return _item(rng, "odd_one_out", question, right, wrong, f"{right}属于{other}，其他三项属于{kind}")


def daily_routine(rng: Rng) -> Choice:
    names = rng.sample(NAMES, 4)
    story = "，".join(f"{word}是{name}" for word, name in zip(["先到的", "第二", "第三", "最后"], names))
    pick = rng.randrange(4)
    asked = ["第一个到的", "第二个到的", "第三个到的", "最后到的"][pick]
    question = f"{story}。{asked}是谁？"
    return _from_story(rng, "daily_routine", question, names, pick, f"{asked}是{names[pick]}")


SUBJECTS: dict[str, tuple[str, str, str, Callable[[Rng], Choice]]] = {
    "mental_arithmetic": ("Mental Arithmetic", "口算", "STEM", mental_arithmetic),
    "number_sense": ("Number Sense", "数感", "STEM", number_sense),
    "calendar_reckoning": ("Calendar Reckoning", "日历推算", "STEM", calendar_reckoning),
    "world_capitals": ("World Capitals", "各国首都", "Social Science", world_capitals),
    "market_prices": ("Market Prices", "集市物价", "Social Science", market_prices),
    "short_reading": ("Short Reading", "短文阅读", "Humanities", short_reading),
    "antonym_pairs": ("Antonym Pairs", "反义词", "Humanities", antonym_pairs),
    "daily_routine": ("Daily Routine", "日常起居", "Other", daily_routine),
    "kinds_of_things": ("Kinds of Things", "事物分类", "Other", kinds_of_things),
    "odd_one_out": ("Odd One Out", "找不同类", "Other", odd_one_out),
}


def draw_choice(rng: Rng, subject: str, held_out: bool) -> Choice:
    """Draw until an item of the wanted side of the split turns up."""
    while True:
        item = SUBJECTS[subject][3](rng)
        if item.held_out() == held_out:
            return item


# ---------------------------------------------------------------------------------------------------------------
# English: word lists

EN_KINDS: dict[str, list[str]] = {
    "fruits": "apples pears plums figs grapes lemons".split(),
    "animals": "tigers lions goats rabbits camels foxes".split(),
    "tools": "hammers saws drills pliers chisels shovels".split(),
    "clothes": "hats gloves scarves socks shirts coats".split(),
    "instruments": "drums flutes violins guitars pianos trumpets".split(),
}
COLOURS = "red blue green black white yellow brown pink".split()
THINGS = "coin key book lamp ring cup map pen bell rope".split()
PEOPLE = "cook driver baker farmer teacher doctor painter sailor".split()
ROOMS = "garden kitchen library market station hall cellar tower".split()
DOORS = "door window gate shop cafe museum bank school".split()
BUILDINGS = "tower bridge wall tree statue pillar".split()

Ask = Callable[[Rng, bool], str]
Draw = Callable[[Rng, bool], tuple[str, str]]
Passage = tuple[str, str, Ask]  # title, passage, and a function that asks a question with the wanted answer

# ---------------------------------------------------------------------------------------------------------------
# English: one generator a kind of passage


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def membership(rng: Rng) -> Passage:
    everything = [word for words in EN_KINDS.values() for word in words]
    inside, place = rng.sample(everything, rng.randint(3, 5)), rng.choice(["basket", "cart", "store", "crate"])

    def ask(rng: Rng, answer: bool) -> str:
        word = rng.choice(inside) if answer else rng.choice([w for w in everything if w not in inside])
        return f"does the {place} contain {word}"

    return place.capitalize(), f"The {place} contains {_listed(inside)}.", ask


def exception(rng: Rng) -> Passage:
    person = rng.choice(PEOPLE)
    goods = rng.sample([word for words in EN_KINDS.values() for word in words], 4)
    yes, no = goods[:2], goods[2:]

    def ask(rng: Rng, answer: bool) -> str:
        return f"did the {person} sell {rng.choice(yes if answer else no)}"

    sold = f"did sell {yes[0]} and did sell {yes[1]}"
    unsold = f"did not sell {no[0]} and did not sell {no[1]}"
    return person.capitalize(), f"The {person} {sold}, but {unsold}.", ask


def _pairs(rng: Rng, left: list[str], right: list[str]) -> tuple[list[tuple[str, str]], Draw]:
    """Pair up a few words of both lists; a false pair takes its second word from another pair."""
    size = rng.randint(2, 4)
    pairs = list(zip(rng.sample(left, size), rng.sample(right, size)))

    def draw(rng: Rng, answer: bool) -> tuple[str, str]:
        key, value = rng.choice(pairs)
        return key, value if answer else rng.choice([v for _, v in pairs if v != value])

    return pairs, draw


def boxes(rng: Rng) -> Passage:
    pairs, draw = _pairs(rng, COLOURS, THINGS)

    def ask(rng: Rng, answer: bool) -> str:
        return "does the box hold a {} {}".format(*draw(rng, answer))

    return "Box", f"The box holds {_listed([f'a {colour} {thing}' for colour, thing in pairs])}.", ask


def whereabouts(rng: Rng) -> Passage:
    pairs, draw = _pairs(rng, ROOMS, PEOPLE)

    def ask(rng: Rng, answer: bool) -> str:
        return "does the {} have the {}".format(*draw(rng, answer))

    return "Whereabouts", " ".join(f"The {room} has the {person}." for room, person in pairs), ask


def opening_hours(rng: Rng) -> Passage:
    states = {door: rng.choice(["open", "closed"]) for door in rng.sample(DOORS, 3)}

    def ask(rng: Rng, answer: bool) -> str:
        door, state = rng.choice(list(states.items()))
        return f"is the {door} {state if answer else 'closed' if state == 'open' else 'open'}"

    return "Opening hours", " ".join(f"The {door} is {state}." for door, state in states.items()), ask


def kind_facts(rng: Rng) -> Passage:
    kind = rng.choice(list(EN_KINDS))
    word, person, room = rng.choice(EN_KINDS[kind]), rng.choice(PEOPLE), rng.choice(ROOMS)

    def ask(rng: Rng, answer: bool) -> str:
        return f"are {word} {kind if answer else rng.choice([k for k in EN_KINDS if k != kind])}"

    return word.capitalize(), f"The {person} saw {word} in the {room}.", ask


def heights(rng: Rng) -> Passage:
    one, two = rng.sample(BUILDINGS, 2)
    low, high = sorted(rng.sample(range(2, 10), 2))
    tall = dict([(one, high), (two, low)])

    def ask(rng: Rng, answer: bool) -> str:
        word = rng.choice(["higher", "lower"])
        left, right = (one, two) if (word == "higher") == answer else (two, one)
        return f"is the {left} {word} than the {right}"

    order = rng.sample([one, two], 2)
    return "Heights", " ".join(f"The {name} is {tall[name]} metres high." for name in order), ask


def arrivals(rng: Rng) -> Passage:
    people = rng.sample(PEOPLE, 3)

    def ask(rng: Rng, answer: bool) -> str:
        early, late = sorted(rng.sample(range(3), 2))
        word = rng.choice(["before", "after"])
        left, right = (early, late) if (word == "before") == answer else (late, early)
        return f"did the {people[left]} come {word} the {people[right]}"

    return "Arrivals", f"First came the {people[0]}, then the {people[1]}, and last the {people[2]}.", ask


PASSAGES: dict[str, Callable[[Rng], Passage]] = {
    "membership": membership,
    "exception": exception,
    "boxes": boxes,
    "whereabouts": whereabouts,
    "opening_hours": opening_hours,
    "kind_facts": kind_facts,
    "heights": heights,
    "arrivals": arrivals,
}


def draw_yes_no(rng: Rng, kind: str, count: int, held_out: bool) -> list[YesNo]:
    """`count` questions about one passage, each answer a coin toss, all of the wanted side of the split."""
    while True:
        title, passage, ask = PASSAGES[kind](rng)
        answers = [rng.random() < 0.5 for _ in range(count)]
        items = [YesNo(kind, title, passage, ask(rng, answer), answer) for answer in answers]
        if all(item.held_out() == held_out for item in items):
            return items


# ---------------------------------------------------------------------------------------------------------------
# Prompts, exactly as the protocols of the harness print them


def boolq_prompt(item: YesNo) -> str:
    return f"{item.title} -- {item.passage}\nQuestion: {item.question}?\nAnswer:"


def chat_prompt(query: str) -> str:
    return f"[Round 1]\n\n问：{query}\n\n答："


def reply(item: Choice) -> str:
    return f"{item.content}。答案是{item.letter}。"


def second_stage_prompt(item: Choice, generated: str) -> str:
    return chat_prompt(f"{item.block()}{generated}\n综上所述，ABCD中正确的选项是：")


def shot(item: Choice) -> str:
    return f"{item.block()}\nAnswer:"


def few_shot_header(subject: str) -> str:
    spaced = "".join(" " + part for part in subject.split("_"))
    return f"The following are multiple choice questions (with answers) about {spaced}.\n\n"


def zero_shot_prompt(item: Choice) -> str:
    name = SUBJECTS[item.subject][1]
    head = f"\n以下是中国关于{name}考试的单项选择题，请选出其中的正确答案。\n"
    return f"{head}{item.block()}\n让我们一步一步思考。答案: "
