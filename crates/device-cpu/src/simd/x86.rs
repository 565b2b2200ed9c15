//! The instruction sets of x86-64.

mod avx2;
mod avx512;

use std::arch::x86_64::{_MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT};

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// AVX2 with FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// AVX-512 (F, BW, VL), with AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

/// AVX-512 with BF16, the dot products of bf16 pairs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Bf16(Avx512);

/// AVX2 with AVX-VNNI, the dot products of integers for processors without AVX-512.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AvxVnni(());

/// AVX-512 with VNNI, the dot products of integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Vnni(());

impl Avx2 {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }
}

impl Avx512 {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Self(()))
    }
}

impl Avx512Bf16 {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }

    /// Returns the set without the dot products.
    pub(crate) fn avx512(self) -> Avx512 {
        self.0
    }
}

impl AvxVnni {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = Avx2::detect().is_some() && is_x86_feature_detected!("avxvnni");
        all.then_some(Self(()))
    }
}

impl Avx512Vnni {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni");
        all.then_some(Self(()))
    }
}

/// Folds the halves of a register into each other down to one lane, with a 128-bit operation. Lane `i` is folded with
/// lane `i + 4`, then `i` with `i + 2`, then the first with the second.
macro_rules! fold_lanes {
    ($eight:expr, $fold:ident) => {{
        let eight: __m256 = $eight;
        let four = $fold(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = $fold(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32($fold(two, _mm_movehdup_ps(two)))
    }};
}
use fold_lanes;
