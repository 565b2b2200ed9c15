#!/usr/bin/env python3
"""Packs a weight in the CPU's layouts a second time, and prints the hash of all bytes. Needs NumPy.

The hash is the one in the tests of `crates/device-cpu/src/packs.rs`. The layouts are those of `crates/device-cpu/src/pack`.
"""
import numpy as np

ROWS, WIDTH, PANEL = 35, 300, 16
PANELS = -(-ROWS // PANEL)


def weight():
    i = np.arange(ROWS * WIDTH)
    return (np.float32(i * 37 % 101) / np.float32(50) - np.float32(1)).reshape(ROWS, WIDTH)


def stored(x, dtype):
    """Returns the bits of the numbers in a type."""
    if dtype == "fp16":
        return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32)
    if dtype == "fp32":
        return bits
    return ((bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def padded(row, multiple):
    return np.concatenate([row, np.zeros(-len(row) % multiple, row.dtype)])


def dense(x, dtype, together, multiple):
    """`[in / together][16][together]`, with `in` padded to a multiple."""
    bits = stored(x, dtype)
    depth = len(padded(bits[0], multiple))
    out = np.zeros((PANELS, depth // together, PANEL, together), bits.dtype)
    for i, row in enumerate(bits):
        out[i // PANEL, :, i % PANEL] = padded(row, multiple).reshape(-1, together)
    return out.tobytes()


def quantised(x, largest):
    scale = np.abs(x).max() / np.float32(largest)
    return np.rint(x / scale).astype(np.int8), scale


def int8(x, input_scale=None):
    """`[in / 4][16][4]` with `in` padded to a multiple of 64, panels an odd number of KiB apart; then scales, then biases."""
    tiles = -(-WIDTH // 64)
    out = np.zeros((PANELS, (tiles | 1) * 1024), np.int8)
    scales = np.zeros(PANELS * PANEL, np.float32)
    for i, row in enumerate(x):
        integers, scale = quantised(row, 127)
        panel = out[i // PANEL, : tiles * 1024].reshape(-1, PANEL, 4)
        panel[:, i % PANEL] = padded(integers, 64).reshape(-1, 4)
        scales[i] = scale if input_scale is None else input_scale * scale
    biases = b"" if input_scale is None else bytes(4 * len(scales))
    return out.tobytes() + scales.tobytes() + biases


def as_bytes(line, column, integers):
    line.reshape(8, PANEL)[:, column] = integers.view(np.uint8)


def as_lanes(line, column, integers):
    lane = sum(int(q & 15) << 4 * j for j, q in enumerate(integers))
    line[4 * column :][:4] = np.frombuffer(lane.to_bytes(4, "little"), np.uint8)


def as_halves(line, column, integers):
    above = (integers + 8).astype(np.uint8)
    line[4 * column :][:4] = above[:4] | above[4:] << 4


def grouped(x, group, largest, line_bytes, put):
    """Lines of 8 inputs, then 16 scales, group after group; panels of an odd number of 64 bytes."""
    groups = [range(at, min(WIDTH, at + group)) for at in range(0, WIDTH, group)]
    size = sum(-(-len(inputs) // 8) * line_bytes + 4 * PANEL for inputs in groups)
    out = np.zeros((PANELS, (size // 64 | 1) * 64), np.uint8)
    for i, row in enumerate(x):
        rest, column = out[i // PANEL], i % PANEL
        for inputs in groups:
            integers, scale = quantised(row[inputs], largest)
            for line in padded(integers, 8).reshape(-1, 8):
                put(rest[:line_bytes], column, line)
                rest = rest[line_bytes:]
            rest[4 * column :][:4] = np.frombuffer(scale.tobytes(), np.uint8)
            rest = rest[4 * PANEL :]
    return out.tobytes()


def main():
    x = weight()
    hash_ = 0xCBF29CE484222325
    tiles, rows = (2, 32), (1, 1)
    parts = [(dtype, dense(x, dtype, *order)) for dtype in ("fp16", "bf16") for order in (rows, tiles)]
    parts += 2 * [("fp32", dense(x, "fp32", *rows))]
    quantised_parts = [
        int8(x),
        int8(x, np.float32(8 / 127)),
        grouped(x, WIDTH, 127, 128, as_bytes),
        grouped(x, 128, 7, 64, as_lanes),
        grouped(x, 128, 7, 64, as_halves),
    ]
    parts += [("fp16", part) for part in quantised_parts for _ in range(2)]
    for dtype, part in parts:
        for byte in stored(x, dtype).tobytes() + part:
            hash_ = (hash_ ^ byte) * 0x100000001B3 % 2**64
    print(hash_)


main()
