//! The integer vector kernels and their portable twins.
//!
//! Panels of sixteen output columns are stored as `[k/4][16][4]`, with `k` padded by zeros to a multiple of 64. Four
//! numbers of a column are one 32-bit lane of `vpdpbusd`, and 64 of `k` are one AMX tile of sixteen rows of 64 bytes.

use std::ops::Range;

use crate::instruction_set::InstructionSet;
use crate::kernels::PANEL;
use crate::tiles::{TILE_BYTES, TileUnit};

use super::cache::{self, KeySums};
use super::twin;

/// Number of `k` that share a lane.
pub(crate) const QUAD: usize = 4;
/// `k` is padded to a multiple of this: the depth of an AMX tile.
pub(crate) const TILE_K: usize = 64;
/// The largest quantised number.
const LARGEST: f32 = 127.0;

/// A product `c[m, 16 p..] += a[m, k] * panel_p[k, 16]` for `rows` rows and `panels` panels. Sums wrap.
#[derive(Debug, Clone, Copy)]
pub struct Int8Product {
    /// First number of `a`.
    pub a: *const i8,
    /// Distance between rows of `a`, in numbers.
    pub a_stride: usize,
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// First number of the first panel.
    pub w: *const i8,
    /// Distance between panels, in numbers.
    pub panel_stride: usize,
    /// Number of panels.
    pub panels: usize,
    /// Number of products per sum, a multiple of [`TILE_K`].
    pub k: usize,
    /// First sum.
    pub c: *mut i32,
    /// Distance between rows of `c`, in numbers.
    pub c_stride: usize,
}

/// The scale and sum of quantised numbers.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Zeroable)]
pub struct Scaled {
    /// Factor that turns an integer back into a number.
    pub scale: f32,
    /// The sum of the integers; zero for rows in tiles, whose products do not need it.
    pub sum: i32,
}

/// The location of a row of integers in the tiles of its block of sixteen rows. Each tile has one piece of [`TILE_K`]
/// numbers.
#[derive(Debug, Clone, Copy)]
pub struct TileRow {
    /// The first piece.
    pub first: *mut i8,
    /// Tiles per block of depth; they are contiguous.
    pub block: usize,
    /// Distance between blocks of depth, in numbers.
    pub block_stride: usize,
}

impl TileRow {
    /// Returns the piece in one tile of a block of depth.
    ///
    /// # Safety
    /// The row must have this piece, and nothing else may use it.
    #[inline(always)]
    unsafe fn piece<'a>(self, block: usize, tile: usize) -> &'a mut [i8; TILE_K] {
        // SAFETY: the caller's promise; bytes have no alignment.
        unsafe { &mut *self.first.add(block * self.block_stride + tile * TILE_BYTES).cast() }
    }
}

/// Rows of numbers with a source and a destination.
#[derive(Debug, Clone, Copy)]
pub struct Block<T> {
    /// First number.
    pub from: *const T,
    /// Distance between rows, in numbers.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns, a multiple of sixteen.
    pub columns: usize,
    /// First number of the destination.
    pub to: *mut f32,
    /// Distance between rows of the destination, in numbers.
    pub to_stride: usize,
}

/// The conversion of sums to numbers: `((sum - offset * x.sum) * x.scale) * w[i] + bias[i]`, each step rounded to fp32.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    /// The offset that the product added to every weight.
    pub offset: i32,
    /// Scale and sum of each row's integers.
    pub x: *const Scaled,
    /// One scale per column.
    pub w: *const f32,
    /// One bias per column, or null.
    pub bias: *const f32,
}

/// The implementation of the product, with the layout of activation rows that it needs.
#[derive(Debug, Clone, Copy)]
pub enum Multiply {
    /// Vector kernels, for rows stored one after the other.
    Rows {
        /// Computes an [`Int8Product`] with `offset` added to every weight.
        gemm: unsafe fn(&Int8Product),
        /// The offset of `gemm`: its sums are too large by the offset times the sum of the row's integers.
        offset: i32,
    },
    /// Tile kernels, for rows in tiles as described by [`TileRow`].
    Tiles(TileUnit<i32>),
}

/// Kernels of one instruction set.
///
/// All functions are `unsafe`: the instruction set must be present, and pointers must be valid for the given shapes.
#[derive(Debug, Clone, Copy)]
pub struct Int8Kernels {
    /// Name of the instruction set, for the record.
    pub name: &'static str,
    /// The product.
    pub multiply: Multiply,
    /// Quantises a run into the first numbers of the output, followed by zeros.
    pub quantise: unsafe fn(&[f32], &mut [i8]) -> Scaled,
    /// Quantises a row into tiles, pads the last piece with zeros, and returns the scale.
    pub quantise_tiles: unsafe fn(&[f32], TileRow) -> f32,
    /// Converts sums to numbers.
    pub scale: unsafe fn(&Block<i32>, &Scales),
    /// Copies numbers unchanged.
    pub copy: unsafe fn(&Block<f32>),
    /// Dequantises a panel `[rows][16]` of integers, `(q, scales, out)`, with one scale per column.
    pub widen_columns: unsafe fn(&[i8], &[f32], &mut [f32]),
    /// Dequantises a panel `[rows][16]` of integers, `(q, scales, out)`, with one scale per row.
    pub widen_rows: unsafe fn(&[i8], &[f32], &mut [f32]),
    /// [`cache::query`]: `(x, high, distance)`.
    pub query: unsafe fn(&[f32], *mut i8, usize) -> f32,
    /// [`cache::scores`].
    pub scores: unsafe fn(&KeySums),
}

impl Int8Kernels {
    /// Returns the kernels for an instruction set, which must be present. AVX-512 without VNNI uses AVX2's kernels.
    pub fn of(set: InstructionSet) -> Self {
        match set {
            InstructionSet::AmxPortable => {
                let vector = Self::of(InstructionSet::best_vector());
                Self { name: "amx-int8-portable", multiply: Multiply::Tiles(twin::UNIT), ..vector }
            }
            InstructionSet::Portable | InstructionSet::Neon => portable::KERNELS,
            InstructionSet::Amx => Self::with_tiles(Self::of(InstructionSet::Avx512)),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if is_x86_feature_detected!("avx512vnni") => vnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 | InstructionSet::Avx512 => avx2::KERNELS,
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx2 | InstructionSet::Avx512 => portable::KERNELS,
        }
    }

    /// Returns these kernels, with products on AMX tiles if the machine has integer tiles.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn with_tiles(vector: Self) -> Self {
        if super::amx::available() {
            Self { name: "amx-int8", multiply: Multiply::Tiles(super::amx::UNIT), ..vector }
        } else {
            vector
        }
    }

    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    fn with_tiles(vector: Self) -> Self {
        vector
    }
}

/// The portable product.
#[inline(always)]
unsafe fn gemm(t: &Int8Product) {
    for row in 0..t.rows {
        for panel in 0..t.panels {
            // SAFETY: inside the product by the caller's promise.
            unsafe {
                let c = t.c.add(row * t.c_stride + panel * PANEL).cast::<[i32; PANEL]>();
                let mut sums = c.read_unaligned();
                for quad in 0..t.k / QUAD {
                    let x = t.a.add(row * t.a_stride + quad * QUAD).cast::<[i8; QUAD]>().read_unaligned();
                    let w = t.w.add(panel * t.panel_stride + quad * QUAD * PANEL);
                    let w = w.cast::<[[i8; QUAD]; PANEL]>().read_unaligned();
                    for (sum, w) in sums.iter_mut().zip(w) {
                        let products = x.iter().zip(w).map(|(&x, w)| i32::from(x) * i32::from(w));
                        *sum = sum.wrapping_add(products.sum());
                    }
                }
                c.write_unaligned(sums);
            }
        }
    }
}

/// Returns `max |x|`; NaN if a number is NaN or infinite.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    // Magnitudes have the order of their bits, and NaN is above infinity.
    let magnitude = |x: &f32| x.to_bits() & (u32::MAX >> 1);
    let max = f32::from_bits(x.iter().map(magnitude).fold(0, u32::max));
    if max.is_finite() { max } else { f32::NAN }
}

/// Returns `max |x| / 127`; NaN if a number is NaN or infinite.
#[inline(always)]
fn scale_of(x: &[f32]) -> f32 {
    largest(x) / LARGEST
}

/// Returns whether a scale yields only zeros: for runs with NaN or infinity, or numbers too small to distinguish from
/// zero.
#[inline(always)]
fn is_void(scale: f32) -> bool {
    scale.is_nan() || scale == 0.0
}

/// Quantises finite numbers with their scale, which must not be [void](is_void).
#[inline(always)]
fn round<const FMA: bool>(x: &[f32], scale: f32, out: &mut [i8]) {
    if FMA && DIVISIBLE.contains(&scale) {
        let inverse = 1.0 / scale;
        round_by(x, out, |x| quotient(x, scale, inverse));
    } else {
        round_by(x, out, |x| x / scale);
    }
}

#[inline(always)]
fn round_by(x: &[f32], out: &mut [i8], quotient: impl Fn(f32) -> f32) {
    for (q, x) in out.iter_mut().zip(x) {
        let whole = quotient(*x).round_ties_even().clamp(-LARGEST, LARGEST);
        // SAFETY: an integer within ±127; x is finite and the scale is not zero.
        *q = unsafe { whole.to_int_unchecked::<i32>() } as i8;
    }
}

/// Range of scales for which [`quotient`] is valid.
const DIVISIBLE: Range<f32> = 1e-18..1e18;

/// Computes `x / y` for `|x| <= 127 y`, in a quarter of the time of a vector division. The inverse is rounded to
/// nearest. The first correction yields one of the two numbers next to the true quotient, the second yields the result
/// of division (P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", IBM Journal
/// of Research and Development 34, 1990). Only quotients too small to distinguish from zero lose bits.
#[inline(always)]
fn quotient(x: f32, y: f32, inverse: f32) -> f32 {
    let correct = |q: f32| (-q).mul_add(y, x).mul_add(inverse, q);
    correct(correct(x * inverse))
}

#[inline(always)]
fn quantise<const FMA: bool>(x: &[f32], out: &mut [i8]) -> Scaled {
    let scale = scale_of(x);
    let (out, padding) = out.split_at_mut(x.len());
    padding.fill(0);
    if is_void(scale) {
        out.fill(0);
        return Scaled { scale, sum: 0 };
    }
    round::<FMA>(x, scale, out);
    Scaled { scale, sum: out.iter().map(|&q| i32::from(q)).sum() }
}

#[inline(always)]
unsafe fn quantise_tiles<const FMA: bool>(x: &[f32], to: TileRow) -> f32 {
    let scale = scale_of(x);
    for (block, x) in x.chunks(to.block * TILE_K).enumerate() {
        let (whole, rest) = x.as_chunks::<TILE_K>();
        for (tile, x) in whole.iter().enumerate() {
            // SAFETY: there is a piece for every 64 numbers by the caller's promise; here and below.
            let piece = unsafe { to.piece(block, tile) };
            if is_void(scale) { piece.fill(0) } else { round::<FMA>(x, scale, piece) }
        }
        if !rest.is_empty() {
            // SAFETY: as above.
            let piece = unsafe { to.piece(block, whole.len()) };
            piece.fill(0);
            if !is_void(scale) {
                round::<FMA>(rest, scale, piece);
            }
        }
    }
    scale
}

#[inline(always)]
unsafe fn scale(t: &Block<i32>, by: &Scales) {
    for row in 0..t.rows {
        // SAFETY: rows and whole groups of columns lie inside by the caller's promise.
        unsafe {
            let x = *by.x.add(row);
            let excess = by.offset.wrapping_mul(x.sum);
            for first in (0..t.columns).step_by(PANEL) {
                let sums = t.from.add(row * t.stride + first).cast::<[i32; PANEL]>().read_unaligned();
                let w = by.w.add(first).cast::<[f32; PANEL]>().read_unaligned();
                let mut y: [f32; PANEL] =
                    std::array::from_fn(|i| sums[i].wrapping_sub(excess) as f32 * x.scale * w[i]);
                if !by.bias.is_null() {
                    let bias = by.bias.add(first).cast::<[f32; PANEL]>().read_unaligned();
                    y = std::array::from_fn(|i| y[i] + bias[i]);
                }
                t.to.add(row * t.to_stride + first).cast::<[f32; PANEL]>().write_unaligned(y);
            }
        }
    }
}

/// Copies whole vectors, so that a store to a distant cache line waits only once.
#[inline(always)]
unsafe fn copy(t: &Block<f32>) {
    for row in 0..t.rows {
        for first in (0..t.columns).step_by(PANEL) {
            // SAFETY: rows and whole groups of columns lie inside by the caller's promise.
            unsafe {
                let numbers = t.from.add(row * t.stride + first).cast::<[f32; PANEL]>().read_unaligned();
                t.to.add(row * t.to_stride + first).cast::<[f32; PANEL]>().write_unaligned(numbers);
            }
        }
    }
}

/// Compiles the kernels for one instruction set.
macro_rules! instruction_set {
    ($module:ident, $name:literal, $gemm:path, $offset:expr, $fma:literal $(, $features:literal)?) => {
        mod $module {
            use super::cache::{self, KeySums};
            use super::{Block, Int8Kernels, Int8Product, Multiply, Scaled, Scales, TileRow};

            $(#[target_feature(enable = $features)])?
            unsafe fn gemm(t: &Int8Product) {
                // SAFETY: the caller's promise.
                unsafe { $gemm(t) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn quantise(x: &[f32], out: &mut [i8]) -> Scaled {
                super::quantise::<$fma>(x, out)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn quantise_tiles(x: &[f32], to: TileRow) -> f32 {
                // SAFETY: the caller's promise.
                unsafe { super::quantise_tiles::<$fma>(x, to) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn scale(t: &Block<i32>, by: &Scales) {
                // SAFETY: the caller's promise.
                unsafe { super::scale(t, by) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn copy(t: &Block<f32>) {
                // SAFETY: the caller's promise.
                unsafe { super::copy(t) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn widen_columns(q: &[i8], scales: &[f32], out: &mut [f32]) {
                cache::widen_columns(q, scales, out);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn widen_rows(q: &[i8], scales: &[f32], out: &mut [f32]) {
                cache::widen_rows(q, scales, out);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn query(x: &[f32], high: *mut i8, distance: usize) -> f32 {
                // SAFETY: the caller's promise.
                unsafe { cache::query(x, high, distance) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn scores(t: &KeySums) {
                // SAFETY: the caller's promise.
                unsafe { cache::scores(t) }
            }

            pub(super) const KERNELS: Int8Kernels = Int8Kernels {
                name: $name,
                multiply: Multiply::Rows { gemm, offset: $offset },
                quantise,
                quantise_tiles,
                scale,
                copy,
                widen_columns,
                widen_rows,
                query,
                scores,
            };
        }
    };
}

instruction_set!(portable, "portable", super::gemm, 0, false);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, "avx2", crate::int8::x86::gemm_avx2, 0, true, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instruction_set!(
    vnni,
    "avx512-vnni",
    crate::int8::x86::gemm_vnni,
    crate::int8::x86::VNNI_OFFSET,
    true,
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma"
);
