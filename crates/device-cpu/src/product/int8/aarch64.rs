//! Integer products on aarch64.
//!
//! `sdot` and `smmla` multiply signed by signed numbers, so weights need no offset. Four inputs of a column are a
//! 32-bit lane of a panel, as `sdot` wants them. `smmla` wants eight inputs of two columns in a register: [`Columns`]
//! has them.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vcombine_s8, vdupq_n_s8, vdupq_n_s32, vld1_s8, vld1q_s8, vld1q_s32,
    vreinterpretq_s8_s32, vreinterpretq_s32_s8, vreinterpretq_s32_s64, vreinterpretq_s64_s32, vst1q_s32,
    vtrn1q_s64, vtrn2q_s64, vzip1q_s32, vzip2q_s32,
};
use std::ops::Range;

use crate::buffer::LINE_BYTES;
use crate::pack::{PANEL, QUAD};
use crate::simd::neon::{prefetch_ahead, sdot, smmla};
use crate::simd::{NeonDotProd, NeonI8mm};

use super::gemm::{Checked, Product};

/// Lanes of a register of sums. A panel has four such registers.
const LANES: usize = 4;
/// Registers of a panel's sums.
const QUARTERS: usize = PANEL / LANES;
/// Inputs of a step of `sdot`: a register of a row. Each of its lanes multiplies a quad of a panel.
const STEP: usize = 16;
/// Rows of the highest `sdot` tile, with one panel: 24 sums, six registers of activations, two of weights. A step of
/// depth has 22 loads for 96 products. Two load units are therefore never the limit of two units that multiply.
const DOT_ROWS: usize = 6;
/// Pairs of rows of the highest `smmla` tile, with one panel: 24 sums, three registers of activations, and the
/// weights. Eight inputs have 14 loads and 3 permutations for 24 products.
const MOST_PAIRS: usize = 3;
/// Inputs that a product of many rows takes at a time: 16 KiB of a panel stay in L1 while the rows pass.
const BLOCK_K: usize = 1024;
/// Inputs of two columns in a register of `smmla`.
const EIGHT: usize = 8;
/// Registers of the columns of a panel, for [`EIGHT`] inputs.
pub(in crate::product) const PAIRS_OF_COLUMNS: usize = PANEL / 2;
/// Prefetch distance in a panel that is read once. At 10 GB/s for each of its streams, it covers 100 ns.
const AHEAD_BYTES: usize = 1024;

/// Multiplies one quad of `M` rows, which is lane `LANE` of `x`, with that quad of `P` panels.
///
/// # Safety
/// `sdot` must be present, and `w` must point to the first quad of a step in the first of `P` panels.
#[inline(always)]
unsafe fn quad<const LANE: usize, const M: usize, const P: usize>(
    sums: &mut [[[int32x4_t; QUARTERS]; P]; M],
    x: &[int8x16_t; M],
    (w, panel_stride): (*const i8, usize),
) {
    // SAFETY: inside the panels by the caller's promise, as is the instruction.
    unsafe {
        for p in 0..P {
            let w = w.add(p * panel_stride + LANE * QUAD * PANEL);
            for quarter in 0..QUARTERS {
                let w = vld1q_s8(w.add(quarter * LANES * QUAD));
                for m in 0..M {
                    sums[m][p][quarter] = sdot::<LANE>(sums[m][p][quarter], w, x[m]);
                }
            }
        }
    }
}

/// Prefetches a step of a panel: four cache lines.
#[inline(always)]
fn prefetch_step(w: *const i8) {
    prefetch_ahead::<AHEAD_BYTES>(w.cast());
    prefetch_ahead::<{ AHEAD_BYTES + LINE_BYTES }>(w.cast());
    prefetch_ahead::<{ AHEAD_BYTES + 2 * LINE_BYTES }>(w.cast());
    prefetch_ahead::<{ AHEAD_BYTES + 3 * LINE_BYTES }>(w.cast());
}

/// Multiplies `M` rows by `P` panels over some inputs, with all sums in registers. With `AHEAD`, panels come from
/// memory and are prefetched.
///
/// # Safety
/// `sdot` must be present. Rows `row..row + M`, panels `panel..panel + P` and the inputs must lie inside the product.
/// The inputs are whole [`STEP`]s.
#[inline(always)]
unsafe fn tile<const M: usize, const P: usize, const AHEAD: bool>(
    t: &Product<'_>,
    row: usize,
    panel: usize,
    inputs: &Range<usize>,
) {
    // SAFETY: rows, panels and inputs lie inside the product; the instructions are present.
    unsafe {
        let a = t.a.as_ptr().add(row * t.a_stride);
        let w = t.w.as_ptr().add(panel * t.panel_stride);
        let mut sums = [[[vdupq_n_s32(0); QUARTERS]; P]; M];
        for m in 0..M {
            for p in 0..P {
                for quarter in 0..QUARTERS {
                    sums[m][p][quarter] = vld1q_s32(at(t, row + m, panel + p, quarter));
                }
            }
        }
        for k in inputs.clone().step_by(STEP) {
            let mut x = [vdupq_n_s8(0); M];
            for m in 0..M {
                x[m] = vld1q_s8(a.add(m * t.a_stride + k));
            }
            let w = w.add(k * PANEL);
            if AHEAD {
                for p in 0..P {
                    prefetch_step(w.add(p * t.panel_stride));
                }
            }
            let w = (w, t.panel_stride);
            quad::<0, M, P>(&mut sums, &x, w);
            quad::<1, M, P>(&mut sums, &x, w);
            quad::<2, M, P>(&mut sums, &x, w);
            quad::<3, M, P>(&mut sums, &x, w);
        }
        for m in 0..M {
            for p in 0..P {
                for quarter in 0..QUARTERS {
                    vst1q_s32(at(t, row + m, panel + p, quarter), sums[m][p][quarter]);
                }
            }
        }
    }
}

/// Returns a pointer to a register of the sums of a row and panel.
#[inline(always)]
fn at(t: &Product<'_>, row: usize, panel: usize, quarter: usize) -> *mut i32 {
    t.c.pointer(row, panel * PANEL + quarter * LANES)
}

/// Calls tiles of all rows for all panels, `P` panels at a time and the remaining ones singly.
macro_rules! strip {
    ($t:ident, $m:literal, $p:literal) => {{
        let whole = $t.panels() / $p * $p;
        for panel in (0..whole).step_by($p) {
            tile::<$m, $p, true>($t, 0, panel, &(0..$t.k));
        }
        for panel in whole..$t.panels() {
            tile::<$m, 1, true>($t, 0, panel, &(0..$t.k));
        }
    }};
}

/// Computes a [`Product`] with `sdot`.
pub(super) fn dotprod(_: NeonDotProd, t: Checked<'_>) {
    #[target_feature(enable = "neon,dotprod")]
    fn compiled(t: Checked<'_>) {
        let t = &*t;
        // SAFETY: the tiles lie inside the product, which was checked; the instructions are present.
        unsafe {
            match t.rows() {
                0 => {}
                // Few rows: several panels at once, so that enough independent sums are in flight.
                1 => strip!(t, 1, 4),
                2 => strip!(t, 2, 2),
                3 => strip!(t, 3, 2),
                4 => strip!(t, 4, 1),
                5 => strip!(t, 5, 1),
                6 => strip!(t, 6, 1),
                _ => blocks(t, |panel, inputs| {
                    // The first tile reads the block of the panel from memory, the others from L1.
                    let tiles = t.rows().div_ceil(DOT_ROWS);
                    for i in 0..tiles {
                        let (row, end) = (t.rows() * i / tiles, t.rows() * (i + 1) / tiles);
                        match (i, end - row) {
                            (0, 3) => tile::<3, 1, true>(t, row, panel, inputs),
                            (0, 4) => tile::<4, 1, true>(t, row, panel, inputs),
                            (0, 5) => tile::<5, 1, true>(t, row, panel, inputs),
                            (0, 6) => tile::<6, 1, true>(t, row, panel, inputs),
                            (_, 4) => tile::<4, 1, false>(t, row, panel, inputs),
                            (_, 5) => tile::<5, 1, false>(t, row, panel, inputs),
                            (_, 6) => tile::<6, 1, false>(t, row, panel, inputs),
                            _ => unreachable!("invariant: tiles of nearly equal height"),
                        }
                    }
                }),
            }
        }
    }
    // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
    unsafe { compiled(t) }
}

/// Calls `then` for all panels and blocks of inputs.
#[inline(always)]
fn blocks(t: &Product<'_>, mut then: impl FnMut(usize, &Range<usize>)) {
    for panel in 0..t.panels() {
        for begin in (0..t.k).step_by(BLOCK_K) {
            then(panel, &(begin..t.k.min(begin + BLOCK_K)));
        }
    }
}

/// A block of inputs of a panel, as `smmla` wants it: registers of eight inputs of two columns.
pub(in crate::product) struct Columns {
    registers: [[int8x16_t; PAIRS_OF_COLUMNS]; BLOCK_K / EIGHT],
    steps: usize,
}

impl Columns {
    /// Most steps of eight inputs.
    pub(in crate::product) const MOST: usize = BLOCK_K / EIGHT;

    /// Creates a block without inputs.
    #[inline(always)]
    pub(in crate::product) fn new(_: NeonI8mm) -> Self {
        // SAFETY: the set is present, by the argument.
        let zero = unsafe { vdupq_n_s8(0) };
        Self { registers: [[zero; PAIRS_OF_COLUMNS]; Self::MOST], steps: 0 }
    }

    /// Fills `steps` steps. `quads` returns, for a step and four columns, the first and the second four inputs of
    /// each.
    ///
    /// # Safety
    /// NEON must be present.
    #[inline(always)]
    pub(in crate::product) unsafe fn fill(
        &mut self,
        steps: usize,
        mut quads: impl FnMut(usize, usize) -> [int8x16_t; 2],
    ) {
        self.steps = steps;
        for (step, registers) in self.registers[..steps].iter_mut().enumerate() {
            for quarter in 0..QUARTERS {
                let quads = quads(step, quarter);
                // SAFETY: NEON is present by the caller's promise.
                unsafe {
                    let [first, second] = quads.map(|quad| vreinterpretq_s32_s8(quad));
                    registers[2 * quarter] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                    registers[2 * quarter + 1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                }
            }
        }
    }

    /// Multiplies pairs of rows, and adds to their sums, `[row][column]` in each register.
    ///
    /// # Safety
    /// `smmla` must be present, and rows must be as long as the block.
    #[inline(always)]
    pub(in crate::product) unsafe fn multiply<const PAIRS: usize>(
        &self,
        rows: [[*const i8; 2]; PAIRS],
        sums: &mut [[int32x4_t; PAIRS_OF_COLUMNS]; PAIRS],
    ) {
        // A copy, which stays in registers whatever the caller does with the sums.
        let mut kept = *sums;
        for (step, columns) in self.registers[..self.steps].iter().enumerate() {
            // SAFETY: inside the rows by the caller's promise, as is the instruction.
            unsafe {
                let mut x = [vdupq_n_s8(0); PAIRS];
                for pair in 0..PAIRS {
                    let [first, second] = rows[pair].map(|row| vld1_s8(row.add(step * EIGHT)));
                    x[pair] = vcombine_s8(first, second);
                }
                for column in 0..PAIRS_OF_COLUMNS {
                    for pair in 0..PAIRS {
                        kept[pair][column] = smmla(kept[pair][column], x[pair], columns[column]);
                    }
                }
            }
        }
        *sums = kept;
    }
}

/// Exchanges two registers `[row][column]` of two rows and columns with the four columns of each row, in either
/// direction.
///
/// # Safety
/// NEON must be present.
#[inline(always)]
pub(in crate::product) unsafe fn turn(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is present by the caller's promise.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        [vreinterpretq_s32_s64(vtrn1q_s64(a, b)), vreinterpretq_s32_s64(vtrn2q_s64(a, b))]
    }
}

/// Calls `then` for tiles of nearly equal height, with the first row of each pair and the number of pairs.
#[inline(always)]
pub(in crate::product) fn tiles_of_pairs(rows: usize, mut then: impl FnMut(usize, usize)) {
    let pairs = rows.div_ceil(2);
    let tiles = pairs.div_ceil(MOST_PAIRS);
    for i in 0..tiles {
        let (first, end) = (pairs * i / tiles, pairs * (i + 1) / tiles);
        then(2 * first, end - first);
    }
}

/// Returns the rows of a pair. The last row of an odd number is paired with itself: both halves hold the same sums.
#[inline(always)]
pub(in crate::product) fn pair(first: usize, rows: usize) -> [usize; 2] {
    [first, (first + 1).min(rows - 1)]
}

/// Multiplies `PAIRS` pairs of rows by a block of a panel, with all sums in registers.
///
/// # Safety
/// `smmla` must be present. The first rows of the pairs, the panel and the inputs, which the block has, must lie
/// inside the product.
#[inline(always)]
unsafe fn tile_of_pairs<const PAIRS: usize>(
    t: &Product<'_>,
    row: usize,
    (panel, columns): (usize, &Columns),
    inputs: &Range<usize>,
) {
    // SAFETY: rows, panel and inputs lie inside the product; the instructions are present.
    unsafe {
        let mut rows = [[0; 2]; PAIRS];
        let mut sums = [[vdupq_n_s32(0); PAIRS_OF_COLUMNS]; PAIRS];
        for i in 0..PAIRS {
            rows[i] = pair(row + 2 * i, t.rows());
            for quarter in 0..QUARTERS {
                let [first, second] = rows[i].map(|row| vld1q_s32(at(t, row, panel, quarter)));
                [sums[i][2 * quarter], sums[i][2 * quarter + 1]] = turn(first, second);
            }
        }
        let a = rows.map(|pair| pair.map(|row| t.a.as_ptr().add(row * t.a_stride + inputs.start)));
        columns.multiply(a, &mut sums);
        for i in 0..PAIRS {
            for quarter in 0..QUARTERS {
                let turned = turn(sums[i][2 * quarter], sums[i][2 * quarter + 1]);
                vst1q_s32(at(t, rows[i][0], panel, quarter), turned[0]);
                vst1q_s32(at(t, rows[i][1], panel, quarter), turned[1]);
            }
        }
    }
}

/// Computes a [`Product`] with `smmla`. It pays for more rows than one `sdot` tile has: each panel is permuted once
/// for all of them. Fewer rows wait for memory.
pub(super) fn i8mm(isa: NeonI8mm, t: Checked<'_>) {
    #[target_feature(enable = "neon,dotprod,i8mm")]
    fn compiled(isa: NeonI8mm, t: Checked<'_>) {
        let (t, mut columns) = (&*t, Columns::new(isa));
        // SAFETY: the tiles lie inside the product, which was checked; the instructions are present.
        blocks(t, |panel, inputs| unsafe {
            let w = t.w.as_ptr().add(panel * t.panel_stride + inputs.start * PANEL);
            columns.fill(inputs.len() / EIGHT, |step, quarter| {
                let w = w.add(step * EIGHT * PANEL);
                // A step is two lines.
                if quarter == 0 {
                    prefetch_ahead::<AHEAD_BYTES>(w.cast());
                    prefetch_ahead::<{ AHEAD_BYTES + LINE_BYTES }>(w.cast());
                }
                let w = w.add(quarter * LANES * QUAD);
                [vld1q_s8(w), vld1q_s8(w.add(QUAD * PANEL))]
            });
            tiles_of_pairs(t.rows(), |row, pairs| match pairs {
                1 => tile_of_pairs::<1>(t, row, (panel, &columns), inputs),
                2 => tile_of_pairs::<2>(t, row, (panel, &columns), inputs),
                MOST_PAIRS => tile_of_pairs::<MOST_PAIRS>(t, row, (panel, &columns), inputs),
                _ => unreachable!("invariant: as many pairs as a tile has"),
            });
        });
    }
    if t.rows() <= DOT_ROWS {
        return dotprod(isa.dotprod(), t);
    }
    // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
    unsafe { compiled(isa, t) }
}
