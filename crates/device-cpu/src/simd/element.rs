//! Storage types of weights and KV cache, as the kernels see them.

use bytemuck::Pod;

use super::{Isa, LANES, Simd16};

/// A storage type.
pub(crate) trait Element: 'static {
    /// Sixteen stored numbers.
    type Stored: Pod;
    /// Size of a number in bytes.
    const BYTES: usize = size_of::<Self::Stored>() / LANES;

    /// Loads sixteen numbers.
    fn load<I: Isa>(isa: I, from: &Self::Stored) -> I::Vector;
    /// Rounds sixteen numbers and stores them.
    fn store<V: Simd16>(v: V, to: &mut Self::Stored);
    /// Rounds to the type.
    fn round<V: Simd16>(v: V) -> V;
}

/// IEEE binary32.
pub(crate) struct F32;
/// IEEE binary16.
pub(crate) struct F16;
/// bfloat16.
pub(crate) struct Bf16;

/// Sixteen 32-bit numbers at any address.
type Words = [[u8; 4]; LANES];
/// Sixteen 16-bit numbers at any address.
type Halves = [[u8; 2]; LANES];

impl Element for F32 {
    type Stored = Words;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &Words) -> I::Vector {
        isa.load(&bytemuck::cast(*from))
    }

    #[inline(always)]
    fn store<V: Simd16>(v: V, to: &mut Words) {
        *to = bytemuck::cast(v.lanes());
    }

    #[inline(always)]
    fn round<V: Simd16>(v: V) -> V {
        v
    }
}

impl Element for F16 {
    type Stored = Halves;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &Halves) -> I::Vector {
        isa.load_f16(&bytemuck::cast(*from))
    }

    #[inline(always)]
    fn store<V: Simd16>(v: V, to: &mut Halves) {
        let mut bits = [0; LANES];
        v.store_f16(&mut bits);
        *to = bytemuck::cast(bits);
    }

    #[inline(always)]
    fn round<V: Simd16>(v: V) -> V {
        v.round_f16()
    }
}

impl Element for Bf16 {
    type Stored = Halves;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &Halves) -> I::Vector {
        isa.load_bf16(&bytemuck::cast(*from))
    }

    #[inline(always)]
    fn store<V: Simd16>(v: V, to: &mut Halves) {
        let mut bits = [0; LANES];
        v.store_bf16(&mut bits);
        *to = bytemuck::cast(bits);
    }

    #[inline(always)]
    fn round<V: Simd16>(v: V) -> V {
        v.round_bf16()
    }
}
