#!/usr/bin/env python3
"""Write the two sample data sets, datasets/ceval-sample and datasets/boolq-sample, in the official layouts.

    python scripts/make_samples.py [--out datasets]

Python standard library only. The output is a function of SEED and demo_world.py alone; every item is on the
held-out side of the split, so the demo model has never been trained on it.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "datasets")
    out = parser.parse_args().out
    write_ceval(out / "ceval-sample")
    write_boolq(out / "boolq-sample")


if __name__ == "__main__":
    main()
