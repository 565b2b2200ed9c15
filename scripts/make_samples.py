#!/usr/bin/env python3
"""Write the sample data sets in the official layouts: datasets/ceval-sample, boolq-sample, gsm8k-sample and wikitext-2-sample.

    python scripts/make_samples.py [--out datasets]

Python standard library only. The output is a function of SEED and demo_world.py alone. Every item of C-Eval and BoolQ, and every
passage of the texts, is on the held-out side of the split, so the demo model has never been trained on it. The word problems are
made here, and the demo model has never been trained on any.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
from pathlib import Path

import demo_world as world

SEED = 7
DEV_ITEMS, VAL_ITEMS, YES_NO_ITEMS = 5, 24, 28  # a subject, a subject, a kind of passage
SOLVED_ITEMS, PROBLEM_ITEMS = 2, 10  # a kind of word problem: demonstrations, and questions
ARTICLE_PASSAGES = 24  # a kind of passage
HEADER = ["id", "question", "A", "B", "C", "D", "answer"]


def draw_unique(rng: random.Random, subject: str, letter: str, taken: set[tuple[str, ...]]) -> world.Choice:
    """A held-out item with the wanted answer letter that is no reshuffle of an earlier one."""
    while True:
        item = world.draw_choice(rng, subject, held_out=True)
        key = (item.question, *sorted(item.options))
        if item.letter == letter and key not in taken:
            taken.add(key)
            return item


def balanced_letters(rng: random.Random, count: int) -> list[str]:
    letters = list(itertools.islice(itertools.cycle(world.LETTERS), count))
    rng.shuffle(letters)
    return letters


def write_csv(path: Path, items: list[world.Choice], explained: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER + (["explanation"] if explained else []))
        for number, item in enumerate(items):
            reason = [f"{item.reason}，所以答案是{item.letter}。"] if explained else []
            writer.writerow([number, item.question, *item.options, item.letter, *reason])


def write_ceval(out: Path) -> None:
    for subject in world.SUBJECTS:
        rng, taken = random.Random(f"{SEED}/{subject}"), set()
        for split, count in (("dev", DEV_ITEMS), ("val", VAL_ITEMS)):
            items = [draw_unique(rng, subject, letter, taken) for letter in balanced_letters(rng, count)]
            write_csv(out / split / f"{subject}_{split}.csv", items, explained=split == "dev")
    mapping = {subject: list(entry[:3]) for subject, entry in world.SUBJECTS.items()}
    text = json.dumps(mapping, indent="\t", ensure_ascii=False) + "\n"
    (out / "subject_mapping.json").write_text(text, encoding="utf-8")


def yes_no_items(rng: random.Random, kind: str) -> list[world.YesNo]:
    items: list[world.YesNo] = []
    while len(items) < YES_NO_ITEMS:
        (item,) = world.draw_yes_no(rng, kind, 1, held_out=True)
        if item.answer == (len(items) % 2 == 0) and item not in items:
            items.append(item)
    return items


def write_boolq(out: Path) -> None:
    rng = random.Random(f"{SEED}/boolq")
    items = [item for kind in world.PASSAGES for item in yes_no_items(rng, kind)]
    rng.shuffle(items)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "dev.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for item in items:
            record = {"question": item.question, "title": item.title, "answer": item.answer, "passage": item.passage}
            file.write(json.dumps(record) + "\n")


NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo"]


def change(rng: random.Random) -> tuple[str, str, int]:
    name, giver = rng.sample(NAMES, 2)
    thing = rng.choice(["marbles", "stamps", "shells", "buttons"])
    have, more = rng.randint(8, 40), rng.randint(5, 20)
    lost = rng.randint(2, have + more - 1)
    question = (
        f"{name} has {have} {thing}. {giver} gives {name} {more} more. Then {name} loses {lost} of them. "
        f"How many {thing} does {name} have now?"
    )
    total = have + more
    solution = f"With those of {giver}, {name} has {have} + {more} = {total} {thing}.\n"
    return question, solution + f"Then {total} - {lost} = {total - lost} are left.", total - lost


def purchase(rng: random.Random) -> tuple[str, str, int]:
    name, thing = rng.choice(NAMES), rng.choice(["pencil", "notebook", "ribbon", "ticket"])
    price, count = rng.randint(2, 12), rng.randint(3, 9)
    cost = price * count
    paid = cost + rng.randint(1, 30)
    question = (
        f"One {thing} costs {price} dollars. {name} buys {count} of them and pays with {paid} dollars. "
        "How many dollars does the shop give back?"
    )
    solution = f"The {count} cost {count} * {price} = {cost} dollars.\n"
    return question, solution + f"The shop gives back {paid} - {cost} = {paid - cost} dollars.", paid - cost


def seats(rng: random.Random) -> tuple[str, str, int]:
    rows, chairs = rng.randint(4, 15), rng.randint(5, 20)
    broken = rng.randint(1, rows)
    total = rows * chairs
    question = (
        f"A hall has {rows} rows with {chairs} chairs in each. {broken} of the chairs are broken. "
        "How many chairs can be used?"
    )
    solution = f"There are {rows} * {chairs} = {total} chairs.\n"
    return question, solution + f"Of them {total} - {broken} = {total - broken} can be used.", total - broken


def pages(rng: random.Random) -> tuple[str, str, int]:
    name, daily, days, rest = rng.choice(NAMES), rng.randint(6, 30), rng.randint(3, 9), rng.randint(5, 60)
    read = daily * days
    question = (
        f"{name} reads {daily} pages of a book every day. After {days} days, {rest} pages are still unread. "
        "How many pages does the book have?"
    )
    solution = f"{name} has read {days} * {daily} = {read} pages.\n"
    return question, solution + f"The book has {read} + {rest} = {read + rest} pages.", read + rest


PROBLEMS = {"change": change, "purchase": purchase, "seats": seats, "pages": pages}


def write_gsm8k(out: Path) -> None:
    taken: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", SOLVED_ITEMS), ("test", PROBLEM_ITEMS)):
        rng, problems = random.Random(f"{SEED}/gsm8k/{split}"), []
        for draw in PROBLEMS.values():
            own = []
            while len(own) < count:
                problem = draw(rng)
                if problem[0] not in taken:
                    taken.add(problem[0])
                    own.append(problem)
            problems += own
        rng.shuffle(problems)
        with (out / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for question, solution, answer in problems:
                file.write(json.dumps({"question": question, "answer": f"{solution}\n#### {answer}"}) + "\n")


def write_wikitext(out: Path) -> None:
    rng, lines = random.Random(f"{SEED}/wikitext"), []
    for kind in world.PASSAGES:
        drawn = [world.draw_yes_no(rng, kind, 1, held_out=True)[0] for _ in range(ARTICLE_PASSAGES)]
        lines += ["", f"= {kind.replace('_', ' ').capitalize()} =", ""]
        # Words and marks stand apart, as in the word level of WikiText-2.
        apart = [item.passage.replace(".", " .").replace(",", " ,") for item in drawn]
        lines += [" ".join(apart[first : first + 6]) for first in range(0, ARTICLE_PASSAGES, 6)]
    out.mkdir(parents=True, exist_ok=True)
    text = "".join(f" {line} \n" if line else " \n" for line in lines)
    (out / "wiki.test.tokens").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "datasets")
    out = parser.parse_args().out
    write_ceval(out / "ceval-sample")
    write_boolq(out / "boolq-sample")
    write_gsm8k(out / "gsm8k-sample")
    write_wikitext(out / "wikitext-2-sample")


if __name__ == "__main__":
    main()
