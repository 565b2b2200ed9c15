//! Instruction sets, and vectors of sixteen fp32 lanes for each of them.
//!
//! A value of a type that implements [`Isa`] proves that the machine has the instruction set: only run-time detection
//! makes one ([`Avx512::detect`] and so on). Vectors come from such a value, so they prove it too. Kernels over them
//! are therefore safe functions. A kernel is written once ([`Kernel`]) and compiled for each set.
//!
//! Every operation is one IEEE operation per lane, in a fixed order, so all instruction sets give the same bits. A
//! property test checks this.

pub(crate) mod amx;
mod element;
mod instruction_set;
mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod portable;
#[cfg(test)]
mod tests;
mod vectors;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt::Debug;

pub use self::instruction_set::{Family, InstructionSet};

pub(crate) use self::element::{Element, F32};
pub(crate) use self::math::exp;
#[cfg(target_arch = "aarch64")]
pub(crate) use self::neon::{Neon, NeonDotProd, NeonI8mm};
pub(crate) use self::portable::Portable;
pub(crate) use self::vectors::Vectors;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// An instruction set that this machine has. Values are tokens of size zero, which only detection makes.
pub(crate) trait Isa: Copy + Debug + Send + Sync + 'static {
    /// Sixteen lanes of fp32.
    type Vector: Simd16;
    /// Sixteen lanes of eight int4 each.
    type Nibbles: Copy;
    /// Rows of the largest GEMM tile whose sums fit the registers, at most eight.
    const TILE_ROWS: usize;
    /// Panels of that tile, at most three.
    const TILE_PANELS: usize;
    /// Whether [`f32::mul_add`] is an instruction in the functions that [`Isa::run`] compiles.
    const HAS_FMA: bool;

    /// Runs a kernel for numbers stored as `E`, compiled for this set.
    fn run<E: Element, K: Kernel>(self, kernel: K) -> K::Output;
    /// Returns `x` in every lane.
    fn splat(self, x: f32) -> Self::Vector;
    /// Loads sixteen fp32.
    fn load(self, from: &[f32; LANES]) -> Self::Vector;
    /// Loads sixteen fp16 and widens them (exact).
    fn load_f16(self, from: &[u16; LANES]) -> Self::Vector;
    /// Loads sixteen bf16 and widens them (exact).
    fn load_bf16(self, from: &[u16; LANES]) -> Self::Vector;

    /// Loads sixteen int8 and widens them (exact).
    fn load_i8(self, from: &[i8; LANES]) -> Self::Vector;
    /// Loads sixteen lanes of four bytes, each of two int4.
    fn load_nibbles(self, from: &[[u8; 4]; LANES]) -> Self::Nibbles;
    /// Widens the lowest int4 of every lane (exact).
    fn lowest(self, nibbles: Self::Nibbles) -> Self::Vector;
    /// Drops the lowest int4 of every lane.
    fn without_lowest(self, nibbles: Self::Nibbles) -> Self::Nibbles;

    /// Loads up to fifteen fp32, followed by zeros.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::Vector {
        let mut part = [0.0; LANES];
        part[..from.len()].copy_from_slice(from);
        self.load(&part)
    }
}

/// A kernel with its arguments. It is written once, for all instruction sets and storage types.
pub(crate) trait Kernel {
    /// What the kernel returns.
    type Output;

    /// Runs the kernel. Implementations are `#[inline(always)]`, and so is all that they call: the code must become
    /// part of [`Isa::run`], which alone is compiled with the instruction set. A closure that is not inlined loses it.
    fn run<I: Isa, E: Element>(self, isa: I) -> Self::Output;
}

/// Sixteen lanes of fp32, from an instruction set ([`Isa`]) that this machine therefore has.
pub(crate) trait Simd16: Copy {
    /// Stores the lanes.
    fn store(self, to: &mut [f32; LANES]);
    /// Stores the lanes past the caches, if the set can and the place is aligned to a cache line. Another thread may read
    /// them after this one has fenced its streamed stores.
    #[inline(always)]
    fn stream(self, to: &mut [f32; LANES]) {
        self.store(to);
    }
    /// Stores the lanes rounded to fp16 (to nearest, ties to even).
    fn store_f16(self, to: &mut [u16; LANES]);
    /// Stores the lanes rounded to bf16 (to nearest, ties to even).
    fn store_bf16(self, to: &mut [u16; LANES]);
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self + b`.
    fn add(self, b: Self) -> Self;
    /// `self - b`.
    fn sub(self, b: Self) -> Self;
    /// `self * b`.
    fn mul(self, b: Self) -> Self;
    /// `self / b`.
    fn div(self, b: Self) -> Self;
    /// The larger number of each lane; the second number if one is NaN.
    fn max(self, b: Self) -> Self;
    /// The smaller number of each lane; the second number if one is NaN.
    fn min(self, b: Self) -> Self;
    /// Rounds to the nearest integer, ties to even.
    fn round(self) -> Self;
    /// `2^self`, for integers `-126..=127`.
    fn pow2(self) -> Self;
    /// Rounds each lane to fp16 and back.
    fn round_f16(self) -> Self;
    /// Rounds each lane to bf16 and back.
    fn round_bf16(self) -> Self;
    /// Keeps the first `n` lanes, up to sixteen, and sets the others to `rest`.
    fn first(self, n: usize, rest: f32) -> Self;

    /// `self * 2^n`, for integers `n` in `-126..=127`, rounded once.
    #[inline(always)]
    fn scale_pow2(self, n: Self) -> Self {
        self.mul(n.pow2())
    }

    /// Returns the sum of the lanes, by halving: 16, 8, 4, 2, 1.
    #[inline(always)]
    fn sum(self) -> f32 {
        fold_halves(self.lanes(), |x, y| x + y)
    }

    /// Returns the largest lane; unspecified if one is NaN.
    #[inline(always)]
    fn max_lane(self) -> f32 {
        fold_halves(self.lanes(), |x, y| if x > y { x } else { y })
    }

    /// Returns the lanes in order.
    #[inline(always)]
    fn lanes(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes
    }
}

/// Folds lane `i` with lane `i + 8` for the first eight lanes, then `i` with `i + 4`, and so on down to one lane.
#[inline(always)]
fn fold_halves(mut lanes: [f32; LANES], fold: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = fold(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}
