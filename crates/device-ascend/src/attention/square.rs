//! How a chunk of a prompt fills the square that the prompt operator of a 310P demands.
//!
//! With a mask, that operator takes as many queries as keys. A chunk that continues a prompt has fewer. If only its rows
//! were real, a chunk of 4,096 tokens at a context of 8,192 would waste half of the work. So query heads that share keys are
//! packed: the rows of `pack` heads become rows of one head. The operator then has fewer heads, which also saves copies of
//! keys and values. The mask is no longer a triangle, so the operator's own causal limit (`nextTokens` 0) is lifted.

use std::collections::BTreeMap;

use glmbench_device::DeviceError;

use super::super::core::Core;
use super::super::memory::Buffer;
use super::super::tensor::{Element, View};

/// On a 310P, queries and keys of the prompt operator are padded to a multiple of this many tokens.
const ALIGNMENT: usize = 128;
/// Maximum bytes of kept masks. A single one, and those of one step, may be larger.
const KEPT_BYTES: usize = 64 << 20;
/// Maximum bytes of one mask.
const MASK_BYTES: usize = 1 << 30;
/// Longest context, in tokens, for which a square is used however few of its rows are real. Scores in memory are rounded to
/// fp16, and the operator's are not.
pub(in super::super) const SHORT_CONTEXT: usize = 4096;
/// Beyond that context, the largest ratio of rows in the square to real rows. At more, writing scores to memory and reading
/// them back costs less.
const MAX_WASTE: usize = 4;

/// The arrangement of the rows of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Square {
    /// Tokens of queries and of keys, padded.
    pub(super) side: usize,
    /// Query heads in one head of the operator. Row `i` of the chunk is rows `i * pack` to `(i + 1) * pack` of the square.
    pub(super) pack: usize,
    /// Tokens before the chunk; 0 if heads are not packed, because then the chunk is the square's last rows.
    before: usize,
}

impl Square {
    /// Arranges `rows` rows at the end of a context of `context` tokens, with `group` query heads for each KV head.
    /// Returns `None` if products with scores in memory cost less.
    pub(super) fn of(rows: usize, context: usize, group: usize, packed: bool) -> Option<Self> {
        let side = context.next_multiple_of(ALIGNMENT);
        let divisors = (1..=group).filter(|pack| group.is_multiple_of(*pack));
        let pack = divisors.filter(|pack| packed && pack * rows <= context).max().unwrap_or(1);
        let whole = context == rows;
        let wasteful = context > SHORT_CONTEXT && (!packed || context > MAX_WASTE * pack * rows);
        if side * side > MASK_BYTES || (wasteful && !whole) {
            return None;
        }
        let before = if pack == 1 { 0 } else { context - rows };
        Some(Self { side, pack, before })
    }

    /// Whether the mask is the triangle above the diagonal.
    pub(super) fn is_causal(self) -> bool {
        self.pack == 1
    }

    /// Returns the row of the square at which a chunk of `rows` rows begins.
    pub(super) fn first_row(self, rows: usize, context: usize) -> usize {
        if self.is_causal() { context - rows } else { 0 }
    }

    /// Returns the mask `[side, side]`: 1 at the keys that a row does not see.
    fn mask(self) -> Vec<u8> {
        let mut mask = vec![0; self.side * self.side];
        for (row, keys) in mask.chunks_exact_mut(self.side).enumerate() {
            let visible = self.before + row / self.pack + 1;
            keys[visible.min(self.side)..].fill(1);
        }
        mask
    }
}

/// The masks on the device. A step needs the same ones in every layer.
#[derive(Default)]
pub(super) struct Squares {
    kept: BTreeMap<Square, (Buffer, u64)>,
    /// Number of the current call.
    call: u64,
}

impl Squares {
    /// Begins a call. Masks that the call before used stay until memory is needed.
    pub(super) fn begin(&mut self) {
        self.call += 1;
    }

    /// Returns the mask of a square.
    pub(super) fn mask(&mut self, core: &Core, square: Square) -> Result<View, DeviceError> {
        let side = square.side;
        if !self.kept.contains_key(&square) {
            let held: usize = self.kept.values().map(|(mask, _)| mask.len()).sum();
            if held + side * side > KEPT_BYTES && held > 0 {
                // Queued work may still use the masks. Those of this call are needed again in the next layer.
                core.stream.synchronize()?;
                self.kept.retain(|_, (_, used)| *used == self.call);
            }
            let mask = core.slab.put(&square.mask(), "a mask of attention")?;
            self.kept.insert(square, (mask, self.call));
        }
        let (mask, used) = self.kept.get_mut(&square).expect("invariant: just made");
        *used = self.call;
        Ok(View::new(mask.at(0), Element::Bool, &[side, side]))
    }
}

/// Returns the bytes of masks for prompts of up to `context` tokens, in chunks of up to `rows`.
pub(in super::super) fn memory_bytes(rows: usize, context: usize) -> u64 {
    let square = |tokens: usize| {
        let side = tokens.next_multiple_of(ALIGNMENT) as u64;
        Some(side.saturating_mul(side)).filter(|bytes| *bytes <= MASK_BYTES as u64)
    };
    let largest = square(context).unwrap_or(MASK_BYTES as u64);
    // A step may end one prompt and begin another.
    let step = if rows < context { largest + square(rows).unwrap_or(0) } else { largest };
    // One mask of each length, as far as they are kept.
    let sides = context.div_ceil(ALIGNMENT).min(KEPT_BYTES) as u64;
    let squares = sides.saturating_mul(sides + 1).saturating_mul(2 * sides + 1) / 6;
    let all = squares.saturating_mul((ALIGNMENT * ALIGNMENT) as u64);
    step.max(all.min(KEPT_BYTES as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: usize, context: usize) -> Option<Square> {
        Square::of(rows, context, 16, true)
    }

    #[test]
    fn heads_are_packed_until_the_square_is_full() {
        let packs = [(8192, 8192), (4096, 8192), (4096, 12288), (4096, 16384), (1000, 16000), (512, 8192)];
        let found = packs.map(|(rows, context)| of(rows, context).unwrap().pack);
        assert_eq!(found, [1, 2, 2, 4, 16, 16]);
        assert_eq!(of(4096, 8192), Some(Square { side: 8192, pack: 2, before: 4096 }));
        // Few rows at the end of a long context, and masks of more than 1 GiB.
        assert_eq!([of(100, 8192), of(32_769, 32_769)], [None, None]);
        assert!(of(2, 4096).is_some() && of(32_768, 32_768).is_some());
        // Unpacked, a later chunk of a long context goes by matmul, as few rows do.
        assert_eq!(Square::of(4096, 8192, 16, false), None);
        assert_eq!(Square::of(100, 300, 16, false), Some(Square { side: 384, pack: 1, before: 0 }));
    }

    /// Whatever the arrangement, a chunk's row sees the tokens before the chunk and those up to its own.
    #[test]
    fn masks_show_each_row_its_own_past() {
        for (rows, context) in [(5, 25), (30, 130), (128, 128), (100, 128), (7, 256), (200, 384)] {
            let square = of(rows, context).unwrap();
            let (mask, first) = (square.mask(), square.first_row(rows, context));
            assert!(square.pack * rows <= context, "all real rows are among those that are computed");
            for row in 0..rows * square.pack {
                let keys = &mask[(first + row) * square.side..][..context];
                let seen = context - rows + row / square.pack + 1;
                assert!(keys.iter().enumerate().all(|(key, hidden)| (*hidden == 1) == (key >= seen)));
            }
        }
    }

    #[test]
    fn masks_are_counted_as_they_are_kept() {
        assert_eq!(memory_bytes(4096, 8192), (64 << 20) + (16 << 20));
        assert_eq!(memory_bytes(8192, 8192), 64 << 20);
        assert_eq!(memory_bytes(512, 256), 128 * 128 * 5);
        assert!(memory_bytes(4096, usize::MAX / 2) < 2 << 30);
    }
}
