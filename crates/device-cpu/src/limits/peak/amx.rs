//! The peak of the tile units: a block of 32 by 32 sums, with operands in the first-level cache.

use std::arch::asm;

use crate::pack::{TILE_BYTES, TILE_ROWS};
use crate::simd::amx::Amx;

/// Pairs of tiles per operand: 8 KiB each, which fit the first-level cache.
const DEPTH: usize = 4;

/// The operands of the loop, tile after tile.
#[repr(C, align(64))]
struct Block {
    a: [u8; 2 * DEPTH * TILE_BYTES],
    b: [u8; 2 * DEPTH * TILE_BYTES],
}

impl Block {
    /// Repeats four bytes: two bf16 numbers near ±0.008, or integers of both signs.
    const fn of(bytes: [u8; 4]) -> Self {
        let mut numbers = [0; 2 * DEPTH * TILE_BYTES];
        let mut i = 0;
        while i < numbers.len() {
            numbers[i] = bytes[i % 4];
            i += 1;
        }
        Self { a: numbers, b: numbers }
    }
}

/// Runs `passes` passes over the block with one product instruction. Configures the tiles before and releases them
/// after, so that the compiler never sees them in use.
macro_rules! pass {
    ($amx:expr, $block:expr, $passes:expr, $product:literal) => {
        $amx.configure(TILE_ROWS);
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "mov {at}, {last}",
            "3:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {stride}]",
            concat!($product, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{b} + {stride} + 1024]",
            concat!($product, " tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{a} + {stride} + 1024]",
            concat!($product, " tmm2, tmm5, tmm6"),
            concat!($product, " tmm3, tmm5, tmm7"),
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {at}",
            "jnz 3b",
            "sub {a}, {bytes}",
            "sub {b}, {bytes}",
            "dec {passes}",
            "jnz 2b",
            a = inout(reg) $block.a.as_ptr() => _,
            b = inout(reg) $block.b.as_ptr() => _,
            stride = in(reg) 64usize,
            last = in(reg) DEPTH,
            at = out(reg) _,
            bytes = in(reg) 2 * DEPTH * TILE_BYTES,
            passes = inout(reg) $passes => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(readonly, nostack)
        );
        $amx.release();
    };
}

/// Runs `passes` passes of bf16 products and returns the number of operations.
///
/// # Panics
/// If the machine does not have them.
pub(super) fn bf16(amx: Amx, passes: usize) -> u64 {
    assert!(amx.has_bf16(), "invariant: the machine has the products");
    static BLOCK: Block = Block::of([0x01, 0x3C, 0x02, 0xBC]);
    // SAFETY: AMX was found, so its instructions and tiles may be used. The loop reads only inside the block, writes no
    // memory, and leaves no tile in use. At least one pass runs, or the counter would wrap.
    unsafe {
        pass!(amx, BLOCK, passes.max(1), "tdpbf16ps");
    }
    (passes * DEPTH * 4 * 2 * 16 * 16 * 32) as u64
}

/// Runs `passes` passes of int8 products and returns the number of operations.
///
/// # Panics
/// If the machine does not have them.
pub(super) fn int8(amx: Amx, passes: usize) -> u64 {
    assert!(amx.has_int8(), "invariant: the machine has the products");
    static BLOCK: Block = Block::of([5, 17, 251, 239]);
    // SAFETY: as in `bf16`.
    unsafe {
        pass!(amx, BLOCK, passes.max(1), "tdpbssd");
    }
    (passes * DEPTH * 4 * 2 * 16 * 16 * 64) as u64
}
