"""Reads the tensors of a ChatGLM2 checkpoint (safetensors) with NumPy alone, one at a time."""

import json
import os
import struct

import numpy as np


class Checkpoint:
    """`config` is config.json; `words(name)` are the 16-bit words of a tensor, mapped from its file."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        self.places = {}
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".safetensors"):
                continue
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(length))
            for key, entry in header.items():
                if key != "__metadata__":
                    self.places[key] = (path, 8 + length + entry["data_offsets"][0], entry)

    def words(self, name):
        path, offset, entry = self.places["transformer." + name]
        if entry["dtype"] != "BF16":
            raise SystemExit(f"{path}: {name} is {entry['dtype']}, BF16 was expected")
        return np.memmap(path, np.uint16, "r", offset, tuple(entry["shape"]))

    def floats(self, name):
        return widen(self.words(name))


def widen(words):
    """fp32 of bf16 words."""
    return (words.astype(np.uint32) << 16).view(np.float32)


def int8_rows(words):
    """Symmetric int8 of a weight with one fp32 scale for each row, in pieces that stay in the cache."""
    rows, scales = np.empty(words.shape, np.int8), np.empty(words.shape[0], np.float32)
    for at in range(0, len(words), 64):
        piece = widen(words[at : at + 64])
        scale = np.maximum(np.abs(piece).max(1), 1e-8) / 127
        rows[at : at + 64] = np.rint(piece / scale[:, None])
        scales[at : at + 64] = scale
    return rows, scales
