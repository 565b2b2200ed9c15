//! The order of the numbers of a panel.

use super::{PAIR, PANEL, QUAD, TILE_DEPTH, TILE_K};

/// The layout of a panel: `[in][16]` for the vector kernels, or tiled. Tiles are `[in / 2][16][2]`, or `[in /
/// 4][16][4]` for integer products, with `in` padded by zeros to whole tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// Inputs stored side by side.
    together: usize,
    /// Input width including the padding.
    depth: usize,
}

impl Order {
    /// Returns the layout for `k` inputs that vectors multiply.
    pub(crate) fn rows(k: usize) -> Self {
        Self { together: 1, depth: k }
    }

    /// Returns the layout for `k` inputs that tiles multiply as 16-bit numbers.
    pub(crate) fn tiles(k: usize) -> Self {
        Self { together: PAIR, depth: k.next_multiple_of(TILE_DEPTH) }
    }

    /// Returns the layout for `k` inputs that tiles multiply as integers.
    pub(crate) fn integers(k: usize) -> Self {
        Self { together: QUAD, depth: k.next_multiple_of(TILE_K) }
    }

    /// Returns the number of inputs stored side by side.
    pub(super) fn together(self) -> usize {
        self.together
    }

    /// Returns the input width including the padding.
    pub(super) fn depth(self) -> usize {
        self.depth
    }

    /// Returns the numbers per panel.
    pub(crate) fn numbers(self) -> usize {
        self.depth * PANEL
    }

    /// Returns the index of input `j` of column `i`.
    #[inline]
    pub(crate) fn at(self, j: usize, i: usize) -> usize {
        match self.together {
            1 => j * PANEL + i,
            PAIR => (j / PAIR * PANEL + i) * PAIR + j % PAIR,
            _ => (j / QUAD * PANEL + i) * QUAD + j % QUAD,
        }
    }
}
