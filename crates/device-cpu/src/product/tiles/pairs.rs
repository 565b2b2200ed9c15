//! The tile products in the order of AVX-512 BF16, on `VDPBF16PS`.
//!
//! The instruction adds the products of sixteen pairs to sixteen sums, each by a fused multiply-add. It first adds the
//! products of the odd numbers, then those of the even ones. Subnormal numbers count as zero on input and output, and
//! rounding is to nearest even, whatever the control register says. The source is the Intel 64 and IA-32 Architectures
//! Software Developer's Manual, volume 2, VDPBF16PS. A sum is one chain over ascending pairs, so its bits depend on
//! neither rows, panels nor blocks.
//!
//! A line of a tile of a panel is one register: a pair of each column. The sums stay in registers over the tiles of a
//! product. They are those of up to eight rows by two panels, or of up to six by four.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};
use std::mem::transmute;

use crate::buffer::{LINE_BYTES, prefetch_line};
use crate::pack::{PANEL, TILE_BYTES, TILE_ROWS};
use crate::simd::Avx512Bf16;

use super::{NARROW, Shape, TileProduct, WIDE};

/// Prefetch distance of panels that come from memory, in bytes.
const AHEAD_BYTES: usize = 2048;
/// Tiles of two panels that stay in the first-level cache for another group of rows: 16 KiB.
const BLOCK_TILES: usize = 8;
/// Bytes of a panel in such a block.
const BLOCK_BYTES: usize = BLOCK_TILES * TILE_BYTES;
/// Rows that are multiplied at a time with two panels.
const HIGH: usize = 8;
/// Rows up to which a product with all four panels keeps its sums in registers.
const LOW: usize = 6;

/// What is prefetched while panels are multiplied.
mod fetch {
    /// Nothing: the panels are in cache.
    pub(super) const NOTHING: u8 = 0;
    /// Every line, [`AHEAD_BYTES`](super::AHEAD_BYTES) ahead.
    pub(super) const NEAR: u8 = 1;
    /// The even lines of the next block of tiles.
    pub(super) const EVEN: u8 = 2;
    /// Its odd lines.
    pub(super) const ODD: u8 = 3;
}

/// Returns the product.
pub(super) fn product(_: Avx512Bf16) -> unsafe fn(&TileProduct) {
    multiply
}

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply); AVX-512 BF16 must be present.
unsafe fn multiply(t: &TileProduct) {
    let part = Part { a: t.a[0], b: t.b, tiles: t.tiles, fresh: t.fresh, c: t.c };
    // SAFETY: the shape's blocks, panels and sums are valid.
    unsafe {
        match t.shape {
            Shape::Narrow { rows } if rows <= LOW => part.rows::<NARROW, NARROW, { fetch::NEAR }>(rows),
            Shape::Narrow { rows } if rows <= HIGH => {
                part.rows::<2, NARROW, { fetch::NEAR }>(rows);
                part.panels(2).rows::<2, NARROW, { fetch::NEAR }>(rows);
            }
            Shape::Narrow { rows } => {
                let half = rows / 2;
                for panels in [part, part.panels(2)] {
                    // Each group of rows fetches half of the next block, so that memory is busy all the time.
                    for first in (0..t.tiles).step_by(BLOCK_TILES) {
                        let block = panels.block(first..t.tiles.min(first + BLOCK_TILES));
                        block.rows::<2, NARROW, { fetch::EVEN }>(half);
                        block.below::<NARROW>(half).rows::<2, NARROW, { fetch::ODD }>(rows - half);
                    }
                }
            }
            Shape::Wide => {
                for (block, a) in t.a.into_iter().enumerate() {
                    let part = Part { a, c: t.c.add(block * TILE_ROWS * WIDE * PANEL), ..part };
                    part.rows::<2, WIDE, { fetch::NOTHING }>(HIGH);
                    part.below::<WIDE>(HIGH).rows::<2, WIDE, { fetch::NOTHING }>(HIGH);
                }
            }
        }
    }
}

/// A part of a product: some rows of a block, some panels, some tiles of depth.
#[derive(Clone, Copy)]
struct Part {
    /// The first row in its first tile.
    a: *const u8,
    /// The panels, the part's first.
    b: [*const u8; NARROW],
    tiles: usize,
    fresh: bool,
    /// The sums of the first row.
    c: *mut f32,
}

impl Part {
    /// Returns the part from panel `first` on.
    ///
    /// # Safety
    /// The product must have the panel.
    unsafe fn panels(mut self, first: usize) -> Self {
        self.b.rotate_left(first);
        // SAFETY: the caller's promise.
        Self { c: unsafe { self.c.add(first * PANEL) }, ..self }
    }

    /// Returns the part below `rows` rows, of a product with sums `WIDTH` panels wide.
    ///
    /// # Safety
    /// The product must have the rows.
    unsafe fn below<const WIDTH: usize>(self, rows: usize) -> Self {
        // SAFETY: the caller's promise. A row of a tile is a line.
        unsafe { Self { a: self.a.add(rows * LINE_BYTES), c: self.c.add(rows * WIDTH * PANEL), ..self } }
    }

    /// Returns the part of some tiles of depth.
    ///
    /// # Safety
    /// The part must have the tiles.
    unsafe fn block(self, tiles: std::ops::Range<usize>) -> Self {
        let bytes = tiles.start * TILE_BYTES;
        let (b, fresh) = (self.b.map(|b| b.wrapping_add(bytes)), self.fresh && tiles.start == 0);
        // SAFETY: the caller's promise.
        Self { a: unsafe { self.a.add(bytes) }, b, tiles: tiles.len(), fresh, c: self.c }
    }

    /// Multiplies the first `rows` rows, up to eight, by the first `P` panels. The sums are `WIDTH` panels wide.
    /// `FETCH` says what is prefetched.
    ///
    /// # Safety
    /// As [`multiply`]. The product must have the rows and panels.
    unsafe fn rows<const P: usize, const WIDTH: usize, const FETCH: u8>(&self, rows: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => self.tile::<1, P, WIDTH, FETCH>(),
                2 => self.tile::<2, P, WIDTH, FETCH>(),
                3 => self.tile::<3, P, WIDTH, FETCH>(),
                4 => self.tile::<4, P, WIDTH, FETCH>(),
                5 => self.tile::<5, P, WIDTH, FETCH>(),
                6 => self.tile::<6, P, WIDTH, FETCH>(),
                7 => self.tile::<7, P, WIDTH, FETCH>(),
                _ => self.tile::<8, P, WIDTH, FETCH>(),
            }
        }
    }

    /// Multiplies `M` rows by `P` panels.
    ///
    /// # Safety
    /// As [`Self::rows`].
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile<const M: usize, const P: usize, const WIDTH: usize, const FETCH: u8>(&self) {
        // SAFETY: the part has the rows, the panels, the tiles and the sums; a prefetch may name any address.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); P]; M];
            if !self.fresh {
                for m in 0..M {
                    for p in 0..P {
                        sums[m][p] = _mm512_loadu_ps(self.c.add((m * WIDTH + p) * PANEL));
                    }
                }
            }
            for tile in 0..self.tiles {
                let a = self.a.add(tile * TILE_BYTES);
                let b: [*const u8; P] = std::array::from_fn(|p| self.b[p].add(tile * TILE_BYTES));
                for pair in 0..TILE_ROWS {
                    let mut weights = [as_bf16(_mm512_setzero_si512()); P];
                    for p in 0..P {
                        let line = b[p].add(pair * LINE_BYTES);
                        match FETCH {
                            fetch::NEAR => prefetch_line(line.wrapping_add(AHEAD_BYTES)),
                            fetch::EVEN if pair % 2 == 0 => prefetch_line(line.wrapping_add(BLOCK_BYTES)),
                            fetch::ODD if pair % 2 == 1 => prefetch_line(line.wrapping_add(BLOCK_BYTES)),
                            _ => {}
                        }
                        weights[p] = as_bf16(_mm512_loadu_si512(line.cast()));
                    }
                    for m in 0..M {
                        let x = a.add(m * LINE_BYTES + pair * 4).cast::<i32>().read_unaligned();
                        let x = as_bf16(_mm512_set1_epi32(x));
                        for p in 0..P {
                            sums[m][p] = _mm512_dpbf16_ps(sums[m][p], x, weights[p]);
                        }
                    }
                }
            }
            for m in 0..M {
                for p in 0..P {
                    _mm512_storeu_ps(self.c.add((m * WIDTH + p) * PANEL), sums[m][p]);
                }
            }
        }
    }
}

/// Returns the bits of a register as bf16.
#[inline]
#[target_feature(enable = "avx512f")]
fn as_bf16(x: __m512i) -> __m512bh {
    // SAFETY: a register is bits of any type.
    unsafe { transmute(x) }
}
