//! Quantisation of activations to int8. Per row: `scale = max|x| / 127`, and `q = x / scale` rounded to the nearest
//! integer, ties to even, within ±127. A run that contains NaN or infinity has the scale NaN and only zeros. By a stored
//! scale: `q = x / scale + offset`, rounded in the same way, from -128 to 127; infinity is clipped.
//!
//! Panels of sixteen output columns are stored as `[k/4][16][4]`, with `k` padded by zeros to a multiple of 64. Four
//! numbers of a column are one 32-bit lane of `vpdpbusd`, and 64 of `k` are one AMX tile of sixteen rows of 64 bytes.

use std::ops::Range;

use glmbench_device::StaticInput;

use crate::buffer::SharedSlice;
use crate::simd::{Element, Isa, Kernel};

use super::{TILE_BYTES, TILE_K};

/// The largest quantised number.
const LARGEST: f32 = 127.0;

/// The scale and sum of quantised numbers.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Zeroable)]
pub(crate) struct Scaled {
    /// Factor that turns an integer back into a number.
    pub(crate) scale: f32,
    /// The sum of the integers. Zero for rows in tiles, because products of tiles do not need the sum.
    pub(crate) sum: i32,
}

/// A row of integers in the tiles of its block of sixteen rows. Each tile has one piece of [`TILE_K`] numbers.
#[derive(Debug)]
pub(crate) struct TileRow<'a> {
    tiles: SharedSlice<'a, u8>,
    first: usize,
    block: usize,
    block_stride: usize,
}

impl<'a> TileRow<'a> {
    /// Describes the row with its first piece at byte `first`. A block of depth has `block` contiguous tiles, and
    /// blocks are `block_stride` bytes apart.
    ///
    /// # Safety
    /// Nothing else may access the row's pieces while this value is in use.
    pub(crate) unsafe fn new(
        tiles: SharedSlice<'a, u8>,
        first: usize,
        block: usize,
        block_stride: usize,
    ) -> Self {
        Self { tiles, first, block, block_stride }
    }

    /// Returns the piece in one tile of a block of depth.
    #[inline(always)]
    fn piece(&mut self, block: usize, tile: usize) -> &mut [i8] {
        let at = self.first + block * self.block_stride + tile * TILE_BYTES;
        // SAFETY: the row's pieces belong to this value.
        bytemuck::cast_slice_mut(unsafe { self.tiles.range(at..at + TILE_K) })
    }
}

/// Returns `max |x|`; NaN if a number is NaN or infinite.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
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
fn round<I: Isa>(x: &[f32], scale: f32, out: &mut [i8]) {
    if I::HAS_FMA && DIVISIBLE.contains(&scale) {
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

/// Quantises numbers by a stored scale and offset. NaN becomes -128.
#[inline(always)]
#[expect(clippy::manual_clamp, reason = "of NaN and a number, `max` is the number; `clamp` keeps NaN")]
fn round_static(x: &[f32], by: StaticInput, out: &mut [i8]) {
    for (q, x) in out.iter_mut().zip(x) {
        let whole = (x / by.scale + by.offset).round_ties_even().max(-128.0).min(127.0);
        // SAFETY: an integer from -128 to 127: of NaN and a number, `max` is the number.
        *q = unsafe { whole.to_int_unchecked::<i32>() } as i8;
    }
}

/// Returns the scale of a row that is quantised by a stored scale. It is 1, because the weight has the scale already, or
/// NaN if a number is NaN.
#[inline(always)]
fn validity(x: &[f32]) -> f32 {
    let magnitude = |x: &f32| x.to_bits() & (u32::MAX >> 1);
    if x.iter().map(magnitude).fold(0, u32::max) > f32::INFINITY.to_bits() { f32::NAN } else { 1.0 }
}

/// Quantises a run into the first numbers of the output, followed by zeros.
pub(crate) struct Quantise<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) out: &'a mut [i8],
    /// The stored scale and offset; `None` if the scale is computed from the run.
    pub(crate) by: Option<StaticInput>,
}

impl Kernel for Quantise<'_> {
    type Output = Scaled;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) -> Scaled {
        let (out, padding) = self.out.split_at_mut(self.x.len());
        padding.fill(0);
        if let Some(by) = self.by {
            round_static(self.x, by, out);
            return Scaled { scale: validity(self.x), sum: out.iter().map(|&q| i32::from(q)).sum() };
        }
        let scale = scale_of(self.x);
        if is_void(scale) {
            out.fill(0);
            return Scaled { scale, sum: 0 };
        }
        round::<I>(self.x, scale, out);
        Scaled { scale, sum: out.iter().map(|&q| i32::from(q)).sum() }
    }
}

/// Quantises a row into tiles, pads the last piece with zeros, and returns the scale.
pub(crate) struct QuantiseTiles<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) to: TileRow<'a>,
    /// As in [`Quantise`].
    pub(crate) by: Option<StaticInput>,
}

impl Kernel for QuantiseTiles<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) -> f32 {
        let Self { x, mut to, by } = self;
        let scale = if by.is_some() { validity(x) } else { scale_of(x) };
        for (block, x) in x.chunks(to.block * TILE_K).enumerate() {
            let (whole, rest) = x.as_chunks::<TILE_K>();
            for (tile, x) in whole.iter().enumerate() {
                let piece = to.piece(block, tile);
                match by {
                    Some(by) => round_static(x, by, piece),
                    None if is_void(scale) => piece.fill(0),
                    None => round::<I>(x, scale, piece),
                }
            }
            if !rest.is_empty() {
                let piece = to.piece(block, whole.len());
                piece.fill(0);
                match by {
                    Some(by) => round_static(rest, by, piece),
                    None if is_void(scale) => {}
                    None => round::<I>(rest, scale, piece),
                }
            }
        }
        scale
    }
}
