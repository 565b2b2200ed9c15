#!/usr/bin/env python3
"""Writes the Parquet files that the tests read, and what Python says of their rows.

usage: scripts/parquet_fixtures.py [OUT]       (needs pyarrow; OUT is tests/fixtures/parquet by default)
"""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    {"question": "哪个城市？ \"quoted\"\n", "choices": ["北京", "b", ""], "answer": 1, "score": 0.5, "right": True, "meta": {"id": "a", "n": 1}, "label": 2, "tags": []},
    {"question": "two", "choices": [], "answer": -9007199254740993, "score": -1e-3, "right": False, "meta": {"id": "b", "n": None}, "label": 0, "tags": ["x"]},
    {"question": None, "choices": None, "answer": None, "score": None, "right": None, "meta": None, "label": None, "tags": None},
    {"question": "é", "choices": ["one", None], "answer": 3, "score": 2.0, "right": True, "meta": {"id": None, "n": 4}, "label": 255, "tags": ["x", "y"]},
    {"question": "", "choices": ["z"] * 5, "answer": 4, "score": 1e300, "right": False, "meta": {"id": "e", "n": 5}, "label": 1, "tags": ["z"]},
]
SCHEMA = pa.schema([
    ("question", pa.string()), ("choices", pa.list_(pa.string())), ("answer", pa.int64()), ("score", pa.float64()), ("right", pa.bool_()),
    ("meta", pa.struct([("id", pa.string()), ("n", pa.int32())])), ("label", pa.uint8()), ("tags", pa.list_(pa.large_string())),
])


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/parquet")

    def write(name, rows, **options):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, **options)

    def expect(name, rows):
        path = out / "expected" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    # The layout of uploads, in two shards; that of converted sets; a single file.
    write("set/data/test-00000-of-00002.parquet", ROWS[:3], compression="snappy")
    write("set/data/test-00001-of-00002.parquet", ROWS[3:], compression="gzip", row_group_size=1)
    expect("data/test.jsonl", ROWS)
    write("set/default/validation/0000.parquet", ROWS[:2], compression="lz4", version="1.0", use_dictionary=False)
    write("set/default/validation/0001.parquet", ROWS[3:], compression="none", data_page_version="2.0")
    expect("default/validation.jsonl", ROWS[:2] + ROWS[3:])
    write("set/train.parquet", ROWS[:3])
    expect("train.jsonl", ROWS[:3])
    write("zstd.parquet", ROWS[:1], compression="zstd")


main()
