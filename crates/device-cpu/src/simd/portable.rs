//! [`Simd16`] in plain Rust: arrays of sixteen numbers.

use super::{Element, Isa, Kernel, LANES, Simd16};

/// Plain Rust, which every machine can run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// Sixteen lanes in an array.
#[derive(Clone, Copy)]
pub(crate) struct Lanes([f32; LANES]);

impl Portable {
    /// Returns the set, as the detection of the others does.
    #[expect(clippy::unnecessary_wraps, reason = "the list of sets detects each in the same way")]
    pub(crate) fn detect() -> Option<Self> {
        Some(Self)
    }
}

impl Isa for Portable {
    type Vector = Lanes;
    type Nibbles = [u32; LANES];
    const TILE_ROWS: usize = 4;
    const TILE_PANELS: usize = 1;
    const HAS_FMA: bool = false;

    #[inline]
    fn run<E: Element, K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run::<_, E>(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        Lanes([x; LANES])
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Lanes {
        Lanes(*from)
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Lanes {
        Lanes(from.map(widen_f16))
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Lanes {
        Lanes(from.map(widen_bf16))
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Lanes {
        Lanes(from.map(f32::from))
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[[u8; 4]; LANES]) -> [u32; LANES] {
        from.map(u32::from_le_bytes)
    }

    #[inline(always)]
    fn lowest(self, nibbles: [u32; LANES]) -> Lanes {
        Lanes(nibbles.map(|lane| ((lane << 28) as i32 >> 28) as f32))
    }

    #[inline(always)]
    fn without_lowest(self, nibbles: [u32; LANES]) -> [u32; LANES] {
        nibbles.map(|lane| lane >> 4)
    }
}

impl Lanes {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Simd16 for Lanes {
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        *to = self.0.map(f16_bits);
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        *to = self.0.map(bf16_bits);
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |x, y| x / y)
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        Self(self.0.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        Self(self.0.map(|x| widen_f16(f16_bits(x))))
    }

    #[inline(always)]
    fn round_bf16(self) -> Self {
        Self(self.0.map(|x| widen_bf16(bf16_bits(x))))
    }

    #[inline(always)]
    fn first(self, n: usize, rest: f32) -> Self {
        Self(std::array::from_fn(|i| if i < n { self.0[i] } else { rest }))
    }
}

#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32_const()
}

#[inline(always)]
fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline(always)]
fn f16_bits(x: f32) -> u16 {
    half::f16::from_f32_const(x).to_bits()
}

/// Converts fp32 to bf16 bits, to nearest, ties to even. A NaN becomes a quiet NaN.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return ((bits >> 16) | 0x40) as u16;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}
