//! Products of int8 rows with panels of int4 on aarch64.
//!
//! Weights stay without a sign: 0 to 15 are also signed numbers. The sum of a group is therefore too large by the
//! offset times the sum of its activations, as on x86-64. Removing the offset from weights would take two
//! instructions a line and quarter of a panel more.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vandq_u8, vcvtq_f32_s32, vdup_n_s8, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8,
    vfmaq_f32, vld1_s8, vld1q_f32, vld1q_u8, vreinterpretq_f32_u8, vreinterpretq_s8_u8, vshrq_n_u8,
    vst1q_f32, vsubq_s32,
};

use crate::pack::PANEL;
use crate::pack::grouped::{LINE, Packing};
use crate::product::int8::{Columns, PAIRS_OF_COLUMNS, pair, tiles_of_pairs, turn};
use crate::simd::neon::{prefetch_ahead, sdot_half};
use crate::simd::{NeonDotProd, NeonI8mm};

use super::gemm::{Checked, OFFSET, Product};

/// Lanes of a register of sums. A panel has four such registers.
const LANES: usize = 4;
/// Registers of a panel's sums.
const QUARTERS: usize = PANEL / LANES;
/// Rows of the highest `sdot` tile, with one panel: 20 sums, five registers of activations, weights and a mask. A
/// line has 9 loads and 8 instructions that unpack for 40 products.
const DOT_ROWS: usize = 5;
/// Bytes of a line.
const LINE_BYTES: usize = Packing::Halves.line_bytes();
/// Prefetch distance in a panel that is read once, as for int8.
const AHEAD_BYTES: usize = 1024;

/// Unpacks a quarter of a line: four inputs of four columns, and the four inputs after them.
///
/// # Safety
/// NEON must be present, and there must be sixteen bytes.
#[inline(always)]
unsafe fn unpack(quarter: *const u8) -> [int8x16_t; 2] {
    // SAFETY: sixteen bytes by the caller's promise, as is the instruction.
    unsafe {
        let both = vld1q_u8(quarter);
        [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)].map(|half| vreinterpretq_s8_u8(half))
    }
}

/// Adds the sums of a group, which are too large by the offset, to a row of a panel.
///
/// # Safety
/// NEON must be present. The row, the panel and the group must lie inside the product, and `scales` must point to
/// those of the panel.
#[inline(always)]
unsafe fn finish(
    t: &Product<'_>,
    (row, panel, group): (usize, usize, usize),
    sums: [int32x4_t; QUARTERS],
    scales: *const u8,
) {
    // SAFETY: inside the product by the caller's promise, as are the instructions.
    unsafe {
        let excess = vdupq_n_s32(OFFSET * *t.sums.as_ptr().add(row * t.layout.count() + group));
        for quarter in 0..QUARTERS {
            let to = t.to(row, panel).cast::<f32>().add(quarter * LANES);
            let scale = vreinterpretq_f32_u8(vld1q_u8(scales.add(quarter * LANES * size_of::<f32>())));
            let total = if group == 0 { vdupq_n_f32(0.0) } else { vld1q_f32(to) };
            vst1q_f32(to, vfmaq_f32(total, vcvtq_f32_s32(vsubq_s32(sums[quarter], excess)), scale));
        }
    }
}

/// Multiplies `M` rows by `P` panels, with the sums of a group in registers. With `AHEAD`, panels come from memory
/// and are prefetched.
///
/// # Safety
/// `sdot` must be present. Rows `row..row + M` and panels `panel..panel + P` must lie inside the product.
#[inline(always)]
unsafe fn tile<const M: usize, const P: usize, const AHEAD: bool>(t: &Product<'_>, row: usize, panel: usize) {
    let panel_bytes = t.layout.panel_bytes();
    // SAFETY: rows and panels lie inside the product; the instructions are present.
    unsafe {
        for group in t.groups.clone() {
            let inputs = t.layout.inputs(group);
            let a = t.a.as_ptr().add(row * t.a_stride + inputs.start);
            let w = t.w.as_ptr().add(panel * panel_bytes + t.layout.at(group));
            let mut sums = [[[vdupq_n_s32(0); QUARTERS]; P]; M];
            let lines = inputs.len().div_ceil(LINE);
            for line in 0..lines {
                let mut x = [vdup_n_s8(0); M];
                for m in 0..M {
                    x[m] = vld1_s8(a.add(m * t.a_stride + line * LINE));
                }
                for p in 0..P {
                    let w = w.add(p * panel_bytes + line * LINE_BYTES);
                    if AHEAD {
                        prefetch_ahead::<AHEAD_BYTES>(w);
                    }
                    for quarter in 0..QUARTERS {
                        let [first, second] = unpack(w.add(quarter * LINE_BYTES / QUARTERS));
                        for m in 0..M {
                            sums[m][p][quarter] = sdot_half::<0>(sums[m][p][quarter], first, x[m]);
                        }
                        for m in 0..M {
                            sums[m][p][quarter] = sdot_half::<1>(sums[m][p][quarter], second, x[m]);
                        }
                    }
                }
            }
            let scales = w.add(lines * LINE_BYTES);
            for p in 0..P {
                for m in 0..M {
                    finish(t, (row + m, panel + p, group), sums[m][p], scales.add(p * panel_bytes));
                }
            }
        }
    }
}

/// Calls tiles of all rows for all panels, `P` panels at a time and the remaining ones singly.
macro_rules! strip {
    ($t:ident, $m:literal, $p:literal) => {{
        let whole = $t.panels() / $p * $p;
        for panel in (0..whole).step_by($p) {
            tile::<$m, $p, true>($t, 0, panel);
        }
        for panel in whole..$t.panels() {
            tile::<$m, 1, true>($t, 0, panel);
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
                3 => strip!(t, 3, 1),
                4 => strip!(t, 4, 1),
                5 => strip!(t, 5, 1),
                _ => {
                    let tiles = t.rows().div_ceil(DOT_ROWS);
                    for panel in 0..t.panels() {
                        // The first tile reads the panel from memory, the others from cache.
                        for i in 0..tiles {
                            let (row, end) = (t.rows() * i / tiles, t.rows() * (i + 1) / tiles);
                            match (i, end - row) {
                                (0, 3) => tile::<3, 1, true>(t, row, panel),
                                (0, 4) => tile::<4, 1, true>(t, row, panel),
                                (0, 5) => tile::<5, 1, true>(t, row, panel),
                                (_, 3) => tile::<3, 1, false>(t, row, panel),
                                (_, 4) => tile::<4, 1, false>(t, row, panel),
                                (_, 5) => tile::<5, 1, false>(t, row, panel),
                                _ => unreachable!("invariant: tiles of nearly equal height"),
                            }
                        }
                    }
                }
            }
        }
    }
    // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
    unsafe { compiled(t) }
}

/// Multiplies `PAIRS` pairs of rows by a group of a panel, with all sums in registers.
///
/// # Safety
/// `smmla` must be present. The first rows of the pairs, the panel and the group, which `columns` has, must lie
/// inside the product, and `scales` must point to those of the panel.
#[inline(always)]
unsafe fn tile_of_pairs<const PAIRS: usize>(
    t: &Product<'_>,
    (row, panel, group): (usize, usize, usize),
    columns: &Columns,
    scales: *const u8,
) {
    // SAFETY: rows, panel and group lie inside the product; the instructions are present.
    unsafe {
        let begin = t.layout.inputs(group).start;
        let mut rows = [[0; 2]; PAIRS];
        for i in 0..PAIRS {
            rows[i] = pair(row + 2 * i, t.rows());
        }
        let a = rows.map(|pair| pair.map(|row| t.a.as_ptr().add(row * t.a_stride + begin)));
        let mut sums = [[vdupq_n_s32(0); PAIRS_OF_COLUMNS]; PAIRS];
        columns.multiply(a, &mut sums);
        for i in 0..PAIRS {
            let mut turned = [[vdupq_n_s32(0); QUARTERS]; 2];
            for quarter in 0..QUARTERS {
                [turned[0][quarter], turned[1][quarter]] =
                    turn(sums[i][2 * quarter], sums[i][2 * quarter + 1]);
            }
            let [first, second] = rows[i];
            finish(t, (first, panel, group), turned[0], scales);
            // Results are added up, so a row that is paired with itself is finished once.
            if second != first {
                finish(t, (second, panel, group), turned[1], scales);
            }
        }
    }
}

/// Computes a [`Product`] with `smmla`. It pays for more rows than one `sdot` tile has: each group of a panel is
/// unpacked and permuted once for all of them. A longer group than [`Columns`] holds has `sdot`, because its sums
/// stay in registers.
pub(super) fn i8mm(isa: NeonI8mm, t: Checked<'_>) {
    #[target_feature(enable = "neon,dotprod,i8mm")]
    fn compiled(isa: NeonI8mm, t: Checked<'_>) {
        let (t, mut columns) = (&*t, Columns::new(isa));
        for panel in 0..t.panels() {
            for group in t.groups.clone() {
                let lines = t.layout.inputs(group).len().div_ceil(LINE);
                // SAFETY: panel, group and tiles lie inside the product, which was checked; the instructions are
                // present.
                unsafe {
                    let w = t.w.as_ptr().add(panel * t.layout.panel_bytes() + t.layout.at(group));
                    columns.fill(lines, |line, quarter| {
                        let w = w.add(line * LINE_BYTES + quarter * LINE_BYTES / QUARTERS);
                        if quarter == 0 {
                            prefetch_ahead::<AHEAD_BYTES>(w);
                        }
                        unpack(w)
                    });
                    let (at, scales) = (|row| (row, panel, group), w.add(lines * LINE_BYTES));
                    tiles_of_pairs(t.rows(), |row, pairs| match pairs {
                        1 => tile_of_pairs::<1>(t, at(row), &columns, scales),
                        2 => tile_of_pairs::<2>(t, at(row), &columns, scales),
                        3 => tile_of_pairs::<3>(t, at(row), &columns, scales),
                        _ => unreachable!("invariant: as many pairs as a tile has"),
                    });
                }
            }
        }
    }
    if t.rows() <= DOT_ROWS || t.layout.group().div_ceil(LINE) > Columns::MOST {
        return dotprod(isa.dotprod(), t);
    }
    // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
    unsafe { compiled(isa, t) }
}
